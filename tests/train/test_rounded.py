"""Rounded copies of one process: FSDP's numbers without its copies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from spatial_ttt.model.layout import text
from spatial_ttt.testing.small import small_model, small_processor
from spatial_ttt.train.conversation import Encoded
from spatial_ttt.train.dataset import LoadedSample
from spatial_ttt.train.distributed import local, processes
from spatial_ttt.train.packed import PackedModel
from spatial_ttt.train.rounded import RoundedCopies
from spatial_ttt.train.run_config import RatesConfig
from spatial_ttt.train.sharded_adamw import ShardedAdamW, rate_groups
from spatial_ttt.train.sharding import begin_pack, freeze, reshard, shard

RATES = {"base": 1e-2, "ttt": 1e-2, "head": 1e-2, "vision": 0.0}


def pack(seed: int, length: int) -> list[LoadedSample]:
    """Words of which every second is to be told."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 200, (length,), generator=generator).tolist()
    return [
        LoadedSample(
            str(seed), Encoded(ids, [n % 2 == 1 for n in range(length)], (text(length),)), ()
        )
    ]


def packed_model() -> PackedModel:
    torch.manual_seed(0)
    model = small_model().float()
    freeze(model, RATES)
    return PackedModel(model.train(), small_processor(), checkpointed=2)


def steps(packed: PackedModel, group: Any) -> list[torch.Tensor]:
    """Losses of three steps of two packs, gradients of the last, masters after it."""
    config = RatesConfig(learning_rate=RATES)
    optimizer = ShardedAdamW(rate_groups(packed, config, RATES), config, group)
    found = []
    for step in range(3):
        for number in range(2):
            begin_pack(packed, number, 2)
            loss = packed(pack(10 * step + number, 40 + 10 * number)).loss
            loss.backward()
            found.append(loss.detach())
        optimizer.normalise(45.0)
        if step == 2:
            found += [local(p.grad).clone() for p in optimizer.parameters if p.grad is not None]
        optimizer.step(1.0)
    return found + [local(p).detach().clone() for p in optimizer.parameters]


@pytest.mark.parametrize(
    ("large", "gathered"), [(0, "step"), (500, "layer"), (500, "step"), (1 << 18, "step")]
)
def test_steps_are_those_of_fsdp(large, gathered, monkeypatch):
    """Whether gradients are handed over one by one, together, or some this way and some that."""
    monkeypatch.setattr("spatial_ttt.train.rounded.LARGE", large)
    with processes("cpu") as group:
        ours = packed_model()
        shard(ours, group, torch.bfloat16)
        found = steps(ours, group)
        theirs = packed_model()
        # Shares of one process are whole.
        shard(theirs, replace(group, world=2), torch.bfloat16, gathered)
        assert theirs.stays_gathered == (gathered == "step")
        expected = steps(theirs, group)
    assert len(found) == len(expected) > 60
    assert len({float(loss) for loss in found[:6]}) == 6
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_masters_come_back_and_are_rounded_when_they_have_moved():
    packed = packed_model()
    with processes("cpu") as group:
        shard(packed, group, torch.bfloat16)
    masters = dict(packed.named_parameters())
    trained = [p for p in masters.values() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    packed(pack(0, 20)).loss.backward()
    now = dict(packed.named_parameters())
    assert now.keys() == masters.keys() and {p.dtype for p in now.values()} == {torch.bfloat16}
    embedding = packed.model.get_input_embeddings().weight
    assert packed.model.lm_head.weight is embedding, "tied weights stay tied"
    assert {p.grad.dtype for p in trained if p.grad is not None} == {torch.float32}
    assert all(p.grad is None for p in now.values() if p.requires_grad)
    reshard(packed)
    assert all(p is masters[name] for name, p in packed.named_parameters())
    with torch.no_grad():
        for p in trained:
            p.add_(1.0)
        packed(pack(1, 20))  # a step is under way
        assert not torch.equal(
            embedding, masters["model.model.language_model.embed_tokens.weight"].bfloat16()
        )
        for p in trained:
            p.grad = None
        packed(pack(1, 20))
    for name, p in packed.named_parameters():
        assert torch.equal(p, masters[name].bfloat16())


def test_a_pass_that_failed_leaves_nothing_for_the_next():
    module = nn.Linear(3, 2)
    copies = RoundedCopies(module, torch.bfloat16)
    x = torch.ones(1, 3, dtype=torch.bfloat16).requires_grad_()

    def fail(_: torch.Tensor) -> None:
        raise KeyError

    copies.use()
    handle = x.register_hook(fail)
    with pytest.raises(KeyError):
        module(x).sum().backward()
    handle.remove()
    copies.put_masters_back()
    for p in module.parameters():
        p.grad = None
    for count in (1.0, 2.0):
        copies.use()
        module(x).sum().backward()
        copies.put_masters_back()
        assert all(torch.equal(p.grad, torch.full_like(p, count)) for p in module.parameters())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_only_another_precision_needs_copies(precision):
    packed = packed_model()
    with processes("cpu") as group:
        shard(packed, group, precision)
    assert (packed.copies is None) == (precision == torch.float32)
