"""Order of appearance: clear orders only, and options that give nothing away."""

from __future__ import annotations

from collections import Counter

import numpy as np

from spatial_ttt.scenes.questions import appearance, observe
from tests.scenes.questions.test_seen import film, scene_of

CLEAR = [[50, 0, 0, 0], [0, 50, 0, 0], [0, 0, 50, 0], [0, 0, 0, 50]]


def test_a_clear_order() -> None:
    seen = observe(scene_of("bed", "tv", "sofa", "lamp"), *film(CLEAR))
    (question,) = appearance.obj_appearance_order(seen, np.random.default_rng(0), 3)
    assert question.answer_text == "bed, tv, sofa, lamp"
    assert question.facts["times_s"] == [0.0, 2.0, 4.0, 6.0]
    assert len(set(question.options or ())) == 4
    for option in question.options or ():
        assert sorted(option[3:].split(", ")) == ["bed", "lamp", "sofa", "tv"]


def test_an_early_trace_makes_the_order_unclear() -> None:
    traced = [row.copy() for row in CLEAR]
    traced[0][1] = 5  # the tv is there from the start, if one looks closely
    seen = observe(scene_of("bed", "tv", "sofa", "lamp"), *film(traced))
    assert appearance.clear_order(seen, ["bed", "tv", "sofa", "lamp"]) is None
    assert appearance.obj_appearance_order(seen, np.random.default_rng(0), 3) == []


def test_things_that_come_together_have_no_order() -> None:
    together = [[50, 50, 0, 0], [0, 0, 50, 0], [0, 0, 0, 50]]
    seen = observe(scene_of("bed", "tv", "sofa", "lamp"), *film(together))
    assert appearance.obj_appearance_order(seen, np.random.default_rng(0), 3) == []


def test_right_options_are_neither_central_nor_listed_first() -> None:
    """The words list the categories in random order, and wrong options are any other orders."""
    order = ("a", "b", "c", "d")
    shared: Counter[int] = Counter()
    for seed in range(400):
        options = appearance.order_options(order, np.random.default_rng(seed))
        assert options[0] == "a, b, c, d" and len(set(options)) == 4
        for wrong in options[1:]:
            pairs = zip(wrong.split(", "), order, strict=True)
            shared[sum(a == b for a, b in pairs)] += 1
    # Of the 23 other orders of four things, 9 keep none in place, 8 keep one, 6 keep two.
    for kept, of_23 in ((0, 9), (1, 8), (2, 6)):
        assert abs(shared[kept] / shared.total() - of_23 / 23) < 0.05
    seen = observe(scene_of("bed", "tv", "sofa", "lamp"), *film(CLEAR))
    listed = {
        appearance.obj_appearance_order(seen, np.random.default_rng(seed), 1)[0].question
        for seed in range(40)
    }
    assert len(listed) > 10
