"""cuDNN's own graphs: who may use them, and that they compute attention and its gradients."""

from __future__ import annotations

import sys
import threading
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from spatial_ttt.errors import ConfigError
from spatial_ttt.model.attention import attend, causal_mask
from spatial_ttt.model.kernels import cudnn_attention as graphs
from spatial_ttt.model.kernels import request_backend
from tests.model.streams import model_of, push, random_stream, relative, video

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


@torch.no_grad()
def test_a_cpu_has_none():
    x = torch.zeros(1, 1, 2 * graphs.LEAST_OF_STREAM, 64, dtype=HALF)
    assert not graphs.padding(x, x.shape[2] + 1, 64)
    assert not graphs.reads_window(x[:, :, graphs.LEAST_OF_STREAM :], x, graphs.LEAST_OF_STREAM, 0)
    with torch.enable_grad():
        assert not graphs.applies(x, x)


def test_what_stands_behind_is_seen_where_it_lies():
    wide = torch.arange(2 * 3 * 40 * 8).view(2, 3, 40, 8)
    assert torch.equal(graphs._with_behind(wide[:, :, 4:30], 7), wide[:, :, 4:37])


def test_what_is_not_laid_as_it_reads_is_copied():
    x = torch.randn(2, 3, 512, 24).to(HALF)
    assert graphs._laid(x) is x
    turned = x.view(2, 512, 3, 24).transpose(1, 2)
    assert graphs._laid(turned) is turned
    for other in (x[..., 4:20], x[:, :, :1].expand(-1, -1, 512, -1), x[..., ::2]):
        made = graphs._laid(other)
        assert made is not other and torch.equal(made, other) and made.is_contiguous()


@pytest.mark.parametrize("length", [1, 255, 257, 600])
def test_sequences_are_padded_at_their_end(length):
    x = torch.randn(2, length, 3, 24).to(HALF).transpose(1, 2)
    made = graphs._laid(x)
    assert made.shape[2] % graphs.LENGTHS == 0 and made.shape[2] - length < graphs.LENGTHS
    assert torch.equal(made[:, :, :length], x) and not made[:, :, length:].any()
    assert made.transpose(1, 2).is_contiguous()


def test_a_library_that_refuses_is_told(monkeypatch):
    """Versions 1.24 to 1.27 of the interface fail so with the gradients of cuDNN 9.19."""

    class Refused(Exception):
        pass

    def refuse(**_: object) -> None:
        raise RuntimeError("CUDNN_STATUS_BAD_PARAM")

    library = SimpleNamespace(
        pygraph=refuse,
        data_type=SimpleNamespace(BFLOAT16=0, HALF=1, FLOAT=2),
        heur_mode=SimpleNamespace(A=0, FALLBACK=1),
        cudnnGraphNotSupportedError=Refused,
        backend_version_string=lambda: "9.19.0",
        __version__="1.24.1",
    )
    monkeypatch.setitem(sys.modules, "cudnn", library)
    monkeypatch.setattr(graphs, "_handle", lambda device: 0)
    monkeypatch.setattr(graphs, "_names", lambda: {HALF: 0, torch.float32: 2})
    kind = graphs._Kind(True, HALF, torch.device("cuda"), 0, False)
    layouts = (((2, 16, 512, 64), (1, 1, 1, 1)), ((2, 8, 512, 64), (1, 1, 1, 1)))
    with pytest.raises(ConfigError, match=r"1\.24\.1.*\(2, 16, 512, 64\).*constraints\.txt"):
        graphs._plan(kind, layouts)


gpu = pytest.mark.gpu
needs_it = pytest.mark.skipif(
    not torch.cuda.is_available() or not graphs.is_installed(), reason="no CUDA device or no cuDNN"
)
CASES = [(512, 0), (600, 0), (600, 100), (1000, 128), (1024, 300), (1301, 77), (700, 5000)]


def inputs(length: int, batch: int = 2, dim: int = 64) -> list[Tensor]:
    """Queries as they come from a projection, keys and values as a window keeps them; leaves."""
    made = torch.Generator("cuda").manual_seed(length)

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, generator=made, device="cuda").to(HALF)

    q = some(batch, length, 4, dim).transpose(1, 2)
    return [
        x.requires_grad_() for x in (q, some(batch, 2, length, dim), some(batch, 2, length, dim))
    ]


def by_definition(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """In float64."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = (q @ k.mT) * q.shape[3] ** -0.5
    seen = causal_mask(q.shape[2], k.shape[2], window or None, 1, q.device)
    return scores.masked_fill(~seen, float("-inf")).softmax(-1) @ v


@gpu
@needs_it
@pytest.mark.filterwarnings("ignore:.*no current CUDA context")
@pytest.mark.parametrize("exactly", [False, True])
@pytest.mark.parametrize(("length", "window"), CASES)
def test_outputs_and_gradients_are_those_of_the_definition(length, window, exactly):
    leaves = inputs(length)
    torch.use_deterministic_algorithms(exactly, warn_only=True)
    try:
        out, again = (graphs.attend(*leaves, window) for _ in range(2))
        wave = torch.linspace(0, 40, out.numel(), device="cuda").sin().view_as(out)
        found, others = (
            torch.autograd.grad((o.float() * wave).sum(), leaves) for o in (out, again)
        )
    finally:
        torch.use_deterministic_algorithms(False)
    exact = [x.detach().double().requires_grad_() for x in leaves]
    expected = by_definition(*exact, window)
    assert relative(out.double(), expected) < 0.01
    wanted = torch.autograd.grad((expected * wave).sum(), exact)
    for one, other, gradient in zip(found, others, wanted, strict=True):
        assert relative(one.double(), gradient) < 0.02
        assert not exactly or torch.equal(one, other)


@gpu
@needs_it
@pytest.mark.parametrize("window", [None, 300])
def test_long_sequences_that_are_trained_go_to_it(window, monkeypatch):
    q, k, v = inputs(graphs.LEAST_QUERIES, batch=1)
    expected = attend(q, k, v, window=window)
    given: list[int] = []
    real = graphs.attend
    monkeypatch.setattr(
        graphs, "attend", lambda *parts: given.append(parts[0].shape[2]) or real(*parts)
    )
    assert torch.equal(attend(q, k, v, window=window), expected)
    assert given == [graphs.LEAST_QUERIES]
    with request_backend("reference"):
        other = attend(q, k, v, window=window)
    with torch.no_grad():
        streamed = attend(q, k, v, window=window)
    assert len(given) == 1 and relative(other, expected) < 0.01 > relative(streamed, expected)


@gpu
@needs_it
def test_threads_and_streams_do_not_meet():
    """Every thread has a handle of its own, which follows its current stream."""
    q, k, v = (x.detach() for x in inputs(700))
    expected = graphs.attend(q, k, v, 200)
    torch.cuda.synchronize()
    wrong: list[int] = []

    def work(number: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(20):
                torch.cuda._sleep(20_000)
                late = q.clone()  # made on this stream: who works on another reads too early
                if not torch.equal(graphs.attend(late, k, v, 200), expected):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


STREAMED = [(512, 300, 0), (500, 300, 12), (600, 77, 200), (1001, 640, 23)]


def streamed(length: int, window: int, behind: int) -> list[Tensor]:
    """Queries of a stream, its last keys and values and their own, with other tokens behind them in memory."""
    made = torch.Generator("cuda").manual_seed(length)
    wide = (
        torch.randn(1, heads, more + length + behind, 64, generator=made, device="cuda").to(HALF)
        for heads, more in ((4, 0), (2, window), (2, window))
    )
    return [x[:, :, : x.shape[2] - behind] for x in wide]


@gpu
@needs_it
@pytest.mark.parametrize(("length", "window", "behind"), STREAMED)
@torch.no_grad()
def test_windows_of_streams_are_those_of_the_definition(length, window, behind, monkeypatch):
    monkeypatch.setattr(graphs, "LEAST_OF_STREAM", 256)
    q, k, v = streamed(length, window, behind)
    assert graphs.reads_window(q, k, window, behind)
    assert not graphs.reads_window(q, k, window, -1 - length % -graphs.STREAM_LENGTHS)
    expected = by_definition(q.double(), k.double(), v.double(), window)
    found = attend(q, k, v, window=window, behind=behind)
    assert torch.equal(found, graphs.attend_window(q, k, v, window))
    assert relative(found.double(), expected) < 0.01


@gpu
@needs_it
@torch.no_grad()
def test_streams_go_to_it_once_their_windows_are_full(monkeypatch):
    exact = model_of(torch.float64)
    stream = random_stream(exact, video((2, 3), 12, ends=False))
    model = deepcopy(exact).bfloat16().cuda()
    half = stream._replace(
        hidden=stream.hidden.cuda().bfloat16(), deepstack=stream.deepstack.cuda().bfloat16()
    )
    cuts = range(32, stream.length, 32)
    expected, _ = push(model, half, cuts)
    lengths: list[int] = []
    real = graphs.attend_window
    monkeypatch.setattr(graphs, "LEAST_OF_STREAM", 16)
    monkeypatch.setattr(
        graphs, "attend_window", lambda *parts: lengths.append(parts[0].shape[2]) or real(*parts)
    )
    found, _ = push(model, half, cuts)
    assert len(lengths) >= 4 and min(lengths) >= 16
    assert relative(found, expected) < 0.05
