import math

from spatial_ttt.scenes.homes import make_home


def test_nightstands_stand_at_the_head_of_the_bed() -> None:
    found = 0
    for seed in range(20):
        placed = make_home(seed, functions=("bedroom",)).placed
        beds = [p for p in placed if p.furniture.category == "bed"]
        for stand in (p for p in placed if p.furniture.category == "nightstand"):
            found += 1
            bed = beds[0]
            c, s = math.cos(bed.yaw), math.sin(bed.yaw)
            dx, dy = stand.x - bed.x, stand.y - bed.y
            beside, back = abs(c * dx + s * dy), -s * dx + c * dy
            assert beside < bed.furniture.size[0] / 2 + 0.4
            assert back > bed.furniture.size[1] / 4
    assert found >= 15


def test_mirrors_hang_over_basins() -> None:
    above = 0
    for seed in range(20):
        placed = make_home(seed, functions=("bathroom",)).placed
        basins = [p for p in placed if p.furniture.category == "sink"]
        for mirror in (p for p in placed if p.furniture.category == "mirror"):
            above += any(math.dist((mirror.x, mirror.y), (b.x, b.y)) < 0.4 for b in basins)
    assert above >= 12
