"""On a CUDA device: the authors' vectors, the streaming law, and sessions that come back bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from spatial_ttt.session import StreamingSession
from spatial_ttt.testing import golden
from tests.model.streams import (
    Stream,
    difference,
    end_video,
    model_of,
    push,
    random_stream,
    relative,
    same_bits,
)
from tests.model.test_decoder import LIMIT, MIXED
from tests.scenery import answer, frames, processor
from tests.scenery import model as small

FILES = sorted((Path(__file__).parents[2] / "../shared/golden").glob("*.safetensors"))

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """TF32 off, as the vectors want it."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.skipif(not FILES, reason="the authors' golden vectors are not here")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_authors_vectors(path):
    checks = golden.check_file(path, "cuda")
    missed = [f"{c.tensor}: {c.error:.1e} > {c.limit:.0e}" for c in checks if not c.passed]
    assert len(checks) > 10 and not missed, "\n".join(missed)


def on_gpu(stream: Stream, dtype: torch.dtype) -> Stream:
    deepstack = None if stream.deepstack is None else stream.deepstack.to("cuda", dtype)
    return Stream(stream.layout, stream.hidden.to("cuda", dtype), deepstack)


CUTTINGS = ([7], [1, 5, 6, 17, 18, 30], range(1, 38))
RULES = [
    {"use_muon": muon, "norm_placement": placement, "convolution": convolution}
    for muon in (True, False)
    for placement in ("pre", "post")
    for convolution in ("centred", "causal")
]


@pytest.mark.parametrize("rule", RULES, ids=lambda r: "-".join(map(str, r.values())))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@torch.no_grad()
def test_any_cutting_equals_one_pass(dtype, rule):
    model = deepcopy(model_of(dtype, **rule)).cuda()
    stream = on_gpu(random_stream(model_of(dtype, **rule), MIXED, batch=2), dtype)
    whole, end = push(model, stream)
    limit = LIMIT[dtype, rule["use_muon"]]
    for cuts in CUTTINGS:
        pieces, cut_end = push(model, stream, cuts)
        assert relative(pieces, whole) <= limit
        assert difference(cut_end, end) <= limit
        assert (
            difference(end_video(model, cut_end, stream)[1], end_video(model, end, stream)[1])
            <= limit
        )


@pytest.mark.parametrize("rule", RULES, ids=lambda r: "-".join(map(str, r.values())))
@torch.no_grad()
def test_in_bfloat16_cutting_adds_no_more_noise_than_the_precision_has(rule):
    exact_model = model_of(torch.float64, **rule)
    stream = random_stream(exact_model, MIXED, batch=2)
    stream = Stream(MIXED, stream.hidden.bfloat16().double(), stream.deepstack.bfloat16().double())
    rounded = deepcopy(exact_model).bfloat16()
    model = deepcopy(rounded).cuda()
    exact, _ = push(rounded.double(), stream)
    half = on_gpu(stream, torch.bfloat16)
    whole, _ = push(model, half)

    def noise(x: torch.Tensor, y: torch.Tensor) -> float:
        return float(
            (x.double() - y.double()).square().mean().sqrt() / y.double().square().mean().sqrt()
        )

    own = noise(whole.cpu(), exact)
    assert own < 0.2
    for cuts in CUTTINGS:
        pieces, _ = push(model, half, cuts)
        assert noise(pieces, whole) <= 2 * own, "cutting adds more than rounding does"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_session_comes_back_bit_for_bit(dtype, tmp_path, monkeypatch):
    from spatial_ttt.model import kv_cache

    monkeypatch.setattr(kv_cache, "PAGE_TOKENS", 64)  # several pages in a short stream
    model = deepcopy(small()).to("cuda", dtype)
    first = StreamingSession(model, processor(), slots_per_piece=1)
    first.observe(frames(21))
    before = first.state
    assert answer(first) == answer(first) and first.state is before
    first.snapshot(tmp_path / "s.safetensors")
    second = StreamingSession.restore(
        tmp_path / "s.safetensors", model, processor(), slots_per_piece=1
    )
    assert same_bits(second.state, first.state)
    for start in range(21, 221, 20):
        first.observe(frames(20, start=start))
        second.observe(frames(20, start=start))
    assert second.stats().num_slots == 110 and same_bits(second.state, first.state)
    assert answer(second) == answer(first)


def test_asking_leaves_the_stream_bit_identical():
    model = deepcopy(small()).to("cuda", torch.bfloat16)
    asked, quiet = (StreamingSession(model, processor()) for _ in range(2))
    for start in range(0, 40, 5):
        asked.observe(frames(5, start=start))
        quiet.observe(frames(5, start=start))
        answer(asked)
    assert same_bits(asked.state, quiet.state)
