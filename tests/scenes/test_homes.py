import hashlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.catalogue.palette import COLOR_NAMES
from spatial_ttt.scenes.homes import SPLITS, Home, home_seed, make_home, split_of
from spatial_ttt.scenes.walk import walk


def digest(home: Home) -> str:
    """Every number and word of a home."""
    parts, scene = home.parts, home.scene
    blob = b"".join(getattr(parts, name).tobytes() for name in type(parts).__slots__)
    for thing in scene.objects:
        blob += f"{thing.object_id} {thing.category} {thing.room_id} {thing.color}".encode()
        blob += thing.box.center.tobytes() + thing.box.size.tobytes() + thing.box.axes.tobytes()
    for room in scene.rooms:
        blob += room.function.encode() + room.polygon.tobytes()
    blob += repr((scene.room_size, scene.object_counts, home.supports.tolist())).encode()
    return hashlib.sha256(blob).hexdigest()


def test_same_seed_same_bytes_in_another_process() -> None:
    code = (
        "from tests.scenes.test_homes import digest\n"
        "from spatial_ttt.scenes.homes import make_home\n"
        "print(*(digest(make_home(s)) for s in range(4)))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "12345"}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    assert out.stdout.split() == [digest(make_home(seed)) for seed in range(4)]


def test_other_seed_other_home() -> None:
    assert len({digest(make_home(seed)) for seed in range(12)}) == 12


@pytest.mark.parametrize("num_rooms", range(1, 9))
def test_number_of_rooms(num_rooms: int) -> None:
    home = make_home(100 + num_rooms, num_rooms=num_rooms)
    assert len(home.scene.rooms) == num_rooms
    assert home.scene.scene_id == f"home-{100 + num_rooms:013d}"


def test_scene_is_consistent() -> None:
    for seed in range(10):
        home = make_home(seed)
        scene = home.scene
        ids = [thing.object_id for thing in scene.objects]
        assert ids == list(range(1, len(ids) + 1))
        assert set(home.parts.object_id.tolist()) == {0, *ids}
        counts: dict[str, int] = {}
        for thing in scene.objects:
            counts[thing.category] = counts.get(thing.category, 0) + 1
            assert thing.color in COLOR_NAMES
        assert counts == scene.object_counts
        area = 0.0
        for room in scene.rooms:
            x, y = room.polygon.T
            area += float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2.0
        assert scene.room_size == pytest.approx(area, abs=1e-4)
        assert len(home.supports) == len(ids)


def test_instances_of_a_category_differ() -> None:
    sizes = {
        tuple(np.round(t.box.size, 3))
        for seed in range(20)
        for t in make_home(seed).scene.objects
        if t.category == "sofa"
    }
    assert len(sizes) > 10


def test_splits_never_meet() -> None:
    for split in SPLITS:
        assert split_of(home_seed(split, 0)) == split
        assert split_of(home_seed(split, (1 << 40) - 1)) == split
    with pytest.raises(SceneError, match="split must be one of"):
        home_seed("dev", 0)
    with pytest.raises(SceneError, match="a split holds homes"):
        home_seed("train", 1 << 40)


def test_bad_requests() -> None:
    with pytest.raises(SceneError, match="num_rooms must be 1 to 8"):
        make_home(0, num_rooms=9)
    with pytest.raises(SceneError, match="at least 0"):
        make_home(-1)


def test_fast_and_small_enough() -> None:
    """Generous bounds: thousands are made while training, and a ray caster draws all parts."""
    start = time.process_time()
    homes = [make_home(seed) for seed in range(20)]
    assert (time.process_time() - start) / 20 < 0.08
    assert np.mean([len(home.parts.kind) for home in homes]) < 600


def test_walk_is_the_same_in_another_process() -> None:
    code = (
        "from spatial_ttt.scenes.homes import make_home\n"
        "from spatial_ttt.scenes.walk import walk\n"
        "import hashlib\n"
        "print(hashlib.sha256(walk(make_home(3), 1).camera_to_world.tobytes()).hexdigest())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    mine = hashlib.sha256(walk(make_home(3), 1).camera_to_world.tobytes()).hexdigest()
    assert out.stdout.strip() == mine
