"""The convolution of a stream equals that of the whole video, and leaves text alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from spatial_ttt.model.holding import plan
from spatial_ttt.model.layout import END, Layout, join_all, num_tokens, slot, text
from spatial_ttt.model.stream_convolution import convolve_released
from tests.model.streams import relative

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
