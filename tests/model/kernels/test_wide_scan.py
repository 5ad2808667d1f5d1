"""Which scans the training kernels of wide heads take, and how they are told to keep Newton-Schulz's steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from spatial_ttt.engine import keep_newton_schulz
from spatial_ttt.model import fast_weights as fw
from spatial_ttt.model.configuration import paper_ttt_config
from spatial_ttt.model.kernels import wide_scan
from spatial_ttt.model.kernels.wide_scan import problem
from spatial_ttt.testing.small import small_model
from tests.model.streams import push, random_stream, video


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


@pytest.mark.parametrize("keeps", [False, True])
def test_every_layer_says_whether_steps_are_kept(
    keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model(chunk_size=7, window_size=9)
    if keeps:
        keep_newton_schulz(model)
    told, plain = [], fw.scan

    def noting(*given: Any, **how: Any) -> Any:
        told.append(how["keep_newton_schulz"])
        return plain(*given, **how)

    monkeypatch.setattr(fw, "scan", noting)
    push(model, random_stream(model, video((2, 3), 4)), ())
    assert told == [keeps] * len(told) and len(told) > 1


@pytest.mark.parametrize("keeps", [False, True])
def test_a_scan_hands_on_whether_steps_are_kept(
    keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = fw.FastWeights(*torch.zeros(3, 1, 256, 256))
    tokens = torch.zeros(1, 1, 9, 256, dtype=torch.bfloat16)
    inputs = fw.FastInputs(tokens, tokens, tokens, torch.zeros(1, 1, 9, 3), torch.zeros(1, 1, 9))

    def scan(state: Any, left: fw.FastInputs, *rest: Any) -> tuple[Tensor, Any, fw.FastInputs]:
        assert rest[-1] is keeps
        return left.query, state, left.cut(8, 9)

    monkeypatch.setattr(wide_scan, "scan", scan)
    monkeypatch.setattr(fw, "resolve_backend", lambda *_: ("triton", ""))
    start = fw.initial_state(weights, 1)
    rule = paper_ttt_config(chunk_size=4)
    how = {"keep_state": False, "keep_newton_schulz": keeps}
    out, _ = fw.scan(start, inputs, weights, rule, **how)
    assert out.shape == tokens.shape
