"""How replies are read."""

from __future__ import annotations

import pytest

from spatial_ttt.eval import parsing


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("3", 3.0),
        ("about 2.5 m", 2.5),
        ("1,250 cm", 1250.0),
        ("[2, 3]", 2.0),
        ("two", 2.0),
        ("There are twenty-one chairs.", 21.0),
        ("a hundred", None),  # "a" is no number word
        ("two hundred and five", 205.0),
        ("three thousand and four", 3004.0),
        ("<answer>4</answer> not 7", 4.0),
        ("12cm", 12.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("", None),
        ("none", None),
        ("1e999", None),
    ],
)
def test_lenient_number(reply: str, expected: float | None):
    assert parsing.lenient_number(reply) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("C", "C"),
        ("c)", "C"),
        ("**C**", "C"),
        ("Option C", "C"),
        ("The answer is (C)", "C"),
        ("A chair is there", None),  # "A" is an article here
        ("I think B", "B"),
        ("left", "A"),
        ("to the left", "A"),
        ("left or right", None),
        ("", None),
        ("<answer>B. right</answer>", "B"),
    ],
)
def test_lenient_letter(reply: str, expected: str | None):
    assert parsing.lenient_letter(reply, ("A. left", "B. right")) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("<answer>B. Lectern</answer>", "B"),
        ("A. is wrong, so C. it is", "C"),  # the last dotted letter wins
        ("My answer is D", "D"),
        ("<Answer>The answer is B</Answer> A", "B"),
        ("<Answer> (C) </Answer>", "C"),
        ("B", "B"),
        ("(B)", "B"),
        ("**D**", "D"),
        ("I see a TREE here", "E"),  # the benchmark's own oddity: the end of a word counts
        ("F.", None),
        ("", None),
        ("nothing", None),
    ],
)
def test_mindcube_letter(reply: str, expected: str | None):
    assert parsing.mindcube_letter(reply) == expected


def test_option_text():
    assert parsing.option_text("A. Turn Left, Turn Back") == "Turn Left, Turn Back"
    assert parsing.option_text("plain") == "plain"
