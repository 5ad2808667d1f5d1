"""Sizes of launches are those that Triton's own functions give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spatial_ttt.model import kernels
from spatial_ttt.model.kernels.sizes import cdiv, next_power_of_2


def test_blocks_hold_all_and_no_block_is_empty() -> None:
    for count in range(70):
        for size in (1, 2, 7, 64):
            blocks = cdiv(count, size)
            assert (blocks - 1) * size < count <= blocks * size


def test_powers_of_two_hold_their_count() -> None:
    for count in (*range(1, 300), (1 << 31) - 1, 1 << 31, (1 << 31) + 1):
        power = next_power_of_2(count)
        assert power & (power - 1) == 0 and power // 2 < count <= power


def test_triton_says_the_same() -> None:
    triton = pytest.importorskip("triton")
    for count in (1, 2, 3, 63, 64, 65, 4800, 12_345):
        assert next_power_of_2(count) == triton.next_power_of_2(count)
        assert cdiv(count, 64) == triton.cdiv(count, 64)


def test_no_launcher_asks_triton() -> None:
    """There `tl.cdiv` is for the kernels themselves; host code has its own."""
    sources = sorted(Path(kernels.__file__).parent.glob("*.py"))
    assert len(sources) > 20
    calls = re.compile(r"\btriton\.(cdiv|next_power_of_2)\(")
    assert not [path.name for path in sources if calls.search(path.read_text())]
