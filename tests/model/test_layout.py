"""Layouts: splitting and joining are inverse, positions are Qwen3-VL's, placeholders are counted."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_ttt.errors import VideoError
from spatial_ttt.model.layout import (
    END,
    RunKind,
    VisionIds,
    cut,
    join,
    join_all,
    layout_of_ids,
    num_tokens,
    positions,
    slot,
    split,
    text,
    uneven_rows,
)
from tests.model.streams import cuttings, layouts


def test_rows_of_different_layouts_are_padded_and_never_cut():
    rows = uneven_rows(((text(2), slot(1, 2)), (text(1),), (slot(2, 3), END)))
    assert rows.length == 6 and num_tokens(rows.flat) == 18
    of_first = (text(2), slot(1, 2), END)
    assert rows.flat == (*of_first, text(2 + 1), END, text(5), slot(2, 3), END, END)
    assert split(rows, 6) == (rows, ())
    for wrong in (lambda: split(rows, 5), lambda: join(rows, (END,)), lambda: cut(rows, 0, 6)):
        with pytest.raises(VideoError, match="whole samples"):
            wrong()


SETTINGS = settings(derandomize=True, deadline=None, max_examples=200)


@SETTINGS
@given(layout=layouts(), data=st.data())
def test_cutting_and_joining_gives_the_layout_back(layout, data):
    length = num_tokens(layout)
    borders = [0, *data.draw(cuttings(length)), length]
    pieces = [cut(layout, a, b) for a, b in pairwise(sorted(set(borders)))]
    assert join_all(pieces) == layout
    assert [num_tokens(p) for p in pieces] == [b - a for a, b in pairwise(sorted(set(borders)))]


@SETTINGS
@given(layout=layouts(), data=st.data())
def test_positions_of_pieces_are_those_of_the_whole(layout, data):
    length = num_tokens(layout)
    whole, following = positions(layout, 5)
    start, parts = 5, []
    for a, b in pairwise(sorted({0, *data.draw(cuttings(length)), length})):
        part, start = positions(cut(layout, a, b), start)
        parts.append(part)
    assert torch.equal(torch.cat(parts, dim=1), whole) and start == following


def test_positions_by_hand():
    where, following = positions((text(2), slot(2, 3), END, text(1)), 10)
    assert where[0].tolist() == [10, 11, 12, 12, 12, 12, 12, 12, 15]
    assert where[1].tolist() == [10, 11, 12, 12, 12, 13, 13, 13, 15]
    assert where[2].tolist() == [10, 11, 12, 13, 14, 12, 13, 14, 15]
    assert following == 16


def test_an_end_at_the_border_goes_with_the_token_before_it():
    layout = (text(1), slot(1, 2), END, text(2))
    assert split(layout, 3) == ((text(1), slot(1, 2), END), (text(2),))
    assert split(layout, 2)[1][0].start == 1


def test_joining_refuses_another_slot_in_the_middle():
    half = cut((slot(2, 2),), 0, 1)
    for wrong in (slot(2, 3), slot(2, 2)):
        with pytest.raises(VideoError, match="send the rest first"):
            join(half, (wrong,))
    assert join(half, cut((slot(2, 2),), 1, 4)) == (slot(2, 2),)
    assert join((), (text(1),)) == join((text(1),), ()) == (text(1),)


IDS = VisionIds(image=8, video=9)


def test_layout_of_ids_finds_every_slot():
    ids = [1, 9, 9, 2, 9, 9, 3, 8, 8, 8, 4]
    layout = layout_of_ids(ids, [(2, 1, 2), (1, 3, 1)], IDS)
    assert layout == (
        text(1),
        slot(1, 2),
        text(1),
        slot(1, 2),
        END,
        text(1),
        slot(3, 1),
        END,
        text(1),
    )


def test_neighbouring_images_are_told_apart_by_their_grids():
    assert layout_of_ids([8, 8, 8], [(1, 1, 1), (1, 2, 1)], IDS) == (
        slot(1, 1),
        END,
        slot(2, 1),
        END,
    )
    assert layout_of_ids([5, 6], [], IDS) == (text(2),)


@pytest.mark.parametrize(
    ("ids", "grids", "complaint"),
    [
        ([9, 9], [], "no video grid accounts for"),
        ([1, 2], [(1, 1, 1)], "1 more slots than the prompt"),
        ([9, 9, 1, 9], [(1, 1, 3)], "meets only 2 placeholders"),
    ],
)
def test_placeholders_that_do_not_add_up(ids, grids, complaint):
    with pytest.raises(VideoError, match=complaint):
        layout_of_ids(ids, grids, IDS)


def test_kinds_are_plain_numbers():
    assert [int(k) for k in (RunKind.TEXT, RunKind.SLOT, RunKind.END)] == [0, 1, 2]
