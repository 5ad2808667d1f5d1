import math

from spatial_ttt.scenes.homes import make_home


def test_sofa_and_television_face_each_other_mostly() -> None:
    facing = both = 0
    for seed in range(30):
        placed = make_home(seed, functions=("living room",)).placed
        sofas = [p for p in placed if p.furniture.category == "sofa"]
        screens = [p for p in placed if p.furniture.category == "tv"]
        if not sofas or not screens:
            continue
        both += 1
        facing += math.cos(sofas[0].yaw - screens[0].yaw) < -0.9
    assert both >= 24
    assert facing >= 0.6 * both


def test_dining_tables_have_chairs() -> None:
    for seed in range(15):
        names = [p.furniture.category for p in make_home(seed, functions=("dining room",)).placed]
        if "table" in names:
            assert names.count("chair") >= 2
