import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.program import FUNCTIONS, Rect, choose_functions, lay_out


@pytest.mark.parametrize("num_rooms", range(1, 9))
def test_functions_are_as_many_as_asked(num_rooms: int) -> None:
    for seed in range(30):
        names = choose_functions(Dice(seed), num_rooms)
        assert len(names) == num_rooms
        assert set(names) <= set(FUNCTIONS)
        if num_rooms >= 4:
            assert {"living room", "kitchen", "bedroom", "bathroom"} <= set(names)


@pytest.mark.parametrize("num_rooms", [0, 9])
def test_room_count_is_checked(num_rooms: int) -> None:
    with pytest.raises(SceneError, match="num_rooms must be 1 to 8"):
        choose_functions(Dice(0), num_rooms)


def test_cells_tile_the_house() -> None:
    """Areas (less notches) add up to the rectangle, and no two cells overlap."""
    found = carved = 0
    for seed in range(200):
        dice = Dice(seed)
        names = choose_functions(dice, dice.between(2, 7))
        cells = lay_out(dice, names, 0.14)
        if cells is None or (any(c.notch for c in cells) and _has_outer_notch(cells)):
            continue
        found += 1
        carved += any(c.notch for c in cells)
        rects = [c.rect for c in cells]
        house = Rect(
            min(r.x0 for r in rects), min(r.y0 for r in rects),
            max(r.x1 for r in rects), max(r.y1 for r in rects),
        )  # fmt: skip
        total = sum(c.rect.area - (c.notch.area if c.notch else 0.0) for c in cells)
        assert total == pytest.approx(house.area, abs=1e-6)
        assert cells[0].function == names[0]
    assert found > 40 and carved > 5


def _has_outer_notch(cells: list) -> bool:  # type: ignore[type-arg]
    return any(c.notch and all(o.rect != c.notch for o in cells) for c in cells)
