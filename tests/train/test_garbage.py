"""Garbage of a training run: collected when it is told to, and as before afterwards."""

from __future__ import annotations

import gc
import weakref

import pytest

from spatial_ttt.train.garbage import collected_between_steps


class Ring:
    """Refers to itself, so that only the collector ends it."""

    def __init__(self) -> None:
        self.itself = self


def test_rings_go_after_so_many_steps_and_not_before() -> None:
    assert gc.isenabled()
    with collected_between_steps(every=3) as after_step:
        gone = weakref.ref(Ring())
        for number in range(3):
            assert not gc.isenabled() and gone() is not None, number
            [[] for _ in range(5000)]  # enough to start a collector that is on
            after_step()
        assert gone() is None
    assert gc.isenabled() and gc.get_freeze_count() == 0


def test_a_failing_run_leaves_the_collector_on() -> None:
    with pytest.raises(ValueError, match="step"), collected_between_steps():
        raise ValueError("a step failed")
    assert gc.isenabled() and gc.get_freeze_count() == 0


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collected_between_steps():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
