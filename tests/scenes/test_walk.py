import numpy as np
import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.homes import Home, make_home
from spatial_ttt.scenes.physics import rooms_at, walk_faults
from spatial_ttt.scenes.scene import Camera
from spatial_ttt.scenes.walk import MAX_SPEED, poses, walk


@pytest.fixture(scope="module")
def home() -> Home:
    return make_home(21, num_rooms=5)


def speeds(camera: Camera) -> np.ndarray:  # type: ignore[type-arg]
    step = np.diff(camera.times)
    return np.linalg.norm(np.diff(camera.camera_to_world[:, :2, 3], axis=0), axis=1) / step


def turns(camera: Camera) -> np.ndarray:  # type: ignore[type-arg]
    """Degrees a second between frames."""
    forward = camera.camera_to_world[:, :3, 2]
    angle = np.arccos(np.clip((forward[1:] * forward[:-1]).sum(1), -1.0, 1.0))
    return np.degrees(angle) / np.diff(camera.times)


def test_a_persons_walk(home: Home) -> None:
    camera = walk(home, 0, fps=30.0)
    assert walk_faults(home, camera) == []
    assert speeds(camera).max() <= MAX_SPEED
    assert 0.3 < speeds(camera)[speeds(camera) > 0.05].mean() < 1.2
    assert turns(camera).max() < 110.0
    height = camera.camera_to_world[:, 2, 3]
    assert height.min() > 1.38 and height.max() < 1.76
    assert np.ptp(height) < 0.05


def test_poses_look_where_they_say() -> None:
    pose = poses(np.array([[1.0, 2.0, 1.5, 0.0, 0.0], [0.0, 0.0, 1.5, np.pi / 2, -0.3]]))
    assert pose[0, :3, 2] == pytest.approx([1, 0, 0])  # forward is +x
    assert pose[0, :3, 0] == pytest.approx([0, -1, 0])  # right of +x is -y
    assert pose[0, :3, 1] == pytest.approx([0, 0, -1])  # down
    assert pose[0, :3, 3] == pytest.approx([1, 2, 1.5])
    assert pose[1, :3, 2] == pytest.approx([0, np.cos(0.3), -np.sin(0.3)])
    assert np.linalg.det(pose[1, :3, :3]) == pytest.approx(1.0)


def test_intrinsics_match_the_field_of_view(home: Home) -> None:
    camera = walk(home, 0, num_frames=2, width=200, height=100, fov_deg=90.0)
    assert camera.intrinsics == pytest.approx(np.array([[100, 0, 100], [0, 100, 50], [0, 0, 1.0]]))


def test_frames_spread_over_the_walk(home: Home) -> None:
    camera = walk(home, 0, num_frames=32)
    whole = walk(home, 0, fps=30.0)
    assert len(camera.times) == len(camera.camera_to_world) == 32
    assert camera.times[0] == 0.0
    assert np.diff(camera.times) == pytest.approx(camera.times[1])
    assert camera.times[-1] == pytest.approx(whole.times[-1] * 31 / 32, rel=0.01)


def test_a_longer_walk_revisits(home: Home) -> None:
    camera = walk(home, 0, duration_s=600.0, fps=4.0)
    assert len(camera.times) == 2400
    assert walk_faults(home, camera) == []
    rooms = rooms_at(home.scene, camera.camera_to_world[:, :2, 3])
    entries = rooms[rooms >= 0]
    changes = int((np.diff(entries) != 0).sum())
    assert changes > 2 * len(home.scene.rooms)


def test_a_shorter_walk_hurries_no_faster_than_people(home: Home) -> None:
    camera = walk(home, 0, duration_s=25.0, fps=30.0)
    assert len(camera.times) == 750
    assert speeds(camera).max() <= MAX_SPEED
    assert turns(camera).max() < 110.0
    assert walk_faults(home, camera, every_room=False) == []


def test_one_room_only(home: Home) -> None:
    camera = walk(home, 3, room_ids=(1,), fps=10.0)
    rooms = rooms_at(home.scene, camera.camera_to_world[:, :2, 3])
    assert set(rooms.tolist()) == {1}


def test_seeds_give_other_walks(home: Home) -> None:
    a, b = walk(home, 0, num_frames=8), walk(home, 1, num_frames=8)
    assert not np.allclose(a.camera_to_world, b.camera_to_world)


def test_the_walker_sees_the_furniture(home: Home) -> None:
    """Every larger thing comes within the picture's width at some time, from its own room."""
    camera = walk(home, 0, fps=5.0, fov_deg=70.0)
    where = rooms_at(home.scene, camera.camera_to_world[:, :2, 3])
    missed = 0
    large = [t for t in home.scene.objects if t.box.size.max() > 0.5]
    for thing in large:
        view = np.linalg.inv(camera.camera_to_world) @ np.append(thing.box.center, 1.0)
        ahead = (view[:, 2] > 0.4) & (np.abs(view[:, 0]) < view[:, 2] * 0.7)
        missed += not (ahead & (where == thing.room_id)).any()
    assert missed <= 0.03 * len(large)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"duration_s": 0.0}, "duration_s must be above 0"),
        ({"fps": 0.0}, "fps must be above 0"),
        ({"num_frames": 0}, "num_frames must be at least 1"),
        ({"room_ids": (9,)}, "room_ids must name rooms"),
    ],
)
def test_bad_requests(home: Home, wrong: dict[str, object], message: str) -> None:
    with pytest.raises(SceneError, match=message):
        walk(home, 0, **wrong)  # type: ignore[arg-type]
