"""Routes in small steps: every step's truth is the truth of the route it was cut from."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import numpy as np

from spatial_ttt.scenes import rules
from spatial_ttt.scenes.homes import home_seed, make_home
from spatial_ttt.scenes.questions import Question, observe_all, templates
from spatial_ttt.scenes.questions.routes import TURNS, route_planning
from spatial_ttt.train import route_words
from spatial_ttt.train.clip_types import categories
from spatial_ttt.train.encoder import Encoder
from spatial_ttt.train.named import NameFinder
from tests.train import clips

LEG = re.compile(
    r"(?P<form>At|Coming from) the (?P<a>.+?)(?:, facing| to) the (?P<b>.+?): "
    r"to go (?:on )?to the (?P<c>.+), turn left, right or back\?"
)


@cache
def routes() -> list[tuple[dict[str, np.ndarray], list[Question]]]:
    """Homes: where their single things stand, and routes through them."""
    found = []
    for number in range(36):
        home = make_home(home_seed("val", 700 + number), num_rooms=1 + number % 3)
        seen = observe_all(home.scene)
        boxes, members = seen.stock.boxes, seen.stock.members
        place = {name: boxes.center[members[name][0], :2] for name in seen.stock.singles()}
        found.append((place, route_planning(seen, np.random.default_rng(number), 6)))
    return found


def asked(number: int) -> list[route_words.Row]:
    rng = np.random.default_rng(number)
    return route_words.exchanges(routes()[number][1], lambda words: f"<{words}>", rng)


def turn(place: np.ndarray, ahead: np.ndarray, target: np.ndarray) -> str | None:
    """What the benchmark calls this turn, None where it is not clear."""
    degrees = float(rules.bearing(place[None], ahead[None], target[None])[0])
    return next((name for name, (low, high) in TURNS.items() if low <= degrees <= high), None)


def test_single_turns_are_those_of_the_robot_that_rolls_there() -> None:
    """At the landmark's middle and at the stop before it, by the ways the route was found on."""
    checked: Counter[str] = Counter()
    for place, found in routes():
        for route in found:
            rows = route_words.leg_questions(route)
            assert len(rows) == len(route_words.turns_of(route))
            starts = [np.array(way[0]) for way in route.facts["ways"]]
            stops = [np.array(way[1]) for way in route.facts["ways"]]
            said = []
            for _, words, answer in rows:
                match = LEG.fullmatch(words)
                assert match, words
                form, a, b, c = match.groups()
                if form == "At":
                    truths = [turn(at, place[b], place[c]) for at in (place[a], starts[0])]
                else:
                    way = route.facts["categories"][2:].index(b)
                    heading = stops[way] - starts[way]
                    truths = [turn(at, at + heading, place[c]) for at in (place[b], stops[way])]
                assert {route_words.SIDES[str(truth)] for truth in truths} == {answer}
                said.append(answer)
                checked[answer] += 1
            assert said == [route_words.SIDES[name] for name in route.answer_text.split(", ")]
    assert sum(checked.values()) > 200 and min(checked.values()) > 40


def test_blanks_are_asked_one_by_one_and_then_all_in_order() -> None:
    several = 0
    for number, (_, found) in enumerate(routes()):
        known = {route.question: route for route in found}
        single: dict[str, dict[int, str]] = {}
        for kind, words, answer in asked(number):
            if kind != "dense_route":
                continue
            question, _, blank = words[1:-1].partition(" What is action ")
            if blank:
                single.setdefault(question, {})[int(blank.rstrip("?"))] = answer
            else:
                assert answer == known[question].answer_text
        for question, turns in single.items():
            assert [turns[n] for n in sorted(turns)] == known[question].answer_text.split(", ")
            actions = question.split(templates.ROUTE_NOTE)[1]
            assert all(f"{n}. {templates.BLANK}" in actions for n in turns)
            assert actions.count(templates.BLANK) == len(turns) >= 2
            several += 1
    assert several >= 10


def test_no_answer_is_much_more_common_than_another() -> None:
    legs = [row for n in range(len(routes())) for row in asked(n) if row[0] == "dense_leg"]
    answers = Counter(answer for *_, answer in legs)
    assert set(answers) == {"left", "right", "back"} and len(legs) >= 80
    assert max(answers.values()) < 0.45 * len(legs)
    coming = Counter(answer for _, words, answer in legs if words.startswith("Coming"))
    assert max(coming.values()) < 0.55 * sum(coming.values())
    assert max(Counter(words for _, words, _ in asked(0)).values()) == 1


def test_every_name_is_marked_for_the_read_outs() -> None:
    encode = Encoder(clips.tokenizer().backend_tokenizer).encode
    names = NameFinder(encode, {name: n for n, name in enumerate(categories()) if n})
    checked = 0
    for number in range(10):
        for kind, words, _ in asked(number):
            found = [categories()[n] for n in names.ends(encode(words)) if n]
            if kind == "dense_leg":
                match = LEG.fullmatch(words)
                assert match and found == list(match.group("a", "b", "c")), words
            else:
                known = {route.question: route for route in routes()[number][1]}
                route = known[words[1:-1].split(" What is action ")[0]]
                assert set(found) == set(route.facts["categories"]), words
            checked += 1
    assert checked >= 30


def test_routes_asked_with_options_are_among_those_asked_in_words() -> None:
    seen = observe_all(make_home(home_seed("val", 701), num_rooms=2).scene)
    rng = np.random.default_rng(0)
    two = route_planning(seen, rng, 2)
    all_routes = route_words.routes_of(seen, two, rng)
    assert set(map(id, two)) <= set(map(id, all_routes)) and len(all_routes) > 2
    assert len({route.question for route in all_routes}) == len(all_routes)
