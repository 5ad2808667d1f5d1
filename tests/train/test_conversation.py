"""Samples as tokens: the stream of a session, targets on answers only."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_ttt.data_format import Sample, Turn
from spatial_ttt.errors import DataError
from spatial_ttt.model.layout import RunKind, num_tokens
from spatial_ttt.testing.small import small_processor
from spatial_ttt.train.conversation import Medium, encode, media_order, most_tokens

PROCESSOR = small_processor()
VIDEO = Medium((0.25, 1.25), (2, 3), False)
IMAGE = Medium((0.0,), (2, 3), True)


def ask(question: str, answer: str = "4", **files) -> Sample:
    return Sample(turns=(Turn("human", question), Turn("gpt", answer)), **files)


def spoken(encoded) -> str:
    return PROCESSOR.tokenizer.decode(encoded.ids)


def test_the_words_are_a_sessions():
    encoded = encode(ask("<video>\nHow many?", videos=("a.mp4",)), [VIDEO], PROCESSOR)
    expected = list(PROCESSOR.prefix_ids)
    for time in VIDEO.times:
        expected += PROCESSOR.slot_ids(time, VIDEO.grid)[0]
    expected += PROCESSOR.question_ids("How many?")
    assert encoded.ids == expected + PROCESSOR.answer_ids("4")
    assert encoded.is_target == [False] * len(expected) + [True, True]
    assert num_tokens(encoded.layout) == len(encoded.ids)
    kinds = [run.kind for run in encoded.layout]
    words, slot, end = RunKind.TEXT, RunKind.SLOT, RunKind.END
    assert kinds == [words, slot, words, slot, words, end, words]


def test_a_conversation_learns_every_answer_and_no_question():
    turns = (
        Turn("human", "<video>\nOne?"),
        Turn("gpt", "1"),
        Turn("human", "Two?"),
        Turn("gpt", "2"),
    )
    encoded = encode(Sample(turns=turns, videos=("a.mp4",)), [VIDEO], PROCESSOR)
    learned = [i for i, target in zip(encoded.ids, encoded.is_target, strict=True) if target]
    assert PROCESSOR.tokenizer.decode(learned) == "1<|im_end|>2<|im_end|>"
    tail = "1<|im_end|>\n<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>"
    assert spoken(encoded).endswith(tail)


def test_images_and_videos_stand_where_their_markers_do():
    sample = ask("<image> and <video>\nSame?", videos=("v.mp4",), images=("i.png",))
    assert media_order(sample) == [("i.png", True), ("v.mp4", False)]
    encoded = encode(sample, [IMAGE, VIDEO], PROCESSOR)
    said = spoken(encoded)
    assert said.startswith("<|im_start|>user\n<|vision_start|><|image_pad|>")
    assert said.count("<|image_pad|>") == 6 and said.count("<|video_pad|>") == 12
    assert "<|vision_end|>and<0.2 seconds><|vision_start|>" in said
    assert [r.kind for r in encoded.layout].count(RunKind.END) == 2


def test_a_sample_without_an_answer_is_refused():
    with pytest.raises(DataError, match="nothing to learn"):
        encode(Sample(turns=(Turn("human", "Well?"),), id="x"), [], PROCESSOR)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    question=st.text(max_size=60).filter(lambda t: "<video>" not in t and "<image>" not in t),
    answer=st.text(max_size=30),
    slots=st.integers(1, 6),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    second=st.booleans(),
)
def test_the_bound_needs_no_tokenizer(question, answer, slots, grid, second):
    turns = [Turn("human", f"<video>\n{question}"), Turn("gpt", answer)]
    turns += [Turn("human", question), Turn("gpt", answer)] if second else []
    sample = Sample(turns=tuple(turns), videos=("a.mp4",))
    times = tuple(9999.0 + n for n in range(slots))
    length = len(encode(sample, [Medium(times, grid, False)], PROCESSOR).ids)
    stamp = len(PROCESSOR.encode("<99999.9 seconds><|vision_start|><|vision_end|>"))
    assert length <= most_tokens(sample, slots, grid[0] * grid[1], stamp)
