"""Branches off one ingest: equal to forks and to whole sequences, and refused where they would write."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spatial_ttt.errors import ConfigError
from spatial_ttt.model.layout import num_tokens, text
from spatial_ttt.testing.small import small_model
from spatial_ttt.train.branches import (
    Targets,
    branch_loss,
    generate,
    ingest,
    ingest_blind,
    read,
)
from spatial_ttt.train.clip_text import Prefix, blind_prefix, check_room, room_for_branch
from spatial_ttt.train.pixels import patchify
from tests.train import clips

CHUNK = 40


@pytest.fixture(scope="module")
def model():
    """Chunks shorter than the prefix, so that branches read weights that were written."""
    return clips.model(chunk_size=CHUNK).double().eval()


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return clips.ring().frames[clips.ring().ready]


def some_branches(branches: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(300, 1000, (2, branches, length), generator=generator)


@torch.no_grad()
def test_branches_equal_forks_and_whole_sequences(model, frames) -> None:
    prefix, spec = clips.prefix(), clips.SPEC
    assert num_tokens(prefix.layout) > CHUNK
    ids = some_branches(3, 9)
    state = ingest(model, prefix, frames, spec).state
    logits = model.lm_head(read(model, state, ids))
    patches, grid = patchify(frames, spec, torch.float64)
    for number in range(3):
        fork, _ = model.decode_piece(ids[:, number], (text(9),), None, state)
        torch.testing.assert_close(
            logits[:, number], model.lm_head(fork.hidden), rtol=1e-9, atol=1e-9
        )
        whole_ids = torch.cat((torch.tensor(prefix.ids).expand(2, -1), ids[:, number]), dim=1)
        whole = model(
            whole_ids,
            pixel_values_videos=patches.flatten(0, 1),
            video_grid_thw=torch.tensor([[spec.num_slots, *grid]] * 2),
        )
        torch.testing.assert_close(logits[:, number], whole.logits[:, -9:], rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [40, 41, 53, 54])
def test_room_is_what_a_branch_may_have(frames, chunk: int) -> None:
    """One token more than `room_for_branch` is refused, before and by the model."""
    model, prefix = clips.model(chunk_size=chunk).eval(), clips.prefix()
    state = ingest(model, prefix, frames, clips.SPEC).state
    room = room_for_branch(prefix, chunk)
    check_room(prefix, chunk, room)
    read(model, state, some_branches(2, room))
    with pytest.raises(ConfigError, match="another number of slots"):
        check_room(prefix, chunk, room + 1)
    with pytest.raises(ConfigError, match="would write the fast weights"):
        read(model, state, some_branches(2, room + 1))


@torch.no_grad()
def test_a_prefix_that_fills_its_chunks_leaves_a_whole_one(frames) -> None:
    prefix = clips.prefix()
    chunk = num_tokens(prefix.layout)
    assert room_for_branch(prefix, chunk) == chunk
    model = clips.model(chunk_size=chunk).double().eval()
    state = ingest(model, prefix, frames, clips.SPEC).state
    ids = some_branches(2, chunk)
    fork, _ = model.decode_piece(ids[:, 1], (text(chunk),), None, state)
    torch.testing.assert_close(read(model, state, ids)[:, 1], fork.hidden, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_the_video_is_seen(model, frames) -> None:
    ids = some_branches(1, 5)
    seen = read(model, ingest(model, clips.prefix(), frames, clips.SPEC).state, ids)
    other = read(model, ingest(model, clips.prefix(), 255 - frames, clips.SPEC).state, ids)
    assert (seen - other).abs().max() > 1e-3
    blind = ingest_blind(model, blind_prefix(clips.tokenizer()), 2, clips.CPU)
    assert blind.vision is None
    assert read(model, blind.state, ids).shape == seen.shape


def test_the_loss_is_the_weighted_cross_entropy_of_the_answers(model) -> None:
    state = ingest_blind(model, blind_prefix(clips.tokenizer()), 2, clips.CPU).state
    ids = some_branches(2, 6)
    hidden = read(model, state, ids)
    at = torch.tensor([3, 10, 22])
    weight = torch.tensor([1.0, 0.5, 0.25])
    targets = Targets(at, ids.flatten()[at + 1], weight, torch.zeros(3, dtype=torch.long))
    loss, each = branch_loss(model, hidden, targets)
    log_p = model.lm_head(hidden).float().log_softmax(-1)
    expected = [-log_p[0, 0, 3, ids[0, 0, 4]], -log_p[0, 1, 4, ids[0, 1, 5]]]
    expected.append(-log_p[1, 1, 4, ids[1, 1, 5]])
    torch.testing.assert_close(each, torch.stack(expected).detach())
    torch.testing.assert_close(loss, (torch.stack(expected) * weight).sum())
    loss.backward()
    fast = model.decoder.layers[0].self_attn.fast_weights
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in fast.parameters())


@torch.no_grad()
def test_greedy_answers_equal_one_fork_decoded_token_by_token(model, frames) -> None:
    state = ingest(model, clips.prefix(), frames, clips.SPEC).state
    prompts = some_branches(2, 12)
    start = torch.tensor([[4, 7], [6, 5]])
    prompts = prompts.masked_fill(torch.arange(12) >= start[..., None], 0)
    found = generate(model, state, prompts, start, 4)
    for clip, branch in np.ndindex(2, 2):
        ids = prompts[:, branch, : start[clip, branch]]
        for step in range(4):
            fork, _ = model.decode_piece(ids, (text(ids.shape[1]),), None, state)
            token = model.lm_head(fork.hidden[:, -1]).argmax(-1)
            assert token[clip] == found[clip, branch, step]
            ids = torch.cat((ids, token[:, None]), dim=1)


@torch.no_grad()
@pytest.mark.parametrize("seed", range(3))
def test_an_answer_past_the_end_of_its_branch_repeats_its_last_token(seed: int) -> None:
    model = small_model(seed, chunk_size=64, window_size=64)
    state = ingest_blind(model, Prefix((1, 2, 3), (text(3),), ()), 2, clips.CPU).state
    prompts, start = some_branches(2, 8) % 250, torch.full((2, 2), 6)
    longer = torch.nn.functional.pad(prompts, (0, 8))
    short, long = (generate(model, state, ids, start, 8) for ids in (prompts, longer))
    assert (short[..., :3] == long[..., :3]).all()  # two tokens fit, the third needs no place
    assert (short[..., 3:] == short[..., 2:3]).all()
    assert (long[..., 3:] != long[..., 2:3]).any()
