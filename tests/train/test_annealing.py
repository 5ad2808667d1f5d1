"""Training begins as the full-attention model and ends as the configured one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spatial_ttt.checkpoint import load_model
from spatial_ttt.errors import ConfigError
from spatial_ttt.model.layout import num_tokens
from spatial_ttt.train.annealing import (
    ANNEALED,
    MODES,
    Annealing,
    Reach,
    close_gates,
    set_reach,
    ttt_layers,
    window_of,
)
from spatial_ttt.train.branches import ingest, read, read_packed
from spatial_ttt.train.clip_types import KINDS
from spatial_ttt.train.publish import save_model
from spatial_ttt.train.tiny_step import pack
from tests.train import clips

CONTEXT = num_tokens(clips.prefix().layout) + clips.BRANCH


def some(model) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states of a clip's prefix and of three branches."""
    ids = torch.randint(300, 1000, (2, 3, 20), generator=torch.Generator().manual_seed(3))
    ring = clips.ring()
    ingested = ingest(model, clips.prefix(), ring.frames[ring.ready], clips.SPEC)
    return ingested.hidden, read(model, ingested.state, ids)


@torch.no_grad()
def test_without_memory_and_with_a_window_over_everything_it_is_the_full_attention_model() -> None:
    model = clips.model(window_size=40, chunk_size=40).double().eval()
    full = clips.model(layer_pattern=("anchor",)).double().eval()
    full.load_state_dict(model.state_dict(), strict=False)
    set_reach(model, Reach(CONTEXT, False))
    for got, expected in zip(some(model), some(full), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_nothing_jumps_when_memory_comes_on_with_closed_gates() -> None:
    model = clips.model(window_size=40, chunk_size=40).double().eval()
    close_gates(model)
    set_reach(model, Reach(60, False))
    before = some(model)
    set_reach(model, Reach(60, True))
    for got, expected in zip(some(model), before, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_at_the_end_it_is_the_configured_model_and_published_as_such(tmp_path) -> None:
    model = clips.model(window_size=48, chunk_size=40).bfloat16().float().eval()
    expected = some(model)
    annealing = Annealing(first=CONTEXT, last=48)
    set_reach(model, annealing.at(0.0))
    assert (some(model)[1] - expected[1]).abs().max() > 1e-3
    save_model(model, clips.tokenizer(), tmp_path / "early", (32, 64))
    assert load_model(tmp_path / "early").config.ttt_config.window_size >= CONTEXT
    set_reach(model, annealing.at(1.0))
    save_model(model, clips.tokenizer(), tmp_path / "late", (32, 64))
    loaded = load_model(tmp_path / "late", dtype=torch.float32).eval()
    assert loaded.config.ttt_config.window_size == window_of(loaded) == 48
    for one, two, wanted in zip(some(model), some(loaded), expected, strict=True):
        torch.testing.assert_close(one, wanted, rtol=0, atol=0)
        torch.testing.assert_close(two, wanted, rtol=1e-4, atol=1e-4)


def test_the_window_shrinks_linearly_after_the_memory_came_on() -> None:
    annealing = Annealing(memory_from=0.2, shrink_from=0.4, shrink_until=0.8, first=768, last=128)
    found = [annealing.at(n / 20) for n in range(21)]
    assert [reach.memory for reach in found] == [n >= 4 for n in range(21)]
    windows = [reach.window for reach in found]
    assert windows[:9] == [768] * 9 and windows[16:] == [128] * 5
    assert windows[12] == 448 and windows == sorted(windows, reverse=True)
    assert all(window % 16 == 0 for window in windows)


def test_the_window_alone_shrinks_as_the_whole_model_s_does() -> None:
    whole, alone = (Annealing(mode=mode, first=768, last=128) for mode in ANNEALED)
    for n in range(21):
        assert alone.at(n / 20) == whole.at(n / 20)._replace(memory=False)
    assert whole.at(1.0) == Reach(128, True)


@pytest.mark.parametrize("mode", sorted(set(MODES) - set(ANNEALED)))
def test_other_modes_stay_as_they_are(mode: str) -> None:
    annealing = Annealing(mode=mode, first=768, last=128)
    expected = Reach(768 if mode == "full" else 128, mode == "hybrid")
    assert {annealing.at(n / 10) for n in range(11)} == {expected}


@pytest.mark.parametrize("points", [(0.5, 0.4, 0.6), (0.1, 0.6, 0.6), (-0.1, 0.2, 0.3)])
def test_an_impossible_order_is_refused(points: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError, match="before the window shrinks"):
        Annealing(
            memory_from=points[0], shrink_from=points[1], shrink_until=points[2], first=9, last=4
        )
    with pytest.raises(ConfigError, match="attention must be one of"):
        Annealing(mode="half", first=9, last=4)
    with pytest.raises(ConfigError, match="without gates"):
        close_gates(clips.model(use_gate=False))


@pytest.mark.parametrize(
    "reach", [Reach(512, False), Reach(512, True), Reach(128, True), Reach(40, True)]
)
@torch.no_grad()
def test_packed_branches_equal_padded_ones(reach: Reach) -> None:
    model, ring = clips.model().double(), clips.ring()
    set_reach(model, reach)
    batch = ring.batch(np.random.default_rng(0), 2, 200, np.ones(len(KINDS)))
    state = ingest(model, clips.prefix(), batch.frames, clips.SPEC).state
    (packed, targets, _), weight = pack(batch)
    padded, found = read(model, state, batch.ids), read_packed(model, state, packed)
    assert packed.ids.shape[1] % 32 == 0 and packed.longest == batch.stop.max()
    for row, number in np.ndindex(*batch.stop.shape):
        length = batch.stop[row, number]
        got = found[row][packed.number[row] == number]
        torch.testing.assert_close(got, padded[row, number, :length], rtol=1e-9, atol=1e-9)
    answers = (batch.stop - batch.start)[batch.stop > 0]
    assert len(targets.at) == answers.sum() and 0 < weight <= answers.sum()
    assert torch.equal(packed.ids.flatten()[targets.at + 1], targets.token)
    assert len(ttt_layers(model)) == 3
