"""Time to first token and peak memory against the number of frames: stock Qwen3-VL beside ours.

    python benchmarks/prefill.py [--frames 128 1024] [--modes stock exact] [--profile N] [--tiny]

Random 2B weights, bfloat16, random uint8 frames already on the device; every line one JSON object.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record
import torch

from spatial_ttt.inference import prepare
from spatial_ttt.model.layout import END, join_all, text
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.presets import preset

SIZE = (352, 480)
QUESTION = 40  # tokens


def main() -> None:
    """Measure every mode at every length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--modes", nargs="+", default=["stock", "exact"])
    parser.add_argument("--slots", type=int, nargs="+", default=[16], help="slots per piece")
    parser.add_argument("--profile", type=int, default=0, help="then profile this many frames")
    parser.add_argument("--live", type=int, default=0, help="then time this many single slots")
    parser.add_argument("--tiny", action="store_true", help="a toy model, for trying the script")
    parser.add_argument("--out", type=Path, default=record.RESULTS / "prefill.jsonl")
    options = parser.parse_args()
    options.live_now = 0
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    toy_ids = {
        "image_token_id": 1,
        "video_token_id": 2,
        "vision_start_token_id": 3,
        "vision_end_token_id": 4,
    }
    config = preset("test", token_ids=toy_ids) if options.tiny else preset("spatial_ttt_2b")
    size = (96, 128) if options.tiny else SIZE
    where = record.machine()
    for mode in options.modes:
        run = (
            _stock(config, size, device)
            if mode == "stock"
            else _ours(config, size, device, options)
        )
        for frames in options.frames:
            for slots in options.slots if mode == "exact" else [0]:
                options.piece = slots
                line = where | {
                    "mode": mode,
                    "frames": frames,
                    "slots_per_piece": slots,
                    **_measure(run, frames),
                }
                shown = ("mode", "frames", "slots_per_piece", "seconds_to_first_token", "peak_gib")
                print({k: line[k] for k in shown}, flush=True)
                record.append(options.out, [line])
        if options.live:
            options.piece, options.live_now = options.slots[0], options.live
            run(max(options.frames))
            options.live_now = 0
        if options.profile:
            options.piece = options.slots[0]
            _profile(run, options.profile)
        del run
        gc.collect()
        torch.cuda.empty_cache() if device.type == "cuda" else None


def _measure(run: Callable[[int], None], frames: int, repeats: int = 3) -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    run(frames)
    times = []
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(repeats):
        if cuda:
            torch.cuda.synchronize()
        started = time.perf_counter()
        run(frames)
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else None
    return {
        "seconds_to_first_token": sorted(times)[len(times) // 2],
        "all_seconds": times,
        "peak_gib": peak,
    }


def _frames(count: int, size: tuple[int, int], device: torch.device) -> torch.Tensor:
    return torch.randint(0, 256, (count, *size, 3), dtype=torch.uint8, device=device)


def _patches(frames: torch.Tensor) -> torch.Tensor:
    """uint8 [2 S, H, W, 3] -> [S, patches, 1536] in bfloat16, merge order."""
    x = (frames.movedim(-1, 1).to(torch.bfloat16) - 127.5) / 127.5
    _, _, height, width = x.shape
    x = x.reshape(-1, 2, 3, height // 32, 2, 16, width // 32, 2, 16).permute(
        0, 3, 6, 4, 7, 2, 1, 5, 8
    )
    return x.reshape(x.shape[0], (height // 16) * (width // 16), -1)


def _ours(
    config: Any, size: tuple[int, int], device: torch.device, options: Any
) -> Callable[[int], None]:
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        model = SpatialTTTForConditionalGeneration(config).eval()
        torch.set_default_dtype(torch.float32)
    prepare(model)
    grid = (size[0] // 16, size[1] // 16)
    tokens = (grid[0] // 2) * (grid[1] // 2)
    slot_layout = (text(8), *((_slot(grid)),), text(1))
    slot_ids = [5] * 8 + [config.video_token_id] * tokens + [6]

    @torch.no_grad()
    def run(frames: int) -> None:
        state = model.decoder.start()
        for at in range(0, frames // 2, options.piece):
            slots = min(options.piece, frames // 2 - at)
            vision = model.encode(_patches(_frames(2 * slots, size, device)), grid)
            ids = torch.tensor([slot_ids * slots], device=device)
            _, state = model.decode_piece(
                ids, join_all([slot_layout] * slots), vision, state.given_away()
            )
        ids = torch.full((1, QUESTION), 7, device=device)
        done, state = model.decode_piece(ids, (END, text(QUESTION)), None, state)
        model.lm_head(done.hidden[:, -1]).argmax(-1).item()
        if options.live_now:
            _live(model, state, (slot_ids, slot_layout, grid, size), options.live)

    return run


def _live(model: Any, state: Any, slot_of: Any, count: int) -> None:
    """Time slots that come one at a time after what was seen: prints percentiles."""
    ids, layout, grid, size = slot_of
    device = model.device
    times = []
    for _ in range(count):
        frames = _frames(2, size, device)
        torch.cuda.synchronize() if device.type == "cuda" else None
        began = time.perf_counter()
        vision = model.encode(_patches(frames), grid)
        _, state = model.decode_piece(
            torch.tensor([ids], device=device), layout, vision, state.given_away()
        )
        torch.cuda.synchronize() if device.type == "cuda" else None
        times.append(1000 * (time.perf_counter() - began))
    times = sorted(times[5:])
    pick = {p: round(times[int(p / 100 * (len(times) - 1))], 2) for p in (0, 50, 90, 99, 100)}
    print(f"one slot at a time after {state.num_tokens} tokens, ms: {pick}", flush=True)


def _slot(grid: tuple[int, int]) -> Any:
    from spatial_ttt.model.layout import slot

    return slot(grid[0] // 2, grid[1] // 2)


def _stock(config: Any, size: tuple[int, int], device: torch.device) -> Callable[[int], None]:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    stock = Qwen3VLConfig(
        text_config=config.text_config.to_dict(),
        vision_config=config.vision_config.to_dict(),
        **{k: getattr(config, k) for k in ("image_token_id", "video_token_id", "vision_start_token_id",
                                           "vision_end_token_id", "tie_word_embeddings")},
    )  # fmt: skip
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        model = Qwen3VLForConditionalGeneration(stock).eval()
        torch.set_default_dtype(torch.float32)
    grid = (size[0] // 16, size[1] // 16)
    tokens = (grid[0] // 2) * (grid[1] // 2)

    @torch.no_grad()
    def run(frames: int) -> None:
        slots = frames // 2
        patches = torch.cat(
            [_patches(part) for part in _frames(frames, size, device).split(32)]
        ).flatten(0, 1)
        ids = ([5] * 8 + [stock.video_token_id] * tokens + [6]) * slots + [7] * QUESTION
        kinds = ([0] * 8 + [2] * tokens + [0]) * slots + [0] * QUESTION
        out = model(
            input_ids=torch.tensor([ids], device=device),
            mm_token_type_ids=torch.tensor([kinds], device=device),
            pixel_values_videos=patches,
            video_grid_thw=torch.tensor([[slots, *grid]], device=device),
            logits_to_keep=1,
            use_cache=True,
        )
        out.logits[:, -1].argmax(-1).item()
        model.model.rope_deltas = None

    return run


def _profile(run: Callable[[int], None], frames: int) -> None:
    from torch.profiler import ProfilerActivity, profile

    run(frames)
    activities = [ProfilerActivity.CPU] + (
        [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    )
    with profile(activities=activities) as prof:
        run(frames)
    key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    print(prof.key_averages().table(sort_by=key, row_limit=40, max_name_column_width=70))


if __name__ == "__main__":
    main()
