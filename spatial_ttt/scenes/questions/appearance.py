"""The order in which categories first came into view."""

from __future__ import annotations

import itertools

from numpy.random import Generator

from spatial_ttt.scenes import rules
from spatial_ttt.scenes.questions import templates
from spatial_ttt.scenes.questions.choices import choice
from spatial_ttt.scenes.questions.question import Question
from spatial_ttt.scenes.questions.seen import Observation

NUM_ORDERED = 4
NUM_OPTIONS = 4
_TRIES = 64


def obj_appearance_order(seen: Observation, rng: Generator, limit: int) -> list[Question]:
    """Four categories whose first appearances lie clearly apart; options are orders of them."""
    names = list(seen.first_clear)
    questions: list[Question] = []
    used: set[tuple[str, ...]] = set()
    if len(names) < NUM_ORDERED:
        return []
    for _ in range(_TRIES if limit > 0 else 0):
        chosen = [names[n] for n in rng.permutation(len(names))[:NUM_ORDERED]]
        order = clear_order(seen, chosen)
        if order is None or order in used:
            continue
        used.add(order)
        questions.append(_ask(seen, rng, order))
        if len(questions) == limit:
            break
    return questions


def clear_order(seen: Observation, names: list[str]) -> tuple[str, ...] | None:
    """The order of first appearances, or None if it depends on what counts as an appearance.

    A category appears somewhere between its first trace and its first clear view; the order is
    clear if one has been in clear view for a while before the next leaves its first trace.
    """
    if not rules.is_clear_order([seen.first_clear[name] for name in names]):
        return None
    order = rules.appearance_order(seen.first_clear, names)
    clear = [seen.first_clear[name] for name in order]
    trace = [seen.first_trace[name] for name in order]
    apart = all(
        later - earlier > rules.APPEARANCE_GAP
        for earlier, later in zip(clear, trace[1:], strict=False)
    )
    return order if apart else None


def _ask(seen: Observation, rng: Generator, order: tuple[str, ...]) -> Question:
    options = order_options(order, rng)
    listed = tuple(order[n] for n in rng.permutation(len(order)))
    facts = {
        "categories": list(order),
        "times_s": [seen.first_clear[name] for name in order],
    }
    words = templates.ask_appearance(listed)
    return choice(seen, rng, ("obj_appearance_order", words), options, facts)


def order_options(order: tuple[str, ...], rng: Generator) -> tuple[str, ...]:
    """The right order first, then others of the same things, each joined by commas."""
    wrong = list(itertools.permutations(order))[1:]  # the first one is the order itself
    picked = rng.permutation(len(wrong))[: NUM_OPTIONS - 1]
    return tuple(", ".join(names) for names in (order, *(wrong[n] for n in picked)))
