"""A map drawn from a memory by asking it: what is there, how far apart, on which side.

counts -> landmarks -> distances between all pairs -> places that fit them best -> left or right decides
which of the two mirror images it is. Nothing but answers goes in; the truth, where known, is laid beside.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from spatial_ttt.eval.parsing import lenient_letter, lenient_number
from spatial_ttt.scenes.examples import CHOICE_REQUEST, NUMBER_REQUEST
from spatial_ttt.scenes.questions.templates import ask_count, ask_direction, ask_distance
from spatial_ttt.serve.answers import Event

Ask = Callable[[str], Awaitable[str]]
Points = NDArray[np.float64]  # [N, 2] m

CATEGORIES = (
    "table", "chair", "sofa", "bed", "tv", "door", "window", "refrigerator", "sink", "toilet", "bathtub",
    "washing machine", "desk", "bookshelf", "wardrobe", "lamp", "plant", "stove",
)  # fmt: skip
"""Asked for unless the caller names others."""
MAX_LANDMARKS = 7
MAX_SIDES = 5
_FAR_M = 50.0


async def survey(ask: Ask, categories: Sequence[str]) -> AsyncGenerator[Event, None]:
    """Ask step by step; events {type: count | distance | side, question, answer, ...}, at the end {type: map}."""
    counts: dict[str, float] = {}
    for category in categories:
        question = f"{ask_count(category)}\n{NUMBER_REQUEST}"
        answer = await ask(question)
        count = lenient_number(answer)
        if count is not None and 1 <= count < 1000:
            counts[category] = count
        yield _asked("count", question, answer, category=category, count=count)
    # Single things first: a distance to "the chair" means little where there are six.
    landmarks = sorted(counts, key=lambda c: (counts[c] != 1, list(categories).index(c)))
    landmarks = landmarks[:MAX_LANDMARKS]
    distances = np.full((len(landmarks), len(landmarks)), np.nan)
    for i, j in itertools.combinations(range(len(landmarks)), 2):
        question = f"{ask_distance(landmarks[i], landmarks[j])}\n{NUMBER_REQUEST}"
        answer = await ask(question)
        metres = lenient_number(answer)
        if metres is not None and 0 <= metres <= _FAR_M:
            distances[i, j] = distances[j, i] = metres
        yield _asked("distance", question, answer, a=landmarks[i], b=landmarks[j], metres=metres)
    points, misfit = place(distances)
    votes = 0
    for standing, facing, target in _telling_triples(points):
        names = (landmarks[standing], landmarks[facing], landmarks[target])
        question = (
            f"{ask_direction('object_rel_direction_easy', *names)}\nOptions:\nA. left\nB. right\n"
            f"{CHOICE_REQUEST}"
        )
        answer = await ask(question)
        side = {"A": "left", "B": "right"}.get(
            lenient_letter(answer, ("A. left", "B. right")) or ""
        )
        if side is not None:
            drawn = "left" if _turn(points, standing, facing, target) > 0 else "right"
            votes += 1 if side == drawn else -1
        yield _asked("side", question, answer, of=list(names), side=side)
    if votes < 0:
        points = points * np.array([-1.0, 1.0])
    places = [
        {"category": c, "count": counts[c], "x": round(float(x), 3), "y": round(float(y), 3)}
        for c, (x, y) in zip(landmarks, points, strict=True)
    ]
    yield {"type": "map", "counts": counts, "places": places, "misfit_m": round(misfit, 3)}


def _asked(kind: str, question: str, answer: str, **facts: object) -> Event:
    return {"type": kind, "question": question, "answer": answer, **facts}


def place(distances: Points) -> tuple[Points, float]:
    """Points [N, 2] whose distances come nearest to `distances` [N, N] (nan: unknown), and the misfit, m.

    Classical scaling for a start, then stress majorisation (each round moves every point to the mean of
    where its known distances want it).
    """
    count = len(distances)
    known = np.isfinite(distances)
    np.fill_diagonal(known, False)
    if count < 2 or not known.any():
        return np.zeros((count, 2)), 0.0
    wanted = np.where(known, distances, 0.0)
    points = _start(np.where(known, distances, np.nanmean(distances[known])))
    weight = known.astype(float)
    degree = np.maximum(weight.sum(1, keepdims=True), 1.0)
    for _ in range(300):
        difference = points[:, None] - points[None]
        length = np.linalg.norm(difference, axis=-1)
        unit = difference / np.maximum(length, 1e-9)[..., None]
        aim = points[None] + unit * wanted[..., None]  # where j's distance would put i
        points = (weight[..., None] * aim).sum(1) / degree
        points -= points.mean(0)
    length = np.linalg.norm(points[:, None] - points[None], axis=-1)
    misfit = float(np.sqrt(np.mean((length - wanted)[known] ** 2)))
    return points, misfit


def _start(distances: Points) -> Points:
    """Classical multidimensional scaling to two dimensions."""
    count = len(distances)
    squared = distances**2
    np.fill_diagonal(squared, 0.0)
    centring = np.eye(count) - 1.0 / count
    values, vectors = np.linalg.eigh(-0.5 * centring @ squared @ centring)
    top = np.maximum(values[-2:], 1e-6) ** 0.5
    start = vectors[:, -2:] * top
    # Points on one line would never leave it: a little spread that depends on nothing but their number.
    angle = np.arange(count) * 2.4
    spread: Points = start + 1e-3 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return spread


def _turn(points: Points, standing: int, facing: int, target: int) -> float:
    """Twice the area of the triangle; positive where the target is to the left."""
    a, b = points[facing] - points[standing], points[target] - points[standing]
    return float(a[0] * b[1] - a[1] * b[0])


def _telling_triples(points: Points) -> list[tuple[int, int, int]]:
    """Triples whose side is most clearly one or the other."""
    triples = list(itertools.combinations(range(len(points)), 3))
    triples.sort(key=lambda t: -abs(_turn(points, *t)))
    return triples[:MAX_SIDES]


def align(points: Points, chosen: Sequence[int], truth: Points) -> Points:
    """`points` [N, 2] turned and moved, not scaled or mirrored, so that the chosen ones come nearest to `truth`.

    truth [len(chosen), 2] are the true places of those.
    """
    centre, goal = points[chosen].mean(0), truth.mean(0)
    a, b = points[chosen] - centre, truth - goal
    cosine = float((a * b).sum())
    sine = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum())
    angle = np.arctan2(sine, cosine)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    aligned: Points = (points - centre) @ turn.T + goal
    return aligned
