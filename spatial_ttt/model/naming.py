"""Names of weights in the authors' checkpoint, and ours for the same tensors.

Ours keep Qwen3-VL's names wherever Qwen3-VL has the tensor, so a stock checkpoint needs no renaming.
"""

from __future__ import annotations

import re

_RULES: tuple[tuple[str, str], ...] = (
    (r"(^|\.)attn_layer\.", r"\1"),
    (r"(^|\.)w0\.w_(left|right)$", r"\1fast_weights.gate_\2"),
    (r"(^|\.)w2\.w_(left|right)$", r"\1fast_weights.up_\2"),
    (r"(^|\.)w0$", r"\1fast_weights.gate"),
    (r"(^|\.)w1$", r"\1fast_weights.down"),
    (r"(^|\.)w2$", r"\1fast_weights.up"),
    (r"(^|\.)momentum_proj\.0\.", r"\1momentum_proj."),
)


def from_official(name: str) -> str:
    """Our name of a tensor of the authors' checkpoint; a stock Qwen3-VL name stays as it is."""
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name
