"""Dense facts agree with the scene, the pictures, and what may be asked."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from spatial_ttt.scenes import rules
from spatial_ttt.scenes.questions.seen import SeenRule
from spatial_ttt.scenes.questions.streams import Segment, first_views
from spatial_ttt.scenes.scene import Visibility
from spatial_ttt.train.camera_paths import pinhole
from spatial_ttt.train.clip_types import Chain, ClipSpec, categories
from spatial_ttt.train.dense_facts import View, exchanges, facts, slot_poses, start_frame
from tests.train import clips

INDEX = {name: n for n, name in enumerate(categories())}


@pytest.fixture(scope="module", params=clips.SEEDS)
def view(request) -> View:
    return clips.view(request.param)


def asked(view: View, kind: str) -> list[tuple[str, str]]:
    found = exchanges(view, clips.SPEC, np.random.default_rng(1))
    return [(question, answer) for name, question, answer in found if name == kind]


def to_world(camera, right: float, ahead: float) -> np.ndarray:
    """Turns right and ahead of the first camera into the world's x and y, by the camera's own axes."""
    pose = camera.camera_to_world[0]
    forward = pose[:2, 2] / np.linalg.norm(pose[:2, 2])
    return pose[:2, 3] + ahead * forward + right * pose[:2, 0]


def test_poses_are_metres_and_turns_from_the_start() -> None:
    """Start facing +y at (1, 1), step 2 m ahead and 1 m to the left, turn left by 90 degrees."""
    spec = ClipSpec(num_slots=2, fps=2.0, width=64, height=32)
    place = np.array([[1.0, 1.0, 1.5]] * 2 + [[0.0, 3.0, 1.5]] * 2)
    heading = np.array([math.pi / 2] * 2 + [math.pi] * 2)
    camera = pinhole(spec, place, heading, np.full(4, 0.3), 80.0)
    np.testing.assert_allclose(slot_poses(camera), [[0, 0, 0, 1], [-1, 2, 1, 0]], atol=1e-6)
    origin, axes = start_frame(camera)
    np.testing.assert_allclose(axes @ (np.array([2.0, 1.0]) - origin), [1, 0], atol=1e-12)


def test_counts_are_of_what_was_clearly_seen_so_far(view: View) -> None:
    found = facts(view.scene, view.visibility, view.camera, INDEX)
    least = SeenRule().clear_share * view.camera.width * view.camera.height
    for slot in range(clips.SPEC.num_slots):
        expected = np.zeros(len(INDEX), int)
        for n, item in enumerate(view.scene.objects):
            expected[INDEX[item.category]] += (
                view.visibility.pixels[: 2 * slot + 2, n].max() >= least
            )
        assert (found.counts[slot] == expected).all()
    assert found.counts[-1].sum() >= 2
    for name, members in view.seen.stock.members.items():
        assert found.counts[-1, INDEX[name]] == len(members)


def test_places_are_where_single_things_stand(view: View) -> None:
    found = facts(view.scene, view.visibility, view.camera, INDEX)
    known = {name for name, n in INDEX.items() if np.isfinite(found.place[n]).all()}
    assert set(view.seen.stock.singles()) <= known
    assert known == {name for name, n in INDEX.items() if found.counts[-1, n] == 1}
    for name in view.seen.stock.singles():
        center = view.seen.stock.boxes.center[view.seen.stock.members[name][0]]
        world = to_world(view.camera, *found.place[INDEX[name]])
        np.testing.assert_allclose(world, center[:2], atol=1e-5)


def test_questions_about_places_say_where_things_stand(view: View) -> None:
    rows = asked(view, "dense_place")
    assert rows
    for question, answer in rows:
        name = re.fullmatch(r"Where is the (.+), seen from the start\?", question)[1]
        side, right, way, ahead = re.fullmatch(
            r"(right|left) ([\d.]+), (ahead|behind) ([\d.]+)", answer
        ).groups()
        world = to_world(
            view.camera,
            float(right) * (1 if side == "right" else -1),
            float(ahead) * (1 if way == "ahead" else -1),
        )
        center = view.seen.stock.boxes.center[view.seen.stock.members[name][0]]
        assert np.linalg.norm(world - center[:2]) < 0.08  # rounded to 0.1


def test_questions_about_views_name_the_largest_with_their_distance(view: View) -> None:
    rows = asked(view, "dense_view")
    assert len(rows) == 4
    by_name = {item.category: item for item in view.scene.objects}
    named = 0
    for question, answer in rows:
        time = float(re.search(r"at ([\d.]+) seconds", question)[1])
        slot = int(np.abs(clips.SPEC.slot_times - time).argmin())
        pixels = view.visibility.pixels[2 * slot : 2 * slot + 2].mean(0)
        if answer == "nothing":
            assert pixels.max() < 0.005 * 64 * 32
            continue
        parts = [part.rsplit(" ", 1) for part in answer.split(", ")]
        order = np.argsort(-pixels)[: len(parts)]
        assert [name for name, _ in parts] == [view.scene.objects[n].category for n in order]
        for (name, metres), n in zip(parts, order, strict=True):
            item = view.scene.objects[n]
            eye = view.camera.camera_to_world[2 * slot : 2 * slot + 2, :3, 3].mean(0)
            assert float(metres) == pytest.approx(math.dist(eye, item.box.center), abs=0.051)
            assert name in by_name
            named += 1
    assert named


def test_questions_about_first_sights_name_the_first_clear_frame(view: View) -> None:
    rows = asked(view, "dense_first")
    assert rows
    least = SeenRule().clear_share * view.camera.width * view.camera.height
    for question, answer in rows:
        name = re.fullmatch(r"When is the (.+) first seen\?", question)[1]
        columns = [n for n, item in enumerate(view.scene.objects) if item.category == name]
        clear = (view.visibility.pixels[:, columns] >= least).any(1)
        assert float(answer) == pytest.approx(view.camera.times[clear.argmax()], abs=0.051)


def test_directions_hold_for_someone_who_stands_there(view: View) -> None:
    """Two pegs and a compass: the angle between the two lines, by the rule of the benchmark's questions."""
    place = {
        name: view.seen.stock.boxes.center[view.seen.stock.members[name][0]]
        for name in view.seen.stock.singles()
    }
    place["start"] = np.array([*view.camera.camera_to_world[0, :2, 3], 0.0])
    checked = 0
    for seed in range(6):
        for kind, question, answer in exchanges(view, clips.SPEC, np.random.default_rng(seed)):
            if kind not in ("dense_side", "dense_turn"):
                continue
            words = r"At the (.+), facing the (.+): (?:is|where is) the (.+?)(?: left or right)?\?"
            at, facing, to = (place[name] for name in re.fullmatch(words, question).groups())
            degrees = float(rules.bearing(at[None], facing[None], to[None])[0])  # to the left
            far = np.linalg.norm((to - at)[:2])
            left, ahead = (
                far * math.sin(math.radians(degrees)),
                far * math.cos(math.radians(degrees)),
            )
            if kind == "dense_side":
                assert answer == ("left" if left > 0 else "right")
            else:
                side, right, way, metres = re.fullmatch(
                    r"(right|left) ([\d.]+), (ahead|behind) ([\d.]+)", answer
                ).groups()
                assert float(right) * (1 if side == "left" else -1) == pytest.approx(left, abs=0.06)
                assert float(metres) * (1 if way == "ahead" else -1) == pytest.approx(
                    ahead, abs=0.06
                )
            checked += 1
    assert checked >= 6


def test_first_sights_and_certainty_are_those_of_the_questions(view: View) -> None:
    found = facts(view.scene, view.visibility, view.camera, INDEX)
    for name, time in view.seen.first_clear.items():
        assert found.first[INDEX[name]] == pytest.approx(time)
    sure = {name for name, n in INDEX.items() if not found.glimpsed[0, n] and found.counts[-1, n]}
    assert set(view.seen.stock.members) == sure


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_counts_at_a_lower_rate_are_those_of_a_stream_of_these_frames(
    view: View, stride: int
) -> None:
    """By the code that counts in the benchmark's long streams."""
    found = facts(view.scene, view.visibility, view.camera, INDEX)
    shown = Chain(1, stride).shown(clips.SPEC.num_slots)
    pixels, times = view.visibility.pixels[shown], view.visibility.times[shown]
    seen = Visibility(view.visibility.object_ids, pixels, times)
    views = first_views([Segment(view.scene, seen, view.camera, 0.0)])
    assert 2 * (clips.SPEC.num_slots // stride) == len(times)
    for name, n in INDEX.items():
        clear = views[name].count(100.0) if name in views else 0
        traces = len(views[name].trace_s) if name in views else 0
        assert found.counted[stride - 1, n] == clear
        assert found.glimpsed[stride - 1, n] == traces - clear
