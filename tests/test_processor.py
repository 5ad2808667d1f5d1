"""Frames become the patches and text the tokens that Qwen3-VL's own processor would make."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from spatial_ttt.errors import CheckpointError, VideoError
from spatial_ttt.model.layout import RunKind, num_tokens
from spatial_ttt.processor import (
    PAPER_SIZE,
    PROCESSOR_FILE,
    FrameFormat,
    Processor,
    qwen3_vl_frames,
)
from spatial_ttt.testing.small import byte_tokenizer, small_frames
from tests.scenery import processor


def noise(count: int, height: int, width: int) -> torch.Tensor:
    values = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return torch.from_numpy(values)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (96, 32)])
def test_patches_lie_as_qwen3_vls_own(height, width):
    frames = noise(6, height, width)
    own = Processor(byte_tokenizer(), qwen3_vl_frames(size=None))
    patches, grid = own.patches(frames)
    normal = ((frames.movedim(-1, 1).float() / 255 - 0.5) / 0.5)[None]
    theirs, *their_grid = Qwen3VLVideoProcessor.patchify(None, normal, 16, 2, 2)
    assert [patches.shape[0], *grid] == their_grid
    assert torch.allclose(patches.flatten(0, 1), theirs[0], atol=1e-6)


def test_other_means_and_spreads():
    frames = noise(2, 16, 16)
    own = Processor(byte_tokenizer(), FrameFormat(patch_size=8, spatial_merge_size=2, size=None, max_pixels=10_000,
                                                  mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)))  # fmt: skip
    patches, _ = own.patches(frames)
    pixel = frames[1, 3, 4].float() / 255  # frame 1, row 3, column 4: patch 0, value [c, 1, 3, 4]
    expected = (pixel - torch.tensor((0.1, 0.2, 0.3))) / torch.tensor((0.5, 0.6, 0.7))
    got = patches[0, 0].view(3, 2, 8, 8)[:, 1, 3, 4]
    assert torch.allclose(got, expected, atol=1e-6)


def test_resizing_is_antialiased_bicubic_as_pillows():
    frames = noise(2, 90, 140)
    small = Processor(byte_tokenizer(), small_frames((32, 48)))
    patches, grid = small.patches(frames)
    assert grid == (4, 6)
    image = Image.fromarray(frames[0].numpy()).resize((48, 32), Image.Resampling.BICUBIC)
    resized = torch.from_numpy(np.array(image)).repeat(2, 1, 1, 1)
    expected, _ = small.patches(resized)
    assert (patches - expected)[0].view(24, 3, 2, 8, 8)[:, :, 0].abs().max() <= 2 * 1.001 / 255


def test_frames_of_the_right_size_are_not_touched():
    frames = noise(2, 32, 48)
    patches, _ = processor().patches(frames)
    first = patches[0].view(
        2, 3, 2, 2, 3, 2, 8, 8
    )  # row, col, row in token, col in token, C, frame, y, x
    picture = first[..., 0, :, :].permute(0, 2, 5, 1, 3, 6, 4).reshape(32, 48, 3)
    assert torch.allclose((picture + 1) * 127.5, frames[0].float(), atol=1e-4)


@pytest.mark.parametrize(
    ("size", "target"),
    [((352, 480), (352, 480)), ((360, 540), (320, 480)), ((1080, 1920), (288, 544)), ((20, 20), (32, 32)),
     ((3000, 100), (2240, 64))],
)  # fmt: skip
def test_free_sizes_keep_the_aspect_within_the_area(size, target):
    frames = qwen3_vl_frames(size=None)
    got = frames.target(*size)
    assert got == target and got[0] * got[1] <= max(frames.max_pixels, 1024)


def test_fixed_sizes_are_multiples_of_a_token():
    assert qwen3_vl_frames().target(1080, 1920) == PAPER_SIZE
    with pytest.raises(VideoError, match="use multiples of 32"):
        qwen3_vl_frames((350, 480))


def test_the_text_around_a_slot():
    ids, layout = processor().slot_ids(12.34, (2, 3))
    text = processor().tokenizer.decode(ids)
    assert text == "<12.3 seconds><|vision_start|>" + "<|video_pad|>" * 6 + "<|vision_end|>"
    assert [run.kind for run in layout] == [RunKind.TEXT, RunKind.SLOT, RunKind.TEXT]
    assert num_tokens(layout) == len(ids) and layout[1].grid == (2, 3) and layout[2].length == 1
    start = layout[0].length
    assert ids[start : start + 6] == processor().encode("<|video_pad|>") * 6
    assert processor().slot_ids(12.34, (2, 3)) == (ids, layout)  # from memory the second time


def test_a_whole_conversation():
    p = processor()
    whole = p.tokenizer.decode([*p.prefix_ids, *p.question_ids("Where?"), *p.answer_ids("There")])
    assert whole == "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\nThere<|im_end|>"
    assert p.answer_ids("x")[-1] == p.stop_id and p.decode(p.answer_ids("There")) == "There"


def test_saved_and_read_again(tmp_path):
    processor().save_pretrained(tmp_path)
    again = Processor.from_pretrained(tmp_path)
    assert again.frames == processor().frames
    assert again.question_ids("Wie viele Stühle?") == processor().question_ids("Wie viele Stühle?")
    assert Processor.from_pretrained(tmp_path, size=(16, 16)).frames.size == (16, 16)


def test_a_stock_folder_gets_the_papers_frames(tmp_path):
    byte_tokenizer().save_pretrained(str(tmp_path))
    assert Processor.from_pretrained(tmp_path).frames == qwen3_vl_frames(PAPER_SIZE)
    assert Processor.from_pretrained(tmp_path, size=(64, 64)).frames.size == (64, 64)


def test_damaged_folders(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no tokenizer\.json"):
        Processor.from_pretrained(tmp_path)
    processor().save_pretrained(tmp_path)
    path = tmp_path / PROCESSOR_FILE
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"format": 9}))
    with pytest.raises(CheckpointError, match="has format 9"):
        Processor.from_pretrained(tmp_path)
    path.write_text(json.dumps(record | {"frames": {"patch": 3}}))
    with pytest.raises(CheckpointError, match="names the frame fields"):
        Processor.from_pretrained(tmp_path)
    path.write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        Processor.from_pretrained(tmp_path)


def test_a_foreign_tokenizer_is_refused():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    foreign = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    )
    with pytest.raises(CheckpointError, match="the tokenizer has no token"):
        Processor(foreign, small_frames())
