"""The words around a training clip: the processor's, slot for slot."""

from __future__ import annotations

import pytest

from spatial_ttt.loading import small_model_frames
from spatial_ttt.model.layout import END, join, num_tokens, text
from spatial_ttt.processor import Processor
from spatial_ttt.train.clip_text import blind_prefix, clip_prefix, fitting_slots, room_for_branch
from spatial_ttt.train.clip_types import ClipSpec
from tests.train import clips

SPECS = (clips.SPEC, ClipSpec(num_slots=23, fps=3.0, width=128, height=96))


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: str(s.num_slots))
def test_it_is_what_the_processor_writes(spec: ClipSpec) -> None:
    processor = Processor(clips.tokenizer(), small_model_frames((spec.height, spec.width)))
    ids = list(processor.prefix_ids)
    layout = (text(len(ids)),)
    ends = []
    for time in spec.slot_times:
        more, runs = processor.slot_ids(float(time), spec.grid)
        ids += more
        ends.append(len(ids) - 1)
        for run in runs:
            layout = join(layout, (run,))
    found = clip_prefix(clips.tokenizer(), spec)
    assert list(found.ids) == ids
    assert found.layout == (*layout, END)
    assert list(found.slot_ends) == ends
    assert num_tokens(found.layout) == len(ids)
    assert {found.ids[n] for n in found.slot_ends} == {
        clips.tokenizer().convert_tokens_to_ids("<|vision_end|>")
    }


def test_a_blind_prefix_is_the_start_of_every_other() -> None:
    blind, whole = blind_prefix(clips.tokenizer()), clips.prefix()
    assert whole.ids[: len(blind.ids)] == blind.ids
    assert blind.slot_ends == ()


def test_slot_counts_that_fit_leave_the_room_asked_for() -> None:
    fits = fitting_slots(clips.tokenizer(), SPECS[1], 128, 96)
    assert 0 < len(fits) < 23
    for count in range(1, 24):
        spec = ClipSpec(num_slots=count, fps=3.0, width=128, height=96)
        room = room_for_branch(clip_prefix(clips.tokenizer(), spec), 128)
        assert (room >= 96) == (count in fits)
