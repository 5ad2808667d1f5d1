"""Floating-point operations of reading a clip and a question, counted by part; a multiply and an add are two."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spatial_ttt.bench.subject import Subject
from spatial_ttt.model.bounded_cache import AnchorPolicy, attend_bounded, empty_cache
from spatial_ttt.model.kv_cache import Segment
from spatial_ttt.train.flops import NEWTON_SCHULZ_STEPS, FlopCounter, SampleShape, peak_flops


class Clip(NamedTuple):
    """What the cost depends on."""

    frames: int
    question_tokens: int


def flops(
    subject: Subject, mode: str, clip: Clip, anchors: AnchorPolicy | None
) -> dict[str, float]:
    """Operations by part: the vision tower, projections and MLPs, attention, fast weights, the head.

    Causal attention counts the pairs that may meet, not the square a masked kernel may compute.
    """
    config, slots = subject.config, clip.frames // 2
    tokens = slots * subject.slot_tokens + clip.question_tokens
    counter = FlopCounter(config, config.ttt_config.window_size, trains_vision=False)
    shape = SampleShape(tokens, 1, ((slots, *subject.size),))
    found = counter.forward(shape)
    types = config.hybrid_layers
    per_anchor = found["anchor_attention"] / max(1, types.count("anchor"))
    parts = {
        "vision": counter.vision(shape),
        "projections_mlp": found["matrices"],
        "head": found["head"],
    }
    if mode == "stock":
        inner = config.text_config.num_attention_heads * config.text_config.head_dim
        pairs = tokens * (tokens + 1) / 2
        return parts | {"anchors": 4.0 * pairs * inner * len(types)}
    if anchors is not None:
        per_anchor *= bounded_pairs(anchors, tokens) / (tokens * (tokens + 1) / 2)
    orthogonal = newton_schulz_flops(subject, tokens)
    return parts | {
        "windows": found["window_attention"],
        "anchors": per_anchor * types.count("anchor"),
        "fast_weights": found["fast_weights"] - orthogonal,
        "newton_schulz": orthogonal,
    }


def newton_schulz_flops(subject: Subject, tokens: int) -> float:
    """Orthogonalising the writes of so many tokens, in all TTT layers."""
    ttt = subject.config.ttt_config
    if not ttt.use_muon:
        return 0.0
    dim = subject.config.text_config.hidden_size // ttt.num_fast_heads
    writes = max(0, (tokens - 1) // ttt.chunk_size)  # the last chunk is never written
    matrices = 3 * ttt.num_fast_heads * subject.config.hybrid_layers.count("ttt")
    return float(writes * matrices * NEWTON_SCHULZ_STEPS * 3 * 2 * dim**3)


def bounded_pairs(policy: AnchorPolicy, tokens: int) -> float:
    """Pairs of query and key that a bounded anchor computes: counted by running its rule on nothing."""
    pairs = 0.0

    def count(q: Tensor, past: tuple[Segment, ...], own: Segment) -> Tensor:
        nonlocal pairs
        new = q.shape[2]
        pairs += new * sum(keys.shape[2] for keys, _ in past) + new * (new + 1) / 2
        return q

    nothing = torch.zeros(1, 1, tokens, 1, dtype=torch.float16)
    attend_bounded(nothing, nothing, nothing, empty_cache(policy._replace(bits=16)), count)
    return pairs


def utilisation(
    parts: dict[str, float], seconds: float, device: torch.device, stated: float | None
) -> dict[str, float | None]:
    """MFU against a peak in TFLOP/s: the stated one, or the maker's; None where nobody wrote one down."""
    peak = 1e12 * stated if stated else peak_flops(device)
    total = sum(parts.values())
    return {
        "tflop": total / 1e12,
        "peak_tflops": peak / 1e12 if peak else None,
        "mfu": total / seconds / peak if peak else None,
    }
