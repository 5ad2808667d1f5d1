"""The training loop of the paper-scale system: one stage, from a start to a folder that answers.

    start or checkpoint -> shares -> [ packs -> sums -> gradients -> update ] x steps -> export

A step's gradient is the sum over all its packs and processes, divided by its targets. Everything is
a function of (configuration, step), so a run that was stopped goes on as if it had not been, on any
number of processes.
"""

from __future__ import annotations

import json
import logging
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging as hf_logging

from spatial_ttt.engine import compile_for_training, keep_newton_schulz
from spatial_ttt.errors import ConfigError, SpatialTTTError
from spatial_ttt.loading import resolve_dtype
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.train.ahead import Ahead
from spatial_ttt.train.annealing import set_window
from spatial_ttt.train.checkpointing import (
    Checkpoints,
    Progress,
    TrainingState,
    check_same_run,
    read_state,
)
from spatial_ttt.train.dataset import PackLoader, my_units
from spatial_ttt.train.distributed import Processes, local, processes, whole
from spatial_ttt.train.flops import FlopCounter, peak_flops
from spatial_ttt.train.garbage import collected_between_steps
from spatial_ttt.train.logs import METRICS, RunLog
from spatial_ttt.train.lora import add_lora, merge_lora
from spatial_ttt.train.measures import StepSums, Timing, memory_gib, pack_sums, step_record
from spatial_ttt.train.packed import Given, PackedModel, PackSums
from spatial_ttt.train.packing import StepPlan
from spatial_ttt.train.run_config import TrainConfig
from spatial_ttt.train.samples import index_samples
from spatial_ttt.train.schedule import annealed_window, cosine_scale
from spatial_ttt.train.settings import to_plain
from spatial_ttt.train.sharded_adamw import ShardedAdamW, rate_groups
from spatial_ttt.train.sharding import begin_pack, freeze, reshard, resolve_rates, shard
from spatial_ttt.train.starting import count_parameters, export, resumed_model, start_model
from spatial_ttt.train.training_curves import CURVES, draw
from spatial_ttt.train.validating import Validator

log = logging.getLogger(__name__)

MODEL = "model"
_SEED_STRIDE = 1_000_003


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    step: int
    num_steps: int
    was_stopped: bool
    """SIGTERM or Ctrl-C came; the checkpoint is there to go on from."""
    folder: Path
    """Of the stage; `model` in it is what to use, once all steps are done."""
    last: dict[str, Any]
    """The last step's record."""
    is_first: bool
    """This is the process that reports."""

    def sentence(self) -> str:
        """The outcome in words."""
        if self.was_stopped:
            return f"{self.folder}: stopped after step {self.step} of {self.num_steps}; go on with --resume"
        loss = f", last loss {self.last['loss']:.4f}" if "loss" in self.last else ""
        return f"{self.folder / MODEL}: {self.step} steps{loss}"

    def to_json(self) -> str:
        """The outcome for machines."""
        record = {"step": self.step, "num_steps": self.num_steps, "was_stopped": self.was_stopped}
        return json.dumps(record | {"folder": str(self.folder), "last": self.last})


def train(config: TrainConfig, stage: int, *, resume: bool = False) -> Outcome:
    """Run one stage, alone or as one of torchrun's processes."""
    hf_logging.disable_progress_bar()
    with processes(config.device) as group:
        if not group.is_first:  # what all of them would say, one says
            logging.getLogger("spatial_ttt").setLevel(logging.ERROR)
        return Trainer(config, stage, group, resume=resume).run()


class Trainer:
    """One stage of one run in one process."""

    def __init__(
        self, config: TrainConfig, stage: int, group: Processes, *, resume: bool = False
    ) -> None:
        self.config = config
        self.stage = stage
        self.group = group
        self.folder = Path(config.out) / f"stage{stage}"
        self.checkpoints = Checkpoints(self.folder / "checkpoints", group, config.keep)
        newest = self._checkpoint_to_go_on_from(resume)
        model, self.processor = (
            start_model(config) if newest is None else resumed_model(newest, config)
        )
        self.model_config = model.config
        self.index = index_samples(config.data, self.processor, self.processor.frames.unit)
        self.plan = StepPlan(self.index, config.data, config.seed, config.epochs, config.max_steps)
        self.plan.share(0, group.rank, group.world)  # refuses a wrong number of processes
        self.precision = resolve_dtype(config.precision, group.device)
        if self.precision == torch.float64:
            raise ConfigError("precision must be auto, float32 or bfloat16")
        self.packed, self.optimizer = self._prepare(model)
        averages = self._start_averages()
        self.state = TrainingState(self.packed, self.optimizer, averages)
        self.progress = Progress(
            step=0, tokens=0, samples=0, bad_samples=0, fingerprint=self.index.fingerprint
        )
        if newest is not None:
            self._go_on_from(newest)
        self.validator = Validator(config, self.processor, group)
        self._flops = FlopCounter(self.model_config, 0, self._trains_vision)
        self._peak = peak_flops(group.device)
        self._stop = False

    # --- Setting up -------------------------------------------------------------------------------

    def _checkpoint_to_go_on_from(self, resume: bool) -> Path | None:
        newest = self.checkpoints.newest()
        if newest is not None and not resume:
            raise ConfigError(
                f"{self.folder} holds a run already (its last checkpoint: {newest.name}); "
                f"go on with --resume, or choose another `out`"
            )
        return newest

    def _prepare(
        self, model: SpatialTTTForConditionalGeneration
    ) -> tuple[PackedModel, ShardedAdamW]:
        config = self.config
        rates = resolve_rates(model, config.optim.learning_rate, uses_lora=config.lora.rank > 0)
        if config.lora.rank:
            add_lora(model, config.lora, config.seed)
        freeze(model, rates)
        number = len(model.decoder.layers)
        chosen = {"all": number, "none": 0}.get(str(config.checkpointed_layers))
        checkpointed = int(config.checkpointed_layers) if chosen is None else chosen
        everything, trained = count_parameters(model)
        log.info("%d parameters, %d trained, rates %s", everything, trained, rates)
        packed = PackedModel(model.train(), self.processor, checkpointed)
        shard(packed, self.group, self.precision, config.gathered)
        if config.compile:
            compile_for_training(model)
        if config.keep_newton_schulz:
            keep_newton_schulz(model)
        self._trains_vision = any(p.requires_grad for p in model.model.visual.parameters())
        groups = rate_groups(packed, config.optim, rates)
        return packed, ShardedAdamW(groups, config.optim, self.group)

    def _start_averages(self) -> dict[str, Tensor]:
        if not self.config.optim.ema_decay:
            return {}
        named = self.packed.model.named_parameters()
        return {name: p.detach().clone() for name, p in named if p.requires_grad}

    def _go_on_from(self, folder: Path) -> None:
        progress, record = read_state(folder)
        check_same_run(record["config"], to_plain(self.config), folder)
        if progress.fingerprint != self.progress.fingerprint:
            raise ConfigError(
                f"{folder} was trained on other data than {', '.join(self.config.data.files)} now hold; "
                f"put the old files back, or train into another `out`"
            )
        self.state.load(folder)
        self.progress = progress
        log.info("going on from %s at step %d", folder, progress.step)

    def about(self) -> dict[str, Any]:
        """What checkpoints and exports say of the run."""
        return {
            "stage": self.stage,
            "config": to_plain(self.config),
            "rule": self.model_config.ttt_config.to_dict(),
            "num_steps": self.plan.num_steps,
            "epoch": self.plan.epoch_of(self.progress.step),
            "random_numbers": {"seed": self.config.seed, "step": self.progress.step},
        }

    # --- Training ---------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Train until all steps are done or a signal asks to end; always leaves a checkpoint."""
        first, total = self.progress.step, self.plan.num_steps
        units = my_units(self.plan, first, self.group.rank, self.group.world)
        device, data = self.group.device, self.config.data
        pinned = device.type == "cuda"
        loader = PackLoader(self.index, data, self.processor, units, pinned=pinned)
        packs = Ahead(loader, self.packed.given, device)
        record: dict[str, Any] = {"step": first}
        saved = first if first else -1
        is_first = self.group.is_first
        with (
            self._signals(),
            collected_between_steps() as after_step,
            RunLog(self.folder, is_first=is_first, first_step=first, num_steps=total) as run_log,
        ):
            run_log.text("config", str(to_plain(self.config)))
            try:
                while self.progress.step < total and not self._stop:
                    record = self._step(packs)
                    step = self.progress.step
                    at_end = step == total or self._stop
                    run_log.step(record, written=at_end or step % self.config.log_every == 0)
                    if self.validator.is_due(step, at_end):
                        run_log.write({"step": step} | self.validator.look(self.packed))
                    if step % self.config.save_every == 0 or at_end:
                        self._save()
                        saved = step
                    after_step()
            finally:
                loader.close()
            if saved != self.progress.step:
                self._save()
        if is_first:
            draw(self.folder / METRICS, self.folder / CURVES)
        if self.progress.step == total:
            self._export()
        return Outcome(
            step=self.progress.step,
            num_steps=total,
            was_stopped=self.progress.step < total,
            folder=self.folder,
            last=record,
            is_first=self.group.is_first,
        )

    def _step(self, packs: Ahead[Given]) -> dict[str, Any]:
        began = time.perf_counter()
        step, config = self.progress.step, self.config
        torch.manual_seed(config.seed * _SEED_STRIDE + step)
        window = self._set_window(step)
        sums, waited = self._accumulate(packs)
        self._stop = sums.stops > 0
        warmup = min(config.optim.warmup_steps, max(1, self.plan.num_steps // 10))
        scale = cosine_scale(step, warmup, step / self.plan.num_steps, config.optim.floor)
        norm = self._update(sums, scale)
        self.progress = replace(
            self.progress,
            step=step + 1,
            tokens=self.progress.tokens + int(sums.tokens),
            samples=self.progress.samples + int(sums.samples),
            bad_samples=self.progress.bad_samples + int(sums.bad),
        )
        timing = Timing(time.perf_counter() - began, waited)
        peak = self._peak * self.group.world if self._peak else None
        return {
            "step": step + 1,
            "epoch": self.plan.epoch_of(step + 1),
            "rate": scale,
            "window": window,
            "gradient_norm": norm,
            "bad_samples": self.progress.bad_samples,
        } | step_record(sums, timing, peak, memory_gib(self.group.device))

    def _accumulate(self, packs: Ahead[Given]) -> tuple[StepSums, float]:
        """Forward and backward passes of this process's packs; sums over all, seconds spent waiting."""
        waited = packs.waited
        total = torch.zeros(len(StepSums._fields), dtype=torch.float64, device=self.group.device)
        count = self.config.data.packs_per_step // self.group.world
        for number in range(count):
            begin_pack(self.packed, number, count)
            pack, given = packs.next_pack()
            out: PackSums = self.packed(given)
            out.loss.backward()
            packs.fetch()
            total += pack_sums(pack, out, self._flops)
        reshard(self.packed)
        total[-1] = float(self._stop)
        return StepSums(*self.group.sum(total).tolist()), packs.waited - waited

    def _set_window(self, step: int) -> int:
        last = self.model_config.ttt_config.window_size
        window, plan = last, self.config.window
        if plan is not None:
            window = annealed_window(self.plan.epoch_of(step) / plan.epochs, plan.first, last)
        set_window(self.packed.model, window)
        self._flops = replace(self._flops, window=window)
        return window

    def _update(self, sums: StepSums, scale: float) -> float:
        """Normalise, clip and apply the gradients; returns their norm before clipping."""
        if not sums.targets:
            log.error("step %d has no target: its samples were all bad", self.progress.step + 1)
            self.optimizer.drop_gradients()
            return 0.0
        norm = self.optimizer.normalise(sums.targets)
        if not math.isfinite(sums.loss) or not math.isfinite(norm):
            raise SpatialTTTError(
                f"step {self.progress.step + 1} has loss {sums.loss / sums.targets} and gradient norm {norm}; "
                f"nothing of it was applied. Lower optim.learning_rate, or look at its samples, and --resume"
            )
        self.optimizer.step(scale)
        self._average()
        return norm

    @torch.no_grad()
    def _average(self) -> None:
        if not self.state.averages:
            return
        named = dict(self.packed.model.named_parameters())
        averages = [local(value) for value in self.state.averages.values()]
        now = [local(named[name]) for name in self.state.averages]
        torch._foreach_lerp_(averages, now, 1.0 - self.config.optim.ema_decay)

    # --- Saving -----------------------------------------------------------------------------------

    def _save(self) -> None:
        began = time.perf_counter()
        path = self.checkpoints.save(self.state, self.progress, self.about(), self.processor)
        log.info("saved %s in %.1f s", path, time.perf_counter() - began)

    def _export(self) -> None:
        """Write the trained model (its average, if one was kept) where `load_model` finds it."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.packed.model.named_parameters():
            value = whole(self.state.averages.get(name, parameter).detach())
            if self.group.is_first:
                tensors[name] = value.to("cpu", copy=True)
        if self.group.is_first:
            if self.config.lora.rank:
                tensors = merge_lora(tensors, self.config.lora)
            cast = {name: value.to(self.precision) for name, value in tensors.items()}
            export(self.model_config, cast, self.processor, self.folder / MODEL, self.about())
        self.group.wait()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C let the step end, save, and leave."""

        def ask_to_stop(number: int, _frame: object) -> None:
            log.warning("%s: saving after this step", signal.Signals(number).name)
            self._stop = True

        before = {n: signal.signal(n, ask_to_stop) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
