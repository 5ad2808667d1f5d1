"""Two streams of one device: the same numbers, whichever work runs beside which."""

from __future__ import annotations

import pytest
import torch

from spatial_ttt.engine import keep_newton_schulz
from spatial_ttt.model import beside
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from tests.model.kernels.checks import run
from tests.model.streams import Stream, model_of, push, random_stream, relative, same_bits, video
from tests.model.test_steady_answer import wide_model


def test_a_cpu_has_no_second_stream() -> None:
    with torch.no_grad():
        assert not beside.applies(torch.zeros(1), 1 << 20)


def test_without_cuda_a_lane_works_at_once() -> None:
    done: list[int] = []
    assert beside.current(torch.device("cpu")) is None
    wait = beside.Lane(None).run(lambda: done.append(1))
    assert done == [1]
    wait()
    assert beside.both(lambda: 1, lambda: 2, torch.device("cpu")) == (1, 2)


def trained(
    model: SpatialTTTForConditionalGeneration, stream: Stream, cuts: tuple[int, ...] = ()
) -> list[torch.Tensor]:
    """The output of all layers, and the gradients of the input and of every parameter they have."""
    hidden = stream.hidden.detach().clone().requires_grad_()
    leaves = [hidden, *model.decoder.parameters()]
    out, _ = push(model, stream._replace(hidden=hidden), cuts)
    wave = torch.linspace(0, 40, out.numel(), device=out.device).sin().view_as(out)
    found = torch.autograd.grad((out.float() * wave).sum(), leaves, allow_unused=True)
    zero = torch.zeros(1, device=out.device)
    return [out.detach(), *(zero if grad is None else grad for grad in found)]


def apart(found: list[torch.Tensor], expected: list[torch.Tensor]) -> list[float]:
    return [relative(got, wanted) for got, wanted in zip(found, expected, strict=True)]


def test_the_way_aside_passes_every_gradient_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without CUDA, one after the other: what is made beforehand is linked to the parameters."""
    for model in (model_of(torch.float64), model_of(torch.float64, low_rank=2)):
        stream = random_stream(model, video((2, 3), 6), batch=2)
        expected = trained(model, stream, (20,))
        with monkeypatch.context() as patched:
            patched.setattr(beside, "applies", lambda *_: True)
            found = trained(model, stream, (20,))
        assert sum(bool(grad.any()) for grad in expected) > 60
        for got, wanted in zip(found, expected, strict=True):
            assert relative(got, wanted) <= 1e-12  # some sums are made in another order


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore:.*deterministic", "ignore:.*no current CUDA context")
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("keeps", [False, True])
def test_a_second_stream_changes_no_gradient(
    again: bool, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three layers with several writes, repeated; `again`: activations are made again in the backward pass.

    `keeps`: but for Newton-Schulz's steps. Fresh memory is filled with NaN, so whatever is given out too early shows.
    """
    with torch.no_grad():
        model = wide_model("cuda").train()
    model.decoder.gradient_checkpointing = again
    if keeps:
        keep_newton_schulz(model)
    stream = random_stream(model, video((2, 3), 600), batch=2).to("cuda")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        monkeypatch.setattr(beside, "LEAST_TOKENS", 1 << 30)
        expected = trained(model, stream)
        # Some gradients are little else but rounding (lr_proj.bias): of those it is only said that they are numbers.
        noise = [apart(trained(model, stream), expected) for _ in range(3)]
        bounds = [0.02 + 3 * max(errors) for errors in zip(*noise, strict=True)]
        assert sum(bound < 0.1 for bound in bounds) > 0.8 * len(bounds), bounds
        monkeypatch.setattr(beside, "LEAST_TOKENS", 1)
        for _ in range(5):
            errors = apart(trained(model, stream), expected)
            limits = [most if most < 0.1 else 1e6 for most in bounds]
            wrong = [(e, most) for e, most in zip(errors, limits, strict=True) if not e <= most]
            assert not wrong, wrong
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@torch.no_grad()
def test_a_second_stream_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(torch.float32).cuda()
    try:
        stream = random_stream(model.cpu(), video((2, 3), 40)).to("cuda")
        model.cuda()
        cuts = (60, 133, 134, 200)
        expected = push(model, stream, cuts)
        monkeypatch.setattr(beside, "LEAST_TOKENS", 1)
        assert beside.applies(stream.hidden, 1)
        for _ in range(3):
            assert same_bits(push(model, stream, cuts), expected)
    finally:
        model.cpu()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@torch.no_grad()
def test_a_desk_beside_says_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide fast weights, whose results lie in the first stream's memory while two others work on them."""
    model = wide_model("cuda")
    stream = random_stream(model, video((2, 3), 600)).to("cuda")
    cuts = (1500, 2000, 4100)
    monkeypatch.setattr(beside, "LEAST_TOKENS", 1 << 30)
    plain, _ = push(model, stream, cuts)
    monkeypatch.setattr(beside, "LEAST_TOKENS", 1)
    first = push(model, stream, cuts)
    assert relative(first[0].float(), plain.float()) <= 0.05  # bfloat16's noise over four layers
    for _ in range(5):
        assert same_bits(push(model, stream, cuts), first)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@torch.no_grad()
def test_memory_made_beside_is_not_given_out_while_it_is_read() -> None:
    device = torch.device("cuda")
    size = 1 << 24

    def work(number: int) -> torch.Tensor:
        return torch.full((size,), float(number), device=device)

    sums = []
    for number in range(50):
        _, made = beside.both(lambda: None, lambda n=number: work(n), device)  # type: ignore[misc]
        for _ in range(4):
            made = made * 1.0  # on the current stream, the first of them from the other's memory
        sums.append(made.sum())
        del made
    assert [s.item() for s in sums] == [float(n) * size for n in range(50)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@torch.no_grad()
def test_a_lane_works_after_what_was_given_and_is_waited_for() -> None:
    """With one event for all work: what is given later does not keep earlier work waiting for the wrong thing."""
    device = torch.device("cuda")
    place, seen = torch.zeros(1 << 22, device=device), torch.zeros(50, 1 << 22, device=device)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        here = beside.current(device)
        assert here is not None
        lane = beside.Lane(here)
        for number in range(50):
            for _ in range(8):
                place.add_(1)
            wait = lane.run(lambda n=number: seen[n].copy_(place))  # type: ignore[misc]
            assert beside.current(device) == here
            wait()
        here.synchronize()
    assert torch.equal(seen[:, 0], 8.0 * torch.arange(1, 51, device=device))
    assert torch.equal(seen, seen[:, :1].expand_as(seen))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_work_beside_that_fails_leaves_the_stream_as_it_was() -> None:
    device = torch.device("cuda")
    here = beside.current(device)

    def fail() -> None:
        assert beside.current(device) != here
        raise KeyError

    assert here is not None
    with pytest.raises(KeyError):
        beside.Lane(here).run(fail)
    with pytest.raises(KeyError):
        beside.both(lambda: None, fail, device)
    assert beside.current(device) == here


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_writes_off_the_default_stream_follow_the_rule() -> None:
    with torch.cuda.stream(torch.cuda.Stream()):  # as the fast weights of long pieces
        for _ in range(2):
            found = run("commit", torch.device("cuda"))
            assert found and all(error <= limit for error, limit in found.values()), found
