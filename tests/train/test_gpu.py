"""Training on a GPU: windows through FlashAttention with gradients, a step in bfloat16 against float32, no waiting,
what is sent ahead, gradients of two streams."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from spatial_ttt.model.attention import attend
from spatial_ttt.model.layers import linear_together
from spatial_ttt.model.layout import END, join_all, text
from spatial_ttt.testing.small import small_model, small_processor
from spatial_ttt.train.ahead import Ahead
from spatial_ttt.train.conversation import Encoded
from spatial_ttt.train.dataset import LoadedPack, LoadedSample
from spatial_ttt.train.logs import read_metrics
from spatial_ttt.train.packed import PackedModel
from spatial_ttt.train.rounded import RoundedCopies
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


class Shades:
    """Packs of one clip of one shade of grey each, pinned, which nobody else holds once they are sent."""

    def __init__(self) -> None:
        self.number = 0

    def ready(self) -> tuple[LoadedSample, ...]:
        frames = torch.full((32, 352, 480, 3), self.number, dtype=torch.uint8).pin_memory()
        encoded = Encoded([self.number, 5], [False, True], (text(2),))
        return (LoadedSample(f"{self.number}", encoded, (frames,)),)

    def next_pack(self) -> LoadedPack:
        pack = LoadedPack(self.ready(), 0)
        self.number += 1
        return pack


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_packs_sent_ahead_arrive_whole_while_the_device_works_on_others():
    device = torch.device("cuda")
    packed = PackedModel(small_model().to(device, torch.bfloat16), small_processor(), 0)
    packs, seen = Ahead(Shades(), packed.given, device), []
    try:
        torch.cuda.set_sync_debug_mode("error")
        for _ in range(20):
            _, given = packs.next_pack()
            torch.cuda._sleep(20_000_000)  # what reads them is far behind the host
            (rows,) = given.rows
            seen.append((rows.frames[0].float().mean(), rows.ids[0, 0], rows.at[0]))
            del given, rows
            packs.fetch()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [[round(float(x), 3) for x in one] for one in seen] == [[n, n, 0] for n in range(20)]


def test_packs_sent_ahead_do_not_wait_for_what_the_device_does():
    device = torch.device("cuda")
    packed = PackedModel(small_model().to(device, torch.bfloat16), small_processor(), 0)
    packs = Ahead(Shades(), packed.given, device)
    packs.next_pack()
    packs.fetch()  # memory is there from here on
    packs.next_pack()
    torch.cuda.synchronize()
    torch.cuda._sleep(4_000_000_000)  # about two seconds
    slow = torch.cuda.current_stream().record_event()
    packs.fetch()
    assert packs._stream is not None
    packs._stream.synchronize()
    assert not slow.query()
    slow.synchronize()


class Slowly(torch.autograd.Function):
    """The same, and in the backward pass after a while."""

    @staticmethod
    def forward(_ctx, x):
        return x.clone()

    @staticmethod
    def backward(_ctx, grad):
        torch.cuda._sleep(20_000_000)
        return grad.clone()


@pytest.mark.filterwarnings("ignore:.*deterministic", "ignore:.*no current CUDA context")
@pytest.mark.parametrize("large", [0, 1000, 1 << 18])
def test_gradients_of_two_streams_are_handed_over_whole(large, monkeypatch):
    """Some parameters are met on a second stream, so their gradients are summed there; freed memory is written over."""
    monkeypatch.setattr("spatial_ttt.train.rounded.LARGE", large)
    sizes = (500, 2000) * 20
    module = nn.ParameterList(torch.zeros(size) for size in sizes).cuda()
    copies, side = RoundedCopies(module, torch.bfloat16), torch.cuda.Stream()
    waves = [(torch.arange(size, device="cuda") % (n + 2)) for n, size in enumerate(sizes)]

    def summed(n):
        return (Slowly.apply(module[n]) * waves[n]).sum(dtype=torch.float32)

    torch.use_deterministic_algorithms(True, warn_only=True)  # fresh memory is not a number
    try:
        for count in (1.0, 2.0, 3.0):
            copies.use()
            here = torch.cuda.current_stream()
            side.wait_stream(here)
            with torch.cuda.stream(side):
                aside = torch.stack([summed(n) for n in range(0, len(sizes), 4)]).sum()
            here.wait_stream(side)
            (aside + sum(summed(n) for n in range(len(sizes)) if n % 4)).backward()
            copies.put_masters_back()
            for stream in (side, here):
                with torch.cuda.stream(stream):
                    for size in sizes:
                        torch.empty(size, device="cuda", dtype=torch.bfloat16)
            for n, master in enumerate(module):
                assert torch.equal(master.grad, count * waves[n]), n
    finally:
        torch.use_deterministic_algorithms(False)


def test_products_with_few_outputs_have_whole_rows():
    """Learning rates, momentum and gate of four heads: 20 outputs beside each other, in rows of 24."""
    generator = torch.Generator().manual_seed(0)
    layers = [nn.Linear(256, width) for width in (12, 4, 4)]
    x = torch.randn(2, 300, 256, generator=generator).requires_grad_()
    leaves = [x, *(p for layer in layers for p in layer.parameters())]
    expected = linear_together(nn.Module(), x, layers)
    weight = torch.randn(expected.shape, generator=generator)
    wanted = torch.autograd.grad((expected * weight).sum(), leaves)
    half = [layer.to("cuda", torch.bfloat16) for layer in layers]
    x = x.detach().to("cuda", torch.bfloat16).requires_grad_()
    leaves = [x, *(p for layer in half for p in layer.parameters())]
    found = linear_together(nn.Module(), x, half)
    assert found.shape == expected.shape and found.stride() == (300 * 24, 24, 1)
    got = torch.autograd.grad((found.float() * weight.cuda()).sum(), leaves)
    for a, b in zip((found, *got), (expected, *wanted), strict=True):
        error = (a.detach().float().cpu() - b.detach()).norm() / b.detach().norm()
        assert float(error) < 1e-2, float(error)


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
