"""What a run says of itself."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from spatial_ttt.errors import DataError
from spatial_ttt.train.annealing import Reach
from spatial_ttt.train.clip_types import KINDS
from spatial_ttt.train.devices import HostCopy, Mark
from spatial_ttt.train.draw import best_caster
from spatial_ttt.train.pool import ClipSource, Order
from spatial_ttt.train.ring import ClipRing
from spatial_ttt.train.tiny_report import RECORD_EVERY, SHOWN_STEPS, Reporter, fill
from spatial_ttt.train.tiny_step import Launched
from tests.train import clips

REACH = Reach(48, True)


def launched(number: int, loss: float = 2.5, is_blind: bool = False) -> Launched:
    kinds = torch.full((len(KINDS),), float("nan"))
    kinds[1] = 0.75
    values = HostCopy(torch.cat((torch.tensor([loss, 1.25, 0.5]), kinds)))
    marks = (Mark(clips.CPU), Mark(clips.CPU), Mark(clips.CPU))
    for mark, time in zip(marks, (10.0, 10.1, 10.4), strict=True):
        mark.time = time
    names = ("loss", "grad_norm", "dense_pose")
    return Launched(number, "look", is_blind, names, values, marks, 10.0)


@pytest.fixture
def reporter(tmp_path: Path):
    source = ClipSource(0, (), best_caster(clips.CPU)[0])
    made = Reporter(tmp_path, clips.CPU, source)
    yield made
    made.close()


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_records_hold_losses_times_and_kinds(reporter: Reporter, tmp_path: Path) -> None:
    reporter.source.tally.made = 17
    reporter.finished(launched(1, is_blind=True), 4.0, REACH)
    (record,) = lines(tmp_path)
    assert record.pop("seconds") >= 0
    assert record == {
        "step": 1,
        "stage": "look",
        "blind": True,
        "loss": 2.5,
        "grad_norm": 1.25,
        "dense_pose": 0.5,
        "model_ms": 100.0,
        "optimizer_ms": 300.0,
        "clips_made": 17,
        "window": 48,
        "memory": True,
        "fill": 1.0,
        "by_kind": {KINDS[1]: 0.75},
    }


def test_the_first_steps_and_every_tenth_are_recorded(reporter: Reporter, tmp_path: Path) -> None:
    for number in range(1, 25):
        reporter.finished(launched(number), 1.0, REACH)
    steps = [record["step"] for record in lines(tmp_path)]
    assert steps == [*range(1, SHOWN_STEPS + 1), RECORD_EVERY, 2 * RECORD_EVERY]


def test_a_line_for_people_says_what_happened(reporter: Reporter, caplog) -> None:
    ring = ClipRing(clips.SPEC, 4, clips.CPU)
    reporter.source.stream = Order(
        ring=ring, difficulty=clips.LOOK, branch_length=96, next_seed=0, last_seed=9, most_under_way=4,
        under_way=2,
    )  # fmt: skip
    reporter.source.tally.dropped = 6
    with caplog.at_level(logging.INFO, logger="spatial_ttt"):
        reporter.finished(launched(2), 8.0, REACH)
        reporter.finished(
            launched(7), 8.0, REACH
        )  # not a shown step, and too soon for the next line
    (said,) = caplog.messages
    assert "step 2 look window 48 + memory: loss 2.5000 norm 1.25 pose 0.500" in said
    assert "device model 100 optimizer 300, host batch 8" in said
    assert "ring 0/4 (+2), dropped 6, failed 0" in said
    assert fill(None) == "none"


def test_a_loss_that_is_not_finite_is_an_error_and_no_record(
    reporter: Reporter, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="went astray"):
        reporter.finished(launched(1, loss=float("nan")), 1.0, REACH)
    assert lines(tmp_path) == []


def test_a_resumed_run_appends(reporter: Reporter, tmp_path: Path) -> None:
    reporter.write({"probe": "look"})
    other = Reporter(tmp_path, clips.CPU, reporter.source)
    other.write({"probe": "room"})
    other.close()
    assert [record["probe"] for record in lines(tmp_path)] == ["look", "room"]
