"""Checkpoints of a run: everything that moves, in one folder that appears at once or not at all.

    checkpoints/step-00000120/   state.json      configuration, rule, data position, seed, totals
                                 config.json, tokenizer and frame format of the model
                                 *.distcp        masters, moments, averages (torch's distributed format)

Shares are written by the processes that hold them and read by however many come later. Random
numbers need no state: each step draws from generators made of (seed, step).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException

from spatial_ttt import __version__
from spatial_ttt.errors import CheckpointError, ConfigError
from spatial_ttt.files import read_json
from spatial_ttt.processor import Processor
from spatial_ttt.train.distributed import Processes
from spatial_ttt.train.packed import PackedModel
from spatial_ttt.train.sharded_adamw import ShardedAdamW

FORMAT = 1
STATE_FILE = "state.json"
_NAME = re.compile(r"step-(\d{8})")
FREE_TO_CHANGE = frozenset(
    {"checkpointed_layers", "compile", "data.files", "data.root", "data.workers", "device", "gathered",
     "keep", "keep_newton_schulz", "log_every", "save_every", "out", "start.folder", "validation"}
)  # fmt: skip
"""Settings that may differ when a run goes on: they do not change what is
learned (that the data are the same is checked by their fingerprint)."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is; `step` is the next one."""

    step: int
    tokens: int
    samples: int
    bad_samples: int
    fingerprint: str
    """Of the data."""


class Checkpoints:
    """The checkpoints of one stage."""

    def __init__(self, folder: Path, processes: Processes, keep: int) -> None:
        self.folder = folder
        self._processes = processes
        self._keep = keep

    def newest(self) -> Path | None:
        """The last checkpoint that was finished."""
        found = [p for p in self.folder.glob("step-*") if _NAME.fullmatch(p.name)]
        return max((p for p in found if (p / STATE_FILE).is_file()), default=None)

    def save(
        self, state: TrainingState, progress: Progress, about: dict[str, Any], processor: Processor
    ) -> Path:
        """Write a checkpoint; all processes must call this together."""
        final = self.folder / f"step-{progress.step:08d}"
        fresh = final.with_name(final.name + ".partial")
        if self._processes.is_first:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
        self._processes.wait()
        state_dict_saver.save(state.tensors(), checkpoint_id=str(fresh))
        self._processes.wait()
        if self._processes.is_first:
            record = {"format": FORMAT, "spatial_ttt": __version__, "torch": str(torch.__version__)}
            record |= {"written": datetime.now(UTC).isoformat(timespec="seconds")}
            record |= {"progress": progress.__dict__, "processes": self._processes.world} | about
            state.packed.model.config.save_pretrained(fresh)
            processor.save_pretrained(fresh)
            (fresh / STATE_FILE).write_text(json.dumps(record, indent=2) + "\n")
            _replace(fresh, final)
            self._drop_old()
        self._processes.wait()
        return final

    def _drop_old(self) -> None:
        names = sorted(p for p in self.folder.glob("step-*") if _NAME.fullmatch(p.name))
        for path in names[: -self._keep]:
            shutil.rmtree(path)


class TrainingState:
    """Masters, moments and averages by name: what a checkpoint holds."""

    def __init__(
        self, packed: PackedModel, optimizer: ShardedAdamW, averages: dict[str, Tensor]
    ) -> None:
        self.packed = packed
        self.optimizer = optimizer
        self.averages = averages

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor, none copied."""
        found = {"optimizer.updates": self.optimizer.updates}
        for name, parameter in self.packed.model.named_parameters():
            found[f"model.{name}"] = parameter.detach()
            if parameter.requires_grad:
                first, second = self.optimizer.moments(parameter)
                found |= {f"optimizer.first.{name}": first, f"optimizer.second.{name}": second}
        return found | {f"average.{name}": value for name, value in self.averages.items()}

    def load(self, folder: Path) -> None:
        """Fill everything from a checkpoint, whatever number of processes wrote it."""
        try:
            state_dict_loader.load(self.tensors(), checkpoint_id=str(folder))
        except (CheckpointException, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"{folder} cannot be read back; remove it to go on from the one before it ({reason[-300:]})"
            ) from error


def read_state(folder: Path) -> tuple[Progress, dict[str, Any]]:
    """How far a checkpoint's run was, and everything its state.json says."""
    record = read_json(folder / STATE_FILE)
    if record.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder} has format {record.get('format')!r}, this version reads {FORMAT}; update spatial-ttt"
        )
    return Progress(**record["progress"]), record


def check_same_run(then: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Refuse to go on with settings that change what is learned."""
    before, after = _flat(then), _flat(now)
    changed = [
        key
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
        and not any(key == free or key.startswith(free + ".") for free in FREE_TO_CHANGE)
    ]
    if changed:
        shown = "; ".join(
            f"{k}: {before.get(k)!r} there, {after.get(k)!r} now" for k in changed[:4]
        )
        raise ConfigError(
            f"{folder} belongs to a run with other settings ({shown}); "
            f"go on with those, or train into another `out`"
        )


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= _flat(item, f"{path}.{key}" if path else key)
    return found


def _replace(fresh: Path, final: Path) -> None:
    """Flush a folder to the disk, then give it its name."""
    for path in fresh.iterdir():
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    shutil.rmtree(final, ignore_errors=True)
    fresh.rename(final)
    handle = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
