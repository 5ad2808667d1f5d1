"""Floating-point operations of a training step, counted from the model's numbers.

Multiply and add are two. A forward pass counts once and a backward pass twice; what activation
checkpointing does again is not counted. A frozen vision tower has a forward pass only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from spatial_ttt.model.configuration import SpatialTTTConfig

PEAK_TFLOPS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}
"""Dense bfloat16 with float32 accumulation, as the makers state it."""

NEWTON_SCHULZ_STEPS = 5


@dataclass(frozen=True)
class SampleShape:
    """What the cost of a sample depends on."""

    tokens: int
    targets: int
    grids: tuple[tuple[int, int, int], ...] = ()
    """(slots, height, width) in pixels of each video and image."""


@dataclass(frozen=True)
class FlopCounter:
    """Costs of one model."""

    config: SpatialTTTConfig
    window: int
    """Tokens of the sliding window."""
    trains_vision: bool

    def forward(self, shape: SampleShape) -> dict[str, float]:
        """One forward pass of one sample, by part."""
        text, ttt = self.config.text_config, self.config.ttt_config
        width, length = text.hidden_size, shape.tokens
        inner = text.num_attention_heads * text.head_dim
        kv = text.num_key_value_heads * text.head_dim
        matrices = width * (2 * inner + 2 * kv) + 3 * width * text.intermediate_size
        types = self.config.hybrid_layers
        anchors, fast = types.count("anchor"), types.count("ttt")
        pairs = length * (length + 1) / 2
        hidden = max(0, length - self.window)
        window_pairs = pairs - hidden * (hidden + 1) / 2
        dim = width // ttt.num_fast_heads
        writes = max(0, (length - 1) // ttt.chunk_size)  # the last chunk is never written
        written = writes * ttt.chunk_size
        # A read has 3 products a token, a write 6; Newton-Schulz 3 of D x D x D a step and matrix.
        branch = (3 * length + 6 * written) * 2 * dim * dim * ttt.num_fast_heads
        if ttt.use_muon:
            branch += writes * ttt.num_fast_heads * 3 * NEWTON_SCHULZ_STEPS * 3 * 2 * dim**3
        small = width * ttt.num_fast_heads * (3 + ttt.use_momentum + ttt.use_gate)
        taps = 0 if ttt.convolution == "none" else 27 * 3 * width
        return {
            "matrices": 2.0 * length * matrices * len(types),
            "anchor_attention": 4.0 * pairs * inner * anchors,
            "window_attention": 4.0 * window_pairs * inner * fast,
            "fast_weights": float(branch + 2 * length * (small + taps)) * fast,
            "head": 2.0 * shape.targets * width * text.vocab_size,
        }

    def vision(self, shape: SampleShape) -> float:
        """One forward pass of the vision tower over a sample's frames."""
        v = self.config.vision_config
        total = 0.0
        for slots, height, width in shape.grids:
            patches = (height // v.patch_size) * (width // v.patch_size)
            block = 4 * v.hidden_size**2 + 2 * v.hidden_size * v.intermediate_size
            merged = v.hidden_size * v.spatial_merge_size**2
            mergers = 1 + len(v.deepstack_visual_indexes)
            merge = mergers * (merged * merged + merged * v.out_hidden_size)
            pixels = v.in_channels * v.temporal_patch_size * v.patch_size**2
            per_patch = pixels * v.hidden_size + v.depth * block + merge / v.spatial_merge_size**2
            attention = 4.0 * patches * patches * v.hidden_size * v.depth
            total += slots * (2.0 * patches * per_patch + attention)
        return total

    def step(self, shapes: Iterable[SampleShape]) -> float:
        """Forward and backward passes of samples."""
        total = 0.0
        for shape in shapes:
            total += 3.0 * sum(self.forward(shape).values())
            total += (3.0 if self.trains_vision else 1.0) * self.vision(shape)
        return total


def peak_flops(device: torch.device) -> float | None:
    """What a device can do a second in bfloat16; None where nobody wrote it down."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((1e12 * peak for part, peak in PEAK_TFLOPS.items() if part in name), None)
