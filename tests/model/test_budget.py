"""The budget stated beforehand bounds the bytes a stream takes, and not by much."""

from __future__ import annotations

import pytest
import torch

from spatial_ttt.model.budget import state_budget
from spatial_ttt.model.layout import join_all, text
from spatial_ttt.model.state import layer_bytes
from spatial_ttt.presets import spatial_ttt_2b
from tests.model.streams import model_of, push, random_stream, video


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("convolution", ["centred", "causal", "none"])
@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("momentum", [True, False])
@torch.no_grad()
def test_a_stream_takes_what_its_budget_says(momentum, placement, convolution, dtype):
    rule = {"use_momentum": momentum, "norm_placement": placement, "convolution": convolution}
    model = model_of(dtype, chunk_size=12, window_size=12, **rule)
    gap = 6
    stream = random_stream(model, join_all([(text(gap),), video((2, 3), 20, gap, ends=False)]))
    budget = state_budget(model.config, (2, 3), dtype, text_per_slot=gap)
    most, state = 0, model.decoder.start()
    for start in range(0, stream.length, 12):
        _, state = push(model, stream.piece(start, start + 12), state=state)
        ttt = sum(layer_bytes(s) for s in state.layers if hasattr(s, "fast"))
        most = max(most, ttt)
        assert ttt <= budget.fixed
        assert state.num_bytes <= budget.total(state.num_tokens)
    # Every layer is taken to hold the text after its slot, which the last piece has not brought yet.
    assert most >= 0.95 * budget.fixed
    anchor = sum(layer_bytes(s) for s in state.layers if not hasattr(s, "fast"))
    # Three layers hold a slot each, two of them with the text after it.
    held = 6 + 12 + 12 if convolution == "centred" else 0
    assert anchor == (stream.length - held) * budget.anchor_bytes_per_token


def test_the_paper_model():
    budget = state_budget(spatial_ttt_2b(), (11, 15), torch.bfloat16)
    assert budget.anchor_bytes_per_token == 28_672
    assert budget.fast_weights == pytest.approx(21 * 3 * 12.58e6, rel=0.01)
    assert budget.windows == 21 * 2648 * 2 * 1024 * 2
    assert budget.fixed < 1.2e9 and budget.total(1000) == budget.fixed + 28_672_000
