"""What is measured: a model with random or saved weights, and a stream to feed it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spatial_ttt.checkpoint import load_model
from spatial_ttt.errors import ConfigError
from spatial_ttt.inference import prepare
from spatial_ttt.inspecting import inspect_model
from spatial_ttt.model.configuration import SpatialTTTConfig
from spatial_ttt.model.layout import Layout, join_all, slot, text
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import storage_bytes
from spatial_ttt.presets import PRESETS, TINY_VOCAB_SIZE, preset
from spatial_ttt.processor import VIDEO_PAD, VISION_END, VISION_START, FrameFormat, Processor

STAMP_TOKENS, STAMP_ID, CLOSE_ID, WORD_ID = 8, 5, 6, 7
"""Any text will do: its length is Qwen3-VL's ("<12.3 seconds>" and the vision start; one vision end)."""

TOY_TOKEN_IDS = {
    name: TINY_VOCAB_SIZE - 4 + i
    for i, name in enumerate(
        ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    )
}
"""The small presets leave these to a tokenizer; a benchmark has none."""


class _AnyWords:
    """In a tokenizer's place: any text will do, and all time stamps are of one length."""

    def __init__(self, video_id: int) -> None:
        self._known = {VIDEO_PAD: video_id, VISION_START: STAMP_ID, VISION_END: CLOSE_ID}

    def encode(self, content: str, **_: Any) -> list[int]:
        """Token ids: a special token or a word is one, a time stamp as many as with Qwen3-VL."""
        ids: list[int] = []
        for part in re.findall(r"<\|\w+\|>|<[^>]*>|\w+|\S|\n", content):
            is_stamp = part.startswith("<") and not part.startswith("<|")
            before = [STAMP_ID] * (STAMP_TOKENS - 1)  # the vision start is the last
            ids += before if is_stamp else [self._known.get(part, WORD_ID)]
        return ids


@dataclass(frozen=True)
class Subject:
    """A model's numbers and the stream every mode is fed: frames of random pixels."""

    name: str
    config: SpatialTTTConfig
    folder: Path | None
    """Where saved weights lie; None: random ones."""
    size: tuple[int, int]
    """(height, width) of a frame in pixels."""
    device: torch.device
    dtype: torch.dtype

    @property
    def grid(self) -> tuple[int, int]:
        """Patches (rows, columns) of a frame."""
        patch = self.config.vision_config.patch_size
        return self.size[0] // patch, self.size[1] // patch

    @property
    def vision_tokens(self) -> int:
        """Of one slot."""
        return self.grid[0] * self.grid[1] // self.config.vision_config.spatial_merge_size**2

    @property
    def slot_tokens(self) -> int:
        """Of one slot with its text."""
        return STAMP_TOKENS + self.vision_tokens + 1

    @property
    def slot_ids(self) -> list[int]:
        """Token ids of one slot."""
        video = [self.config.video_token_id] * self.vision_tokens
        return [STAMP_ID] * STAMP_TOKENS + video + [CLOSE_ID]

    def layout(self, slots: int) -> Layout:
        """The runs of so many slots."""
        merge = self.config.vision_config.spatial_merge_size
        one = (text(STAMP_TOKENS), slot(self.grid[0] // merge, self.grid[1] // merge), text(1))
        return join_all([one] * slots)

    def frames(self, slots: int) -> Tensor:
        """Random frames uint8 [2 S, H, W, 3] on the device; the same at every call."""
        generator = torch.Generator(self.device).manual_seed(0)
        shape = (2 * slots, *self.size, 3)
        return torch.randint(
            0, 256, shape, dtype=torch.uint8, device=self.device, generator=generator
        )

    def patches(self, frames: Tensor) -> Tensor:
        """uint8 [2 S, H, W, 3] -> [S, patches, 3 * 2 * p * p] in merge order, -1 to 1."""
        return self.processor.patches(frames, self.dtype)[0]

    @cached_property
    def processor(self) -> Processor:
        """What a session makes frames and times into: the same patches and tokens as above, whatever the time."""
        vision, half = self.config.vision_config, (0.5, 0.5, 0.5)
        frames = FrameFormat(
            patch_size=vision.patch_size,
            spatial_merge_size=vision.spatial_merge_size,
            size=self.size,
            max_pixels=self.size[0] * self.size[1],
            mean=half,
            std=half,
        )
        return Processor(_AnyWords(self.config.video_token_id), frames)

    def facts(self) -> dict[str, Any]:
        """What every line says of it."""
        dtype = str(self.dtype).removeprefix("torch.")
        return {
            "model": self.name,
            "weights": "saved" if self.folder else "random",
            "size": list(self.size),
            "dtype": dtype,
        }


def open_subject(
    source: str | Path, size: tuple[int, int] | None, device: torch.device, dtype: torch.dtype
) -> Subject:
    """The subject of a preset's name or a checkpoint folder; loads no weights yet.

    Raises ConfigError for an unknown preset or a frame size that does not divide into vision tokens.
    """
    folder = source if isinstance(source, Path) else None
    if folder is None:
        preset(str(source))  # tells the nearest name
    elif not folder.is_dir():
        raise ConfigError(f"--model {folder} is no folder; give a checkpoint, or --preset NAME")
    report = inspect_model(Path(source), size)
    config = report.config
    if folder is None and str(source) in PRESETS and source != "spatial_ttt_2b":
        config = preset(str(source), token_ids=TOY_TOKEN_IDS)
    return Subject(report.name, config, folder, report.size, device, dtype)


def load(subject: Subject) -> SpatialTTTForConditionalGeneration:
    """Our model, prepared for inference on the subject's device."""
    if subject.folder is not None:
        model = load_model(subject.folder, device=subject.device, dtype=subject.dtype)
    else:
        model = random_model(lambda: SpatialTTTForConditionalGeneration(subject.config), subject)
    prepare(model)
    return model


def random_model(make: Any, subject: Subject) -> Any:
    """A transformers model with seeded random weights, made where and as precisely as it will run."""
    before = torch.get_default_dtype()
    with torch.random.fork_rng(), torch.device(subject.device):
        torch.manual_seed(0)
        torch.set_default_dtype(subject.dtype)
        try:
            return make().eval()
        finally:
            torch.set_default_dtype(before)


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of all parameters and buffers; what shares memory counts once."""
    return storage_bytes([*model.parameters(), *model.buffers()])
