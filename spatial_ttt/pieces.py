"""From the frames of a session to the piece that its decoder is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spatial_ttt.model.layout import END, Layout, join_all, text
from spatial_ttt.model.vision import VisionTokens
from spatial_ttt.processor import Processor
from spatial_ttt.questions import Piece
from spatial_ttt.stopwatch import Stopwatch
from spatial_ttt.video.frame import Frame

Encode = Callable[[Tensor, tuple[int, int]], VisionTokens]


@dataclass(frozen=True)
class PieceMaker:
    """Turns slots and words into ids, layout and vision tokens, on a clock."""

    processor: Processor
    device: torch.device
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
                patches, grid = self.processor.patches(frames)
            with self.clock.part("vision"):
                vision = encode(patches, grid)
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
