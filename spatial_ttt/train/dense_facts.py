"""Dense supervision of a clip: where the camera is, what was counted and where it stands.

`facts` are arrays for regression heads that are thrown away after training; `exchanges` are short
questions in words (what is in view, where a thing stands, when it came into view).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from spatial_ttt.scenes.questions.choices import category_distances
from spatial_ttt.scenes.questions.seen import Observation, SeenRule
from spatial_ttt.scenes.scene import Array, Camera, Scene, Visibility
from spatial_ttt.train.clip_types import MOST_STRIDE, Chain, ClipSpec, Facts

LEAST_DIFFERENCE = 0.3  # metres by which one thing must be nearer than another
DENSE_LIMIT = 4  # exchanges of each dense kind per clip
VIEW_LIMIT = 5  # names in one caption
TRIPLES = 24  # looked at for questions of direction
START_SHARE = 0.35  # of these stand where the walk began
LEAST_APART = 0.5  # metres between the places of a triple
LEAST_ANGLE = 12.0  # degrees between what is left or right and the line faced


class View(NamedTuple):
    """All that is known of a clip."""

    scene: Scene
    visibility: Visibility
    camera: Camera
    seen: Observation


def start_frame(camera: Camera) -> tuple[Array, Array]:
    """Position [2] of the first camera on the floor plan, and rows (right, ahead) [2, 2]."""
    pose = camera.camera_to_world[0]
    ahead = pose[:2, 2] / max(float(np.linalg.norm(pose[:2, 2])), 1e-9)
    return pose[:2, 3], np.array([[ahead[1], -ahead[0]], [ahead[0], ahead[1]]])


def slot_poses(camera: Camera) -> NDArray[np.float32]:
    """[S, 4] per slot: metres right and ahead of the first camera, sine and cosine of the turn to the left."""
    origin, axes = start_frame(camera)
    place = (camera.camera_to_world[:, :2, 3] - origin) @ axes.T  # [T, 2]
    ahead = camera.camera_to_world[:, :2, 2] @ axes.T
    turn = np.arctan2(-ahead[:, 0], ahead[:, 1])
    rows = np.column_stack((place, np.sin(turn), np.cos(turn)))
    return rows.reshape(-1, 2, 4).mean(1).astype(np.float32)


def facts(scene: Scene, visibility: Visibility, camera: Camera, index: dict[str, int]) -> Facts:
    """Arrays for every slot; `index` numbers the categories."""
    rule = SeenRule()
    clear = visibility.pixels >= rule.clear_share * camera.width * camera.height  # [T, O]
    so_far = np.logical_or.accumulate(clear, axis=0)[1::2]  # [S, O]
    kind = np.array([index[item.category] for item in scene.objects], np.intp)
    count = np.zeros((len(so_far), len(index)), np.uint8)
    for n, category in enumerate(kind):
        count[:, category] += so_far[:, n]
    origin, axes = start_frame(camera)
    place = np.full((len(index), 2), np.nan, np.float32)
    for n, item in enumerate(scene.objects):
        if so_far[-1, n] and count[-1, kind[n]] == 1:
            place[kind[n]] = (item.box.center[:2] - origin) @ axes.T
    first = np.full(len(index), np.nan, np.float32)
    for n in np.flatnonzero(so_far[-1]).tolist():
        first[kind[n]] = np.fmin(first[kind[n]], visibility.times[clear[:, n].argmax()])
    trace = visibility.pixels > rule.trace_share * camera.width * camera.height
    slots = len(so_far)
    shown = [Chain(1, stride).shown(slots) for stride in range(1, MOST_STRIDE + 1)]
    clearly = [clear[frames].any(0) for frames in shown]
    hardly = [trace[frames].any(0) & ~seen for frames, seen in zip(shown, clearly, strict=True)]
    counted, glimpsed = (
        np.stack([np.bincount(kind[seen], minlength=len(index)) for seen in rows]).astype(np.uint8)
        for rows in (clearly, hardly)
    )
    return Facts(slot_poses(camera), count, place, first, counted, glimpsed)


def exchanges(view: View, spec: ClipSpec, rng: Generator) -> list[tuple[str, str, str]]:
    """(kind, question, answer) of up to `DENSE_LIMIT` facts of each kind."""
    lone = [*_places(view, rng), *_views(view, spec, rng), *_firsts(view, rng)]
    return [*lone, *_sooner(view, rng), *_nearer(view, rng), *_turns(view, rng)]


def _places(view: View, rng: Generator) -> list[tuple[str, str, str]]:
    """Where a single object stands, from where the walk began."""
    origin, axes = start_frame(view.camera)
    names = view.seen.stock.singles()
    out = []
    for n in rng.permutation(len(names))[:DENSE_LIMIT]:
        center = view.seen.stock.boxes.center[view.seen.stock.members[names[n]][0]]
        right, ahead = (center[:2] - origin) @ axes.T
        answer = f"{_side(right, 'right', 'left')}, {_side(ahead, 'ahead', 'behind')}"
        out.append(("dense_place", f"Where is the {names[n]}, seen from the start?", answer))
    return out


def _side(value: float, positive: str, negative: str) -> str:
    return f"{positive if value >= 0 else negative} {abs(value):.1f}"


def _views(view: View, spec: ClipSpec, rng: Generator) -> list[tuple[str, str, str]]:
    """What is in view at a moment, the largest first, with distances."""
    area = view.camera.width * view.camera.height
    ids = {item.object_id: item for item in view.scene.objects}
    out = []
    for slot in np.sort(rng.permutation(spec.num_slots)[:DENSE_LIMIT]):
        pixels = view.visibility.pixels[2 * slot : 2 * slot + 2].mean(0)
        order = [n for n in np.argsort(-pixels) if pixels[n] >= 0.005 * area][:VIEW_LIMIT]
        eye = view.camera.camera_to_world[2 * slot : 2 * slot + 2, :3, 3].mean(0)
        parts = []
        for n in order:
            item = ids[int(view.visibility.object_ids[n])]
            parts.append(f"{item.category} {math.dist(item.box.center, eye):.1f}")
        question = f"What is in view at {spec.slot_times[slot]:.1f} seconds?"
        out.append(("dense_view", question, ", ".join(parts) if parts else "nothing"))
    return out


def _firsts(view: View, rng: Generator) -> list[tuple[str, str, str]]:
    """When a category came into clear view."""
    names = list(view.seen.first_clear)
    return [
        (
            "dense_first",
            f"When is the {names[n]} first seen?",
            f"{view.seen.first_clear[names[n]]:.1f}",
        )
        for n in rng.permutation(len(names))[:DENSE_LIMIT]
    ]


def _sooner(view: View, rng: Generator) -> list[tuple[str, str, str]]:
    """Which of two came into clear view first: the smallest step towards an order of four."""
    clear = view.seen.first_clear
    out = []
    for a, b in _pairs(list(clear), rng):
        if clear[a] != clear[b]:
            first = a if clear[a] < clear[b] else b
            out.append(("dense_sooner", f"Which is seen first, the {a} or the {b}?", first))
    return out


def _nearer(view: View, rng: Generator) -> list[tuple[str, str, str]]:
    """Which of two stands nearer to a third: the smallest step towards the nearest of four."""
    names = view.seen.stock.singles()
    out = []
    for a, b in _pairs(names, rng):
        others = [name for name in names if name not in (a, b)]
        if not others:
            break
        to = others[int(rng.integers(len(others)))]
        near, far = category_distances(view.seen, [to], [a, b])[0]
        if abs(near - far) >= LEAST_DIFFERENCE:
            answer = a if near < far else b
            out.append(
                ("dense_nearer", f"Which is nearer to the {to}, the {a} or the {b}?", answer)
            )
    return out


class Triples(NamedTuple):
    """Someone at one place who faces a second: where is a third?"""

    names: list[tuple[str, str, str]]
    right: Array  # [N] m
    forward: Array  # [N] m


def _triples(view: View, rng: Generator) -> Triples:
    """Some triples of single things far enough apart; a share of them stand where the walk began."""
    names = view.seen.stock.singles()
    if len(names) < 2:
        return Triples([], np.zeros(0), np.zeros(0))
    origin, axes = start_frame(view.camera)
    members = [view.seen.stock.members[name][0] for name in names]
    places = np.vstack(((view.seen.stock.boxes.center[members, :2] - origin) @ axes.T, [0.0, 0.0]))
    start, named = len(names), [*names, "start"]
    order = rng.permuted(np.tile(np.arange(len(named)), (TRIPLES, 1)), axis=1)
    triples = order[:, :3][(order[:, 1:3] != start).all(1)]
    triples[rng.random(len(triples)) < START_SHARE, 0] = start
    at, facing, to = places[triples].transpose(1, 0, 2)
    ahead, there = facing - at, to - at
    length, far = np.linalg.norm(ahead, axis=1), np.linalg.norm(there, axis=1)
    clear = (length > LEAST_APART) & (far > LEAST_APART)
    ahead /= np.maximum(length, LEAST_APART)[:, None]
    right = there[:, 0] * ahead[:, 1] - there[:, 1] * ahead[:, 0]
    chosen = [(named[a], named[b], named[c]) for a, b, c in triples[clear].tolist()]
    return Triples(chosen, right[clear], (there * ahead).sum(1)[clear])


def _turns(view: View, rng: Generator) -> list[tuple[str, str, str]]:
    """Left or right, or how far which way, for someone who faces a thing: the smallest step towards directions."""
    found = _triples(view, rng)
    out: dict[str, list[tuple[str, str, str]]] = {"dense_turn": [], "dense_side": []}
    for (a, b, c), right, forward in zip(*found, strict=True):
        side = "right" if right > 0 else "left"
        is_clear = abs(right) > math.tan(math.radians(LEAST_ANGLE)) * abs(forward)
        kind = "dense_side" if is_clear and rng.random() < 0.5 else "dense_turn"
        words = f"At the {a}, facing the {b}: "
        if kind == "dense_side":
            out[kind].append((kind, f"{words}is the {c} left or right?", side))
        else:
            answer = f"{_side(right, 'right', 'left')}, {_side(forward, 'ahead', 'behind')}"
            out[kind].append((kind, f"{words}where is the {c}?", answer))
    return [row for rows in out.values() for row in rows[:DENSE_LIMIT]]


def _pairs(names: list[str], rng: Generator) -> list[tuple[str, str]]:
    """Up to `DENSE_LIMIT` pairs of neighbours in a random order, without repeats."""
    order = rng.permutation(len(names))
    pairs = [(names[a], names[b]) for a, b in pairwise(order)]
    return pairs[:DENSE_LIMIT]
