"""What a step did, summed over packs and processes, and the record that says it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from spatial_ttt.train.dataset import LoadedPack
from spatial_ttt.train.devices import sent
from spatial_ttt.train.flops import FlopCounter, SampleShape
from spatial_ttt.train.packed import PackSums


class StepSums(NamedTuple):
    """Sums over all packs of a step."""

    loss: float = 0.0
    """Cross entropy of all targets, nats."""
    targets: float = 0.0
    hits: float = 0.0
    """Targets that were the most likely token."""
    samples: float = 0.0
    exact: float = 0.0
    """Samples all of whose targets were hit."""
    tokens: float = 0.0
    flops: float = 0.0
    bad: float = 0.0
    stops: float = 0.0
    """Processes that were asked to end."""


class Timing(NamedTuple):
    """Seconds of a step in this process."""

    step: float
    data: float
    """Spent waiting for samples."""


def pack_sums(pack: LoadedPack, out: PackSums, counter: FlopCounter) -> Tensor:
    """One pack's part of `StepSums`, float64, on the device of its loss."""
    shapes = [SampleShape(len(s.encoded.ids), s.encoded.num_targets, s.grids) for s in pack.samples]
    tokens = sum(shape.tokens for shape in shapes)
    host = [float(tokens), counter.step(shapes), float(pack.num_bad), 0.0]
    device = out.loss.device
    return torch.cat(
        (
            out.loss.detach().double()[None],
            out.counts,
            sent(torch.tensor(host, dtype=torch.float64), device),
        )
    )


def step_record(
    sums: StepSums, timing: Timing, peak: float | None, memory: float
) -> dict[str, Any]:
    """The measured part of a step's line in metrics.jsonl; `peak` operations a second of all devices."""
    targets, samples = max(sums.targets, 1.0), max(sums.samples, 1.0)
    return {
        "loss": sums.loss / targets,
        "token_accuracy": sums.hits / targets,
        "exact_answers": sums.exact / samples,
        "tokens": int(sums.tokens),
        "targets": int(sums.targets),
        "samples": int(sums.samples),
        "seconds": timing.step,
        "data_seconds": timing.data,
        "tokens_per_second": sums.tokens / timing.step,
        "tflops": sums.flops / timing.step / 1e12,
        "mfu": sums.flops / timing.step / peak if peak else None,
        "memory_gib": memory,
    }


def memory_gib(device: torch.device) -> float:
    """Most memory this process held so far: of the GPU, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
