"""One item ahead: the order of the work, what happens when it fails, and the same numbers as without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from spatial_ttt.bench.ingest import open_ingest
from spatial_ttt.bench.rig import open_rig
from spatial_ttt.bench.subject import open_subject
from spatial_ttt.model import ahead
from spatial_ttt.model.ahead import one_ahead
from tests.bench.parts import SIZE, small_plan
from tests.model.streams import same_bits

CUDA = torch.device("cuda")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was begun and what was taken, without a device."""
    done: list[str] = []

    def aside(make: Any, item: Any, device: torch.device) -> Any:
        done.append(f"make {item}")
        return make(item)

    monkeypatch.setattr(ahead, "_aside", aside)
    monkeypatch.setattr(ahead, "_taken", lambda made, device: made)
    return done


def test_a_cpu_makes_each_item_when_it_is_wanted(log: list[str]) -> None:
    made = one_ahead(lambda n: 2 * n, iter([1, 2, 3]), torch.device("cpu"))
    assert list(made) == [2, 4, 6] and not log


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_the_next_item_is_begun_before_the_last_is_handed_out(log: list[str], count: int) -> None:
    for made in one_ahead(lambda n: 10 * n, range(count), CUDA):
        log.append(f"use {made // 10}")
    begun = [line for line in log if line.startswith("make")]
    assert begun == [f"make {n}" for n in range(count)]
    assert [line for line in log if line.startswith("use")] == [f"use {n}" for n in range(count)]
    for n in range(count - 1):
        assert log.index(f"make {n + 1}") < log.index(f"use {n}")
        assert n + 2 >= count or log.index(f"use {n}") < log.index(f"make {n + 2}")


@pytest.mark.parametrize("where", ["item", "make"])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_what_came_before_a_failure_is_handed_out(
    log: list[str], where: str, kind: type[BaseException]
) -> None:
    def items() -> Iterator[int]:
        yield from (0, 1)
        if where == "item":
            raise kind("item")
        yield 2

    def make(n: int) -> int:
        if n == 2:
            raise kind("make")
        return n

    used = []
    with pytest.raises(kind, match=where):
        for made in one_ahead(make, items(), CUDA):
            used.append(made)
    assert used == [0, 1]


def test_whoever_stops_early_leaves_nothing_open(log: list[str]) -> None:
    closed = []

    def items() -> Iterator[int]:
        try:
            yield from range(9)
        finally:
            closed.append(True)

    made = one_ahead(lambda n: n, items(), CUDA)
    assert next(made) == 0
    made.close()
    assert closed == [True] and log == ["make 0", "make 1"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@torch.no_grad()
def test_a_tower_that_runs_ahead_changes_no_bit() -> None:
    rig = open_rig(small_plan(), open_subject("test", SIZE, CUDA, torch.float32), "exact")
    pieces = rig.subject.frames(40).split(8)
    together = open_ingest("plain", rig.model, rig.subject)
    together.watch(pieces)
    apart = open_ingest("plain", rig.model, rig.subject)
    for piece in pieces:
        apart.watch([piece])
        torch.cuda.synchronize()
    assert same_bits(together.state, apart.state)
