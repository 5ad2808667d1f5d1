"""Which scans the training kernels of wide heads take."""

from __future__ import annotations

import torch

from spatial_ttt.model import fast_weights as fw
from spatial_ttt.model.configuration import paper_ttt_config
from spatial_ttt.model.kernels.wide_scan import problem


def _problem(width: int, dtype: torch.dtype = torch.bfloat16, work: str = "bfloat16") -> str | None:
    rule = paper_ttt_config(newton_schulz_dtype=work)
    weights = fw.FastWeights(*torch.zeros(3, 2, width, width))
    tokens = torch.zeros(1, 2, 5, width, dtype=dtype)
    inputs = fw.FastInputs(tokens, tokens, tokens, torch.zeros(1, 2, 5, 3), torch.zeros(1, 2, 5))
    return problem(fw.initial_state(weights, 1), inputs, rule)


def test_takes_the_2b_models_heads_in_training_only() -> None:
    """Heads of 512 in bfloat16, with gradients."""
    assert _problem(512) is None
    with torch.no_grad():
        assert "training" in str(_problem(512))


def test_says_why_others_go_elsewhere() -> None:
    """Narrow heads, odd widths and float32 keep their own paths."""
    assert "narrow" in str(_problem(64))
    assert "multiple of 128" in str(_problem(200))
    assert "bfloat16" in str(_problem(512, torch.float32))
    assert "bfloat16" in str(_problem(512, work="float32"))
