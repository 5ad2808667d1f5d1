"""From the frames of a session to the piece that its decoder is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from spatial_ttt.model.layout import END, Layout, join_all, text
from spatial_ttt.model.vision import VisionTokens, batch_slots, in_batches
from spatial_ttt.processor import FRAMES_PER_SLOT, Processor
from spatial_ttt.questions import Piece
from spatial_ttt.stopwatch import Stopwatch
from spatial_ttt.video.frame import Frame

Encode = Callable[[Tensor | list[Tensor], tuple[int, int]], VisionTokens]
"""Patches may be given away (see `layers.taken`); the result is good until the next call."""


@dataclass(frozen=True)
class PieceMaker:
    """Turns slots and words into ids, layout and vision tokens, on a clock."""

    processor: Processor
    device: torch.device
    dtype: torch.dtype
    clock: Stopwatch

    def make(
        self,
        encode: Encode,
        is_first: bool,
        slots: list[tuple[Frame, Frame]],
        tail: tuple[int, ...],
    ) -> Piece:
        """Slots of two frames each as `encode` sees them; with `tail` ids the video ends and they follow.

        The first piece of a stream begins with the processor's prefix.
        """
        ids: list[int] = list(self.processor.prefix_ids) if is_first else []
        layouts: list[Layout] = [(text(len(ids)),)] if ids else []
        vision = None
        if slots:
            with self.clock.part("preprocess"):
                pixels = np.stack([frame.pixels for pair in slots for frame in pair])
                frames = torch.from_numpy(pixels).to(self.device)
            # Batch by batch, since patches are larger than frames.
            batches = list(frames.split(FRAMES_PER_SLOT * batch_slots(len(slots))))
            del frames
            grid = self.processor.grid(pixels.shape[1:3])
            vision = in_batches(partial(self._see, encode, grid), batches)
            merge = self.processor.frames.spatial_merge_size
            for first, second in slots:
                slot_ids, layout = self.processor.slot_ids(
                    (first.time + second.time) / 2, (grid[0] // merge, grid[1] // merge)
                )
                ids += slot_ids
                layouts.append(layout)
        if tail:
            ids += tail
            layouts.append((END, text(len(tail))))
        return Piece(torch.tensor([ids], device=self.device), join_all(layouts), vision)

    def _see(self, encode: Encode, grid: tuple[int, int], box: list[Tensor]) -> VisionTokens:
        with self.clock.part("preprocess"):
            patches = [self.processor.patches(box.pop(), self.dtype)[0]]
        with self.clock.part("vision"):
            return encode(patches, grid)
