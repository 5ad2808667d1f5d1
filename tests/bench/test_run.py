"""A whole run at toy size: every measure in every mode says what it must."""

from __future__ import annotations

import json

import pytest
import torch

from spatial_ttt.bench.run import Told, _measured, run
from spatial_ttt.bench.subject import open_subject
from spatial_ttt.bench.table import render
from spatial_ttt.errors import BudgetError
from tests.bench.parts import SIZE, SLOT_TOKENS, small_plan, small_rig, small_subject

MUST = {"what", "mode", "frames", "seconds_to_first_token", "peak_gib", "model", "dtype"}


@pytest.fixture(scope="module")
def told() -> tuple[list[dict], list[str], int]:
    names: list[str] = []
    watched = [0]

    def tick(frames: int) -> None:
        watched[0] += frames

    lines = list(run(small_plan(), small_subject(), Told(names.append, tick)))
    return lines, names, watched[0]


def of(told, what: str, mode: str) -> list[dict]:
    return [line for line in told[0] if (line["what"], line["mode"]) == (what, mode)]


def test_every_measure_is_there_and_is_json(told):
    lines, names, watched = told
    assert len(lines) == len(names) == 2 * 3 + 2 * 2 + 2 * 2 + 1 + 2
    assert names[0] == "stock, 4 frames" and names[-1].startswith("sessions, bounded")
    assert watched > 600
    for line in lines:
        assert set(line) >= MUST and "failed" not in line
        assert json.loads(json.dumps(line)) == line
        assert line["peak_gib"] is None  # nobody counts on a CPU


def test_prefill_lines(told):
    for mode in ("stock", "exact", "bounded"):
        short, long = of(told, "prefill", mode)
        assert (short["frames"], long["frames"]) == (4, 12)
        assert long["tokens"] == 6 * SLOT_TOKENS + 5
        assert long["tflop"] > short["tflop"] > 0
        assert sum(long["tflop_by_part"].values()) == pytest.approx(long["tflop"])
        assert len(long["all_seconds"]) == 2 and long["seconds_to_first_token"] > 0
    ours, stock = of(told, "prefill", "exact")[1], of(told, "prefill", "stock")[1]
    assert "newton_schulz" in ours["tflop_by_part"] and "windows" not in stock["tflop_by_part"]
    all_layers = 4 * long["tokens"] * 2 * 32 * 4 / 2**30
    assert stock["memory_gib"]["anchors"] == pytest.approx(all_layers)
    memory = ours["memory_gib"]
    assert memory["weights"] > stock["memory_gib"]["weights"] > 0
    slot = SLOT_TOKENS * 2 * 32 * 4 / 2**30  # keys and values of one anchor, float32
    # Three layers below hold a slot back each; a growing buffer is at most half empty.
    assert 3 * slot <= memory["anchors"] <= 2 * 6 * slot
    assert memory["activations"] is None


def test_question_and_live_lines(told):
    for mode in ("exact", "bounded"):
        for line in of(told, "question", mode):
            assert len(line["all_seconds"]) == line["questions"] == 3
            assert line["seconds_all_answers"] > line["seconds_first_tokens"]
            assert line["tokens_per_second"] > 0
        quiet, asked = of(told, "live", mode)
        assert quiet["asks_every"] is None and quiet["seconds_to_first_token"] is None
        assert asked["asks_every"] == 4 and asked["seconds_to_first_token"] > 0
        assert asked["frames"] > quiet["frames"] >= 8
        assert quiet["p50_ms"] <= quiet["p90_ms"] <= quiet["p99_ms"] <= quiet["max_ms"]
        assert len(quiet["all_seconds"]) == 6


def test_bounded_and_session_lines(told):
    (line,) = of(told, "bounded", "bounded")
    assert line["frames"] == 96 and line["frames_compared"] == 24
    assert line["anchor_tokens"] % 256 == 0 and line["time_ratio"] > 0
    assert line["first"]["state_bytes"] > 0 and line["peak_ratio"] is None
    for mode in ("exact", "bounded"):
        (line,) = of(told, "sessions", mode)
        assert line["sessions"] == 3 and len(line["all_seconds"]) == 2
        assert line["frames"] == 2 * (3 + small_rig().warm_slots + 2)
        assert line["real_time_factor"] == pytest.approx(1 / (sum(line["all_seconds"]) / 2))
        assert line["p99_wait_ms"] >= line["p50_ms"] and line["bytes_per_session"] > 50_000


def test_the_table_holds_every_line(told):
    lines = told[0]
    shown = render(lines)
    assert shown.count("stock") == 2 and shown.count("bounded") == 8 + 1  # and a heading
    assert "first token s" in shown and "x real time" in shown


def test_out_of_memory_is_a_result():
    def work() -> dict:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore")

    known = {"what": "prefill", "mode": "stock", "frames": 8192}
    line = _measured(small_subject(), known, work)
    assert line["failed"] == "out of memory: CUDA out of memory. Tried to allocate 9 GiB"
    assert line["seconds_to_first_token"] is None
    assert "8,192" in render([line]) and render([line]).endswith("out of memory")


def test_a_budget_too_small_is_told_first():
    heard: list[str] = []
    plan = small_plan(anchor_bytes=10)
    with pytest.raises(BudgetError, match="at least"):
        next(run(plan, small_subject(), Told(heard.append)))
    assert not heard


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpus_peak_is_told_by_part():
    subject = open_subject("test", SIZE, torch.device("cuda"), torch.bfloat16)
    for line in run(small_plan(), subject):
        assert "failed" not in line and line["peak_gib"] > 0
        parts = line["memory_gib"]
        assert sum(parts.values()) == pytest.approx(line["peak_gib"])
        assert parts["weights"] > 0 and parts["activations"] > 0
