"""Patches of training frames: those the processor cuts."""

from __future__ import annotations

import torch

from spatial_ttt.loading import small_model_frames
from spatial_ttt.processor import Processor
from spatial_ttt.train.clip_types import ClipSpec
from spatial_ttt.train.pixels import patchify
from tests.train import clips


def test_patches_are_the_processors() -> None:
    spec = ClipSpec(num_slots=2, fps=2.0, width=96, height=64)
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (3, 4, 64, 96, 3), generator=generator, dtype=torch.uint8)
    found, grid = patchify(frames, spec, torch.float32)
    processor = Processor(clips.tokenizer(), small_model_frames((64, 96)))
    expected = [processor.patches(clip) for clip in frames]
    assert grid == expected[0][1] == (4, 6)
    torch.testing.assert_close(found, torch.cat([patches for patches, _ in expected]))
