"""Attention under every implementation, window and branch count; the anchors' cache copies on write."""

from __future__ import annotations

import math
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from spatial_ttt.errors import ConfigError
from spatial_ttt.model.attention import attend, attend_past, causal_mask, keep_window, last
from tests.model.streams import relative


def heads(length: int, number: int, dim: int = 4, *, batch=2, seed=0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, number, length, dim, generator=g, dtype=torch.float64)


def by_loops(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """Query i of L, the last of N tokens, sees keys up to its own and at most `window` of them."""
    out = torch.zeros_like(q)
    group, past = q.shape[1] // k.shape[1], k.shape[2] - q.shape[2]
    for head in range(q.shape[1]):
        for i in range(q.shape[2]):
            first = 0 if window is None else max(0, past + i - window + 1)
            keys, values = (x[:, head // group, first : past + i + 1] for x in (k, v))
            scores = (keys @ q[:, head, i, :, None])[..., 0] / math.sqrt(q.shape[-1])
            out[:, head, i] = (scores.softmax(-1)[:, None] @ values)[:, 0]
    return out


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("window", [None, 1, 3, 5, 100])
@pytest.mark.parametrize(("length", "past"), [(1, 0), (1, 6), (2, 7), (7, 0), (11, 4), (5, 20)])
def test_the_definition(length, past, window, implementation):
    q, k, v = heads(length, 4), heads(length + past, 2, seed=1), heads(length + past, 2, seed=2)
    out = attend(q, k, v, window=window, implementation=implementation)
    assert relative(out, by_loops(q, k, v, window)) <= 1e-12


def test_queries_in_many_blocks(monkeypatch):
    monkeypatch.setattr("spatial_ttt.model.attention._QUERY_BLOCK", 4)
    q, k, v = heads(11, 4), heads(17, 2, seed=1), heads(17, 2, seed=2)
    assert relative(attend(q, k, v), by_loops(q, k, v, None)) <= 1e-12


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("window", [None, 2, 4, 50])
def test_branches_see_the_past_and_themselves(window, implementation):
    branches, size, past = 3, 4, 6
    q = heads(branches * size, 4)
    k, v = heads(past + branches * size, 2, seed=1), heads(past + branches * size, 2, seed=2)
    out = attend(q, k, v, window=window, branches=branches, implementation=implementation)
    for branch in range(branches):
        own = slice(branch * size, (branch + 1) * size)
        keys, values = (torch.cat((x[:, :, :past], x[:, :, past:][:, :, own]), 2) for x in (k, v))
        expected = by_loops(q[:, :, own], keys, values, window)
        assert relative(out[:, :, own], expected) <= 1e-12


def flash_by_definition(q, k, v, *, causal, window_size):
    """What flash-attn documents: [B, L, H, Dh], causal from the bottom right, `window_size` keys to the left."""
    assert causal and window_size[1] in (-1, 0)
    window = None if window_size[0] < 0 else window_size[0] + 1
    q, k, v = (x.transpose(1, 2).double() for x in (q, k, v))
    return by_loops(q, k, v, window).transpose(1, 2).bfloat16()


@pytest.mark.parametrize("window", [None, 1, 3, 100])
def test_flash_attention_is_asked_for_the_same_window(window, monkeypatch):
    package = ModuleType("flash_attn")
    package.flash_attn_func = flash_by_definition
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    q, k, v = heads(5, 4), heads(9, 2, seed=1), heads(9, 2, seed=2)
    half = [x.bfloat16() for x in (q, k, v)]
    out = attend(*half, window=window, implementation="flash_attention_2")
    assert out.shape == q.shape and relative(out.double(), by_loops(q, k, v, window)) < 0.03
    with pytest.raises(ConfigError, match="load it in bfloat16"):
        attend(q, k, v, window=window, implementation="flash_attention_2")


def test_no_query_gives_no_output():
    q, k = heads(0, 4), heads(3, 2)
    assert attend(q, k, k).shape == (2, 4, 0, 4)


def test_a_mask_by_hand():
    mask = causal_mask(2, 5, 3, 1, torch.device("cpu"))
    assert mask.int().tolist() == [[0, 1, 1, 1, 0], [0, 0, 1, 1, 1]]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_past_segments_are_one_past(implementation):
    q, k, v = heads(5, 4), heads(17, 2, seed=1), heads(17, 2, seed=2)
    cuts = [(0, 6), (6, 7), (7, 12)]
    past = [(k[:, :, a:b], v[:, :, a:b]) for a, b in cuts]
    own = (k[:, :, 12:], v[:, :, 12:])
    out = attend_past(q, past, own, implementation=implementation)
    assert relative(out, by_loops(q, k, v, None)) <= 1e-12
    alone = attend_past(q, (), own, implementation=implementation)
    assert relative(alone, by_loops(q, *own, None)) <= 1e-12


def test_a_window_is_a_copy_that_frees_the_rest():
    keys, values = keep_window(None, heads(3, 2), heads(3, 2, seed=1))
    keys, values = keep_window((keys, values), heads(3, 2, seed=2), heads(3, 2, seed=3))
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            kept = last(keys, values, 4)
        for part, whole in zip(kept, (keys, values), strict=True):
            assert torch.equal(part, whole[:, :, 2:])
            assert part.untyped_storage().nbytes() == part.nbytes
    assert last(keys, values, 6) == (keys, values)


def test_a_window_fills_the_room_before_what_follows():
    past = heads(3, 2), heads(3, 2, seed=1)
    new = heads(5, 2, seed=2), heads(5, 2, seed=3)
    with_room = [
        torch.cat((torch.full_like(x, torch.nan), y), 2) for x, y in zip(past, new, strict=True)
    ]
    keys, values = keep_window(past, *(x[:, :, 3:] for x in with_room), room=3)
    expected = keep_window(past, *new)
    assert torch.equal(keys, expected[0]) and torch.equal(values, expected[1])
    assert keys.data_ptr() == with_room[0].data_ptr()
