"""Whole prompts for the small model: token ids with placeholders, random patches, grids."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

IMAGE, VIDEO, START, END = 261, 262, 259, 260
PATCH_VALUES = 3 * 2 * 8 * 8


@dataclass
class Prompt:
    """One sample, built part by part."""

    seed: int = 0
    ids: list[int] = field(default_factory=list)
    patches: dict[str, list[Tensor]] = field(default_factory=lambda: {"image": [], "video": []})
    grids: dict[str, list[tuple[int, int, int]]] = field(
        default_factory=lambda: {"image": [], "video": []}
    )

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def text(self, length: int) -> Prompt:
        self.ids += torch.randint(0, 256, (length,), generator=self.generator).tolist()
        return self

    def image(self, height: int, width: int) -> Prompt:
        """height x width vision tokens."""
        self.ids += [START, *[IMAGE] * (height * width), END]
        return self._pixels("image", 1, height, width)

    def video(self, slots: int, height: int, width: int) -> Prompt:
        """Slots of height x width vision tokens with a time stamp of three tokens each."""
        for _ in range(slots):
            self.text(3)
            self.ids += [START, *[VIDEO] * (height * width), END]
        return self._pixels("video", slots, height, width)

    def _pixels(self, kind: str, slots: int, height: int, width: int) -> Prompt:
        count = slots * height * width * 4
        self.patches[kind].append(torch.randn(count, PATCH_VALUES, generator=self.generator))
        self.grids[kind].append((slots, 2 * height, 2 * width))
        return self

    def arguments(self) -> dict[str, Tensor]:
        """What `forward` takes, for a batch of this one."""
        return {"input_ids": torch.tensor([self.ids])} | pixels([self])

    @property
    def mm_token_type_ids(self) -> Tensor:
        """0 text, 1 image, 2 video, as Qwen3-VL wants."""
        return torch.tensor([[{IMAGE: 1, VIDEO: 2}.get(i, 0) for i in self.ids]])


def pixels(prompts: list[Prompt]) -> dict[str, Tensor]:
    """Patches and grids of several samples, in order."""
    found = {}
    for kind, values, grids in (
        ("image", "pixel_values", "image_grid_thw"),
        ("video", "pixel_values_videos", "video_grid_thw"),
    ):
        parts = [p for prompt in prompts for p in prompt.patches[kind]]
        if parts:
            found[values] = torch.cat(parts)
            found[grids] = torch.tensor([g for prompt in prompts for g in prompt.grids[kind]])
    return found


def kinds() -> dict[str, Prompt]:
    """One prompt of every kind of input."""
    return {
        "text": Prompt(1).text(19),
        "image": Prompt(2).text(4).image(2, 3).text(5),
        "video": Prompt(3).text(4).video(3, 2, 2).text(5),
        "two videos": Prompt(4).text(2).video(2, 2, 3).text(3).video(3, 1, 2).text(5),
        "video and image": Prompt(5).video(2, 2, 2).image(1, 3).text(4).image(2, 2).text(1),
    }
