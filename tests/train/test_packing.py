"""The plan of a run: nothing lost, nothing twice, the same for any number of processes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_ttt.errors import ConfigError
from spatial_ttt.train.dataset import my_units
from spatial_ttt.train.packing import StepPlan
from spatial_ttt.train.run_config import DataConfig
from spatial_ttt.train.samples import SampleIndex


def index(tokens, samples=None) -> SampleIndex:
    counts = np.array(samples or [1] * len(tokens))
    places = np.zeros((len(tokens), 3), np.int64)
    return SampleIndex((Path("a.jsonl"),), {}, places, np.array(tokens), counts)


def plan(tokens, *, seed=0, epochs=1.0, max_steps=None, samples=None, **data) -> StepPlan:
    config = DataConfig(files=("a.jsonl",), **data)
    return StepPlan(index(tokens, samples), config, seed, epochs, max_steps)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    tokens=st.lists(st.integers(1, 100), min_size=1, max_size=60),
    most=st.integers(100, 300),
    samples=st.integers(1, 8),
    per_world=st.integers(1, 3),
    world=st.integers(1, 4),
    seed=st.integers(0, 5),
)
def test_every_record_once_an_epoch_on_any_number_of_processes(
    tokens, most, samples, per_world, world, seed
):
    data = {"max_tokens": most, "max_samples": samples, "packs_per_step": per_world * world}
    whole = plan(tokens, seed=seed, epochs=2.0, **data)
    dealt = [list(my_units(whole, 0, rank, world)) for rank in range(world)]
    assert len({len(units) for units in dealt}) == 1, "processes go through as many packs"
    seen = Counter(number for units in dealt for unit in units for number in unit)
    assert seen == dict.fromkeys(range(len(tokens)), 2)
    for units in dealt:
        for unit in units:
            assert sum(tokens[n] for n in unit) <= most and len(unit) <= samples
    steps = [whole.packs(step) for step in range(whole.num_steps)]
    for rank, units in enumerate(dealt):
        mine = [pack for step in range(whole.num_steps) for pack in whole.share(step, rank, world)]
        assert mine == units
    first_epoch = Counter(n for packs in steps[: whole.num_steps // 2] for p in packs for n in p)
    assert max(first_epoch.values()) <= 2


def test_epochs_differ_and_seeds_decide():
    tokens = [10] * 40
    data = {"max_tokens": 30, "packs_per_step": 2}
    steps = [plan(tokens, seed=1, epochs=2.0, **data).packs(s) for s in range(14)]
    assert steps == [plan(tokens, seed=1, epochs=2.0, **data).packs(s) for s in range(14)]
    assert steps != [plan(tokens, seed=2, epochs=2.0, **data).packs(s) for s in range(14)]
    assert steps[:7] != steps[7:]


def test_a_run_that_goes_on_takes_the_packs_that_were_left():
    whole = plan([10] * 40, epochs=2.0, max_tokens=30, packs_per_step=4)
    every = list(my_units(whole, 0, 1, 2))
    assert list(my_units(whole, 3, 1, 2)) == every[6:]


def test_lengths_of_runs():
    data = {"max_tokens": 10, "packs_per_step": 4}
    assert plan([10] * 10, **data).num_steps == 3  # 4, 4 and 2 packs
    assert plan([10] * 10, epochs=2.5, **data).num_steps == 8
    assert plan([10] * 10, epochs=0.1, **data).num_steps == 1
    assert plan([10] * 10, epochs=9, max_steps=5, **data).num_steps == 5
    two = plan([10] * 10, epochs=2.0, **data)
    assert [round(two.epoch_of(step), 3) for step in (0, 1, 3, 5, 6)] == [0, 0.333, 1, 1.667, 2]


def test_the_number_of_processes_must_divide_a_step():
    with pytest.raises(ConfigError, match="packs_per_step 8 does not divide among 3 processes"):
        plan([10] * 10, packs_per_step=8).share(0, 0, 3)


def test_records_of_several_samples_count_them_all():
    found = plan([10] * 6, samples=[3] * 6, max_samples=6, packs_per_step=1)
    assert [len(found.packs(step)[0]) for step in range(found.num_steps)] == [2, 2, 2]
