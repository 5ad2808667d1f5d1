"""Every kind of the catalogue, many instances of each."""

import math

import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.catalogue import COMMON, KINDS, TABLETOP_UNUSUAL, UNUSUAL, make
from spatial_ttt.scenes.catalogue.mesh import reach
from spatial_ttt.scenes.catalogue.palette import COLOR_NAMES
from spatial_ttt.scenes.dice import Dice

# Longest side in metres, from furniture makers' usual ranges.
USUAL_SIZES = {
    "bed": (1.8, 2.4), "sofa": (1.4, 2.7), "chair": (0.7, 1.2), "table": (0.8, 2.0),
    "desk": (1.0, 1.7), "toilet": (0.6, 0.95), "bathtub": (1.4, 1.9), "stove": (0.85, 1.1),
    "refrigerator": (1.6, 2.0), "washer": (0.8, 0.95), "tv": (0.7, 1.5), "wardrobe": (1.8, 2.3),
    "nightstand": (0.4, 0.7), "laptop": (0.2, 0.45), "plant": (0.2, 1.7), "piano": (1.4, 1.6),
}  # fmt: skip


def test_at_least_forty_categories() -> None:
    categories = {make(kind, Dice(1)).category for kind in KINDS}
    assert len(categories) >= 60
    assert len(UNUSUAL) >= 8 and set(TABLETOP_UNUSUAL) <= set(UNUSUAL)


@pytest.mark.parametrize("kind", KINDS)
def test_instances(kind: str) -> None:
    shapes = set()
    for seed in range(12):
        thing = make(kind, Dice(seed))
        width, depth, height = thing.size
        low, high = [math.inf] * 3, [-math.inf] * 3
        for solid in thing.solids:
            assert min(solid.half) > 0.0
            assert 0.0 <= min(solid.paint.rgb) <= max(solid.paint.rgb) <= 1.0
            extent = reach(solid)
            for axis in range(3):
                low[axis] = min(low[axis], solid.center[axis] - extent[axis])
                high[axis] = max(high[axis], solid.center[axis] + extent[axis])
        assert low == pytest.approx([-width / 2, -depth / 2, 0.0], abs=1e-9)
        assert high == pytest.approx([width / 2, depth / 2, height], abs=1e-9)
        assert thing.color in COLOR_NAMES
        assert 1 <= len(thing.solids) <= 25
        if thing.category in USUAL_SIZES:
            small, large = USUAL_SIZES[thing.category]
            assert small <= max(thing.size) <= large
        for surface in thing.surfaces:
            assert -width / 2 - 1e-9 <= surface.x0 < surface.x1 <= width / 2 + 1e-9
            assert -depth / 2 - 1e-9 <= surface.y0 < surface.y1 <= depth / 2 + 1e-9
            assert 0.0 < surface.z <= height + 1e-9
        shapes.add((thing.size, thing.color, tuple(s.paint.rgb for s in thing.solids)))
    if kind not in ("football", "kitchen sink"):
        assert len(shapes) >= 4, "instances must differ"


@pytest.mark.parametrize("kind", [k for k in KINDS if make(k, Dice(0)).surfaces])
def test_surfaces_are_the_tops_of_parts(kind: str) -> None:
    for seed in range(8):
        thing = make(kind, Dice(seed))
        tops = [s.center[2] + reach(s)[2] for s in thing.solids]
        for surface in thing.surfaces:
            assert min(abs(top - surface.z) for top in tops) < 0.02


def test_parts_are_few() -> None:
    counts = [len(make(kind, Dice(2)).solids) for kind in COMMON]
    assert sum(counts) / len(counts) < 9.0


def test_unknown_kind() -> None:
    with pytest.raises(SceneError, match="the catalogue has no 'dragon'"):
        make("dragon", Dice(0))
