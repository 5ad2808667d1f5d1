"""Questions with options about places: which is the closest, and relative direction.

For directions the answer is drawn first, all sectors alike, and a triple of objects for it second;
if there is none, nothing is asked. Options are shuffled, so letters tell nothing either.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator

from spatial_ttt.scenes import rules
from spatial_ttt.scenes.questions import templates
from spatial_ttt.scenes.questions.question import LETTERS, Facts, Question, lettered, option_text
from spatial_ttt.scenes.questions.seen import Observation
from spatial_ttt.scenes.scene import Array

NUM_CANDIDATES = 4
_TRIES = 256  # random candidate sets looked at, all at once
_MAX_SINGLES = 16  # objects whose triples are looked at: 16 x 15 x 14 = 3360


def choice(
    seen: Observation,
    rng: Generator,
    words: tuple[str, str],
    options: tuple[str, ...],
    facts: Facts,
) -> Question:
    """A question of `words` = (type, text) whose first option is the right one, then shuffled."""
    order = rng.permutation(len(options))
    shuffled = [options[n] for n in order]
    letter = LETTERS[int(np.flatnonzero(order == 0)[0])]
    kind, text = words
    return Question(
        kind, text, lettered(shuffled), letter, seen.scene.scene_id, seen.until_s, facts
    )


# --- Which is the closest ------------------------------------------------------------------------


def category_distances(seen: Observation, references: list[str], names: list[str]) -> Array:
    """Least distances [R, C] m from each single reference category to each category."""
    reference = np.array([seen.stock.members[name][0] for name in references], dtype=np.intp)
    members = [seen.stock.members[name] for name in names]
    columns = np.concatenate(members)
    i, j = np.meshgrid(reference, columns, indexing="ij")
    distances = seen.stock.apart(i.ravel(), j.ravel()).reshape(i.shape)
    starts = np.cumsum([0] + [len(member) for member in members[:-1]])
    result: Array = np.minimum.reduceat(distances, starts, axis=1)
    return result


def object_rel_distance(seen: Observation, rng: Generator, limit: int) -> list[Question]:
    """Which of four categories is the closest to a single object."""
    names, references = list(seen.stock.members), seen.stock.singles()
    if len(names) <= NUM_CANDIDATES or not references or limit < 1:
        return []
    distances = category_distances(seen, references, names)  # [R, C]
    reference = rng.integers(len(references), size=_TRIES)
    own = np.array([names.index(name) for name in references])
    keys = rng.random((_TRIES, len(names)))
    keys[np.arange(_TRIES), own[reference]] = 2.0  # an object is no candidate for itself
    candidates = np.argsort(keys, axis=1)[:, :NUM_CANDIDATES]  # [tries, 4]
    ordered = np.sort(distances[reference[:, None], candidates], axis=1)
    gap = rules.nearest_gap(seen.scene.room_size)
    clear = (np.diff(ordered, axis=1) >= gap).all(1) & (ordered[:, 0] >= rules.NEAREST_GAP)
    questions: list[Question] = []
    asked: set[int] = set()
    for n in np.flatnonzero(clear):
        if reference[n] not in asked and len(questions) < limit:
            asked.add(int(reference[n]))
            chosen = [names[c] for c in candidates[n]]
            right = chosen[int(distances[reference[n], candidates[n]].argmin())]
            questions.append(_ask_nearest(seen, rng, (right, chosen), references[reference[n]]))
    return questions


def _ask_nearest(
    seen: Observation, rng: Generator, nearest: tuple[str, list[str]], reference: str
) -> Question:
    """`nearest` are the right one and all candidates."""
    right, candidates = nearest
    others = [name for name in candidates if name != right]
    facts: Facts = {"categories": [reference, *candidates]}
    question = choice(seen, rng, ("object_rel_distance", ""), (right, *others), facts)
    listed = tuple(option_text(option) for option in question.options or ())
    multiple = any(len(seen.stock.members[name]) > 1 for name in candidates)
    return replace(question, question=templates.ask_nearest(listed, reference, multiple))


# --- Directions ----------------------------------------------------------------------------------


def object_rel_direction_easy(seen: Observation, rng: Generator, limit: int) -> list[Question]:
    """Left or right of the object faced."""
    return _directions(seen, rng, limit, "object_rel_direction_easy")


def object_rel_direction_medium(seen: Observation, rng: Generator, limit: int) -> list[Question]:
    """Left, right or back."""
    return _directions(seen, rng, limit, "object_rel_direction_medium")


def object_rel_direction_hard(seen: Observation, rng: Generator, limit: int) -> list[Question]:
    """The quadrant of the target."""
    return _directions(seen, rng, limit, "object_rel_direction_hard")


def _directions(seen: Observation, rng: Generator, limit: int, kind: str) -> list[Question]:
    sectors = [name for _, name in rules.DIRECTIONS[kind]]
    names, triples, degrees = direction_triples(seen, rng)
    askable = rules.border_distance(kind, degrees) >= rules.DIRECTION_MARGIN
    ends = np.array([end for end, _ in rules.DIRECTIONS[kind]])
    sector = np.searchsorted(ends, degrees, side="right")
    questions: list[Question] = []
    for _ in range(limit):
        wanted = int(rng.integers(len(sectors)))
        fitting = np.flatnonzero(askable & (sector == wanted))
        if not len(fitting):
            continue
        n = int(fitting[int(rng.integers(len(fitting)))])
        askable[n] = False
        standing, facing, target = (names[k] for k in triples[n])
        others = [name for name in sectors if name != sectors[wanted]]
        words = templates.ask_direction(kind, standing, facing, target)
        facts = {"categories": [standing, facing, target], "degrees": float(degrees[n])}
        questions.append(choice(seen, rng, (kind, words), (sectors[wanted], *others), facts))
    return questions


def direction_triples(seen: Observation, rng: Generator) -> tuple[list[str], Array, Array]:
    """Single categories, triples [K, 3] (standing, facing, target) of them, and bearings [K]."""
    names = seen.stock.singles()
    if len(names) > _MAX_SINGLES:
        names = [names[n] for n in np.sort(rng.permutation(len(names))[:_MAX_SINGLES])]
    index = np.array([seen.stock.members[name][0] for name in names], dtype=np.intp)
    i, j = np.meshgrid(index, index, indexing="ij")
    apart = seen.stock.apart(i.ravel(), j.ravel()).reshape(i.shape)
    low, high = rules.DIRECTION_RANGE
    near = (apart >= low) & (apart <= high)  # also rules out an object with itself
    p, o, q = np.nonzero(near[:, :, None] & near[:, None, :] & near[None])
    centers = seen.stock.boxes.center[index]
    degrees = rules.bearing(centers[p], centers[o], centers[q])
    return names, np.stack([p, o, q], axis=1), degrees
