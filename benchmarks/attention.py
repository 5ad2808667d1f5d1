"""Which attention a GPU offers for windows and anchors at the 2B shapes, and how fast each is.

    python benchmarks/attention.py [--out FILE] [--tiny]

Checks every variant against float32 SDPA first; one that fails is reported and left out.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from triton.errors import TritonError

HEADS, KV_HEADS, DIM = 16, 8, 128
Variant = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def flash(window: int | None) -> Variant:
    """The built-in FlashAttention-2, [B, H, L, D] in and out, causal at the bottom right."""

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        sides = {} if window is None else {"window_size_left": window - 1, "window_size_right": 0}
        return torch.ops.aten._flash_attention_forward(
            q, k, v, None, None, q.shape[1], k.shape[1], 0.0, True, False, **sides
        )[0].transpose(1, 2)

    return run


def varlen(window: int | None) -> Variant:
    """The public variable-length entry."""
    from torch.nn.attention.varlen import varlen_attn

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k, v = (t[0].transpose(0, 1).contiguous() for t in (q, k, v))
        cu = [torch.tensor([0, t.shape[0]], dtype=torch.int32, device=q.device) for t in (q, k)]
        size = (window - 1 if window else -1, 0)
        more = (
            {"enable_gqa": True}
            if "enable_gqa" in inspect.signature(varlen_attn).parameters
            else {}
        )
        out = varlen_attn(q, k, v, *cu, q.shape[0], k.shape[0], window_size=size, **more)
        return out.transpose(0, 1)[None]

    return run


def masked(window: int | None) -> Variant:
    """SDPA with a boolean mask."""

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask_of(q, k, window), enable_gqa=True
        )

    return run


def mask_of(q: torch.Tensor, k: torch.Tensor, window: int | None) -> torch.Tensor:
    """[L, N] bool."""
    age = (
        torch.arange(k.shape[2] - q.shape[2], k.shape[2], device=q.device)[:, None]
        - torch.arange(k.shape[2], device=q.device)[None]
    )
    return (age >= 0) & (age < (window or k.shape[2] + 1))


def lower_right(backend: SDPBackend | None) -> Variant:
    """SDPA with the lower-right causal bias."""
    from torch.nn.attention.bias import causal_lower_right

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        groups = q.shape[1] // k.shape[1]
        k, v = (t.repeat_interleave(groups, 1) for t in (k, v))
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=causal_lower_right(q.shape[2], k.shape[2])
        )

    return run


def two_parts(backend: str) -> Variant:
    """Past keys without a mask, new keys causally, merged by their log-sum-exps."""

    def part(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if backend == "cudnn":
            got = torch.ops.aten._scaled_dot_product_cudnn_attention(
                q, k, v, None, True, 0.0, causal, False
            )
            return got[0], got[1].reshape(*q.shape[:3], 1).float()
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        got = torch.ops.aten._flash_attention_forward(
            q, k, v, None, None, q.shape[1], k.shape[1], 0.0, causal, False
        )
        return got[0].transpose(1, 2), got[1][..., : q.shape[1]].unsqueeze(-1)

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        new = q.shape[2]
        old, old_lse = part(q, k[:, :, :-new], v[:, :, :-new], False)
        own, own_lse = part(q, k[:, :, -new:], v[:, :, -new:], True)
        share = torch.sigmoid(old_lse - own_lse)
        return (old * share + own * (1 - share)).to(q.dtype)

    return run


def cudnn_repeat(causal: bool) -> Variant:
    """cuDNN through SDPA with repeated heads (square causal only, as a ceiling)."""

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)

    return run


def flex(window: int | None) -> Variant:
    """Compiled FlexAttention with a block mask."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    compiled = torch.compile(flex_attention, dynamic=False)
    masks: dict[tuple[int, int], Any] = {}

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        key = (q.shape[2], k.shape[2])
        if key not in masks:
            past = key[1] - key[0]

            def visible(b: Any, h: Any, i: Any, j: Any) -> Any:
                age = i + past - j
                return (age >= 0) & (age < (window or 1 << 30))

            masks[key] = create_block_mask(visible, None, None, *key, device=q.device)
        return compiled(q, k, v, block_mask=masks[key], enable_gqa=True)

    return run


def ours(window: int | None, tiles: tuple[int, int, int, int], waves: int) -> Variant:
    """The streaming kernel; tiles are (packed queries, keys, warps, stages)."""
    from spatial_ttt.model.kernels.attention import Past
    from spatial_ttt.model.kernels.attention_triton import Tiles, attend

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        past = Past(k, v, None)
        before = k.shape[2] - q.shape[2]
        out = attend(q, past, before, window=window or 0, waves=waves, tiles=Tiles(*tiles))
        return out.unflatten(2, (q.shape[1], -1)).transpose(1, 2)

    return run


def measure_ours() -> list[dict[str, Any]]:
    """The streaming kernel's tiles at the shapes of live slots and of large pieces."""
    cuts = [
        (128, 128, 8, 2), (128, 64, 8, 3), (128, 64, 8, 2), (128, 64, 4, 3), (64, 64, 4, 3), (64, 128, 4, 2),
    ]  # fmt: skip
    shapes = [
        (174, 2822, 2648), (174, 20_174, None), (174, 104_400, None), (2784, 5432, 2648), (11136, 13784, 2648),
        (2784, 47_784, None),
    ]  # fmt: skip
    lines = []
    for length, total, window in shapes:
        kind = "window" if window else "anchor"
        lines.append(measure(f"{kind}/flash", lambda w=window: flash(w), length, total, window))
        for tiles in cuts:
            for waves in (1, 2, 4) if length < 512 else (1,):
                name = f"{kind}/ours {tiles} {waves}"
                lines.append(
                    measure(
                        name,
                        lambda w=window, t=tiles, n=waves: ours(w, t, n),
                        length,
                        total,
                        window,
                    )
                )
    return lines


def median_ms(run: Callable[[], Any], repeats: int) -> float:
    """Median time of a call on the device."""
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop))
    return sorted(times)[len(times) // 2]


def measure(
    name: str, variant: Callable[[], Variant], length: int, total: int, window: int | None
) -> dict[str, Any]:
    """One line: error against float32 and time, or why it failed."""
    device = "cuda"
    torch.manual_seed(0)
    q = torch.randn(1, HEADS, length, DIM, device=device, dtype=torch.bfloat16)
    k, v = (
        torch.randn(1, KV_HEADS, total, DIM, device=device, dtype=torch.bfloat16) for _ in range(2)
    )
    line: dict[str, Any] = {"variant": name, "queries": length, "keys": total, "window": window}
    try:
        run = variant()
        few = slice(0, length, max(1, length // 64))
        groups = HEADS // KV_HEADS
        scores = q[:, :, few].float() @ k.repeat_interleave(groups, 1).float().mT * DIM**-0.5
        scores = scores.masked_fill(~mask_of(q, k, window)[few], float("-inf"))
        want = scores.softmax(-1) @ v.repeat_interleave(groups, 1).float()
        line["error"] = float((run(q, k, v)[:, :, few].float() - want).norm() / want.norm())
        line["ms"] = median_ms(lambda: run(q, k, v), 10)
        seen = float(mask_of(q, k, window).sum())
        line["tflops"] = 4 * seen * HEADS * DIM / line["ms"] / 1e9
    except (RuntimeError, ValueError, TypeError, AttributeError, ImportError, TritonError) as error:
        line["failed"] = f"{type(error).__name__}: {error}"[:300]
    return line


def main() -> None:
    """Measure and print JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=record.RESULTS / "attention.jsonl")
    parser.add_argument("--ours", action="store_true", help="the streaming kernel's tiles alone")
    options = parser.parse_args()
    where = record.machine()
    if options.ours:
        tell(options.out, [where | line for line in measure_ours()])
        return
    lines = []
    for length in (174, 2784):
        total = 2648 + length
        for name, make in (
            ("flash", flash),
            ("varlen", varlen),
            ("masked", masked),
            ("flex", flex),
        ):
            lines.append(
                where | measure(f"window/{name}", lambda m=make: m(2648), length, total, 2648)
            )
    for length in (174, 2784):
        for total in (5_000 + length, 45_000 + length, 89_000):
            variants: list[tuple[str, Callable[[], Variant]]] = [
                ("flash", lambda: flash(None)),
                ("two_parts flash", lambda: two_parts("flash")),
                ("two_parts cudnn", lambda: two_parts("cudnn")),
                ("lower_right", lambda: lower_right(None)),
            ]
            for name, make in variants:
                lines.append(where | measure(f"anchor/{name}", make, length, total, None))
    lines.append(where | measure("square/cudnn", lambda: cudnn_repeat(True), 16384, 16384, None))
    tell(options.out, lines)


def tell(out: Path, lines: list[dict[str, Any]]) -> None:
    """Print what matters of each line and append all of it to the file."""
    for line in lines:
        shown = {
            k: v
            for k, v in line.items()
            if k in ("variant", "queries", "keys", "error", "ms", "tflops", "failed")
        }
        print(shown, flush=True)
    record.append(out, lines)


if __name__ == "__main__":
    main()
