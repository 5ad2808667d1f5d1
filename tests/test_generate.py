"""Choosing tokens: greedy, sampled within top_k and top_p, reproducible, and stopped in time."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from spatial_ttt.errors import ConfigError
from spatial_ttt.generate import Decoding, choose, generate
from spatial_ttt.model.layout import text
from tests.scenery import model

LOGITS = torch.tensor([0.1, 0.4, 0.2, 0.25, 0.05]).log()


def draw(decoding: Decoding, number: int = 4000) -> Counter[int]:
    generator = torch.Generator().manual_seed(decoding.seed)
    return Counter(choose(LOGITS, decoding, generator) for _ in range(number))


def test_greedy_takes_the_likeliest():
    assert set(draw(Decoding(), 5)) == {1}


def test_samples_follow_the_chances():
    counts = draw(Decoding(temperature=1.0))
    for token, chance in enumerate(LOGITS.exp().tolist()):
        assert abs(counts[token] / 4000 - chance) < 0.03
    sharp = draw(Decoding(temperature=0.25))
    expected = (LOGITS / 0.25).softmax(-1)
    assert abs(sharp[1] / 4000 - float(expected[1])) < 0.03


def test_top_k_keeps_the_k_likeliest():
    assert set(draw(Decoding(temperature=1.0, top_k=2))) == {1, 3}
    assert set(draw(Decoding(temperature=1.0, top_k=99))) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.3, {1}), (0.4, {1}), (0.5, {1, 3}), (0.7, {1, 3, 2}), (1.0, {0, 1, 2, 3, 4})],
)
def test_top_p_keeps_the_fewest_that_reach_it(top_p, kept):
    # 0.4, then 0.65, 0.85, 0.95, 1; chances in float64 from float32 logits, so a hair above 0.4.
    assert set(draw(Decoding(temperature=1.0, top_p=top_p))) == kept


def test_kept_tokens_keep_their_odds():
    counts = draw(Decoding(temperature=1.0, top_p=0.6))
    assert abs(counts[1] / counts[3] - 0.4 / 0.25) < 0.15


def run(decoding: Decoding) -> list[int]:
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        done, state = model().decode_piece(ids, (text(3),), None, model().decoder.start())
        return [token for token, _ in generate(model(), state, done.hidden[0, -1], decoding)]


def test_greedy_tokens_are_those_of_the_whole_model():
    got = run(Decoding(max_new_tokens=6))
    ids = torch.tensor([[5, 6, 7]])
    for token in got:
        with torch.no_grad():
            assert int(model()(ids).logits[0, -1].argmax()) == token
        ids = torch.cat((ids, torch.tensor([[token]])), dim=1)
    assert len(got) == 6


def test_a_seed_makes_a_sample_reproducible():
    runs = {seed: run(Decoding(max_new_tokens=12, temperature=2.0, seed=seed)) for seed in (0, 1)}
    assert runs[0] == run(Decoding(max_new_tokens=12, temperature=2.0, seed=0)) != runs[1]


def test_sampling_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    run(Decoding(max_new_tokens=3, temperature=1.0))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_stop_id_ends_before_it_is_said():
    whole = run(Decoding(max_new_tokens=8))
    stop = whole[3]
    assert run(Decoding(max_new_tokens=8, stop_ids=(stop,))) == whole[: whole.index(stop)]


def test_the_last_token_costs_no_step(monkeypatch):
    calls = []
    step = type(model()).decode_piece
    monkeypatch.setattr(type(model()), "decode_piece", lambda *a: calls.append(1) or step(*a))
    assert len(run(Decoding(max_new_tokens=1))) == 1
    assert len(calls) == 1  # the prompt alone


@pytest.mark.parametrize(
    "wrong",
    [{"max_new_tokens": 0}, {"temperature": -0.1}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_p": 1.1},
     {"top_k": -1}],
)  # fmt: skip
def test_wrong_settings(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Decoding(**wrong)
