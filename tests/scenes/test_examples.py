"""Samples around questions and descriptions."""

from __future__ import annotations

import json

from spatial_ttt.data_format import parse_sample, sample_to_json
from spatial_ttt.eval.benchmarks.item import BenchmarkItem, Clip
from spatial_ttt.eval.profiles import build_prompt, load_profile
from spatial_ttt.scenes.examples import (
    DESCRIPTION_TYPE,
    PoolLine,
    pool_line_from_json,
    question_sample,
    samples_of,
)
from spatial_ttt.scenes.questions.question import Question

COUNT = Question("object_counting", "How many chair(s) are in this room?", None, "4", "home-1", 9.5)
CHOICE = Question(
    "object_rel_direction_easy",
    "If I am standing by the bed ...",
    ("A. left", "B. right"),
    "B",
    "home-1",
    7.0,
)
STREAM = Question(
    "vsc",
    "How many?",
    None,
    "3",
    "home-1",
    9.5,
    {},
    query_times=(2.0, 9.5),
    query_answers=("1", "3"),
)


def line(questions=(COUNT, CHOICE, STREAM), until_s=9.5):
    return PoolLine("train-0000001", "s.tar/k.mp4", until_s, "A room.\nTwo chairs.", questions)


def test_pool_lines_round_trip_through_json():
    assert pool_line_from_json(json.loads(json.dumps(line().to_json()))) == line()


def test_a_lines_samples_are_valid_and_complete():
    samples = list(samples_of([line()], seed=0))
    for sample in samples:
        assert parse_sample(sample_to_json(sample), "here") == sample
        assert sample.videos == ("s.tar/k.mp4",)
    by_type = {sample.question_type: sample for sample in samples}
    assert set(by_type) == {DESCRIPTION_TYPE, *(q.question_type for q in (COUNT, CHOICE, STREAM))}
    assert by_type[DESCRIPTION_TYPE].turns[1].text == "A room.\nTwo chairs."
    assert by_type["object_counting"].turns[1].text == "4"
    assert by_type["object_rel_direction_easy"].visible_until_s == 7.0
    assert by_type["vsc"].extra["query_answers"] == ["1", "3"]
    assert len({sample.id for sample in samples}) == 4


def test_without_times_all_of_a_video_is_seen():
    samples = list(samples_of([line(until_s=None)], seed=0))
    assert {sample.visible_until_s for sample in samples} == {None}


def test_wording_is_that_of_the_paper_profile_word_for_word():
    profile = load_profile("paper")
    for question, kind in ((COUNT, "number"), (CHOICE, "choice")):
        item = BenchmarkItem(
            item_id="x",
            question_type=question.question_type,
            kind=kind,
            question=question.question,
            options=question.options or (),
            answer=question.ground_truth,
            clip=Clip(paths=()),
        )
        sample = question_sample(question, "v.mp4", "x", None)
        assert sample.turns[0].text == "<video>\n" + build_prompt(item, profile)


def test_texts_depend_on_the_seed_and_the_scene_only():
    first, again = (list(samples_of([line()], seed=3)) for _ in range(2))
    assert first == again
    requests = {
        next(samples_of([PoolLine(f"train-{n}", "v", 1.0, "text", ())], seed=3)).turns[0].text
        for n in range(40)
    }
    assert len(requests) == 4
