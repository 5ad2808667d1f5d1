"""The convolution of a stream equals that of the whole video, and leaves text alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from spatial_ttt.model import stream_convolution
from spatial_ttt.model.holding import plan
from spatial_ttt.model.layout import END, Layout, join_all, num_tokens, slot, text
from spatial_ttt.model.stream_convolution import convolve_released
from tests.model.streams import layouts, relative, video

CHANNELS, GRID, AREA, SLOTS = 6, (2, 3), 6, 5
PART = (text(2), slot(*GRID), text(1))
WHOLE = join_all([PART] * SLOTS + [(END,)])


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


FAST = random(2, num_tokens(WHOLE), CHANNELS, seed=0)
WEIGHT = random(CHANNELS, 1, 3, 3, 3, seed=1)


def expected(is_centred: bool) -> Tensor:
    """torch's own convolution of the slots, put back between the text."""
    parts = FAST.unflatten(1, (SLOTS, AREA + 3)).clone()
    video = parts[:, :, 2 : 2 + AREA].unflatten(2, GRID).movedim(-1, 1)
    in_time = (1, 1) if is_centred else (2, 0)
    padded = F.pad(video, (1, 1, 1, 1, *in_time), mode="replicate")
    out = F.conv3d(padded, WEIGHT, groups=CHANNELS)
    parts[:, :, 2 : 2 + AREA] = out.movedim(1, -1).flatten(2, 3)
    return parts.flatten(1, 2)


@pytest.mark.parametrize("convolution", ["centred", "causal"])
def test_a_whole_video_is_convolved_where_it_lies(convolution):
    is_centred = convolution == "centred"
    whole = plan(WHOLE, None, convolution)
    out, context = convolve_released(FAST, whole, None, WEIGHT, is_centred)
    assert context is None
    assert relative(out, expected(is_centred)) <= 1e-12


@pytest.mark.parametrize("convolution", ["centred", "causal"])
def test_pieces_carry_what_the_next_slot_reads(convolution):
    """Slot by slot; what a centred plan does not release waits at the front of the next queue."""
    is_centred = convolution == "centred"
    pieces: list[Layout] = [PART] * SLOTS + [(END,)]
    held, layout, context, at = FAST[:, :0], (), None, 0
    outputs = []
    for piece in pieces:
        size = num_tokens(piece)
        queue = torch.cat((held, FAST[:, at : at + size]), dim=1)
        layout, at = join_all([layout, piece]), at + size
        todo = plan(layout, context.grid if context else None, convolution)
        if todo.stretches:
            out, context = convolve_released(queue, todo, context, WEIGHT, is_centred)
        else:
            out, context = queue[:, : todo.released], context if todo.keeps_context else None
        outputs.append(out)
        held = queue[:, todo.released :]
        # The plan releases whole runs: a slot and the text after it wait.
        layout = (slot(*GRID), text(1)) if held.shape[1] else ()
        assert context is None or context.slots.shape[1] <= (1 if is_centred else 2)
    assert context is None and not held.shape[1]
    assert relative(torch.cat(outputs, dim=1), expected(is_centred)) <= 1e-12


@given(layouts(), st.booleans())
@settings(derandomize=True, deadline=None)
def test_what_no_stretch_convolves_is_copied_and_nothing_else(layout: Layout, one: bool):
    """Gap by gap, in rows of them or by an index, as many as there are."""
    whole = plan(layout, None, "centred")
    fast = random(1 if one else 2, num_tokens(layout) + 2, CHANNELS, seed=2)[:, 2:]
    fast = fast if one else fast.contiguous()  # one row may begin anywhere in its memory
    expected = torch.zeros(len(fast), whole.released, CHANNELS, dtype=fast.dtype)
    for start, stop in stream_convolution._gaps(whole):
        expected[:, start:stop] = fast[:, start:stop]
    found = torch.zeros_like(expected)
    stream_convolution._copy_gaps(found, fast, whole)
    assert torch.equal(found, expected)


def test_gaps_at_equal_distances_are_one_copy() -> None:
    rows = stream_convolution._rows_of_gaps
    long = join_all([(text(5),), video((2, 3), 40, 3, ends=False)])
    assert rows(plan(long, None, "centred")) == ((0, 1, 5, 5), (11, 39, 9, 3))
    other = join_all([video((2, 3), 3, 2), (text(3),)])
    assert rows(plan(other, None, "centred")) == ((6, 2, 8, 2), (22, 1, 3, 3))
    assert rows(plan(video((2, 3), 3, 0), None, "centred")) == ()
