"""Training on a GPU: windows through FlashAttention with gradients, a step in bfloat16 against float32, no waiting."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from spatial_ttt.model.attention import attend
from spatial_ttt.model.layout import END, join_all, text
from spatial_ttt.testing.small import small_model, small_processor
from spatial_ttt.train.conversation import Encoded
from spatial_ttt.train.dataset import LoadedSample
from spatial_ttt.train.logs import read_metrics
from spatial_ttt.train.packed import PackedModel
from spatial_ttt.train.trainer import train
from tests.train import toy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def clip(number: int, frames: int) -> LoadedSample:
    """A clip and a target, as a loader gives them."""
    processor, pixels = small_processor(), torch.from_numpy(np.stack(toy.pictures(number, frames)))
    merge = processor.frames.spatial_merge_size
    rows, cols = processor.grid(pixels.shape[1:3])
    slots = [
        processor.slot_ids(float(n), (rows // merge, cols // merge)) for n in range(frames // 2)
    ]
    ids = [token for known, _ in slots for token in known] + [5] * (number + 2)
    layout = join_all([*(layout for _, layout in slots), (END, text(number + 2))])
    is_target = [False] * (len(ids) - 1) + [True]
    return LoadedSample(f"{number}", Encoded(ids, is_target, layout), (pixels,))


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_pack_is_given_to_the_device_without_waiting_for_it():
    """Else the device is idle at the beginning of every pack, until the host has told it what comes next."""
    model = small_model(chunk_size=16, window_size=16).to("cuda", torch.bfloat16).train()
    packed = PackedModel(model, small_processor(), 0)
    packs = [[clip(number, frames)] for number, frames in enumerate((4, 8, 2, 6))]
    packed(packs[0] + packs[1]).loss.backward()  # what all packs share is kept from here on
    try:
        torch.cuda.set_sync_debug_mode("error")
        packed(packs[2] + packs[3]).loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    ("length", "past", "window"), [(300, 0, 128), (1000, 200, 257), (64, 0, 500)]
)
def test_windows_have_gradients(length, past, window):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator).cuda().bfloat16().requires_grad_()

    q, k, v = (
        random(2, 8, length, 64),
        random(2, 4, past + length, 64),
        random(2, 4, past + length, 64),
    )
    weight = torch.randn(q.shape, generator=generator).cuda()
    found = attend(q, k, v, window=window)
    grads = torch.autograd.grad((found.float() * weight).sum(), (q, k, v))
    exact = [t.detach().float().requires_grad_() for t in (q, k, v)]
    expected = attend(*exact, window=window, implementation="eager")
    wanted = torch.autograd.grad((expected * weight).sum(), exact)
    for got, want in zip((found, *grads), (expected, *wanted), strict=True):
        error = (got.detach().float() - want.detach()).norm() / want.detach().norm()
        assert float(error) < 1e-2, float(error)


def test_a_run_in_bfloat16_follows_one_in_float32(tmp_path):
    data = toy.write_data(tmp_path / "data")
    found = {}
    for precision in ("float32", "bfloat16"):
        recipe = toy.recipe(data, tmp_path / precision, precision=precision, checkpointed_layers=2)
        outcome = train(dataclasses.replace(recipe, device="cuda"), 1)
        found[precision] = [r["loss"] for r in read_metrics(outcome.folder / "metrics.jsonl")]
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=2e-2)
