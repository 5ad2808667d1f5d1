"""The loop behind `spatial_ttt.train.tiny`: rings of clips, steps, probes, saves."""

from __future__ import annotations

import argparse
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from spatial_ttt.engine import compile_for_training
from spatial_ttt.eval.profiles import load_profile
from spatial_ttt.presets import TINY_VOCAB_SIZE
from spatial_ttt.tokenizer import default_texts, load_tokenizer, train_tokenizer
from spatial_ttt.train import curves, probe
from spatial_ttt.train import tiny_setup as setup
from spatial_ttt.train.annealing import Reach, set_reach
from spatial_ttt.train.chained import Size, chain, chained_spec, stream_rows
from spatial_ttt.train.clip_text import Prefix, blind_prefix, room_for_branch
from spatial_ttt.train.clip_types import DENSE_KINDS, categories
from spatial_ttt.train.curriculum import Stage, plan, stage_at, stages_between
from spatial_ttt.train.dense_heads import DenseHeads
from spatial_ttt.train.draw import warm_up
from spatial_ttt.train.garbage import collected_between_steps
from spatial_ttt.train.listening import before_anchors, middle
from spatial_ttt.train.optim import SlowWeights
from spatial_ttt.train.publish import publish, save_model, unpack
from spatial_ttt.train.ranks import Ranks
from spatial_ttt.train.ring import ClipRing, kind_weights
from spatial_ttt.train.schedule import cosine_scale
from spatial_ttt.train.stream_asker import StreamAsker
from spatial_ttt.train.tiny_clips import Supply
from spatial_ttt.train.tiny_report import Reporter
from spatial_ttt.train.tiny_step import Launched, Stepper, Work

log = logging.getLogger(__name__)

FLOOR = 0.05  # of the learning rate, against its peak
BRANCH_TOKENS = 28  # mean length of an exchange: a clip's questions fill so many tokens a branch
SAVE_EVERY = 60.0  # seconds
LAST_WORDS = 30.0  # seconds kept for the last probe and save
LAST_HELD_OUT = 15.0  # seconds of these to wait for held-out homes still being made
HURRY = 0.15  # last share of the time in which a run short of steps ends its schedule
LEAD = 8.0  # seconds before a stage is due that its homes are made
SYNC_STEP = 4  # the step --show-syncs looks at


class AskedToEnd(Exception):
    """SIGTERM came where nothing is lost by stopping."""


class TinyRun:
    """One run of the small model."""

    def __init__(self, chosen: argparse.Namespace, ranks: Ranks | None = None) -> None:
        self.ranks = ranks = ranks or Ranks()
        self.stopped = self.interruptible = self.astray = False
        signal.signal(signal.SIGTERM, self._asked_to_end)
        self.began = time.monotonic()
        self.chosen = chosen
        self.work: Path = chosen.work
        self.work.mkdir(parents=True, exist_ok=True)
        self.device = setup.pick_device(chosen.device)
        setup.check_kernels(self.device, setup.pick_dtype(chosen.dtype, self.device))
        torch.manual_seed(chosen.seed)
        self.rng = np.random.default_rng([chosen.seed, ranks.rank])
        self.turns = np.random.default_rng(chosen.seed)  # which ring comes next: alike on all ranks
        resumed = unpack(chosen.resume, self.work / "resumed") if chosen.resume else None
        self.tokenizer = (
            load_tokenizer(resumed)
            if resumed
            else train_tokenizer(default_texts(), TINY_VOCAB_SIZE)
        )
        self.tokenizer.save_pretrained(self.work / "tokenizer")
        tokenizer_file = self.work / "tokenizer" / "tokenizer.json"
        self.source = setup.start_workers(chosen, tokenizer_file, self.device)
        self.reporter = Reporter(self.work, self.device, self.source)
        try:
            self._prepare(resumed)
        except BaseException:
            self.close()  # else the workers would keep this process alive
            raise

    def _prepare(self, resumed: Path | None) -> None:
        """All that workers need not wait for: the model, what trains it, and the plan."""
        chosen, ranks = self.chosen, self.ranks
        self.model = setup.make_model(chosen, self.tokenizer, resumed).to(self.device)
        self.stepper = self._stepper()
        self.model.train()
        self.stages = plan(chosen.plan)
        rule = self.model.config.ttt_config
        self.supply = Supply(chosen, self.source, self.tokenizer, self.device, rule.chunk_size)
        if ranks.world > 1:
            self.supply.keep_to(ranks.rank)
        contexts = {stage.name: self.supply.context(stage) for stage in self.stages}
        self.annealing = setup.make_annealing(chosen, self.stages, contexts, rule.window_size)
        self.reach = Reach(0, False)  # none yet
        self.blind = blind_prefix(self.tokenizer)
        profile = load_profile("paper")
        self.asker = StreamAsker(self._encode, profile.number, profile.choice)
        self.launched: tuple[Launched, float] | None = None
        self.ready: set[str] = set()  # stages that have enough clips
        self.step = 0

    def _encode(self, words: str) -> list[int]:
        return list(self.tokenizer.encode(words, add_special_tokens=False))

    def _stepper(self) -> Stepper:
        model, hidden = self.model, self.model.config.text_config.hidden_size
        listened = len(before_anchors(model)), len(middle(model))
        heads = DenseHeads(hidden, len(categories()), *listened)
        modules = nn.ModuleList([self.model, heads.to(self.device)])
        dtype = setup.pick_dtype(self.chosen.dtype, self.device)
        self.ranks.share(modules)
        average = self.ranks.average if self.ranks.world > 1 else None
        slow = SlowWeights(modules, setup.optim_config(self.chosen), dtype, average)
        if setup.wants_compiling(self.chosen, self.device):
            compile_for_training(self.model)
        count = setup.count_parameters(self.model)
        log.info("device %s, dtype %s, %s parameters", self.device, dtype, count)
        return Stepper(self.model, heads, slow, self.device, self.chosen.dense, self.shield)

    # --- Training ---------------------------------------------------------------------------------

    def _asked_to_end(self, *_: object) -> None:
        log.info("asked to end: saving")
        self.stopped = True
        if self.interruptible:
            self.interruptible = False
            raise AskedToEnd

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Put off an end asked for inside the block until after it."""
        before, self.interruptible = self.interruptible, False
        yield
        self.interruptible = before
        if before and self.stopped:
            self.interruptible = False
            raise AskedToEnd

    @property
    def budget(self) -> float:
        """Seconds for training; the rest is for the last probe and save."""
        return max(60 * self.chosen.minutes - LAST_WORDS, 30 * self.chosen.minutes)

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the end of the budget: by time, or by steps and hurried when time runs out."""
        by_time = (time.monotonic() - self.began) / self.budget
        if not self.chosen.max_steps:
            return by_time
        by_steps = self.step / self.chosen.max_steps
        left = (1 - by_time) / HURRY  # of the steps that are missing, while time runs out
        return max(by_steps, 1 - (1 - by_steps) * max(left, 0.0) if left < 1 else 0.0)

    def train(self) -> None:
        """Train until the budget is spent, then save, probe the held-out homes and save what they say.

        SIGTERM ends at once with a save; any error ends with a save of what was learned before it.
        """
        self.interruptible = True
        try:
            if self.stopped:
                raise AskedToEnd
            self._loop()
            self.save()
            self.ranks.check_alike(self.model)
            self.source.end_stream()
            if self.ranks.is_first:
                supply = self.supply
                if not supply.all_held_out:
                    supply.wait_until(lambda: supply.all_held_out, LAST_HELD_OUT, "held-out homes")
                self._probe_all(None)
        except AskedToEnd:
            pass
        finally:
            self.interruptible = False
            if self.stopped or (self.step and not self.astray):
                self.save()

    def _loop(self) -> None:
        supply = self.supply
        (progress,) = self.ranks.agree(self.progress)
        current = stage_at(self.stages, self._at(progress))
        self._set_reach(progress)
        self._stream(current)
        self.source.pump()  # workers furnish while kernels are compiled
        warm_up(self.source.caster, current.spec, self.device)
        supply.wait_until(
            lambda: supply.has_enough(current.name) or self.progress >= 1, math.inf, current.name
        )
        for stage in stages_between(self.stages, self.chosen.begin, 1.0):
            if self.ranks.is_first:
                supply.hold_out(stage)
        with collected_between_steps() as after_step:
            self._steps(current, after_step)
        self._finish()
        self._set_reach(1.0)

    def _steps(self, current: Stage, after_step: Callable[[], None]) -> None:
        """Steps, probes and saves until the time is over."""
        probed = saved = time.monotonic()
        while True:
            (progress,) = self.ranks.agree(self.progress)
            if progress >= 1:
                break
            self._stream(stage_at(self.stages, self._at(progress + LEAD / self.budget)))
            self._take_stock()
            current = self._switch(current, progress)
            self._set_reach(progress)
            self._one_step(self._turn(current), progress)
            after_step()
            if not self.ranks.is_first:
                continue
            if time.monotonic() - probed > self.chosen.eval_every:
                self._probe_all(current)
                probed = time.monotonic()
            if time.monotonic() - saved > SAVE_EVERY:
                self.save()
                saved = time.monotonic()

    def _stream(self, stage: Stage) -> None:
        rehearsed = dict(stage.rehearsed)
        self.supply.stream(stage, [one for one in self.stages if one.name in rehearsed])

    def _take_stock(self) -> None:
        """Which stages have enough clips in every process.

        All take a step of one kind, or some would have no gradient where others have one, and averages would mix
        different weights.
        """
        names = [stage.name for stage in self.stages]
        flags = self.ranks.all_say(*(self.supply.has_enough(name) for name in names))
        self.ready = {name for name, is_ready in zip(names, flags, strict=True) if is_ready}

    def _at(self, progress: float) -> float:
        """Where in the curriculum the run is at this progress."""
        return self.chosen.begin + (1 - self.chosen.begin) * min(progress, 1.0)

    def _set_reach(self, progress: float) -> None:
        """Give the TTT layers the window and the memory that are due."""
        reach = self.annealing.at(self._at(progress))
        if reach == self.reach:
            return
        if not self.reach.window or reach.memory != self.reach.memory:
            memory = "on" if reach.memory else "off"
            log.info("window %d, fast weights %s at step %d", reach.window, memory, self.step)
        set_reach(self.model, reach)
        self.reach = reach

    def _switch(self, current: Stage, progress: float) -> Stage:
        """The stage that is due, once enough of its clips are there; the device never waits for them."""
        due = stage_at(self.stages, self._at(progress))
        if due.name == current.name or due.name not in self.ready:
            return current
        clips = len(self.supply.rings[due.name].ready)
        log.info("stage %s at step %d with %d clips", due.name, self.step, clips)
        return due

    def _turn(self, current: Stage) -> Stage:
        """The stage whose clips come next: this one, or an earlier one that must not be forgotten."""
        name = current.pick(float(self.turns.random()))
        if name not in self.ready:
            return current
        return next(stage for stage in self.stages if stage.name == name)

    def _one_step(self, stage: Stage, progress: float) -> None:
        """Launch a step; make clips until the device is done with the one before."""
        began = time.monotonic()
        clips = max(1, int(self.chosen.clips * stage.clip_share))
        ring = self.supply.rings[stage.name]
        is_chained = float(self.turns.random()) < stage.chained
        work = self._chain(ring, stage, clips) if is_chained else self._work(ring, stage, clips)
        batch_ms = 1000 * (time.monotonic() - began)
        scale = cosine_scale(self.step, self.chosen.warmup, progress, floor=FLOOR)
        with self._showing_syncs():
            launched = self.stepper.step(work, scale, self.step + 1, stage.name)
        self.step += 1
        self.supply.earn(clips)
        self.supply.feed()
        self._finish()
        self.launched = (launched, batch_ms)

    def _chain(self, ring: ClipRing, stage: Stage, clips: int) -> Work:
        """Streams with as many frames together as a step of so many clips."""
        made = stage.chains[self.step % len(stage.chains)]
        spec = chained_spec(ring.spec, made)
        prefix = self.supply.prefix(spec)
        room = room_for_branch(prefix, self.supply.chunk_size)
        size = Size(stream_rows(clips, made), room)
        batch = chain(ring, self.asker, self.rng, size, made)
        return Work([batch], spec, prefix, False, is_chained=True)

    def _work(self, ring: ClipRing, stage: Stage, clips: int) -> Work:
        micro = self.chosen.micro or clips
        room = BRANCH_TOKENS * self.chosen.branches
        is_blind = bool(self.chosen.blind_every and self.step % self.chosen.blind_every == 0)
        weights = kind_weights(
            stage.weights | (dict.fromkeys(DENSE_KINDS, 0.0) if is_blind else {})
        )
        batches = [
            ring.batch(self.rng, min(micro, clips - at), room, weights)
            for at in range(0, clips, micro)
        ]
        prefix = self.blind if is_blind else self.supply.prefix(ring.spec)
        return Work(batches, ring.spec, prefix, is_blind)

    def _finish(self) -> None:
        """Wait for the step on the device, if there is one, and note it."""
        if self.launched is None:
            return
        launched, batch_ms = self.launched
        self.launched = None

        def meanwhile() -> None:
            self.supply.feed()
            time.sleep(0.0005)

        launched.wait(meanwhile)
        self.astray = True
        self.reporter.finished(launched, batch_ms, self.reach)  # raises if the loss is not finite
        self.astray = False

    @contextmanager
    def _showing_syncs(self) -> Iterator[None]:
        """Warn of everything in one step that makes the host wait for the device, if asked to."""
        if not (
            self.chosen.show_syncs and self.device.type == "cuda" and self.step + 1 == SYNC_STEP
        ):
            yield
            return
        torch.cuda.set_sync_debug_mode("warn")
        yield
        torch.cuda.set_sync_debug_mode("default")

    # --- Looking and saving -----------------------------------------------------------------------

    def _probe_all(self, stage: Stage | None) -> None:
        """Ask about held-out homes: of one stage, or (None) of all, then without the video too."""
        for name, order in self.supply.held_out.items():
            if (stage is not None and name != stage.name) or not order.ring.ready:
                continue
            began, ring = time.monotonic(), order.ring
            scores = {"full": self._scores(ring, self.supply.prefix(ring.spec), False)}
            if stage is None:
                scores["blind"] = self._scores(ring, self.blind, True)
            self.reporter.write({"step": self.step, "probe": name, "scores": scores})
            took = time.monotonic() - began
            log.info("held-out homes, %s, step %d (%.1f s):", name, self.step, took)
            for kind, (value, constant, number) in scores["full"].items():
                blind = scores.get("blind", {}).get(kind, (math.nan, 0.0, 0))[0]
                row = (kind, 100 * value, 100 * blind, 100 * constant, number)
                log.info("  %-30s full %5.1f  blind %5.1f  constant %5.1f  n %d", *row)

    def _scores(
        self, ring: ClipRing, prefix: Prefix, is_blind: bool
    ) -> dict[str, tuple[float, float, int]]:
        replies = probe.answer_ring(self.model, self.tokenizer, ring, prefix, blind=is_blind)
        return probe.table(replies)

    def save(self) -> None:
        """Weights, tokenizer, metrics and curves; published if asked for."""
        if not self.ranks.is_first:
            return
        with self.shield():
            began = time.monotonic()
            last = self.stages[-1].spec
            save_model(self.model, self.tokenizer, self.work / "model", (last.height, last.width))
            curves.draw(self.work / "metrics.jsonl", self.work / "curves.png")
            if self.chosen.publish:
                others: list[Any] = [self.work / "metrics.jsonl", self.work / "curves.png"]
                publish(self.work / "model", others, self.chosen.publish)
            log.info("saved in %.1f s at step %d", time.monotonic() - began, self.step)

    def close(self) -> None:
        """End the workers."""
        self.source.close()
        self.reporter.close()
