"""From frames and text to what the model reads: patches, token ids, layouts.

The text of a stream (Qwen3-VL's chat format without a system message):

    <|im_start|>user\\n  { <12.3 seconds><|vision_start|> h x w <|video_pad|> <|vision_end|> } per slot
    {question}<|im_end|>\\n<|im_start|>assistant\\n{answer}<|im_end|>

Frames are resized, normalised and cut into patches with torch; no torchvision is needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from spatial_ttt.errors import CheckpointError, VideoError
from spatial_ttt.files import read_json
from spatial_ttt.model.kernels import patching
from spatial_ttt.model.layout import Layout, Run, RunKind, text

FRAMES_PER_SLOT = 2
PROCESSOR_FILE = "spatial_ttt_processor.json"
PROCESSOR_FORMAT = 1

USER_PREFIX = "<|im_start|>user\n"
ANSWER_PREFIX = "<|im_end|>\n<|im_start|>assistant\n"
ANSWER_END = "<|im_end|>"
VISION_START, VISION_END, VIDEO_PAD = "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"


@dataclass(frozen=True, kw_only=True)
class FrameFormat:
    """How frames become patches."""

    patch_size: int
    """Pixels."""
    spatial_merge_size: int
    """Patches per side of a vision token."""
    size: tuple[int, int] | None
    """(height, width) in pixels every frame is resized to; None keeps the aspect within `max_pixels`."""
    max_pixels: int
    """Largest frame area where `size` is None."""
    mean: tuple[float, float, float]
    """Per channel, of values in 0..1."""
    std: tuple[float, float, float]
    """Per channel, of values in 0..1."""

    def __post_init__(self) -> None:
        if self.size is not None and any(s < 1 or s % self.unit for s in self.size):
            raise VideoError(
                f"a frame size of {self.size[0]}x{self.size[1]} does not divide into vision tokens of "
                f"{self.unit}x{self.unit} pixels; use multiples of {self.unit}"
            )

    @property
    def unit(self) -> int:
        """Pixels per side of a vision token."""
        return self.patch_size * self.spatial_merge_size

    def target(self, height: int, width: int) -> tuple[int, int]:
        """The size (height, width) in pixels that a frame of height x width is resized to."""
        if self.size is not None:
            return self.size
        shrink = min(1.0, math.sqrt(self.max_pixels / (height * width)))
        if shrink == 1.0:
            return tuple(max(self.unit, round(s / self.unit) * self.unit) for s in (height, width))  # type: ignore[return-value]
        return tuple(
            max(self.unit, math.floor(s * shrink / self.unit) * self.unit) for s in (height, width)
        )  # type: ignore[return-value]


PAPER_SIZE = (352, 480)


def qwen3_vl_frames(size: tuple[int, int] | None = PAPER_SIZE) -> FrameFormat:
    """Qwen3-VL's patches; the paper's frame size unless another is named."""
    half = (0.5, 0.5, 0.5)
    return FrameFormat(
        patch_size=16, spatial_merge_size=2, size=size, max_pixels=352 * 480, mean=half, std=half
    )


class Processor:
    """Frames to patches and text to token ids, for one tokenizer and one frame format."""

    def __init__(self, tokenizer: Any, frames: FrameFormat) -> None:
        self.tokenizer = tokenizer
        self.frames = frames
        self._times: dict[str, list[int]] = {}
        for token in (VISION_START, VISION_END, VIDEO_PAD, "<|im_start|>", ANSWER_END):
            if len(self.encode(token)) != 1:
                raise CheckpointError(
                    f"the tokenizer has no token {token!r}; use the one saved beside the weights"
                )

    def encode(self, content: str) -> list[int]:
        """Token ids of a text, special tokens recognised, none added."""
        return list(self.tokenizer.encode(content, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    @cached_property
    def stop_id(self) -> int:
        """The token that ends an answer."""
        return self.encode(ANSWER_END)[0]

    @cached_property
    def prefix_ids(self) -> list[int]:
        """What stands before the first slot."""
        return self.encode(USER_PREFIX)

    def question_ids(self, question: str) -> list[int]:
        """What stands between the last slot and the answer."""
        return self.encode(question + ANSWER_PREFIX)

    def answer_ids(self, answer: str) -> list[int]:
        """A training target: the answer and the token that ends it."""
        return self.encode(answer + ANSWER_END)

    def slot_ids(self, time: float, grid: tuple[int, int]) -> tuple[list[int], Layout]:
        """Token ids and layout of one slot, its time in seconds and its h x w vision tokens included."""
        stamp = f"<{time:.1f} seconds>"
        before = self._times.get(stamp)
        if before is None:
            if len(self._times) >= 4096:  # a server meets new times for as long as it runs
                self._times.clear()
            before = self._times[stamp] = self.encode(stamp + VISION_START)
        size = grid[0] * grid[1]
        ids = [*before, *[self._pad_id] * size, self._end_id]
        return ids, (text(len(before)), Run(RunKind.SLOT, size, grid), text(1))

    @cached_property
    def _pad_id(self) -> int:
        return self.encode(VIDEO_PAD)[0]

    @cached_property
    def _end_id(self) -> int:
        return self.encode(VISION_END)[0]

    def patches(
        self, frames: Tensor, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, tuple[int, int]]:
        """Patches of an even number of frames, uint8 [2 S, H, W, 3] -> [S, h * w, 3 * 2 * p * p] and (h, w).

        h and w count patches; the patches of one vision token lie next to each other. Made in float32 and rounded to
        `dtype`, that of the model.
        """
        x = self.fit(frames)
        p, m = self.frames.patch_size, self.frames.spatial_merge_size
        grid = self.grid(frames.shape[1:3])
        mean, std = (_colour(tuple(v), x.device) for v in (self.frames.mean, self.frames.std))
        if patching.applies(x, dtype):
            return patching.patches(x, mean, std, p, m, dtype), grid
        x = x.movedim(-1, 1)
        x = ((x.float() - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)).to(dtype)
        x = x.reshape(-1, FRAMES_PER_SLOT, 3, grid[0] // m, m, p, grid[1] // m, m, p)
        x = x.permute(
            0, 3, 6, 4, 7, 2, 1, 5, 8
        )  # slot, row, col, row in token, col in token, C, frame, p, p
        return x.reshape(x.shape[0], grid[0] * grid[1], -1), grid

    def grid(self, size: Sequence[int]) -> tuple[int, int]:
        """Patches (rows, columns) of a frame of this (height, width)."""
        height, width = self.frames.target(size[0], size[1])
        return height // self.frames.patch_size, width // self.frames.patch_size

    def fit(self, frames: Tensor) -> Tensor:
        """Frames [T, H, W, 3] at the size the model sees; uint8 on a CPU, whole grey levels anywhere."""
        _, height, width, _ = frames.shape
        target = self.frames.target(height, width)
        if (height, width) == target:
            return frames
        return _resize(frames.movedim(-1, 1), target).movedim(1, -1)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the tokenizer and the frame format beside the weights."""
        self.tokenizer.save_pretrained(str(folder))
        record = {"format": PROCESSOR_FORMAT, "frames": asdict(self.frames)}
        (Path(folder) / PROCESSOR_FILE).write_text(json.dumps(record, indent=2) + "\n")

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, size: tuple[int, int] | None = None
    ) -> Processor:
        """Read what `save_pretrained` wrote; a stock Qwen3-VL folder gets the paper's frame size.

        `size` (height, width) replaces the saved one. Raises CheckpointError for a missing tokenizer.
        """
        from transformers import AutoTokenizer

        folder = Path(folder)
        if not any(
            (folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")
        ):
            raise CheckpointError(
                f"{folder} holds no tokenizer.json; copy the model's tokenizer files there"
            )
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        path = folder / PROCESSOR_FILE
        if not path.is_file():
            return cls(tokenizer, qwen3_vl_frames(size or PAPER_SIZE))
        record = read_json(path)
        if record.get("format") != PROCESSOR_FORMAT:
            raise CheckpointError(
                f"{path} has format {record.get('format')!r}, this version reads {PROCESSOR_FORMAT}; update spatial-ttt"
            )
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in record.get("frames", {}).items()
        }
        known = {field.name for field in fields(FrameFormat)}
        if set(values) != known:
            raise CheckpointError(
                f"{path} names the frame fields {sorted(values)}, wanted {sorted(known)}; copy the file again"
            )
        if size is not None:
            values["size"] = size
        return cls(tokenizer, FrameFormat(**values))


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # else the kept tensor could not be used in training
def _colour(values: tuple[float, ...], device: torch.device) -> Tensor:
    """One value of 0..255 a channel, [3]; kept, since a copy to a device makes the host wait."""
    return torch.tensor(values, device=device) * 255


def _resize(x: Tensor, target: tuple[int, int]) -> Tensor:
    """Bicubic with antialiasing, rounded to whole grey levels as the reference processor does."""
    if x.device.type == "cpu":
        return F.interpolate(x, target, mode="bicubic", antialias=True)
    resized = F.interpolate(x.float(), target, mode="bicubic", antialias=True)
    return resized.round().clamp(0, 255)
