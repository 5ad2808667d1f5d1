"""Training with compiled token-wise parts: the same losses and gradients, from one compilation of each part."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import lookup_backend

from spatial_ttt.engine import compile_for_training
from spatial_ttt.model import layers
from spatial_ttt.model.layout import text
from spatial_ttt.testing.small import small_processor
from spatial_ttt.train.annealing import Reach, set_reach
from spatial_ttt.train.branches import ingest, ingest_blind, read
from spatial_ttt.train.clip_text import blind_prefix
from spatial_ttt.train.conversation import Encoded
from spatial_ttt.train.dataset import LoadedSample
from spatial_ttt.train.distributed import local, processes
from spatial_ttt.train.packed import PackedModel
from spatial_ttt.train.sharding import shard
from tests.train import clips

# Dynamo looks at .grad of whatever it is given.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")

PARTS = 5  # feed forward, norm, heads, shape, vision block


def gradients(
    model: nn.Module, branches: int, length: int, device: torch.device = clips.CPU
) -> tuple[Tensor, dict[str, Tensor]]:
    """A loss that reaches everything, and its gradients."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(300, 1000, (2, branches, length), generator=generator).to(device)
    frames = clips.ring().frames[clips.ring().ready].to(device)
    ingested = ingest(model, clips.prefix(), frames, clips.SPEC)  # type: ignore[arg-type]
    blind = ingest_blind(model, blind_prefix(clips.tokenizer()), 2, device)  # type: ignore[arg-type]
    hidden = read(model, ingested.state, ids)  # type: ignore[arg-type]
    loss = hidden.square().mean() + ingested.hidden.square().mean() + blind.hidden.mean()
    model.zero_grad(set_to_none=True)
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), found


def check(
    model: nn.Module,
    compiled: nn.Module,
    rtol: float,
    device: torch.device,
    least: float | None = None,
) -> None:
    """`least`: gradients are told to the rounding of so much of the largest, where they nearly cancel."""
    for reach in (Reach(256, False), Reach(256, True), Reach(128, True)):
        for branches, length in ((3, 16), (4, 40)):
            for made in (model, compiled):
                set_reach(made, reach)  # type: ignore[arg-type]
            loss, expected = gradients(model, branches, length, device)
            again, found = gradients(compiled, branches, length, device)
            torch.testing.assert_close(again, loss, rtol=rtol, atol=0)
            assert found.keys() == expected.keys()
            largest = max(float(value.abs().max()) for value in expected.values())
            for name, value in expected.items():
                scale = float(value.abs().max()) + 1e-8
                scale = scale if least is None else max(scale, least * largest)
                assert float((found[name] - value).abs().max()) < 20 * rtol * scale, name


@pytest.mark.parametrize("apart", [False, True])
def test_compiled_parts_are_shared_by_layers_and_lengths_and_equal_the_plain_ones(
    apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`apart`: rows of learning rates lie apart, as in half precision on a GPU."""
    if apart:
        monkeypatch.setattr(layers, "_spare", lambda _, width: 8 + -width % 8)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = clips.model()
    compiled = copy.deepcopy(model)
    compile_for_training(compiled, backend="aot_eager")
    for batch in (16, 5):  # 16 is a head's width, too: no reason to take one for the other
        blind = ingest_blind(compiled, blind_prefix(clips.tokenizer()), batch, clips.CPU)
        blind.hidden.sum().backward()
    check(model, compiled, 1e-5, clips.CPU)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == PARTS
    with torch.no_grad():  # probes run the plain parts
        gradient_free = ingest_blind(compiled, blind_prefix(clips.tokenizer()), 2, clips.CPU)
    assert torch.isfinite(gradient_free.hidden).all()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == PARTS
    torch._dynamo.reset()


@pytest.mark.gpu
@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script_method", "ignore:.*no current CUDA context", "ignore:TensorFloat32"
)
def test_compiled_training_equals_plain_training_on_a_gpu() -> None:
    device = torch.device("cuda")
    torch._dynamo.reset()
    model = clips.model().to(device)
    compiled = copy.deepcopy(model)
    compile_for_training(compiled)
    check(model, compiled, 1e-3, device, least=1e-3)  # such as a bias before a norm
    torch._dynamo.reset()


@pytest.mark.parametrize("world", [1, 2])
def test_sharded_checkpointed_training_compiles_once_too(world: int) -> None:
    """One process deals out what one of two would: its shares are whole then, too."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    processor, ids = small_processor(), list(range(300, 340))
    losses, gradients = [], []
    unknown: list[set[int]] = []  # of each part: sizes that its code does not know

    def noting(graph: Any, inputs: list[Any]) -> Any:
        given = [node.meta["example_value"] for node in graph.graph.find_nodes(op="placeholder")]
        unknown.append({x.node.hint for x in given if isinstance(x, torch.SymInt)})
        return lookup_backend("aot_eager")(graph, inputs)

    for is_compiled in (False, True):
        packed = PackedModel(clips.model().train(), processor, checkpointed=2)
        with processes("cpu") as group:
            shard(packed, replace(group, world=world), torch.float32)
            if is_compiled:
                compile_for_training(packed.model, backend=noting)
            for length in (30, 40):
                rows = [ids[:length], ids[-length:]]
                samples = [
                    LoadedSample(
                        str(n),
                        Encoded(row, [False] * 20 + [True] * (length - 20), (text(length),)),
                        (),
                    )
                    for n, row in enumerate(rows)
                ]
                loss = packed(samples).loss
                loss.backward()
                losses.append(float(loss.detach()))
        named = packed.named_parameters()
        gradients.append({name: local(p.grad) for name, p in named if p.grad is not None})
    assert losses[2:] == pytest.approx(losses[:2], rel=1e-5)
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        assert float((gradients[1][name] - value).norm()) <= 1e-4 * float(value.norm()) + 1e-6, name
    # No video, so no vision block; the norm before the logits sees rows without a batch.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == PARTS
    # Samples, tokens, targets of both: never heads or channels, by which every element would be divided.
    assert len(unknown) == PARTS and set.union(*unknown) <= {2, 30, 40, 20}, unknown
    torch._dynamo.reset()
