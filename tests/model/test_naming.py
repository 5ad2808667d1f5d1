"""The authors' tensor names and ours."""

from __future__ import annotations

import pytest

from spatial_ttt.model.naming import from_official
from spatial_ttt.testing.small import small_model

AT = "model.language_model.layers.0.self_attn."


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("attn_layer.q_proj.weight", "q_proj.weight"),
        ("attn_layer.k_norm.weight", "k_norm.weight"),
        ("w0", "fast_weights.gate"),
        ("w1", "fast_weights.down"),
        ("w2", "fast_weights.up"),
        ("w0.w_left", "fast_weights.gate_left"),
        ("w2.w_right", "fast_weights.up_right"),
        ("momentum_proj.0.bias", "momentum_proj.bias"),
        ("lr_proj.weight", "lr_proj.weight"),
        ("conv_q.weight", "conv_q.weight"),
        ("ttt_norm.weight", "ttt_norm.weight"),
    ],
)
def test_names(official, ours):
    assert from_official(AT + official) == AT + ours
    assert from_official(official) == ours  # golden layer files name tensors from self_attn on


def test_stock_names_and_our_own_stay():
    names = list(small_model().state_dict())
    assert [from_official(n) for n in names] == names
    for name in ("model.visual.blocks.0.attn.qkv.weight", "lm_head.weight"):
        assert from_official(name) == name
