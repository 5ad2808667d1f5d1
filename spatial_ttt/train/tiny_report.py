"""What a run says of itself: a line for people every few seconds, a record in metrics.jsonl more often."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import torch

from spatial_ttt.train.annealing import Reach
from spatial_ttt.train.pool import ClipSource, Order
from spatial_ttt.train.tiny_step import Launched

log = logging.getLogger(__name__)

RECORD_EVERY = 10  # steps
LINE_EVERY = 5.0  # seconds
SHOWN_STEPS = 5  # the first steps get a line each


class Reporter:
    """Counts what happened since its last line."""

    def __init__(self, folder: Path, device: torch.device, source: ClipSource) -> None:
        self.device, self.source = device, source
        self.began = time.monotonic()
        self.metrics = (folder / "metrics.jsonl").open("a")
        self._start_line()

    def _start_line(self) -> None:
        self.last_line = time.monotonic()
        self.made, self.drawn = self.source.tally.made, self.source.tally.drawn
        self.pumped = self.source.tally.host_seconds
        self.steps = 0
        self.model_ms = self.optimizer_ms = self.batch_ms = 0.0

    def write(self, record: dict[str, Any]) -> None:
        """Append to metrics.jsonl."""
        record = record | {"seconds": round(time.monotonic() - self.began, 2)}
        self.metrics.write(json.dumps(record) + "\n")
        self.metrics.flush()

    def finished(self, step: Launched, batch_ms: float, reach: Reach) -> None:
        """Note a step that is done; `batch_ms` are the host's for putting it together."""
        scores, timing = step.scores, step.timing
        self.steps += 1
        self.model_ms += timing.forward_backward
        self.optimizer_ms += timing.optimizer
        self.batch_ms += batch_ms
        if step.number % RECORD_EVERY == 0 or step.number <= SHOWN_STEPS:
            record = {"step": step.number, "stage": step.stage, "blind": step.is_blind}
            record |= {name: round(value, 4) for name, value in scores.items()}
            record |= {"model_ms": round(timing.forward_backward, 1)}
            record |= {"optimizer_ms": round(timing.optimizer, 1)}
            record |= {"clips_made": self.source.tally.made}
            record |= {"window": reach.window, "memory": reach.memory, "fill": round(step.fill, 3)}
            kinds = {kind: round(value, 3) for kind, value in step.by_kind.items()}
            self.write(record | {"by_kind": kinds})
        if step.number <= SHOWN_STEPS or time.monotonic() - self.last_line >= LINE_EVERY:
            self._line(step, scores, reach)

    def _line(self, step: Launched, scores: dict[str, float], reach: Reach) -> None:
        seconds, tally = time.monotonic() - self.last_line, self.source.tally
        steps = max(self.steps, 1)
        pump_ms = 1000 * (tally.host_seconds - self.pumped) / steps
        dense = " ".join(
            f"{name[6:]} {value:.3f}" for name, value in scores.items() if name.startswith("dense")
        )
        log.info(
            "step %d %s%s window %d%s: loss %.4f norm %.2f %s | ms a step %.0f: device model %.0f optimizer %.0f, "
            "host batch %.0f pump %.0f | clips/s made %.0f drawn %.0f, ring %s, dropped %d, failed %d%s",
            step.number, step.stage, " (blind)" if step.is_blind else "",
            reach.window, " + memory" if reach.memory else "", scores["loss"],
            scores["grad_norm"], dense, 1000 * seconds / steps, self.model_ms / steps,
            self.optimizer_ms / steps, self.batch_ms / steps, pump_ms,
            (tally.made - self.made) / seconds, (tally.drawn - self.drawn) / seconds,
            fill(self.source.stream), tally.dropped, tally.failed, self._memory(),
        )  # fmt: skip
        self._start_line()

    def _memory(self) -> str:
        if self.device.type != "cuda":
            return ""
        return f", memory_gb {torch.cuda.max_memory_allocated() / 1e9:.1f}"

    def close(self) -> None:
        """Close the file."""
        self.metrics.close()


def fill(order: Order | None) -> str:
    """How full the ring of an order is."""
    if order is None:
        return "none"
    return f"{len(order.ring.ready)}/{order.ring.capacity} (+{order.under_way})"
