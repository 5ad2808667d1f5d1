"""Scores of runs: merging, missing types, foreign logs, answer keys, comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spatial_ttt.errors import ConfigError, DataError
from spatial_ttt.eval.benchmarks import load_benchmark
from spatial_ttt.eval.compare import compare, restrict
from spatial_ttt.eval.foreign import check_against_key, read_replies, read_scored_replies
from spatial_ttt.eval.predictions import Prediction, PredictionLog, prediction_of
from spatial_ttt.eval.scoring import summarise, summary_json
from tests.eval.clips import write_vsc, write_vsi_bench

OPTIONS = ("A. left", "B. right")


def choice(item_id: str, question_type: str, reply: str, clip: str = "") -> Prediction:
    return Prediction(
        item_id=item_id,
        question_type=question_type,
        kind="choice",
        answer="A",
        reply=reply,
        options=OPTIONS,
        clip=(clip,) if clip else (),
    )


def number(item_id: str, question_type: str, reply: str, answer: str = "4") -> Prediction:
    return Prediction(
        item_id=item_id, question_type=question_type, kind="number", answer=answer, reply=reply
    )


def full_run() -> list[Prediction]:
    """One question per type; scores 1 .6 .1 0 | 1 | easy 1, medium 0, hard 0 0 | 1 | 0."""
    return [
        number("0", "object_counting", "4"),
        number("1", "object_abs_distance", "5"),
        number("2", "object_size_estimation", "2"),
        number("3", "room_size_estimation", "many"),
        choice("4", "object_rel_distance", "A"),
        choice("5", "object_rel_direction_easy", "A."),
        choice("6", "object_rel_direction_medium", "B"),
        choice("7", "object_rel_direction_hard", "B"),
        choice("8", "object_rel_direction_hard", ""),
        choice("9", "route_planning", "a"),
        choice("10", "obj_appearance_order", "the answer is A"),
    ]


def test_overall_is_the_mean_of_the_eight_with_directions_merged():
    summary = summarise(full_run())
    direction = summary.types["object_rel_direction"]
    assert direction.score == pytest.approx(100 / 3) and direction.n == 4
    assert summary.subtypes["object_rel_direction_hard"].n == 2
    assert summary.overall is not None
    expected = 100 * np.mean([1, 0.6, 0.1, 0, 1, 1 / 3, 1, 0])
    assert summary.overall.score == pytest.approx(expected)
    assert summary.macro.score == pytest.approx(expected)
    assert summary.micro.score == pytest.approx(100 * (1 + 0.6 + 0.1 + 1 + 1 + 1) / 11)
    assert summary.micro.n == 11
    assert (summary.num_empty, summary.num_unreadable) == (1, 3)
    assert summary.types["obj_appearance_order"].lenient == 100.0
    assert list(summary.types)[:2] == ["object_counting", "object_abs_distance"]


def test_a_missing_type_is_named_and_not_counted_as_zero():
    some = [one for one in full_run() if one.question_type != "route_planning"]
    summary = summarise(some)
    assert summary.overall is None and summary.missing == ("route_planning",)
    assert summary.macro.score == pytest.approx(100 * np.mean([1, 0.6, 0.1, 0, 1, 1 / 3, 0]))


def test_a_missing_subtype_is_named_and_not_counted_as_zero():
    some = [one for one in full_run() if not one.question_type.endswith("_easy")]
    summary = summarise(some)
    assert summary.types["object_rel_direction"].missing == ("object_rel_direction_easy",)
    assert summary.types["object_rel_direction"].score == 0.0
    assert summary.overall is None and summary.missing == ("object_rel_direction_easy",)


def test_other_benchmarks_have_no_overall_and_miss_nothing():
    run = [choice("a", "among", "A"), choice("b", "around", "B"), choice("c", "among", "A")]
    summary = summarise(run)
    assert summary.overall is None and summary.missing == ()
    assert summary.micro.score == pytest.approx(200 / 3) and summary.macro.score == 50.0


def test_no_replies_and_two_replies_are_refused():
    with pytest.raises(DataError, match="no replies"):
        summarise([])
    with pytest.raises(DataError, match="'0' has 2 replies"):
        summarise([full_run()[0], full_run()[0]])


def test_summary_is_plain_json():
    text = json.dumps(summary_json(summarise(full_run())), allow_nan=False)
    assert json.loads(text)["types"]["object_counting"]["n"] == 1


class TestCompare:
    def runs(self) -> tuple[list[Prediction], list[Prediction]]:
        a = [choice(str(i), "vsr", "A" if i % 3 else "B", clip=str(i // 2)) for i in range(60)]
        b = [choice(str(i), "vsr", "A" if i % 6 else "B", clip=str(i // 2)) for i in range(60)]
        return a, b

    def test_paired_difference(self):
        a, b = self.runs()
        result = compare(a, list(reversed(b)))  # order does not matter
        line = result.lines["vsr"]
        assert (line.a, line.b) == (pytest.approx(200 / 3), pytest.approx(500 / 6))
        assert line.paired.difference == pytest.approx(100 / 6)
        assert 0 < line.paired.interval.low < 100 / 6 < line.paired.interval.high
        assert line.paired.p_value < 0.01
        assert result.num_equal_replies == 50 and result.different[0] == "3"

    def test_equal_runs_do_not_differ(self):
        a, _ = self.runs()
        result = compare(a, a)
        assert result.num_equal_replies == 60
        assert result.lines["micro"].paired.p_value == 1.0

    def test_different_items_or_answers_are_refused(self):
        a, b = self.runs()
        with pytest.raises(DataError, match="1 only in A, 0 only in B, 59 in both"):
            compare(a, b[1:])
        changed = [*b[:-1], choice("59", "among", "A")]
        with pytest.raises(DataError, match="different versions"):
            compare(a, changed)
        assert len(restrict(a, b[:10])) == 10


class TestForeign:
    def write(self, path: Path, rows: list[dict[str, Any]]) -> Path:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def document(self) -> dict[str, Any]:
        return {
            "id": 17,
            "dataset": "scannet",
            "scene_name": "s1",
            "question_type": "object_counting",
            "question": "How many?",
            "options": None,
            "ground_truth": "4",
        }

    def test_lmms_eval_sample_rows(self, tmp_path: Path):
        doc = self.document()
        rows = [
            {"doc_id": 0, "doc": doc, "resps": [["5"]], "filtered_resps": ["5"], "target": "4"},
            {"doc_id": 1, "doc": doc | {"id": 18}, "resps": [["4 chairs"]], "target": "4"},
            {"doc_id": 2, "vsibench_score": doc | {"id": 19, "prediction": "four"}},
            doc | {"id": 20, "prediction": "2"},
        ]
        found = read_replies(self.write(tmp_path / "samples.jsonl", rows))
        assert [(one.item_id, one.reply) for one in found] == [
            ("17", "5"),
            ("18", "4 chairs"),
            ("19", "four"),
            ("20", "2"),
        ]
        assert [one.score().official for one in found] == [0.6, 1.0, 0.0, 0.1]
        assert {one.clip for one in found} == {("scannet/s1.mp4",)}

    def test_whole_lmms_eval_results_file(self, tmp_path: Path):
        path = tmp_path / "results.json"
        logs = [{"doc_id": 3, "doc": self.document(), "filtered_resps": ["4"]}]
        path.write_text(json.dumps({"args": {}, "logs": logs}))
        assert summarise(read_replies(path)).micro.score == 100.0

    def test_mindcube_rows(self, tmp_path: Path):
        rows = [
            {
                "id": "around_1",
                "gt_answer": "B",
                "answer": "<answer>B. Door</answer>",
                "images": [],
            },
            {"id": "rotation_1", "gt_answer": "C", "answer": "My answer is D", "images": []},
        ]
        found = read_replies(self.write(tmp_path / "mindcube.jsonl", rows))
        assert [(one.question_type, one.score().official) for one in found] == [
            ("around", 1.0),
            ("rotation", 0.0),
        ]

    def test_streaming_counts(self, tmp_path: Path):
        doc = {"video_path": "a.mp4", "split": "10mins_streaming", "query_times": [60, 120]}
        row = {"doc_id": 0, "doc": doc | {"answers": [0, 4]}, "filtered_resps": ["[0, 5]"]}
        found = read_replies(self.write(tmp_path / "vsc.jsonl", [row]))
        assert [one.score().official for one in found] == [1.0, 0.6]
        row["filtered_resps"] = ["[0]"]
        with pytest.raises(DataError, match="1 replies, 2 answers"):
            read_replies(self.write(tmp_path / "vsc.jsonl", [row]))

    def test_unknown_rows_are_refused(self, tmp_path: Path):
        with pytest.raises(DataError, match="neither a reply of ours nor a known log row"):
            read_replies(self.write(tmp_path / "x.jsonl", [{"doc_id": 1, "resps": [["4"]]}]))
        with pytest.raises(DataError, match="no reply"):
            read_replies(self.write(tmp_path / "x.jsonl", [self.document()]))
        with pytest.raises(DataError, match="does not exist"):
            read_replies(tmp_path / "nothing.jsonl")


class TestAnswerKey:
    def replies(self, vsi: Path) -> list[Prediction]:
        items = load_benchmark("vsi-bench", vsi).items
        return [prediction_of(item, item.answer) for item in items]

    def test_matching_key(self, tmp_path: Path):
        vsi = write_vsi_bench(tmp_path / "vsi")
        with PredictionLog(tmp_path / "mine.jsonl") as log:
            for one in self.replies(vsi):
                log.append(one)
        found = read_scored_replies(tmp_path / "mine.jsonl", "vsi-bench", vsi)
        assert found == self.replies(vsi)
        overall = summarise(found).overall
        assert overall is not None and overall.score == 100.0
        with pytest.raises(ConfigError, match="needs both"):
            read_scored_replies(tmp_path / "mine.jsonl", "vsi-bench", None)

    def test_extra_rows_missing_rows_and_other_answers_are_refused(self, tmp_path: Path):
        vsi = write_vsi_bench(tmp_path / "vsi")
        key = load_benchmark("vsi-bench", vsi)
        replies = self.replies(vsi)
        with pytest.raises(DataError, match=r"1 rows have no reply \(first: '7'\), 0 replies"):
            check_against_key(replies[:7] + replies[8:], key)
        with pytest.raises(DataError, match=r"0 rows .* 1 replies have no row \(first: 'extra'\)"):
            check_against_key([*replies, number("extra", "object_counting", "1")], key)
        changed = [number("0", "object_counting", "4", answer="5"), *replies[1:]]
        with pytest.raises(DataError, match=r"'5' with its reply and '4' in .*nothing was scored"):
            check_against_key(changed, key)

    def test_streaming_items_match_too(self, tmp_path: Path):
        key = load_benchmark("vsc-streaming", write_vsc(tmp_path / "vsc"))
        check_against_key([prediction_of(item, "1") for item in key.items], key)


def test_a_killed_file_is_not_scored(tmp_path: Path):
    path = tmp_path / "mine.jsonl"
    with PredictionLog(path) as log:
        log.append(full_run()[0])
        log.append(full_run()[1])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"line 2 is no JSON|ends inside a line"):
        read_replies(path)
