"""What a layer may release: nothing that the next slot could still change, and everything else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from spatial_ttt.errors import VideoError
from spatial_ttt.model.holding import plan
from spatial_ttt.model.layout import END, RunKind, cut, num_tokens, slot, text, uneven_rows
from tests.model.streams import layouts


def test_a_centred_convolution_holds_the_last_slot_and_the_text_after_it():
    todo = plan((text(2), slot(1, 2), text(1), slot(1, 2), text(3)), None, "centred")
    assert todo.released == 2 + 2 + 1
    (stretch,) = todo.stretches
    assert stretch.starts == (2,) and stretch.next_start == 5
    assert not stretch.follows and stretch.stays_open


def test_an_end_releases_everything():
    todo = plan((slot(1, 2), text(3), END, text(1)), (1, 2), "centred")
    assert todo.released == 6
    (stretch,) = todo.stretches
    assert stretch.follows and stretch.next_start is None and not stretch.stays_open
    assert not todo.keeps_context


def test_context_outlives_text_and_a_single_held_slot():
    assert plan((text(4),), (1, 2), "centred").keeps_context
    assert plan((slot(1, 2),), (1, 2), "centred").keeps_context  # nothing released yet
    assert not plan((slot(1, 2), slot(1, 2)), (1, 2), "centred").keeps_context  # replaced
    assert not plan((END, text(1)), (1, 2), "centred").keeps_context


def test_causal_waits_for_the_rest_of_a_slot_only():
    half = cut((slot(2, 2),), 0, 3)
    assert plan((slot(2, 2), text(1), *half), None, "causal").released == 5
    assert plan(half, None, "centred").released == 0
    assert plan(half, None, "none").released == 3


@settings(derandomize=True, deadline=None, max_examples=200)
@given(layout=layouts())
def test_every_slot_is_convolved_once_it_is_released(layout):
    starts, at, is_open = [], 0, False
    for run in layout:
        starts += [at] if run.kind == RunKind.SLOT else []
        is_open = run.kind == RunKind.SLOT or (is_open and run.kind != RunKind.END)
        at += run.length
    for convolution in ("centred", "causal"):
        todo = plan(layout, None, convolution)
        convolved = sorted(s for stretch in todo.stretches for s in stretch.starts)
        assert convolved == [s for s in starts if s < todo.released]
        held = num_tokens(layout) - todo.released
        assert (held > 0) == (is_open and convolution == "centred")


@settings(derandomize=True, deadline=None, max_examples=50)
@given(first=layouts(), second=layouts())
def test_rows_of_different_layouts_are_released_whole_and_convolved_as_each_alone(first, second):
    for convolution in ("centred", "causal"):
        rows = uneven_rows((first, second))
        todo = plan(rows, None, convolution)
        alone = [plan((*layout, END), None, convolution) for layout in (first, second)]
        assert todo.released == rows.length and todo.is_flat and not todo.keeps_context
        expected = [
            (stretch.grid, tuple(start + row * rows.length for start in stretch.starts))
            for row, each in enumerate(alone)
            for stretch in each.stretches
        ]
        assert [(stretch.grid, stretch.starts) for stretch in todo.stretches] == expected
        assert not any(s.follows or s.stays_open or s.next_start for s in todo.stretches)


def test_rows_of_different_layouts_follow_nothing():
    with pytest.raises(VideoError, match="end it"):
        plan(uneven_rows(((text(1),), (text(2),))), (1, 2), "centred")


@pytest.mark.parametrize("after", [text(1), END])
def test_a_slot_is_never_left_unfinished(after):
    with pytest.raises(VideoError, match="send the rest of the slot first"):
        plan((*cut((slot(2, 2),), 0, 3), after), None, "centred")


def test_the_grid_of_an_open_video_is_fixed():
    with pytest.raises(VideoError, match="end the video before the frame size changes"):
        plan((slot(2, 1),), (1, 2), "centred")
