"""The timeline: the latest notes exactly, in memory that stays as it is."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_ttt.errors import CheckpointError
from spatial_ttt.serve.records import SessionRecord, record_from_json
from spatial_ttt.serve.timeline import (
    TIMELINE_SLOTS,
    MemoryNote,
    Timeline,
    timeline_from_json,
    timeline_from_notes,
)


def note(slot: int, layers: int = 2) -> MemoryNote:
    """What torch gives: 32-bit figures as Python floats."""
    figures = np.random.default_rng(slot).standard_normal((3, layers)).astype(np.float32).tolist()
    return MemoryNote(slot, slot * 0.7, *map(tuple, figures))


def filled(count: int, layers: int = 2) -> Timeline:
    timeline = Timeline()
    for slot in range(count):
        timeline.append(note(slot, layers))
    return timeline


def expected(first: int, stop: int, layers: int = 2) -> list[dict[str, object]]:
    return [note(slot, layers).to_json() for slot in range(first, stop)]


@given(st.integers(0, 3 * TIMELINE_SLOTS), st.integers(0, 3))
@settings(derandomize=True, deadline=None, max_examples=10)
def test_the_latest_notes_are_kept_as_they_were_in_memory_and_on_disk(count, layers):
    timeline = filled(count, layers)
    wanted = expected(max(0, count - TIMELINE_SLOTS), count, layers)
    written = json.loads(json.dumps(timeline.to_json()))
    assert timeline.notes() == wanted
    assert timeline.copy().notes() == wanted
    assert timeline_from_json(written, "x").notes() == wanted
    assert timeline_from_notes(wanted, "x").notes() == wanted


def test_its_memory_stays_as_it_is_after_the_first_slot():
    timeline = filled(1)
    size = timeline.num_bytes
    for slot in range(1, 2 * TIMELINE_SLOTS + 7):
        timeline.append(note(slot))
        assert timeline.num_bytes == size
    assert size == TIMELINE_SLOTS * (8 + 8 + 3 * 2 * 4)


@pytest.mark.parametrize("count", [1, 5, TIMELINE_SLOTS - 1, TIMELINE_SLOTS, TIMELINE_SLOTS + 5])
def test_a_copy_goes_its_own_way_and_goes_on_in_order(count):
    timeline = filled(count)
    before = timeline.notes()
    twin = timeline.copy()
    for slot in range(count, count + 7):
        twin.append(note(slot))
    assert timeline.notes() == before
    assert twin.notes() == expected(max(0, count + 7 - TIMELINE_SLOTS), count + 7)


@pytest.mark.parametrize(
    "damage",
    [
        [],
        {"layers": 2},
        {"layers": 1 << 40, "notes": ""},
        {"layers": True, "notes": ""},
        {"layers": 2, "notes": "AAAA"},
        {"layers": 2, "notes": "no base64!"},
        {"layers": 0, "notes": "A" * 16 * 4 * 3000},
    ],
)
def test_a_damaged_timeline_is_refused(damage):
    with pytest.raises(CheckpointError, match="damaged"):
        timeline_from_json(damage, "x")


def test_records_of_the_first_format_are_read():
    record = SessionRecord("a" * 24, "ann", "hall", 100, timeline=filled(3))
    older = record.to_json() | {"format": 1, "timeline": record.timeline.notes()}
    assert record_from_json(older, "x").timeline.notes() == expected(0, 3)
    with pytest.raises(CheckpointError, match="damaged"):
        record_from_json(older | {"timeline": [{"slot": 0}]}, "x")
    with pytest.raises(CheckpointError, match="reads 1 and 2"):
        record_from_json(older | {"format": 3}, "x")
