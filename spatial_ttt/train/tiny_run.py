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

from spatial_ttt.presets import TINY_VOCAB_SIZE
from spatial_ttt.scenes.homes import home_seed
from spatial_ttt.tokenizer import default_texts, load_tokenizer, train_tokenizer
from spatial_ttt.train import curves, probe
from spatial_ttt.train import tiny_setup as setup
from spatial_ttt.train.clip_text import Prefix, blind_prefix, check_room, clip_prefix
from spatial_ttt.train.clip_types import DENSE_KINDS, ClipSpec, categories
from spatial_ttt.train.curriculum import Stage, plan, stage_at
from spatial_ttt.train.dense_heads import DenseHeads
from spatial_ttt.train.draw import warm_up
from spatial_ttt.train.optim import SlowWeights
from spatial_ttt.train.pool import Order
from spatial_ttt.train.publish import publish, save_model, unpack
from spatial_ttt.train.ring import ClipRing, kind_weights
from spatial_ttt.train.schedule import cosine_scale
from spatial_ttt.train.tiny_report import Reporter
from spatial_ttt.train.tiny_step import Launched, Stepper, Work

log = logging.getLogger(__name__)

WARMUP_STEPS = 100
SAVE_EVERY = 60.0  # seconds
LAST_WORDS = 30.0  # seconds kept for the last probe and save
LAST_HELD_OUT = 15.0  # seconds of these to wait for held-out homes still being made
LEAD = 8.0  # seconds before a stage is due that its homes are made
FIRST_CLIPS = 128  # clips in a ring before it is trained on (or a step of them, if more)
TASK_SIZE = 8  # homes a worker makes at a time
DRAWN_AT_ONCE = 64  # clips, while waiting for clips
MOST_UNDER_WAY = 1024  # clips begun and not ready
TRAIN_SPAN = 1 << 30  # seeds a run may use; runs with another --seed use others
SYNC_STEP = 4  # the step --show-syncs looks at


class AskedToEnd(Exception):
    """SIGTERM came where nothing is lost by stopping."""


class TinyRun:
    """One run of the small model."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.stopped = self.interruptible = self.astray = False
        signal.signal(signal.SIGTERM, self._asked_to_end)
        self.began = time.monotonic()
        self.chosen = chosen
        self.work: Path = chosen.work
        self.work.mkdir(parents=True, exist_ok=True)
        self.device = setup.pick_device(chosen.device)
        torch.manual_seed(chosen.seed)
        self.rng = np.random.default_rng(chosen.seed)
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
        self.model = setup.make_model(chosen, self.tokenizer, resumed).to(self.device)
        self.stepper = self._stepper()
        self.model.train()
        self.stages = plan(chosen.plan)
        self.chunk_size = self.model.config.ttt_config.chunk_size
        self.blind = blind_prefix(self.tokenizer)
        self.prefixes: dict[ClipSpec, Prefix] = {}
        self.rings: dict[str, ClipRing] = {}
        self.held_out: dict[str, Order] = {}
        self.launched: tuple[Launched, float] | None = None
        self.step = self.enough = 0
        self.allowance = 0.0  # clips that may be drawn
        self.next_seed = home_seed("train", chosen.seed * TRAIN_SPAN)
        self.last_seed = self.next_seed + TRAIN_SPAN

    def _stepper(self) -> Stepper:
        heads = DenseHeads(self.model.config.text_config.hidden_size, len(categories()))
        modules = nn.ModuleList([self.model, heads.to(self.device)])
        dtype = setup.pick_dtype(self.chosen.dtype, self.device)
        slow = SlowWeights(modules, setup.optim_config(self.chosen), dtype)
        count = setup.count_parameters(self.model)
        log.info("device %s, dtype %s, %s parameters", self.device, dtype, count)
        return Stepper(self.model, heads, slow, self.device, self.chosen.dense, self.shield)

    def prefix(self, spec: ClipSpec) -> Prefix:
        """The text of a spec's clips."""
        if spec not in self.prefixes:
            self.prefixes[spec] = clip_prefix(self.tokenizer, spec)
        return self.prefixes[spec]

    # --- Clips ------------------------------------------------------------------------------------

    def _order(self, stage: Stage, capacity: int, seeds: range, most_under_way: int) -> Order:
        """Homes of a stage for a new ring; refuses a stage whose questions would not fit the open chunk."""
        check_room(self.prefix(stage.spec), self.chunk_size, stage.branch_length)
        share = -(-min(capacity, len(seeds)) // self.chosen.workers)
        return Order(
            ring=ClipRing(stage.spec, capacity, self.device),
            difficulty=stage.difficulty,
            branch_length=stage.branch_length,
            next_seed=seeds.start,
            last_seed=seeds.stop,
            most_under_way=most_under_way,
            task_size=max(1, min(TASK_SIZE, share, most_under_way)),
        )

    def _stream(self, stage: Stage) -> None:
        """Let the workers make training homes of this stage from now on."""
        if self.source.stream is not None:
            self.next_seed = self.source.stream.next_seed
        capacity = self.chosen.capacity
        most = min(max(capacity // 2, 1), MOST_UNDER_WAY)
        order = self._order(stage, capacity, range(self.next_seed, self.last_seed), most)
        self.rings[stage.name] = order.ring
        self.source.stream = order

    def _hold_out(self, stage: Stage) -> None:
        count = self.chosen.eval_clips
        first = home_seed("val", 0)
        order = self._order(stage, count, range(first, first + count), count)
        self.source.orders.append(order)
        self.held_out[stage.name] = order

    def _wait_until(self, is_enough: Callable[[], bool], seconds: float, what: str) -> None:
        """Pump until there is enough, or for `seconds`."""
        began, made = time.monotonic(), self.source.tally.made
        while not is_enough() and time.monotonic() - began < seconds:
            if not self.source.pump(limit=DRAWN_AT_ONCE):
                time.sleep(0.001)
        took, made = time.monotonic() - began, self.source.tally.made - made
        log.info("%s: %d clips in %.1f s (%.0f/s)", what, made, took, made / max(took, 1e-9))

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
        """0 at the start, 1 at the end of the budget (by time, or by steps if that is further)."""
        by_time = (time.monotonic() - self.began) / self.budget
        by_steps = self.step / self.chosen.max_steps if self.chosen.max_steps else 0.0
        return max(by_time, by_steps)

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
            self.source.end_stream()
            if not self._all_held_out():
                self._wait_until(self._all_held_out, LAST_HELD_OUT, "held-out homes")
            self._probe_all(None)
        except AskedToEnd:
            pass
        finally:
            self.interruptible = False
            if self.stopped or (self.step and not self.astray):
                self.save()

    def _all_held_out(self) -> bool:
        return all(order.is_done for order in self.held_out.values())

    def _loop(self) -> None:
        current = self._stage(0.0)
        self._stream(current)
        streamed = current.name
        capacity, clips = self.chosen.capacity, self.chosen.clips
        self.enough = max(1, min(max(FIRST_CLIPS, clips), capacity // 4))
        first = self.rings[current.name]
        self.source.pump()  # workers furnish while kernels are compiled
        warm_up(self.source.caster, current.spec, self.device)
        self._wait_until(
            lambda: len(first.ready) >= self.enough or self.progress >= 1, math.inf, current.name
        )
        for stage in self.stages:
            if stage.until > self.chosen.start:
                self._hold_out(stage)
        probed = saved = time.monotonic()
        while self.progress < 1.0:
            coming = self._stage(LEAD / self.budget)
            if coming.name != streamed:
                self._stream(coming)
                streamed = coming.name
            current = self._switch(current)
            self._one_step(self.rings[current.name], current)
            if time.monotonic() - probed > self.chosen.eval_every:
                self._probe_all(current)
                probed = time.monotonic()
            if time.monotonic() - saved > SAVE_EVERY:
                self.save()
                saved = time.monotonic()
        self._finish()

    def _stage(self, lead: float) -> Stage:
        """The stage at this progress and `lead` more."""
        at = min(self.progress + lead, 1.0)
        return stage_at(self.stages, self.chosen.start + (1 - self.chosen.start) * at)

    def _switch(self, current: Stage) -> Stage:
        """The stage that is due, once enough of its clips are there; the device never waits for them."""
        due = self._stage(0.0)
        ring = self.rings.get(due.name)
        if due.name == current.name or ring is None or len(ring.ready) < self.enough:
            return current
        log.info("stage %s at step %d with %d clips", due.name, self.step, len(ring.ready))
        del self.rings[current.name]
        return due

    def _one_step(self, ring: ClipRing, stage: Stage) -> None:
        """Launch a step; make clips until the device is done with the one before."""
        began = time.monotonic()
        clips = max(1, int(self.chosen.clips * stage.clip_share))
        work = self._work(ring, stage, clips)
        batch_ms = 1000 * (time.monotonic() - began)
        scale = cosine_scale(self.step, WARMUP_STEPS, self.progress, floor=0.02)
        with self._showing_syncs():
            launched = self.stepper.step(work, scale, self.step + 1, stage.name)
        self.step += 1
        fresh = self.chosen.fresh * clips
        self.allowance = min(self.allowance + fresh, 4 * fresh + 1)
        self._feed()
        self._finish()
        self.launched = (launched, batch_ms)

    def _work(self, ring: ClipRing, stage: Stage, clips: int) -> Work:
        micro = self.chosen.micro or clips
        is_blind = bool(self.chosen.blind_every and self.step % self.chosen.blind_every == 0)
        weights = kind_weights(
            stage.weights | (dict.fromkeys(DENSE_KINDS, 0.0) if is_blind else {})
        )
        batches = [
            ring.batch(self.rng, min(micro, clips - at), self.chosen.branches, weights)
            for at in range(0, clips, micro)
        ]
        prefix = self.blind if is_blind else self.prefix(ring.spec)
        return Work(batches, ring.spec, prefix, is_blind)

    def _feed(self) -> None:
        """Pump once, drawing no more clips than steps have earned."""
        before = self.source.tally.drawn
        self.source.pump(limit=int(self.allowance))
        self.allowance -= self.source.tally.drawn - before

    def _finish(self) -> None:
        """Wait for the step on the device, if there is one, and note it."""
        if self.launched is None:
            return
        launched, batch_ms = self.launched
        self.launched = None

        def meanwhile() -> None:
            self._feed()
            time.sleep(0.0005)

        launched.wait(meanwhile)
        self.astray = True
        self.reporter.finished(launched, batch_ms)  # raises if the loss is not finite
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
        for name, order in self.held_out.items():
            if (stage is not None and name != stage.name) or not order.ring.ready:
                continue
            began, ring = time.monotonic(), order.ring
            scores = {"full": self._scores(ring, self.prefix(ring.spec), False)}
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
