"""GPU attention: partial softmaxes merge exactly, and every kernel agrees with the definition."""

from __future__ import annotations

import weakref
from copy import deepcopy
from functools import partial

import pytest
import torch

from spatial_ttt.model import fused_attention as fused
from spatial_ttt.model.anchor import Attention
from spatial_ttt.presets import _small
from tests.model.streams import relative
from tests.model.test_attention import by_loops, heads

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def part(q, k, v, *, causal):
    """Attention over some keys and its log-sum-exp, in plain float64."""
    scores = (q @ k.mT) * q.shape[-1] ** -0.5
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ v, scores.logsumexp(-1).float()


def test_parts_of_the_past_merge_into_the_whole(monkeypatch):
    monkeypatch.setattr(fused, "_part", part)
    q, k, v = heads(5, 2), heads(17, 2, seed=1), heads(17, 2, seed=2)
    past = [(k[:, :, a:b], v[:, :, a:b]) for a, b in ((0, 6), (6, 7), (7, 12))]
    out = fused.segment_attention(q, past, k[:, :, 12:], v[:, :, 12:])
    # Parts are merged in float32, as half-precision outputs are.
    assert relative(out, by_loops(q, k, v, None)) <= 1e-6
    assert (
        relative(
            fused.segment_attention(q, [], k[:, :, 12:], v[:, :, 12:]),
            by_loops(q, k[:, :, 12:], v[:, :, 12:], None),
        )
        <= 1e-12
    )


def test_parts_are_merged_one_by_one_and_let_go(monkeypatch):
    """As on a GPU; and no part's keys are copied while another's are there."""
    pytest.importorskip("triton")
    from spatial_ttt.model.kernels import merging_triton

    def merge(total, lse, other, other_lse, done):
        found, together = fused._merge(total, lse, other[:, :, : lse.shape[2]], other_lse)
        total.copy_(found), lse.copy_(together)
        if done is not None:
            done.copy_(found)

    monkeypatch.setattr(merging_triton, "merge", merge)
    q, k, v = heads(5, 2), heads(17, 2, seed=1), heads(17, 2, seed=2)
    there: list[weakref.ref] = []

    def parts():
        for a, b in ((12, 17), (0, 6), (6, 7), (7, 12)):
            assert all(copied() is None for copied in there)
            keys = k[:, :, a:b].clone()
            there.append(weakref.ref(keys))
            run = partial(part, q, keys, v[:, :, a:b], causal=a == 12)
            del keys
            yield run
            del run

    out = fused._merged(q, parts())
    assert relative(out, by_loops(q, k, v, None)) <= 1e-6 and len(there) == 4
    assert out.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("length", [7, 8])
def test_long_pieces_are_padded_where_they_are_not_yet(monkeypatch, length):
    """Queries of whole steps are read where they lie, as are dense keys and values."""
    given = []

    def cudnn(q, k, v, *, causal):
        given.append((q, k, v))
        return part(q, k, v, causal=causal)

    names = {"LONG_QUERIES": 6, "CUDNN_QUERIES": 6, "QUERY_STEP": 4, "STRETCHES": (4, 2)}
    for name, value in (names | {"_cudnn": cudnn, "_part": part}).items():
        monkeypatch.setattr(fused, name, value)
    assert [fused.padding(n) for n in (5, 6, 7, 8)] == [0, 2, 1, 0]
    q, k, v = (heads(length, 2, seed=s) for s in range(3))
    keys, values = heads(9, 2, seed=3), heads(9, 2, seed=4)
    assert fused.reads_apart(q, k) and not fused.reads_apart(q[:, :, 1:], k)
    out = fused.segment_attention(q, [(keys, values)], k, v)
    wanted = by_loops(q, torch.cat((keys, k), 2), torch.cat((values, v), 2), None)
    assert relative(out, wanted) <= 1e-6
    assert [x.shape[2] for x in given[0]] == [8, 8, 8]
    copied = {x.data_ptr() for x in given[0]} - {x.data_ptr() for x in (q, k, v)}
    assert len(copied) == (0 if length == 8 else 3)
    assert [k.shape[2] for _, k, _ in given[1:]] == [4, 4]


@torch.no_grad()
def test_a_cpu_keeps_to_sdpa():
    assert not fused.applies(torch.zeros(1, dtype=torch.bfloat16))


@needs_cuda
@pytest.mark.gpu
@pytest.mark.parametrize("length", [1, 5, 700])
@torch.no_grad()
def test_kernels_agree_with_the_definition(length):
    q = heads(length, 4, 64).cuda()
    k, v = (heads(length + 300, 2, 64, seed=s).cuda() for s in (1, 2))
    half = [x.bfloat16() for x in (q, k, v)]
    exact = [x.double() for x in half]
    assert fused.applies(half[0]) and not fused.applies(exact[0])
    window = fused.window_attention(*half, window=100)
    assert relative(window.double(), by_loops(*(x.cpu() for x in exact), 100).cuda()) < 0.02
    past = [(half[1][:, :, a:b], half[2][:, :, a:b]) for a, b in ((0, 200), (200, 300))]
    out = fused.segment_attention(half[0], past, half[1][:, :, 300:], half[2][:, :, 300:])
    assert relative(out.double(), by_loops(*(x.cpu() for x in exact), None).cuda()) < 0.02


@needs_cuda
@pytest.mark.gpu
@pytest.mark.parametrize("length", [511, 512, 700, 1500])
@torch.no_grad()
def test_whole_pages_agree_with_the_definition(length, monkeypatch):
    monkeypatch.setattr("spatial_ttt.model.kv_cache.PAGE_TOKENS", 256)
    monkeypatch.setattr(fused, "LONG_QUERIES", 1500)
    monkeypatch.setattr(fused, "STRETCHES", (64, 16))
    total = 2 * 256 + 90 + length
    q = heads(length, 4, 64).cuda().bfloat16()
    k, v = (heads(total, 2, 64, seed=s).cuda().bfloat16() for s in (1, 2))
    past = [(k[:, :, a:b], v[:, :, a:b]) for a, b in ((0, 256), (256, 512), (512, 602))]
    out = fused.segment_attention(q, past, k[:, :, 602:], v[:, :, 602:])
    exact = [x.double().cpu() for x in (q, k, v)]
    assert relative(out.double(), by_loops(*exact, None).cuda()) < 0.02
    # Keys that stand before the queries' own in one segment are read in stretches too.
    out = fused.segment_attention(q, past[:2], k[:, :, 512:], v[:, :, 512:])
    assert relative(out.double(), by_loops(*exact, None).cuda()) < 0.02


@needs_cuda
@pytest.mark.gpu
@torch.no_grad()
def test_an_anchor_gives_long_pieces_as_cudnn_reads_them(monkeypatch):
    """Zeros behind pieces that end anywhere, over tails and the ends of pages; nothing is padded by a copy."""
    size = {"hidden": 256, "mlp": 8, "layers": 1, "heads": 4, "vocab": 8}
    tower = {"hidden": 16, "mlp": 32, "depth": 1, "heads": 2, "positions": 16, "taps": [0]}
    ttt = {"num_fast_heads": 2, "chunk_size": 16, "layer_pattern": ("anchor",)}
    text = _small(size, tower, None, ttt).text_config
    text.num_key_value_heads = 2
    anchor = Attention(text).cuda().bfloat16()
    lengths = (300, 700, 640, 40, 1000)
    x = torch.randn(1, sum(lengths), 256, device="cuda").bfloat16()
    angle = torch.randn(1, sum(lengths), 32, device="cuda")
    rope = torch.cat((angle.cos(), angle.sin()), -1).bfloat16()
    wanted = deepcopy(anchor).double().attend_all(x.double(), rope.double(), None)[0]
    monkeypatch.setattr("spatial_ttt.model.kv_cache.PAGE_TOKENS", 1024)
    monkeypatch.setattr(fused, "LONG_QUERIES", 600)
    monkeypatch.setattr(fused, "STRETCHES", (64, 16))
    monkeypatch.setattr("torch.nn.functional.pad", None)
    cache, outs = None, []
    for piece, turns in zip(x.split(lengths, 1), rope.split(lengths, 1), strict=True):
        out, cache = anchor.attend_all(piece, turns, cache)
        outs.append(out)
    assert relative(torch.cat(outs, 1).double(), wanted) < 0.02
    assert [keys.shape[2] for keys, _ in cache.segments] == [1024, 1024, sum(lengths) - 2048]
