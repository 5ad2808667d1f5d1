"""Ragged, padded and packed batches: every sample as if it were alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spatial_ttt.testing.small import small_model
from tests.model.prompts import Prompt, kinds, pixels
from tests.model.streams import relative

SAMPLES = [*kinds().values(), Prompt(8).text(3), Prompt(9).text(4).video(3, 2, 2).text(11)]


@pytest.fixture(scope="module")
def model():
    return small_model(chunk_size=5, window_size=8).double()


def padded(samples: list[Prompt], side: str) -> tuple[Tensor, Tensor]:
    longest = max(len(s.ids) for s in samples)
    ids = torch.full((len(samples), longest), 7)
    mask = torch.zeros_like(ids)
    for row, sample in enumerate(samples):
        length = len(sample.ids)
        where = slice(longest - length, None) if side == "left" else slice(0, length)
        ids[row, where], mask[row, where] = torch.tensor(sample.ids), 1
    return ids, mask


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_a_ragged_batch_equals_its_samples_alone(model, side):
    ids, mask = padded(SAMPLES, side)
    logits = model(ids, attention_mask=mask, **pixels(SAMPLES)).logits
    for row, sample in enumerate(SAMPLES):
        alone = model(**sample.arguments()).logits[0]
        assert relative(logits[row, mask[row].bool()], alone) <= 1e-10, row
    assert not logits[~mask.bool()].any()


def test_padding_is_no_target(model):
    for side in ("left", "right"):
        ids, mask = padded(SAMPLES[:3], side)
        # Labels at padding as a careless collator leaves them.
        out = model(ids, attention_mask=mask, labels=ids.clone(), **pixels(SAMPLES[:3]))
        losses = [
            model(**s.arguments(), labels=torch.tensor([s.ids]), num_items_in_batch=1).loss.detach()
            for s in SAMPLES[:3]
        ]
        count = sum(len(s.ids) - 1 for s in SAMPLES[:3])
        assert abs(float(out.loss.detach()) - float(sum(losses)) / count) < 1e-9


def packed(samples: list[Prompt]) -> tuple[Tensor, Tensor]:
    ids = torch.tensor([[i for s in samples for i in s.ids]])
    names = torch.tensor([[n for n, s in enumerate(samples) for _ in s.ids]])
    return ids, names


def test_packed_samples_are_kept_apart_and_so_are_their_gradients(model):
    ids, names = packed(SAMPLES)

    def gradients(loss: Tensor) -> dict[str, Tensor]:
        model.zero_grad()
        loss.backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    out = model(ids, sample_ids=names, labels=ids.clone(), num_items_in_batch=1, **pixels(SAMPLES))
    together = gradients(out.loss)
    alone = [
        model(**s.arguments(), labels=torch.tensor([s.ids]), num_items_in_batch=1) for s in SAMPLES
    ]
    assert relative(out.logits, torch.cat([a.logits for a in alone], dim=1)) <= 1e-10
    separate = gradients(sum(a.loss for a in alone))
    assert together.keys() == separate.keys()
    for name, expected in separate.items():
        assert float((together[name] - expected).abs().max()) <= 1e-9 * max(
            1e-3, float(expected.abs().max())
        ), name
    model.zero_grad()


@torch.no_grad()
def test_what_a_packed_neighbour_says_changes_nothing(model):
    first, second = SAMPLES[3], SAMPLES[2]
    other = Prompt(11).text(2).video(2, 2, 3).text(3).video(3, 1, 2).text(5)
    assert len(other.ids) == len(first.ids)
    ids, names = packed([first, second])
    changed, _ = packed([other, second])
    length = len(first.ids)
    before = model(ids, sample_ids=names, **pixels([first, second])).logits
    after = model(changed, sample_ids=names, **pixels([other, second])).logits
    assert torch.equal(before[:, length:], after[:, length:])
    assert not torch.equal(before[:, :length], after[:, :length])


@torch.no_grad()
def test_packed_and_padded_at_once(model):
    rows = [SAMPLES[:2], SAMPLES[2:4]]
    longest = max(sum(len(s.ids) for s in row) for row in rows)
    ids, names = (
        torch.zeros(2, longest, dtype=torch.long),
        torch.zeros(2, longest, dtype=torch.long),
    )
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        own, own_names = packed(row)
        ids[number, : own.shape[1]], names[number, : own.shape[1]] = own[0], own_names[0]
        mask[number, : own.shape[1]] = 1
    logits = model(ids, attention_mask=mask, sample_ids=names, **pixels(SAMPLES[:4])).logits
    for number, row in enumerate(rows):
        expected = torch.cat([model(**s.arguments()).logits[0] for s in row])
        assert relative(logits[number, : len(expected)], expected) <= 1e-10


@torch.no_grad()
def test_equal_layouts_run_as_one_batch(model):
    samples = [Prompt(n).text(4).video(3, 2, 2).text(2 + n) for n in range(4)]
    ids, mask = padded(samples, "right")
    calls: list[int] = []
    hook = model.decoder.register_forward_pre_hook(
        lambda _, args: calls.append(args[0].hidden.shape[0])
    )
    model(ids, attention_mask=mask, **pixels(samples))
    hook.remove()
    assert calls == [4]
