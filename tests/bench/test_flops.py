"""Counted operations: parts add up, modes differ where they should."""

from __future__ import annotations

import pytest
import torch

from spatial_ttt.bench.flops import Clip, bounded_pairs, flops, newton_schulz_flops, utilisation
from spatial_ttt.bench.subject import open_subject
from spatial_ttt.model.bounded_cache import AnchorPolicy
from spatial_ttt.train.flops import FlopCounter, SampleShape

PAPER = open_subject("spatial_ttt_2b", None, torch.device("cpu"), torch.bfloat16)
CLIP = Clip(1024, 40)


def test_the_parts_of_ours_add_up():
    parts = flops(PAPER, "exact", CLIP, None)
    counter = FlopCounter(PAPER.config, 2648, trains_vision=False)
    shape = SampleShape(512 * 174 + 40, 1, ((512, 352, 480),))
    assert sum(parts.values()) == pytest.approx(
        sum(counter.forward(shape).values()) + counter.vision(shape)
    )
    writes, matrices, steps, products = 33, 12 * 21, 5, 3  # 89,128 tokens in chunks of 2648
    assert newton_schulz_flops(PAPER, 512 * 174 + 40) == (
        writes * matrices * steps * products * 2 * 512**3
    )


def test_stock_attends_to_everything_in_every_layer():
    ours, stock = (flops(PAPER, mode, CLIP, None) for mode in ("exact", "stock"))
    assert stock["anchors"] == pytest.approx(4 * ours["anchors"])
    assert stock["vision"] == ours["vision"] and stock["head"] == ours["head"]
    # The figures on paper: 1407 TFLOP for stock, 866 for Spatial-TTT.
    assert sum(stock.values()) == pytest.approx(1407e12, rel=0.05)
    assert sum(ours.values()) == pytest.approx(866e12, rel=0.05)


def test_bounded_pairs_are_those_of_the_rule():
    def policy(*blocks: int) -> AnchorPolicy:
        return AnchorPolicy(*blocks, block_tokens=4, bits=8)

    assert bounded_pairs(policy(9, 9, 9), 50) == 50 * 51 / 2  # nothing is dropped
    own = 4 * 5 / 2
    # One sink, one recent block: 0, 1, 2, 2, 2 blocks are kept when each begins; the last is half full.
    assert bounded_pairs(policy(1, 1, 0), 18) == 4 * own + 4 * 4 * (0 + 1 + 2 + 2) + 2 * 8 + 3
    bounded = flops(PAPER, "bounded", CLIP, AnchorPolicy(1, 10, 10, 256, 16))
    assert bounded["anchors"] < 0.12 * flops(PAPER, "exact", CLIP, None)["anchors"]


def test_utilisation_needs_a_peak():
    cpu = torch.device("cpu")
    assert utilisation({"a": 2e12}, 4.0, cpu, 1.0) == {"tflop": 2.0, "peak_tflops": 1.0, "mfu": 0.5}
    assert utilisation({"a": 2e12}, 4.0, cpu, None)["mfu"] is None
