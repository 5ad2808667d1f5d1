"""cuDNN's own graphs: who may use them, and that they compute attention and its gradients."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from spatial_ttt.model.attention import causal_mask
from spatial_ttt.model.kernels import cudnn_attention as graphs
from spatial_ttt.model.kernels.cudnn_attention import Sight
from tests.model.streams import relative

HALF = torch.bfloat16


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (((9, 0), torch.float32, 128, True), "half precision"),
        (((8, 0), HALF, 128, True), "compute capability 9.0"),
        (((9, 0), HALF, 20, True), "multiple of 8"),
        (((9, 0), HALF, 136, True), "up to 128"),
        (((9, 0), HALF, 128, False), "extra `cuda`"),
        (((9, 0), HALF, 128, True), None),
        (((10, 0), torch.float16, 64, True), None),
    ],
)
def test_what_keeps_it_away_is_told(given, told):
    found = graphs.problem(*given)
    assert found is None if told is None else found is not None and told in found


def test_a_cpu_has_none():
    assert not graphs.applies(torch.zeros(1, 1, 1, 64, dtype=HALF))


def test_what_is_not_laid_as_it_reads_is_copied():
    x = torch.zeros(2, 3, 40, 24, dtype=HALF)
    assert graphs._laid(x) is x
    turned = x.transpose(1, 2)
    assert graphs._laid(turned) is turned
    for other in (x[..., 4:20], x.mT, x[:, :, :1].expand(-1, -1, 5, -1), x[..., ::2]):
        made = graphs._laid(other)
        assert made is not other and torch.equal(made, other) and made.is_contiguous()


gpu = pytest.mark.gpu
needs_it = pytest.mark.skipif(
    not torch.cuda.is_available() or not graphs.is_installed(), reason="no CUDA device or no cuDNN"
)


def inputs(length: int, total: int, batch: int = 2, dim: int = 64) -> list[Tensor]:
    """Queries as they come from a projection, keys and values as a window keeps them."""
    made = torch.Generator("cuda").manual_seed(length)

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, generator=made, device="cuda").to(HALF)

    q = some(batch, length, 4, dim).transpose(1, 2)
    return [q, some(batch, 2, total, dim), some(batch, 2, total, dim)]


def by_definition(q: Tensor, k: Tensor, v: Tensor, sight: Sight) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp in float64."""
    q, k, v = (x.double() for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = (q @ k.mT) * q.shape[3] ** -0.5
    if sight.causal:
        seen = causal_mask(q.shape[2], k.shape[2], sight.window or None, 1, q.device)
        scores = scores.masked_fill(~seen, float("-inf"))
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


CASES = [
    (600, 600, Sight(True)),
    (600, 600, Sight(True, 100)),
    (601, 601, Sight(True, 128)),
    (512, 812, Sight(True, 300)),
    (523, 1000, Sight(True, 77)),
    (523, 1000, Sight(True)),
    (640, 256, Sight(False)),
]


@gpu
@needs_it
@pytest.mark.parametrize(("length", "total", "sight"), CASES)
@torch.no_grad()
def test_outputs_and_sums_are_those_of_the_definition(length, total, sight):
    q, k, v = inputs(length, total)
    assert graphs.applies(q)
    wide = torch.zeros(2, 2, total + 8, 64, device="cuda", dtype=HALF)
    wide[:, :, 8:] = k
    out, sums = graphs.forward(q, wide[:, :, 8:], v, sight)
    expected, expected_sums = by_definition(q, k, v, sight)
    assert relative(out.double(), expected) < 0.01
    assert relative(sums.double(), expected_sums) < 1e-3
    assert out.transpose(1, 2).is_contiguous()


@gpu
@needs_it
@pytest.mark.filterwarnings("ignore:.*no current CUDA context")
@pytest.mark.parametrize("exactly", [False, True])
@pytest.mark.parametrize(("length", "total", "sight"), [c for c in CASES if c[2].causal])
def test_gradients_are_those_of_the_definition(length, total, sight, exactly):
    leaves = [x.requires_grad_() for x in inputs(length, total)]
    torch.use_deterministic_algorithms(exactly, warn_only=True)
    try:
        out = graphs.attend(*leaves, sight)
        wave = torch.linspace(0, 40, out.numel(), device="cuda").sin().view_as(out)
        found = torch.autograd.grad((out.float() * wave).sum(), leaves)
        again = torch.autograd.grad((graphs.attend(*leaves, sight).float() * wave).sum(), leaves)
    finally:
        torch.use_deterministic_algorithms(False)
    exact = [x.detach().double().requires_grad_() for x in leaves]
    total_of = (by_definition(*exact, sight)[0] * wave).sum()
    for one, other, wanted in zip(found, again, torch.autograd.grad(total_of, exact), strict=True):
        assert relative(one.double(), wanted) < 0.02
        assert not exactly or torch.equal(one, other)


@gpu
@needs_it
@torch.no_grad()
def test_threads_and_streams_do_not_meet():
    """Every thread has a handle of its own, which follows its current stream."""
    q, k, v = inputs(700, 700)
    sight = Sight(True, 200)
    expected, _ = graphs.forward(q, k, v, sight)
    torch.cuda.synchronize()
    wrong: list[int] = []

    def work(number: int) -> None:
        with torch.no_grad(), torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(20):
                torch.cuda._sleep(20_000)
                late = q.clone()  # made on this stream: who works on another reads too early
                out, _ = graphs.forward(late, k, v, sight)
                if not torch.equal(out, expected):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
