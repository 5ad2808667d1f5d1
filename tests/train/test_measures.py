"""Sums of a step and the record made of them, by hand."""

from __future__ import annotations

import pytest
import torch

from spatial_ttt.model.layout import text
from spatial_ttt.testing.small import small_config
from spatial_ttt.train.conversation import Encoded
from spatial_ttt.train.dataset import LoadedPack, LoadedSample
from spatial_ttt.train.flops import FlopCounter, SampleShape
from spatial_ttt.train.measures import StepSums, Timing, memory_gib, pack_sums, step_record
from spatial_ttt.train.packed import PackSums


def test_sums_of_packs():
    encoded = Encoded([1, 2, 3], [False, True, True], (text(3),))
    pack = LoadedPack((LoadedSample("a", encoded, ()),) * 2, 1)
    out = PackSums(torch.tensor(6.0, requires_grad=True), torch.tensor([4.0, 3, 2, 1]).double())
    counter = FlopCounter(small_config(), 24, True)
    sums = StepSums(*pack_sums(pack, out, counter).tolist())
    assert sums == StepSums(6.0, 4.0, 3.0, 2.0, 1.0, 6.0, sums.flops, 1.0, 0.0)
    assert sums.flops == counter.step([SampleShape(3, 2)] * 2) > 0


def test_the_record_of_a_step():
    sums = StepSums(6.0, 4.0, 3.0, 2.0, 1.0, 600.0, 5e12, 1.0, 0.0)
    record = step_record(sums, Timing(2.0, 0.5), 1e13, 3.5)
    assert (
        record["loss"] == 1.5
        and record["token_accuracy"] == 0.75
        and record["exact_answers"] == 0.5
    )
    assert record["tokens_per_second"] == 300 and record["mfu"] == pytest.approx(0.25)
    assert record["data_seconds"] == 0.5 and record["memory_gib"] == 3.5
    nothing = step_record(StepSums(), Timing(1.0, 0.0), None, 0.0)
    assert nothing["loss"] == 0.0 and nothing["mfu"] is None


def test_memory_of_this_process():
    assert 0.05 < memory_gib(torch.device("cpu")) < 100
