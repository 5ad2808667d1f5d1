import numpy as np
import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.floorplan import WALL, FloorPlan, PlanRoom, make_plan


def shoelace(polygon: tuple[tuple[float, float], ...]) -> float:
    x, y = np.array(polygon).T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2.0)


def plans() -> list[FloorPlan]:
    return [make_plan(Dice(seed, n), n) for n in range(1, 9) for seed in range(6)]


def test_polygons_run_counter_clockwise_and_hold_the_area() -> None:
    for plan in plans():
        for room in plan.rooms:
            assert shoelace(room.polygon) == pytest.approx(room.area, abs=1e-6)
            assert len(room.polygon) == (4 if room.notch is None else 6)


def test_some_rooms_are_l_shaped() -> None:
    assert any(room.notch for plan in plans() for room in plan.rooms)


def test_doors_lead_everywhere() -> None:
    for plan in plans():
        reached = {0}
        pairs = [o.rooms for o in plan.openings if o.kind == "door" and len(o.rooms) == 2]
        for _ in plan.rooms:
            for a, b in pairs:
                if a in reached or b in reached:
                    reached |= {a, b}
        assert reached == {room.room_id for room in plan.rooms}
        assert sum(o.kind == "door" and len(o.rooms) == 1 for o in plan.openings) == 1


def test_openings_lie_on_their_walls_and_apart() -> None:
    for plan in plans():
        for opening in plan.openings:
            assert 0.0 <= opening.bottom < opening.top < plan.height
            for edge in opening.edges:
                assert edge.low < opening.low < opening.high < edge.high
            if len(opening.edges) == 2:
                a, b = opening.edges
                assert abs(a.offset - b.offset) == pytest.approx(WALL, abs=1e-3)
                assert opening.high - opening.low >= 0.8
        for i, a_open in enumerate(plan.openings):
            for b_open in plan.openings[i + 1 :]:
                if set(a_open.edges) & set(b_open.edges):
                    assert a_open.high < b_open.low or b_open.high < a_open.low


def test_windows_face_outside() -> None:
    """A metre beyond a window there is no room."""
    for plan in plans():
        for opening in plan.openings:
            if opening.kind == "window":
                x, y = opening.edges[0].point((opening.low + opening.high) / 2, -1.0)
                assert not any(_holds(room, x, y) for room in plan.rooms)


def _holds(room: PlanRoom, x: float, y: float) -> bool:
    def within(r: tuple[float, float, float, float]) -> bool:
        return r[0] < x < r[2] and r[1] < y < r[3]

    return within(room.bounds) and not (room.notch is not None and within(room.notch))


def test_functions_can_be_named() -> None:
    plan = make_plan(Dice(1), 2, ("kitchen", "office"))
    assert [room.function for room in plan.rooms] == ["kitchen", "office"]
    with pytest.raises(SceneError, match="no room function 'garage'"):
        make_plan(Dice(1), 1, ("garage",))
