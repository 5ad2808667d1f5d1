"""A training step of the small model on random clips: with fast weights, and with window attention alone."""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks.kernel_cases import Bench, milliseconds, peak_mib
from spatial_ttt.model.attention import attend
from spatial_ttt.model.kernels import request_backend
from spatial_ttt.model.layers import rotate
from spatial_ttt.model.layout import END, Layout, num_tokens, slot, text
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import Tokens
from spatial_ttt.model.ttt import TTTAttention
from spatial_ttt.presets import test_preset, tiny


@dataclass(frozen=True)
class Clips:
    """Random clips of one layout."""

    ids: Tensor  # [B, L]
    patches: Tensor  # [B * S, patches of a slot, channels]
    grid: tuple[int, int]  # patches
    layout: Layout
    answers: Tensor  # [n] positions with labels


def run_steps(bench: Bench) -> None:
    """Whole steps: vision tower, decoder, loss at the answers, AdamW; then the same by part."""
    for chunk in (32,) if bench.tiny else (128, 256):
        for variant in ("window", "fast", "fast_reference"):
            if variant == "fast_reference" and chunk != 256:
                continue

            def work(variant: str = variant, chunk: int = chunk) -> dict[str, Any]:
                with request_backend("reference" if variant == "fast_reference" else "auto"):
                    return time_step(bench, variant, chunk)

            bench.attempt("step", f"chunk {chunk}", variant, work)


class Step:
    """A model, its clips, and the pieces of one training step."""

    def __init__(self, bench: Bench, variant: str, chunk: int) -> None:
        torch.manual_seed(0)
        config = test_preset(chunk_size=chunk) if bench.tiny else tiny(chunk_size=chunk)
        self.model = (
            SpatialTTTForConditionalGeneration(config).to(bench.device, torch.bfloat16).train()
        )
        open_gates(self.model)
        if variant == "window":
            skip_branches(self.model)
        self.clips = random_clips(bench, config)
        is_cuda = bench.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=is_cuda)
        vision = self.model.encode(self.clips.patches, self.clips.grid)
        self.vision = type(vision)(vision.tokens.detach(), vision.deepstack.detach())

    def whole(self) -> None:
        """Vision tower, decoder, loss, backward, AdamW."""
        vision = self.model.encode(self.clips.patches, self.clips.grid)
        loss(self.model, self.clips, vision).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def decoder(self) -> None:
        """Forward and backward without the vision tower."""
        loss(self.model, self.clips, self.vision).backward()
        self.optimizer.zero_grad(set_to_none=True)

    def decoder_forward(self) -> None:
        """Forward without gradients."""
        with torch.no_grad():
            loss(self.model, self.clips, self.vision)

    def kept_mib(self) -> float:
        """What the decoder's forward pass keeps for its backward pass."""
        if self.clips.ids.device.type != "cuda":
            return 0.0
        before = torch.cuda.memory_allocated()
        value = loss(self.model, self.clips, self.vision)
        kept = torch.cuda.memory_allocated() - before
        del value
        return kept / 2**20


def time_step(bench: Bench, variant: str, chunk: int) -> dict[str, Any]:
    """Milliseconds of a step and its parts, and peak memory."""
    step = Step(bench, variant, chunk)
    return {
        "batch": step.clips.ids.shape[0],
        "tokens": step.clips.ids.shape[1],
        "parameters_m": round(sum(p.numel() for p in step.model.parameters()) / 1e6, 1),
        "step_ms": milliseconds(step.whole, bench, 2.0),
        "decoder_ms": milliseconds(step.decoder, bench, 2.0),
        "decoder_forward_ms": milliseconds(step.decoder_forward, bench, 1.0),
        "decoder_kept_mib": step.kept_mib(),
        "peak_mib": peak_mib(step.whole, bench.device),
    }


def profile_steps(bench: Bench) -> None:
    """Device time by kernel of the decoder's part of a step."""
    chunk = 32 if bench.tiny else 256
    for variant in ("window", "fast"):

        def work(variant: str = variant) -> dict[str, Any]:
            step = Step(bench, variant, chunk)
            for _ in range(2):
                step.decoder()
            kinds = [ProfilerActivity.CPU]
            if bench.device.type == "cuda":
                torch.cuda.synchronize()
                kinds.append(ProfilerActivity.CUDA)
            with profile(activities=kinds, record_shapes=True) as found:
                for _ in range(2):
                    step.decoder()
                if bench.device.type == "cuda":
                    torch.cuda.synchronize()
            by = "self_device_time_total" if bench.device.type == "cuda" else "self_cpu_time_total"
            averages = found.key_averages()
            columns = {"sort_by": by, "max_name_column_width": 90}
            table = averages.table(row_limit=70, **columns)
            shapes = found.key_averages(group_by_input_shape=True).table(row_limit=90, **columns)
            (bench.folder / f"profile_{variant}.txt").write_text(f"{table}\n{shapes}")
            print(
                averages.table(row_limit=30, sort_by=by, max_name_column_width=60)[:6000],
                flush=True,
            )
            return {"kernels": len(averages)}

        bench.attempt("profile", f"chunk {chunk}", variant, work)


def loss(model: Any, clips: Clips, vision: Any) -> Tensor:
    """Cross entropy at the answers."""
    hidden, deepstack = model.embed(clips.ids, clips.layout, vision)
    tokens, _ = model.decoder.tokens(hidden, clips.layout, 0, deepstack)
    done, _ = model.decoder(tokens, model.decoder.start(), keep_state=False)
    logits = model.lm_head(done.hidden[:, clips.answers])
    targets = clips.ids[:, clips.answers + 1]
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def random_clips(bench: Bench, config: Any) -> Clips:
    """96 clips of 32 slots of 3 x 4 tokens with eight tokens of text each, then questions: 700 tokens."""
    batch, slots, tail = (2, 6, 12) if bench.tiny else (96, 32, 60)
    runs = [run for _ in range(slots) for run in (text(8), slot(3, 4))]
    layout: Layout = (*runs, END, text(tail))
    length = num_tokens(layout)
    vision = config.vision_config
    size = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    merge = vision.spatial_merge_size
    grid = (3 * merge, 4 * merge)
    patches = torch.randn(
        batch * slots, grid[0] * grid[1], size, device=bench.device, dtype=torch.bfloat16
    )
    ids = torch.randint(0, 256, (batch, length), device=bench.device)
    answers = torch.arange(length - tail, length - 1, 4, device=bench.device)
    return Clips(ids, patches, grid, layout, answers)


def open_gates(model: Any) -> None:
    """Fresh gates are zero and would hide every gradient of the branch."""
    for module in model.modules():
        if isinstance(module, TTTAttention) and module.ttt_scale_proj is not None:
            torch.nn.init.normal_(module.ttt_scale_proj.weight, std=0.02)


def skip_branches(model: Any) -> None:
    """Leave the window attention of every TTT layer, without its fast weights."""
    for module in model.modules():
        if isinstance(module, TTTAttention):
            module.forward = MethodType(_window_only, module)  # type: ignore[method-assign]


def _window_only(
    self: TTTAttention,
    x: Tensor,
    tokens: Tokens,
    state: Any,
    branches: int = 1,
    keep_state: bool = True,
) -> tuple[Tokens, Tensor, Any]:
    q, k, v = (t.transpose(1, 2) for t in self.normed(self.project(x)))
    out = attend(rotate(q, tokens.rope), rotate(k, tokens.rope), v, window=self.config.window_size)
    return tokens, self.o_proj(out.transpose(1, 2).flatten(2)), state
