"""Homes are valid; and what makes one invalid is noticed."""

from dataclasses import replace

import numpy as np
import pytest

from spatial_ttt.scenes.homes import Home, make_home
from spatial_ttt.scenes.physics import boxes_overlap, faults, inside, walk_faults
from spatial_ttt.scenes.scene import OrientedBox, SceneObject
from spatial_ttt.scenes.walk import walk


def check(seed: int) -> list[str]:
    home = make_home(seed)
    return [f"home {seed}: {fault}" for fault in faults(home) + walk_faults(home, walk(home, 0))]


def test_homes_are_valid() -> None:
    assert [fault for seed in range(40) for fault in check(seed)] == []


@pytest.mark.slow
def test_a_thousand_homes_are_valid() -> None:
    assert [fault for seed in range(1000, 2000) for fault in check(seed)] == []


@pytest.fixture(scope="module")
def home() -> Home:
    return make_home(17, functions=("bedroom",))


def moved(home: Home, category: str, by: tuple[float, float, float]) -> Home:
    """The home with one object's box and parts shifted."""
    thing = next(t for t in home.scene.objects if t.category == category)
    box = replace(thing.box, center=thing.box.center + np.array(by))
    objects = tuple(replace(t, box=box) if t is thing else t for t in home.scene.objects)
    mine = home.parts.object_id == thing.object_id
    center = home.parts.center + np.where(mine[:, None], np.array(by), 0.0)
    return replace(
        home,
        scene=replace(home.scene, objects=objects),
        parts=replace(home.parts, center=center),
    )


def test_a_lifted_bed_floats(home: Home) -> None:
    assert faults(home) == []
    assert any("floats" in fault for fault in faults(moved(home, "bed", (0, 0, 0.05))))


def test_a_bed_in_the_wall_is_noticed(home: Home) -> None:
    bed = next(t for t in home.scene.objects if t.category == "bed")
    back = bed.box.axes[1] * 0.3
    found = faults(moved(home, "bed", (float(back[0]), float(back[1]), 0.0)))
    assert any("reaches into the building" in fault for fault in found)
    assert any("leaves room" in fault for fault in found)


def test_shared_space_is_noticed(home: Home) -> None:
    bed = next(t for t in home.scene.objects if t.category == "bed")
    light = next(t for t in home.scene.objects if t.category == "ceiling light")
    by = bed.box.center - light.box.center
    found = faults(moved(home, "ceiling light", (float(by[0]), float(by[1]), float(by[2]))))
    assert any("share space" in fault for fault in found)


def test_a_loose_box_is_noticed(home: Home) -> None:
    thing = home.scene.objects[0]
    wide = replace(thing, box=replace(thing.box, size=thing.box.size * 1.1))
    scene = replace(home.scene, objects=(wide, *home.scene.objects[1:]))
    assert any("misses its parts" in fault for fault in faults(replace(home, scene=scene)))


def test_bad_parts_are_noticed(home: Home) -> None:
    center = home.parts.center.copy()
    center[3, 0] = np.nan
    assert "a part is not finite" in faults(replace(home, parts=replace(home.parts, center=center)))


def test_a_bump_and_a_missed_room_are_noticed() -> None:
    home = make_home(30, num_rooms=3)
    camera = walk(home, 0, fps=5.0)
    assert walk_faults(home, camera) == []
    short = replace(camera, camera_to_world=camera.camera_to_world[:5], times=camera.times[:5])
    assert any("never enters" in fault for fault in walk_faults(home, short))
    pose = camera.camera_to_world.copy()
    pose[7, :2, 3] = home.scene.objects[0].box.center[:2]
    found = walk_faults(home, replace(camera, camera_to_world=pose))
    assert any("from a solid" in fault for fault in found)


def _thing(x: float, yaw: float) -> SceneObject:
    c, s = np.cos(yaw), np.sin(yaw)
    axes = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]])
    return SceneObject(1, "box", OrientedBox(np.array([x, 0, 0.5]), np.ones(3), axes))


def test_turned_boxes() -> None:
    """A unit square turned by 45 degrees reaches 0.707 from its middle."""
    assert boxes_overlap(_thing(0.0, 0.0), _thing(1.19, np.pi / 4))
    assert not boxes_overlap(_thing(0.0, 0.0), _thing(1.22, np.pi / 4))
    assert not boxes_overlap(_thing(0.0, 0.0), _thing(1.0, 0.0))


def test_inside_an_l() -> None:
    polygon = np.array([[0, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2.0]])
    points = np.array([[0.5, 1.5], [1.5, 0.5], [1.5, 1.5], [-0.1, 0.5]])
    assert inside(polygon, points).tolist() == [True, True, False, False]
