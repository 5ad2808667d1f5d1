"""One scene from its seed: reproducible, complete, asked about only what was seen by then."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_ttt.scenes.build_plan import BuildConfig, scene_task
from spatial_ttt.scenes.describe import parse_description
from spatial_ttt.scenes.make_scene import (
    make_scene,
    make_walk,
    renderer_for,
    visibility_bytes,
    visibility_from_bytes,
)

CONFIG = BuildConfig(
    train_scenes=3,
    val_scenes=0,
    test_scenes=0,
    fps=3.0,
    duration_s=30.0,
    max_rooms=2,
    width=120,
    height=88,
    small_sizes=(),
)


def made(index):
    renderer = renderer_for(CONFIG.width, CONFIG.height)
    return make_scene(CONFIG, scene_task(CONFIG, "train", index), renderer, video="v.mp4")


@pytest.fixture(scope="module")
def scene():
    return made(1)


def test_the_same_seed_gives_the_same_bytes(scene):
    again, other = made(1), made(2)
    assert again.film.clips == scene.film.clips
    assert again.facts == scene.facts and again.pool == scene.pool
    assert other.film.clips != scene.film.clips


def test_questions_are_asked_at_the_end_and_at_one_moment_before(scene):
    moments = sorted({question.visible_until_s for question in scene.pool.questions})
    assert len(moments) == 2
    assert moments[1] == scene.pool.until_s == scene.summary["duration_s"]
    assert 0.3 * moments[1] < moments[0] < 0.85 * moments[1]


def test_the_description_can_be_read_back(scene):
    facts = parse_description(scene.pool.description)
    assert sum(facts.counts.values()) <= scene.summary["objects"]
    assert facts.counts and facts.rooms


def test_rooms_and_field_of_view_stay_within_the_settings():
    for index in range(3):
        home, camera = make_walk(CONFIG, index)
        assert 1 <= len(home.scene.rooms) <= 2
        fov = 2 * np.degrees(np.arctan(camera.width / 2 / camera.intrinsics[0, 0]))
        assert 60 <= fov <= 80


def test_visibility_round_trip():
    home, camera = make_walk(CONFIG, 0)
    seen = renderer_for(60, 44).visibility(home.parts, camera)
    again = visibility_from_bytes(visibility_bytes(seen), home.scene, camera)
    assert np.array_equal(again.object_ids, seen.object_ids)
    assert np.array_equal(again.pixels, seen.pixels)
    assert np.array_equal(again.times, seen.times)
