"""Two streams of one device: the same numbers, whichever work runs beside which."""

from __future__ import annotations

import pytest
import torch

from spatial_ttt.model import beside
from tests.model.kernels.checks import run
from tests.model.streams import model_of, push, random_stream, relative, same_bits, video
from tests.model.test_steady_answer import wide_model


def test_a_cpu_has_no_second_stream() -> None:
    with torch.no_grad():
        assert not beside.applies(torch.zeros(1), 1 << 20)


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
def test_writes_off_the_default_stream_follow_the_rule() -> None:
    with torch.cuda.stream(torch.cuda.Stream()):  # as the fast weights of long pieces
        for _ in range(2):
            found = run("commit", torch.device("cuda"))
            assert found and all(error <= limit for error, limit in found.values()), found
