"""States: bytes are counted, pieces are joined and sliced, copies own their memory."""

from __future__ import annotations

import torch

from spatial_ttt.model.kv_cache import append
from spatial_ttt.model.layout import slot, text
from spatial_ttt.model.state import (
    DecoderState,
    Tokens,
    cat_tokens,
    last_tokens,
    layer_bytes,
    own,
    slice_tokens,
    tensors,
)
from tests.model.streams import model_of, push, random_stream, video


def tokens(length: int, layout, deepstack=None) -> Tokens:
    hidden = torch.arange(float(length)).view(1, length, 1).expand(1, length, 2)
    return Tokens(hidden, hidden.clone(), deepstack, layout)


def test_joining_fills_missing_features_with_zeros():
    deep = torch.ones(2, 1, 2, 2)
    joined = cat_tokens(
        tokens(3, (text(3),)), tokens(2, (slot(1, 2),), deep), (text(3), slot(1, 2))
    )
    assert joined.length == 5 and joined.deepstack[:, 0, :, 0].tolist() == [[0, 0, 0, 1, 1]] * 2
    other_way = cat_tokens(
        tokens(2, (slot(1, 2),), deep), tokens(3, (text(3),)), (slot(1, 2), text(3))
    )
    assert other_way.deepstack[0, 0, :, 0].tolist() == [1, 1, 0, 0, 0]
    assert cat_tokens(tokens(1, (text(1),)), tokens(1, (text(1),)), (text(2),)).deepstack is None


def test_the_last_tokens_keep_no_others():
    """A whole piece's would stay in memory for as long as somebody holds its last token."""
    whole = tokens(50, (text(50),), torch.ones(1, 1, 50, 2))
    for count in (0, 3):
        last = last_tokens(whole, count)
        assert last.length == count and last.layout == ((text(3),) if count else ())
        assert torch.equal(last.hidden, whole.hidden[:, 50 - count :])
        for x in tensors(last):
            assert x.untyped_storage().nbytes() <= 4 * x.numel()
    assert last_tokens(whole, 60).hidden.data_ptr() == whole.hidden.data_ptr()


def test_slicing():
    part = slice_tokens(tokens(5, (text(5),), torch.ones(1, 1, 5, 2)), 1, 3, (text(2),))
    assert part.hidden[0, :, 0].tolist() == [1, 2] and part.deepstack.shape == (1, 1, 2, 2)


def test_own_copies_every_tensor_and_nothing_else():
    state = (torch.ones(3)[:1], None, 4, tokens(2, (text(2),)))
    copy = own(state)
    assert copy[1:3] == (None, 4) and isinstance(copy[3], Tokens) and copy[3].layout == (text(2),)
    assert copy[0].untyped_storage().nbytes() == 4 and torch.equal(copy[3].hidden, state[3].hidden)


@torch.no_grad()
def test_bytes_are_those_of_all_tensors():
    model = model_of(torch.float32)
    stream = random_stream(model, video((2, 2), 5, ends=False))
    _, state = push(model, stream)
    expected = 0
    for layer in state.layers:
        if hasattr(layer, "fast"):
            expected += sum(t.numel() * t.element_size() for t in tensors(layer))
        else:
            expected += 2 * layer.length * 2 * 8 * 4
    assert state.num_bytes == expected == sum(layer_bytes(s) for s in state.layers)
    assert DecoderState((None, None), 0, 0).num_bytes == 0


@torch.no_grad()
def test_a_cache_counts_what_is_in_use():
    k = torch.zeros(1, 2, 3, 4)
    cache = append(append(None, k, k), k[:, :, :1], k[:, :, :1])
    assert cache.keys.shape[2] > 4 and layer_bytes(cache) == 2 * 2 * 4 * 4 * 4


def test_tokens_with_room_before_them_stay_where_they_are() -> None:
    whole = torch.randn(1, 9, 4)
    held = Tokens(torch.randn(1, 2, 4), torch.randn(1, 2, 2), None, (text(2),))
    for room in (3, 1):
        memory = whole.clone()
        new = Tokens(memory[:, 3:], torch.randn(1, 6, 2), None, (text(6),), room)
        found = cat_tokens(held, new, (text(8),))
        assert torch.equal(found.hidden, torch.cat((held.hidden, whole[:, 3:]), dim=1))
        has_moved = found.hidden.data_ptr() != memory[:, 1:].data_ptr()
        assert has_moved == (room < held.length) and found.room == 0
        assert torch.equal(memory[:, :1], whole[:, :1])
