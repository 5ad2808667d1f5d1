from spatial_ttt.scenes.homes import make_home


def test_units_stand_in_rows_and_cupboards_match() -> None:
    rows = 0
    for seed in range(15):
        placed = make_home(seed, functions=("kitchen",)).placed
        floor = [p for p in placed if p.support == -1 and p.furniture.size[2] > 0.8]
        touching = [
            (a, b)
            for i, a in enumerate(floor)
            for b in floor[i + 1 :]
            if a.yaw == b.yaw and 0.0 <= _gap(a.block, b.block) < 0.01
        ]
        rows += len(touching) >= 3
        hung = {p.furniture.solids[1].paint for p in placed if p.z == 1.5 and p.support == -2}
        cupboards = [p for p in placed if p.z == 1.5 and p.furniture.category == "cabinet"]
        assert len({p.furniture.solids[1].paint for p in cupboards}) <= 1, hung
    assert rows >= 12


def _gap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return max(a[0] - b[3], b[0] - a[3], a[1] - b[4], b[1] - a[4])


def test_the_sink_lies_in_its_cabinet() -> None:
    found = 0
    for seed in range(15):
        home = make_home(seed, functions=("kitchen",))
        for thing in home.placed:
            if thing.furniture.category == "sink":
                under = home.placed[thing.support]
                assert under.furniture.category == "cabinet"
                assert under.block.x0 <= thing.block.x0 and thing.block.x1 <= under.block.x1
                assert under.block.y0 <= thing.block.y0 and thing.block.y1 <= under.block.y1
                found += 1
    assert found >= 13
