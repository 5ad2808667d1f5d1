"""Seconds by part, on a host and by a device's own clock."""

from __future__ import annotations

import time

import pytest
import torch

from spatial_ttt.stopwatch import Stopwatch


def test_parts_add_up():
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(2):
        with watch.part("vision"):
            time.sleep(0.01)
    watch.add("answer", 1.5)
    found = watch.read()
    assert 0.02 <= found.vision < 1 and found.answer == 1.5 and found.decoder == 0
    watch.add("answer", 1.0)
    assert found.answer == 1.5 and watch.read().answer == 2.5


def test_what_fails_does_not_count():
    watch = Stopwatch(torch.device("cpu"))
    with pytest.raises(ValueError), watch.part("decoder"):
        raise ValueError
    assert watch.read().decoder == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_device_is_not_waited_for():
    watch, x = Stopwatch(torch.device("cuda")), torch.randn(4096, 4096, device="cuda")
    x @ x
    torch.cuda.synchronize()
    started = time.perf_counter()
    with watch.part("decoder"):
        for _ in range(100):
            y = x @ x
    issued = time.perf_counter() - started
    torch.cuda.synchronize()
    took = time.perf_counter() - started
    assert y.isfinite().any()
    assert issued < watch.read().decoder <= took
