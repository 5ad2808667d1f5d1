"""Streams in parts equal whole ones; only what fast weights carry over a border gets no gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spatial_ttt.model.layout import num_tokens
from spatial_ttt.train.branches import ingest, read
from spatial_ttt.train.chained import Size, chain, chained_spec
from spatial_ttt.train.clip_text import clip_prefix
from spatial_ttt.train.clip_types import Chain
from spatial_ttt.train.truncated import ingest_in_parts, let_go
from tests.train import clips

CHUNK = 24
MADE = Chain(3)
SPEC = chained_spec(clips.SPEC, MADE)
PREFIX = clip_prefix(clips.tokenizer(), SPEC)


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    ring = clips.ring()
    return chain(ring, clips.asker(), np.random.default_rng(0), Size(2, 96), MADE).frames


@torch.no_grad()
@pytest.mark.parametrize("parts", [2, 3, 5])
def test_parts_equal_the_whole_stream(frames: torch.Tensor, parts: int) -> None:
    model = clips.model(chunk_size=CHUNK).double().eval()
    whole = ingest(model, PREFIX, frames, SPEC)
    longest = -(-num_tokens(PREFIX.layout) // parts)
    cut = ingest_in_parts(model, PREFIX, frames, SPEC, longest)
    torch.testing.assert_close(cut.hidden, whole.hidden, rtol=1e-9, atol=1e-9)
    assert cut.state.num_tokens == whole.state.num_tokens
    ids = torch.arange(300, 306).expand(2, 2, -1)
    said = read(model, cut.state, ids)
    torch.testing.assert_close(said, read(model, whole.state, ids), rtol=1e-9, atol=1e-9)
    assert cut.vision is not None and whole.vision is not None
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(cut.vision.tokens, whole.vision.tokens, **close)
    torch.testing.assert_close(cut.vision.deepstack, whole.vision.deepstack, **close)


def rate_gradients(frames: torch.Tensor, longest: int, at: int, most: int = 9) -> torch.Tensor:
    """Gradients of the learning rates' biases, first layer, from what the token `at` became."""
    model = clips.model(chunk_size=CHUNK).double()
    found = ingest_in_parts(model, PREFIX, frames, SPEC, longest, most)
    found.hidden[:, at].sum().backward()
    bias = model.decoder.layers[0].self_attn.lr_proj.bias.grad
    return torch.zeros(1) if bias is None else bias


def test_gradients_end_at_the_border_and_are_whole_within_a_part(frames: torch.Tensor) -> None:
    tokens = num_tokens(PREFIX.layout)
    first, last = PREFIX.slot_ends[2], PREFIX.slot_ends[-2]
    whole, half = tokens, tokens // 2 + 1
    torch.testing.assert_close(
        rate_gradients(frames, half, first), rate_gradients(frames, whole, first)
    )
    assert not torch.allclose(
        rate_gradients(frames, half, last), rate_gradients(frames, whole, last)
    )
    assert rate_gradients(frames, half, last).abs().sum() > 0


@pytest.mark.parametrize(("slot", "is_learned"), [(2, False), (6, True), (-2, True)])
def test_only_the_last_parts_get_gradients(
    frames: torch.Tensor, slot: int, is_learned: bool
) -> None:
    third, token = num_tokens(PREFIX.layout) // 3 + 1, PREFIX.slot_ends[slot]
    assert rate_gradients(frames, third, token).abs().sum() > 0
    assert (rate_gradients(frames, third, token, most=2).abs().sum() > 0) == is_learned


def test_what_is_only_watched_is_the_same_stream(frames: torch.Tensor) -> None:
    third = num_tokens(PREFIX.layout) // 3 + 1
    model = clips.model(chunk_size=CHUNK).double()
    learned = ingest_in_parts(model, PREFIX, frames, SPEC, third, 9)
    watched = ingest_in_parts(model, PREFIX, frames, SPEC, third, 1)
    torch.testing.assert_close(watched.hidden, learned.hidden, rtol=1e-9, atol=1e-9)
    ids = torch.arange(300, 306).expand(2, 2, -1)
    said = [read(model, found.state, ids) for found in (watched, learned)]
    torch.testing.assert_close(said[0], said[1], rtol=1e-9, atol=1e-9)
    said[0].sum().backward()
    assert model.decoder.layers[0].self_attn.lr_proj.bias.grad.abs().sum() > 0


def test_a_state_let_go_is_the_same_state_without_a_past(frames: torch.Tensor) -> None:
    model = clips.model(chunk_size=CHUNK)
    state = ingest(model, PREFIX, frames, SPEC).state
    free = let_go(state)
    assert free.position == state.position
    for before, after in zip(state.layers, free.layers, strict=True):
        if not hasattr(before, "fast"):
            assert after is before
            continue
        assert after.window is before.window and after.fast.num_tokens == before.fast.num_tokens
        for name in ("weights", "momentum", "gradient"):
            for old, new in zip(getattr(before.fast, name), getattr(after.fast, name), strict=True):
                assert torch.equal(old, new) and old.requires_grad and not new.requires_grad
