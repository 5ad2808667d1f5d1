"""Routes in small steps: one turn in words, one blank of a route, all of them without options.

Every step is cut from a route question, so its truth is the benchmark's, margins included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from numpy.random import Generator

from spatial_ttt.scenes.questions import templates
from spatial_ttt.scenes.questions.question import Question
from spatial_ttt.scenes.questions.routes import route_planning
from spatial_ttt.scenes.questions.seen import Observation

Row = tuple[str, str, str]
"""Kind, question, answer."""

SIDES = {"Turn Left": "left", "Turn Right": "right", "Turn Back": "back"}
MORE_ROUTES = 8  # looked for beside those that are asked with options
LEG_LIMIT = 6  # single turns asked of a clip
BACK_KEPT = (
    0.5  # share of the turns back on a way that are asked: there are twice as many as to each side
)
ROUTE_LIMIT = 4  # routes asked in words, those of most turns first


def routes_of(seen: Observation, asked: Sequence[Question], rng: Generator) -> list[Question]:
    """The routes asked about already and some more, none twice."""
    known = {question.question: question for question in asked}
    more = {question.question: question for question in route_planning(seen, rng, MORE_ROUTES)}
    return list((more | known).values())


def exchanges(
    routes: Sequence[Question], prompt: Callable[[str], str], rng: Generator
) -> list[Row]:
    """All that is asked of routes in small steps; `prompt` adds how to answer a benchmark's question."""
    legs = dict.fromkeys(row for route in routes for row in leg_questions(route))
    kept = [row for row in legs if not _is_usual(row) or rng.random() < BACK_KEPT]
    return [*balanced(kept, rng, LEG_LIMIT), *_in_words(routes, prompt, rng)]


def turns_of(route: Question) -> list[str]:
    """The turns of a route in order, as the options write them."""
    return route.answer_text.split(", ")


def leg_questions(route: Question) -> list[Row]:
    """Each turn of a route by itself: where one stands, from where one came, where one goes on to."""
    origin, facing, *landmarks = route.facts["categories"]
    turns, rows = turns_of(route), []
    if facing != landmarks[0]:
        first, *turns = turns
        words = f"At the {origin}, facing the {facing}: to go to the {landmarks[0]}, "
        rows.append(_leg(words, first))
    stops = [origin, *landmarks]
    for came, at, on, turn in zip(stops, stops[1:], stops[2:], turns, strict=False):
        words = f"Coming from the {came} to the {at}: to go on to the {on}, "
        rows.append(_leg(words, turn))
    return rows


def _leg(words: str, turn: str) -> Row:
    return "dense_leg", f"{words}turn left, right or back?", SIDES[turn]


def _is_usual(row: Row) -> bool:
    return row[1].startswith("Coming") and row[2] == "back"


def _in_words(
    routes: Sequence[Question], prompt: Callable[[str], str], rng: Generator
) -> list[Row]:
    """Routes without options: where there are several blanks each alone, then all in order."""
    order = sorted(rng.permutation(len(routes)).tolist(), key=lambda n: -len(turns_of(routes[n])))
    rows = []
    for route in (routes[n] for n in order[:ROUTE_LIMIT]):
        turns = turns_of(route)
        if len(turns) > 1:
            for number, turn in zip(blanks(route), turns, strict=True):
                words = prompt(f"{route.question} What is action {number}?")
                rows.append(("dense_route", words, turn))
        rows.append(("dense_route", prompt(route.question), route.answer_text))
    return rows


def blanks(route: Question) -> list[int]:
    """Numbers of the actions that are left to fill in; every other one goes forward."""
    begins_with_turn = f"1. {templates.BLANK}" in route.question
    return [2 * n + (1 if begins_with_turn else 2) for n in range(len(turns_of(route)))]


def balanced(rows: Sequence[Row], rng: Generator, limit: int) -> list[Row]:
    """Up to `limit` rows, each answer as often as there are rows for it."""
    by_answer: dict[str, list[Row]] = {}
    for n in rng.permutation(len(rows)).tolist():
        by_answer.setdefault(rows[n][2], []).append(rows[n])
    rounds = max(map(len, by_answer.values()), default=0)
    found = [group[n] for n in range(rounds) for group in by_answer.values() if n < len(group)]
    return found[:limit]
