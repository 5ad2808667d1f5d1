"""Held-out samples with the truth at hand: loss, and how many answers would be right word for word."""

from __future__ import annotations

from dataclasses import replace

import torch

from spatial_ttt.processor import Processor
from spatial_ttt.train.dataset import PackLoader
from spatial_ttt.train.distributed import Processes
from spatial_ttt.train.packed import PackedModel, PackSums
from spatial_ttt.train.packing import StepPlan
from spatial_ttt.train.run_config import TrainConfig
from spatial_ttt.train.samples import index_samples
from spatial_ttt.train.sharding import reshard


class Validator:
    """The same packs at every look; without files it never looks."""

    def __init__(self, config: TrainConfig, processor: Processor, group: Processes) -> None:
        self._every = config.validation.every
        self._group = group
        self._processor = processor
        self._data = replace(config.data, files=config.validation.files or config.data.files)
        self._is_on = bool(config.validation.files)
        if self._is_on:
            self._index = index_samples(self._data, processor, processor.frames.unit)
            plan = StepPlan(self._index, self._data, config.seed, 1.0, None)
            steps = range(plan.num_steps)
            packs = [pack for step in steps for pack in plan.packs(step)][: config.validation.packs]
            packs += [()] * (-len(packs) % group.world)
            self._units = packs[group.rank :: group.world]

    def is_due(self, step: int, at_end: bool) -> bool:
        """Look now?"""
        return self._is_on and (at_end or step % self._every == 0)

    @torch.no_grad()
    def look(self, packed: PackedModel) -> dict[str, float]:
        """Loss and accuracies; all processes must call this together."""
        loader = PackLoader(self._index, self._data, self._processor, iter(self._units))
        sums = torch.zeros(5, dtype=torch.float64, device=self._group.device)
        try:
            for _ in self._units:
                out: PackSums = packed(loader.next_pack().samples)
                sums += torch.cat((out.loss.double()[None], out.counts))
        finally:
            loader.close()
            reshard(packed)
        loss, targets, hits, samples, exact = self._group.sum(sums).tolist()
        return {
            "val_loss": loss / max(targets, 1.0),
            "val_token_accuracy": hits / max(targets, 1.0),
            "val_exact_answers": exact / max(samples, 1.0),
            "val_samples": int(samples),
        }
