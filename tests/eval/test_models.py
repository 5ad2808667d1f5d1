"""Checkpoints behind the evaluator: streaming equals whole forwards, and controls do what they say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch

from spatial_ttt.errors import BudgetError, ConfigError
from spatial_ttt.eval.interface import MemoryAdopter, ModelCard, NotOffered, SessionOptions
from spatial_ttt.eval.models import CheckpointModel, describe_rule, hash_weights, open_model
from spatial_ttt.testing.small import small_model, small_processor
from spatial_ttt.video.frame import Frame

CARD = ModelCard(name="small", checkpoint="-", checkpoint_hash="-", rule="-", dtype="float64")
QUESTIONS = ("How many?", "Which one is nearest to the door?")


def frames(count: int, seed: int = 0, start: int = 0) -> list[Frame]:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 32, 48, 3), dtype=np.uint8)
    return [Frame(picture, (start + index) / 2) for index, picture in enumerate(pixels)]


def make(dtype: torch.dtype = torch.float64, **ttt: object) -> CheckpointModel:
    # Sharp logits: random weights would else answer alike whatever they saw.
    model = small_model(seed=3, noise=0.3, **ttt).to(dtype)
    return CheckpointModel(model, small_processor(), CARD)


def replies(
    model: CheckpointModel, seen: Iterable[Frame], options: SessionOptions | None = None
) -> list[str]:
    session = model.open_session(options or SessionOptions())
    session.observe(seen)
    said = []
    for question in QUESTIONS:
        fork = session.fork()
        said.append("".join(fork.ask(question, max_new_tokens=12)))
        fork.close()
    session.close()
    return said


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [0, 1, 7, 12])
def test_streamed_and_offline_replies_are_equal(dtype: torch.dtype, count: int):
    model = make(dtype)
    streamed = replies(model, frames(count))
    assert replies(model, frames(count), SessionOptions(mode="offline")) == streamed
    assert all(streamed)


def test_replies_depend_on_what_was_seen():
    model = make()
    assert replies(model, frames(8)) != replies(model, frames(8, seed=1))
    assert replies(model, frames(8)) != replies(model, [])


def test_variants_leave_the_model_as_it_was():
    model = make()
    before = replies(model, frames(12))
    for options in (
        SessionOptions(memory="off"),
        SessionOptions(memory="reset"),
        SessionOptions(attention="window_only"),
        SessionOptions(attention="full"),
    ):
        assert replies(model, frames(12), options) != before
        assert replies(model, frames(12)) == before


@pytest.mark.parametrize("use_gate", [True, False])
def test_memory_off_is_a_closed_gate(use_gate: bool):
    """The same as writing zeros into the norm that scales what the branch reads."""
    off = replies(make(use_gate=use_gate), frames(12), SessionOptions(memory="off"))
    silenced = make(use_gate=use_gate)
    with torch.no_grad():
        for name, parameter in silenced._model.named_parameters():
            if name.endswith("ttt_norm.weight"):
                parameter.zero_()
    assert replies(silenced, frames(12)) == off


def test_memory_reset_equals_chunks_that_never_fill():
    """With one chunk for the whole stream nothing is ever written."""
    reset = replies(make(), frames(12), SessionOptions(memory="reset"))
    assert replies(make(chunk_size=100_000), frames(12)) == reset


def test_window_only_forgets_the_far_past_and_the_whole_model_does_not():
    model, tail = make(), frames(40, seed=5, start=2)
    options = SessionOptions(attention="window_only")
    one, other = ([*frames(2, seed=seed), *tail] for seed in (1, 2))
    assert replies(model, one, options) == replies(model, other, options)
    assert replies(model, one) != replies(model, other)


def test_full_attention_is_a_model_of_anchors_alone():
    model = make()
    base = make(layer_pattern=("anchor",))
    weights = model._model.state_dict()
    base._model.load_state_dict({name: weights[name] for name in base._model.state_dict()})
    options = SessionOptions(attention="full")
    assert replies(model, frames(12), options) == replies(base, frames(12))


def test_adopted_memory_is_the_donors():
    model = make()
    plain = replies(model, frames(12))

    def with_memory_of(donor_frames: list[Frame]) -> list[str]:
        donor, session = (model.open_session(SessionOptions()) for _ in range(2))
        donor.observe(donor_frames)
        session.observe(frames(12))
        said = []
        for question in QUESTIONS:
            fork = session.fork()
            assert isinstance(fork, MemoryAdopter)
            fork.adopt_memory(donor)
            said.append("".join(fork.ask(question, max_new_tokens=12)))
        return said

    assert with_memory_of(frames(12)) == plain
    assert with_memory_of(frames(12, seed=9)) != plain


def test_a_system_prompt_is_read():
    model = make()
    options = SessionOptions(system_prompt="You are a helpful assistant.")
    told = replies(model, frames(4), options)
    assert told != replies(model, frames(4))
    offline = SessionOptions(system_prompt="You are a helpful assistant.", mode="offline")
    assert replies(model, frames(4), offline) == told


def test_bounded_anchors_keep_within_their_budget():
    budget = 200_000
    options = SessionOptions(anchors="bounded", anchor_budget_bytes=budget)
    session = make().open_session(options)
    session.observe(frames(80))
    assert 0 < session._session.stats().anchor_bytes <= budget
    assert "".join(session.ask("how many?", max_new_tokens=3))
    with pytest.raises(BudgetError, match="at least"):
        make().open_session(SessionOptions(anchors="bounded", anchor_budget_bytes=1000))
    with pytest.raises(NotOffered, match="streamed"):
        make().open_session(replace(options, mode="offline"))
    with pytest.raises(ConfigError, match="need a budget"):
        SessionOptions(anchors="bounded")


def test_a_checkpoint_folder_is_opened_and_named(tmp_path):
    small = small_model()
    small.save_pretrained(tmp_path / "mine")
    small_processor().save_pretrained(tmp_path / "mine")
    model = open_model(str(tmp_path / "mine"), device="cpu")
    assert model.card.name == "mine" and model.card.dtype == "float32"
    assert model.card.checkpoint_hash == hash_weights(tmp_path / "mine")
    assert len(model.card.checkpoint_hash) == len("sha256:") + 64
    assert model.card.rule == describe_rule(small)
    assert "Muon (float32), post-norm" in model.card.rule


def test_the_prior_answers_without_looking():
    session = open_model("prior").open_session(SessionOptions())
    session.observe(frames(2))
    assert "".join(session.ask("How many?", max_new_tokens=1)) == "2"
    assert "".join(session.ask("Options:\nA. x\nB. y", max_new_tokens=1)) == "A."
