"""Each kind of room holds what makes it that room, across many seeds."""

from collections import Counter

import pytest

from spatial_ttt.scenes.homes import make_home
from spatial_ttt.scenes.program import FUNCTIONS

ESSENTIAL = {
    "living room": ("sofa", "tv"),
    "bedroom": ("bed", "wardrobe"),
    "kitchen": ("stove", "refrigerator", "sink", "cabinet"),
    "bathroom": ("toilet", "sink"),
    "office": ("desk", "chair", "bookshelf"),
    "dining room": ("table", "chair"),
    "hallway": ("ceiling light",),
    "children's room": ("bed",),
    "laundry room": ("washer",),
    "music room": ("piano",),
}
OFTEN = {"wardrobe": 0.6, "bookshelf": 0.7}
NUM_SEEDS = 20


@pytest.mark.parametrize("function", FUNCTIONS)
def test_rooms_hold_what_they_are_for(function: str) -> None:
    found: Counter[str] = Counter()
    for seed in range(NUM_SEEDS):
        scene = make_home(seed, functions=(function,)).scene
        found.update({thing.category for thing in scene.objects})
        assert len(scene.objects) >= 3
    for category in ESSENTIAL[function]:
        assert found[category] >= OFTEN.get(category, 0.9) * NUM_SEEDS, category
