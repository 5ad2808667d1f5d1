"""Percentiles are measured values, by the nearest rank."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_ttt.bench.clock import latencies, peak_bytes, percentile, seconds_of


@given(
    st.lists(st.floats(0, 1e3), min_size=1, max_size=60),
    st.floats(0, 100),
)
@settings(derandomize=True, deadline=None)
def test_a_percentile_is_the_least_value_that_covers_its_share(values, share):
    found = percentile(values, share)
    assert found in values
    assert sum(v <= found for v in values) >= share / 100 * len(values) - 1e-9
    below = [v for v in values if v < found]
    assert not below or len(below) < share / 100 * len(values)


def test_latencies_are_told_in_milliseconds():
    found = latencies([i / 1000 for i in range(1, 101)])
    assert found == {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "max_ms": 100.0}


def test_seconds_pass_and_a_cpu_has_no_peak():
    done: list[int] = []
    assert seconds_of(lambda: done.append(1), torch.device("cpu")) >= 0 and done == [1]
    assert peak_bytes(torch.device("cpu")) is None
