"""What is asked of streams, as tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_ttt.train.clip_types import KINDS, categories
from spatial_ttt.train.stream_asker import COUNTS, Exchange, tabulate
from tests.train import clips

INDEX = {name: n for n, name in enumerate(categories())}
BY = [INDEX[name] for name in ("bed", "desk", "coffee table", "piano")]


def words(one: Exchange) -> tuple[str, str]:
    decode = clips.tokenizer().decode
    return decode(one.ids[: one.start]).split("<|im_end|>")[0], decode(one.ids[one.start : -1])


def named(one: Exchange) -> list[str]:
    return [categories()[n] for n in one.named if n]


def amounts(seen: dict[str, int]) -> NDArray[np.int32]:
    """Instances of each category."""
    row = np.zeros(len(categories()), np.int32)
    for name, count in seen.items():
        row[INDEX[name]] = count
    return row


def test_what_is_asked_is_what_nobody_can_be_unsure_of() -> None:
    counted, glimpsed = amounts({"chair": 700, "lamp": 9, "sofa": 1}), amounts({"lamp": 3})
    asked = clips.asker().counts(counted, glimpsed, np.random.default_rng(0))
    assert {words(one)[1] for one in asked} == {"700", "1"}
    for one in asked:
        question, answer = words(one)
        assert KINDS[one.kind] == "vsc" and answer == one.answer
        assert question.endswith("using a single word or phrase.")
        assert named(one) == [question.split("How many different ")[1].split("(s)")[0]]
    nothing = clips.asker().counts(amounts({}), glimpsed, np.random.default_rng(0))
    assert [one.answer for one in nothing] == ["0"]


def test_counts_of_a_long_stream_are_spread_over_the_scale() -> None:
    names = [name for name in categories()[1:] if not name.endswith("s")][:60]
    many = np.unique(np.geomspace(1, 240, len(names)).round().astype(int)).tolist()
    counted = amounts(dict(zip(names, many, strict=False)))
    asked = clips.asker().counts(counted, amounts({}), np.random.default_rng(0))
    counts = np.array([int(one.answer) for one in asked])
    assert 10 < len(counts) <= COUNTS and len(set(counts.tolist())) == len(counts)
    tens = np.bincount(np.log10(counts).astype(int), minlength=3)
    assert tens.min() >= len(counts) // 5


def test_an_order_is_asked_in_small_steps_by_letters_and_in_words() -> None:
    asked = clips.asker().order(INDEX["guitar"], BY, np.random.default_rng(0))
    kinds = [KINDS[one.kind] for one in asked]
    assert kinds == ["dense_recall"] * 7 + ["vsr"] * 4 + ["dense_recall"]
    for one, kind in zip(asked, kinds, strict=True):
        question, answer = words(one)
        assert answer == one.answer and "guitar" in named(one)
        if kind == "vsr":
            listed = question.split("Options:\n")[1].split("\nAnswer with")[0].split("\n")
            assert listed["ABCD".index(answer)] == f"{answer}. Bed, Desk, Coffee table, Piano"
            assert sorted(named(one)[1:5]) == ["bed", "coffee table", "desk", "piano"]
            assert len(named(one)) == 17
    assert words(asked[-1])[1] == "Bed, Desk, Coffee table, Piano"
    few = clips.asker().order(INDEX["guitar"], BY[:2], np.random.default_rng(0))
    assert [KINDS[one.kind] for one in few] == ["dense_recall"] * 4
    assert clips.asker().order(0, [], np.random.default_rng(0)) == []


def test_a_table_keeps_each_streams_questions_apart() -> None:
    asker = clips.asker()
    rows = [[asker.count(1, 7)], asker.order(INDEX["guitar"], BY, np.random.default_rng(1))]
    table = tabulate(rows)
    assert table.ids.shape == table.named.shape and table.ids.shape[:2] == (2, 12)
    assert table.ids.shape[2] % 8 == 0 and not table.stop[0, 1:].any()
    for row, asked in enumerate(rows):
        for n, one in enumerate(asked):
            stop = table.stop[row, n]
            assert (
                table.ids[row, n, :stop].tolist() == one.ids and not table.ids[row, n, stop:].any()
            )
            assert table.named[row, n, : one.start].tolist() == one.named
            assert not table.named[row, n, one.start :].any()
            assert (table.start[row, n], table.kind[row, n]) == (one.start, one.kind)
