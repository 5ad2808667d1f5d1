import itertools

import numpy as np
import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.catalogue import UNUSUAL
from spatial_ttt.scenes.chain import NUM_SPOTS, StreamOptions, place_unusual, stream
from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.homes import make_home, split_of
from spatial_ttt.scenes.physics import faults, rooms_at, walk_faults


@pytest.fixture(scope="module")
def stops() -> list:  # type: ignore[type-arg]
    return list(stream(1, StreamOptions(duration_s=900.0, fps=1.0, split="val")))


def test_stops_follow_one_another(stops: list) -> None:  # type: ignore[type-arg]
    assert stops[0].start_s == 0.0
    for a, b in itertools.pairwise(stops):
        assert b.start_s == pytest.approx(a.end_s)
        assert b.index == a.index + 1
    assert stops[-1].end_s == pytest.approx(900.0, abs=1.0)
    assert len({stop.home.seed for stop in stops}) == len(stops)
    assert {split_of(stop.home.seed) for stop in stops} == {"val"}


def test_four_spots_with_different_landmarks(stops: list) -> None:  # type: ignore[type-arg]
    spots = [(stop, stop.spot) for stop in stops if stop.spot]
    assert len(spots) == NUM_SPOTS
    assert len({spot.category for _, spot in spots}) == 1
    assert len({spot.landmark for _, spot in spots}) == NUM_SPOTS
    for stop, spot in spots:
        things = {thing.object_id: thing for thing in stop.home.scene.objects}
        assert things[spot.object_id].category == spot.category
        assert things[spot.landmark_id].category == spot.landmark
        assert things[spot.object_id].room_id == spot.room_id
        entered = rooms_at(stop.home.scene, stop.camera.camera_to_world[:, :2, 3])
        assert spot.room_id in entered.tolist()


def test_homes_with_a_spot_are_valid(stops: list) -> None:  # type: ignore[type-arg]
    for stop in stops:
        assert faults(stop.home) == []
        assert walk_faults(stop.home, stop.camera, every_room=False) == []


def test_a_stream_is_lazy_and_repeatable() -> None:
    options = StreamOptions(duration_s=6 * 3600.0)
    first = list(itertools.islice(stream(5, options), 3))
    again = list(itertools.islice(stream(5, options), 3))
    for a, b in zip(first, again, strict=True):
        assert a.start_s == b.start_s and a.spot == b.spot
        assert np.array_equal(a.camera.camera_to_world, b.camera.camera_to_world)


def test_unusual_things_find_a_place() -> None:
    home = make_home(40, num_rooms=4)
    for kind in UNUSUAL:
        kept = place_unusual(home, kind, Dice(1))
        if kept is None:
            continue
        grown, spot = kept
        assert len(grown.scene.objects) == len(home.scene.objects) + 1
        assert faults(grown) == []
        assert spot.landmark not in ("rug", "ceiling light")
    assert place_unusual(home, "teddy bear", Dice(1)) is not None


def test_options_are_checked() -> None:
    with pytest.raises(SceneError, match="a stream lasts at least"):
        StreamOptions(duration_s=10.0)
    with pytest.raises(SceneError, match="no unusual thing 'elephant'"):
        StreamOptions(duration_s=600.0, unusual="elephant")
