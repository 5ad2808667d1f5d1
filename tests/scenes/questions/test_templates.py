"""The benchmark's wording: exact, and read back whatever the categories are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_ttt.scenes.questions import templates as t

REAL = Path(__file__).parents[3] / "../shared/real/vsi_bench_arkitscenes.jsonl"
NAMES = st.sampled_from(
    ["bed", "tv", "trash can", "chest of drawers", "range hood", "glass", "set-top box", "books"]
)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(NAMES, NAMES, NAMES, NAMES)
def test_what_is_asked_can_be_read(a: str, b: str, c: str, d: str) -> None:
    asked = [
        (t.ask_count(a), "object_counting", (a,)),
        (t.ask_distance(a, b), "object_abs_distance", (a, b)),
        (t.ask_size(a), "object_size_estimation", (a,)),
        (t.ask_nearest((a, b, c, d), b, False), "object_rel_distance", (a, b, c, d, b)),
        (t.ask_room_size(), "room_size_estimation", ()),
    ]
    asked += [
        (t.ask_direction(f"object_rel_direction_{level}", a, b, c),
         f"object_rel_direction_{level}", (a, b, c))
        for level in ("easy", "medium", "hard")
    ]  # fmt: skip
    for words, kind, names in asked:
        for given_type in (None, kind):
            parsed = t.parse(words, given_type)
            assert parsed is not None
            assert (parsed.question_type, parsed.names) == (kind, names)


def test_the_note_on_several_instances_is_read() -> None:
    parsed = t.parse(t.ask_nearest(("a", "b", "c", "d"), "x", True))
    assert parsed is not None and parsed.multiple


def test_a_type_that_contradicts_the_words_reads_nothing() -> None:
    assert t.parse(t.ask_count("bed"), "object_size_estimation") is None
    assert t.parse("What colour is the bed?") is None
    assert t.parse(t.ask_appearance(("a", "b", "c", "d")), "obj_appearance_order") is None


def test_the_route_template_is_the_benchmarks() -> None:
    words = t.ask_route("bed", "tv", "door", ("Go forward until the tv", t.BLANK))
    assert words == (
        "You are a robot beginning at the bed and facing the tv. You want to navigate to the door. "
        "You will perform the following actions (Note: for each [please fill in], choose either "
        "'turn back,' 'turn left,' or 'turn right.'): 1. Go forward until the tv 2. [please fill "
        "in]. You have reached the final destination."
    )


@pytest.mark.skipif(not REAL.exists(), reason="the benchmark's questions are not here")
def test_our_wording_is_the_benchmarks_to_the_letter() -> None:
    for line in REAL.read_text().splitlines():
        record = json.loads(line)
        kind, words = record["question_type"], record["question"]
        if kind == "route_planning":
            continue
        parsed = t.parse(words)
        assert parsed is not None and parsed.question_type == kind
        names = parsed.names
        again = {
            "object_counting": lambda n=names: t.ask_count(*n),
            "object_abs_distance": lambda n=names: t.ask_distance(*n),
            "object_size_estimation": lambda n=names: t.ask_size(*n),
            "room_size_estimation": t.ask_room_size,
            "object_rel_distance": lambda n=names: t.ask_nearest(n[:-1], n[-1], False),
        }.get(kind, lambda n=names, k=kind: t.ask_direction(k, *n))()
        assert again == words
