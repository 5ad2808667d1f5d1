"""The loop behind `spatial_ttt.train.tiny`: rings of clips, steps, probes, saves."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spatial_ttt.checkpoint import load_model
from spatial_ttt.eval.profiles import load_profile
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.presets import TINY_VOCAB_SIZE, preset
from spatial_ttt.scenes.homes import home_seed
from spatial_ttt.tokenizer import default_texts, load_tokenizer, token_ids, train_tokenizer
from spatial_ttt.train import curves, probe
from spatial_ttt.train.branches import Targets, branch_loss, ingest, ingest_blind, read
from spatial_ttt.train.clip_text import Prefix, blind_prefix, check_room, clip_prefix
from spatial_ttt.train.clip_types import DENSE_KINDS, KINDS, ClipSpec, categories
from spatial_ttt.train.curriculum import Stage, plan, stage_at
from spatial_ttt.train.dense_heads import DenseHeads
from spatial_ttt.train.initialise import initialise
from spatial_ttt.train.optim import OptimConfig, SlowWeights
from spatial_ttt.train.pool import Batch, ClipRing, ClipSource, best_caster, kind_weights, to_device
from spatial_ttt.train.publish import publish, save_model, unpack
from spatial_ttt.train.schedule import cosine_scale

log = logging.getLogger(__name__)

DENSE_TOKEN_WEIGHT = 0.3
WARMUP_STEPS = 100
SAVE_EVERY = 60.0  # seconds
LAST_WORDS = 30.0  # seconds kept for the last probe and save
TASK_SIZE = 16  # homes a worker makes at a time
TRAIN_SPAN = 1 << 30  # seeds a run may use; runs with another --seed use others


class TinyRun:
    """One run of the small model."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.began = time.monotonic()
        self.chosen = chosen
        self.work: Path = chosen.work
        self.work.mkdir(parents=True, exist_ok=True)
        self.device = _device(chosen.device)
        self.dtype = _dtype(chosen.dtype, self.device)
        torch.manual_seed(chosen.seed)
        self.rng = np.random.default_rng(chosen.seed)
        resumed = unpack(chosen.resume, self.work / "resumed") if chosen.resume else None
        self.tokenizer = (
            load_tokenizer(resumed) if resumed else train_tokenizer(default_texts(), TINY_VOCAB_SIZE)
        )
        self.tokenizer.save_pretrained(self.work / "tokenizer")
        self.source = self._start_workers()
        self.model = self._model(resumed).to(self.device)
        self.heads = DenseHeads(self.model.config.text_config.hidden_size, len(categories())).to(self.device)
        self.modules = nn.ModuleList([self.model, self.heads])
        self.slow = SlowWeights(self.modules, self._optim(), self.dtype)
        self.model.train()
        self.stages = plan(chosen.plan)
        self.chunk_size = self.model.config.ttt_config.chunk_size
        self.blind = blind_prefix(self.tokenizer)
        self.prefixes: dict[ClipSpec, Prefix] = {}
        self.held_out: dict[str, ClipRing] = {}
        self.metrics = (self.work / "metrics.jsonl").open("a")
        self.step = 0
        self.stopped = False
        signal.signal(signal.SIGTERM, self._stop)
        log.info("device %s, dtype %s, %s parameters", self.device, self.dtype, _count(self.model))

    # --- Setting up -------------------------------------------------------------------------------

    def _start_workers(self) -> ClipSource:
        profile = load_profile("paper")
        caster, name = best_caster(self.device, self.chosen.samples)
        log.info("ray caster: %s, %d workers", name, self.chosen.workers)
        tokenizer_file = str(self.work / "tokenizer" / "tokenizer.json")
        arguments = (tokenizer_file, (profile.number, profile.choice))
        return ClipSource(self.chosen.workers, arguments, caster, (0, 0))

    def _model(self, resumed: Path | None) -> SpatialTTTForConditionalGeneration:
        if resumed is not None:
            log.info("going on from %s (momentum starts anew)", self.chosen.resume)
            return load_model(resumed, dtype=torch.float32)
        changes = dict(pair.split("=", 1) for pair in self.chosen.ttt)
        fields = {key: _value(value) for key, value in changes.items()}
        config = preset(self.chosen.preset, token_ids=token_ids(self.tokenizer), **fields)
        model = SpatialTTTForConditionalGeneration(config)
        initialise(model, self.chosen.seed, self.chosen.gate_bias)
        return model

    def _optim(self) -> OptimConfig:
        rate = self.chosen.learning_rate
        return OptimConfig(
            learning_rate={"base": rate, "ttt": rate, "vision": rate, "head": rate},
            weight_decay=0.05,
            betas=(0.9, 0.95),
            max_grad_norm=1.0,
            use_muon=not self.chosen.no_muon_optimizer,
        )

    def prefix(self, spec: ClipSpec) -> Prefix:
        """The text of a spec's clips."""
        if spec not in self.prefixes:
            self.prefixes[spec] = clip_prefix(self.tokenizer, spec)
        return self.prefixes[spec]

    def ring(self, stage: Stage, capacity: int) -> ClipRing:
        """An empty ring for a stage; refuses a stage whose questions would not fit the open chunk."""
        check_room(self.prefix(stage.spec), self.chunk_size, stage.branch_length)
        return ClipRing(stage.spec, capacity, self.device)

    def fill(self, ring: ClipRing, stage: Stage, count: int, seeds: tuple[int, int] | None = None) -> None:
        """Block until the ring holds `count` clips (or the seeds are used up)."""
        if seeds is not None:
            self.source.next_seed, self.source.last_seed = seeds
        began, made = time.monotonic(), self.source.made
        while len(ring.ready) < count and not (seeds is not None and self.source.is_idle):
            if not self._pump(ring, stage, None):
                time.sleep(0.002)
                self.source.check_alive()
        took, made = time.monotonic() - began, self.source.made - made
        log.info("%s: %d clips in %.1f s (%.0f/s)", stage.name, made, took, made / took)

    def _pump(self, ring: ClipRing, stage: Stage, limit: int | None) -> int:
        size = min(TASK_SIZE, self.chosen.clips)
        return self.source.pump(
            ring, stage.difficulty, stage.branch_length, task_size=size, limit=limit
        )

    # --- Training ---------------------------------------------------------------------------------

    def _stop(self, *_: object) -> None:
        log.info("asked to end: probing and saving")
        self.stopped = True

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the end of the budget (by time, or by steps if that is further)."""
        if self.stopped:
            return 1.0
        budget = max(60 * self.chosen.minutes - LAST_WORDS, 30 * self.chosen.minutes)
        by_time = (time.monotonic() - self.began) / budget
        by_steps = self.step / self.chosen.max_steps if self.chosen.max_steps else 0.0
        return max(by_time, by_steps)

    def train(self) -> None:
        """Train until the budget is spent, then probe the test homes and save."""
        for stage in self.stages:
            if stage.until > self.chosen.start:
                self._hold_out(stage)
        first = self.chosen.seed * TRAIN_SPAN
        self.source.next_seed = home_seed("train", first)
        self.source.last_seed = home_seed("train", first + TRAIN_SPAN)
        current: Stage | None = None
        ring: ClipRing | None = None
        probed = saved = time.monotonic()
        while self.progress < 1.0:
            now = stage_at(self.stages, self.chosen.start + (1 - self.chosen.start) * self.progress)
            if now is not current or ring is None:
                current, ring = now, None
                ring = self.ring(now, self.chosen.capacity)
                self.fill(ring, now, max(2 * self._clips(now), self.chosen.capacity // 16))
            self._one_step(ring, now)
            self._pump(ring, now, int(self.chosen.fresh * self._clips(now)))
            if time.monotonic() - probed > self.chosen.eval_every:
                self._probe_all(now)
                probed = time.monotonic()
            if time.monotonic() - saved > SAVE_EVERY:
                self.save()
                saved = time.monotonic()
        self._probe_all(None)
        self.save()

    def _clips(self, stage: Stage) -> int:
        return max(1, int(self.chosen.clips * stage.clip_share))

    def _one_step(self, ring: ClipRing, stage: Stage) -> None:
        began = time.monotonic()
        clips = self._clips(stage)
        micro = self.chosen.micro or clips
        is_blind = self.chosen.blind_every and self.step % self.chosen.blind_every == 0
        weights = kind_weights(stage.weights if not is_blind else stage.weights | dict.fromkeys(DENSE_KINDS, 0.0))
        batches = [
            ring.batch(self.rng, min(micro, clips - at), self.chosen.branches, weights)
            for at in range(0, clips, micro)
        ]
        targets = [_targets(batch) for batch in batches]
        total = sum(weight for _, weight in targets)
        parts: dict[str, Tensor] = {}
        for batch, (target, _) in zip(batches, targets, strict=True):
            loss, found = self._loss(batch, target, ring.spec, total, len(batches), bool(is_blind))
            loss.backward()
            for name, value in found.items():
                parts[name] = parts.get(name, torch.zeros((), device=self.device)) + value.detach()
        norm = self.slow.step(cosine_scale(self.step, WARMUP_STEPS, self.progress, floor=0.02))
        self.step += 1
        if self.step % 10 == 0 or self.step < 5:
            parts["grad_norm"] = norm
            self._report(stage, parts, began, bool(is_blind))

    def _loss(
        self, batch: Batch, targets: Targets, spec: ClipSpec, total: float, parts: int, is_blind: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        prefix = self.blind if is_blind else self.prefix(spec)
        ingested = (
            ingest_blind(self.model, prefix, batch.ids.shape[0], self.device)
            if is_blind
            else ingest(self.model, prefix, batch.frames, spec)
        )
        hidden = read(self.model, ingested.state, batch.ids)
        loss, each = branch_loss(self.model, hidden, targets)
        loss = loss / total
        found = {"loss": loss, "by_kind": by_kind(each, targets.kind) / parts}
        if not is_blind and self.chosen.dense:
            dense = self.heads(ingested, batch, prefix, spec)
            found |= {f"dense_{name}": value / parts for name, value in dense._asdict().items()}
            loss = loss + self.chosen.dense * dense.total() / parts
        return loss, found

    def _report(self, stage: Stage, parts: dict[str, Tensor], began: float, is_blind: bool) -> None:
        kinds = dict(zip(KINDS, parts.pop("by_kind").tolist(), strict=True))
        values = {name: round(float(value), 4) for name, value in parts.items()}
        now = time.monotonic()
        record = {"step": self.step, "seconds": round(now - self.began, 2), "stage": stage.name} | values
        record |= {"clips_made": self.source.made, "step_s": round(now - began, 4), "blind": is_blind}
        if self.device.type == "cuda":
            record["memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        self._write(record | {"by_kind": {k: round(v, 3) for k, v in kinds.items() if v == v}})
        if self.step % 50 == 0 or self.step < 5:
            log.info(" ".join(f"{key}={value}" for key, value in record.items()))

    def _write(self, record: dict[str, Any]) -> None:
        self.metrics.write(json.dumps(record) + "\n")
        self.metrics.flush()

    # --- Looking and saving -----------------------------------------------------------------------

    def _hold_out(self, stage: Stage) -> None:
        count = self.chosen.eval_clips
        ring = self.ring(stage, count)
        first = home_seed("val", 0)
        self.fill(ring, stage, count, (first, first + count))
        self.held_out[stage.name] = ring

    def _probe_all(self, stage: Stage | None) -> None:
        """Ask about held-out homes: of one stage, or (None) of all, then without the video too."""
        for name, ring in self.held_out.items():
            if stage is not None and name != stage.name:
                continue
            began = time.monotonic()
            scores = {"full": self._scores(ring, self.prefix(ring.spec), False)}
            if stage is None:
                scores["blind"] = self._scores(ring, self.blind, True)
            record: dict[str, Any] = {"step": self.step, "probe": name, "scores": scores}
            self._write(record | {"seconds": round(time.monotonic() - self.began, 2)})
            log.info("held-out homes, %s, step %d (%.1f s):", name, self.step, time.monotonic() - began)
            for kind, (value, constant, number) in scores["full"].items():
                blind = scores.get("blind", {}).get(kind, (float("nan"), 0.0, 0))[0]
                row = (kind, 100 * value, 100 * blind, 100 * constant, number)
                log.info("  %-30s full %5.1f  blind %5.1f  constant %5.1f  n %d", *row)

    def _scores(self, ring: ClipRing, prefix: Prefix, is_blind: bool) -> dict[str, tuple[float, float, int]]:
        replies = probe.answer_ring(self.model, self.tokenizer, ring, prefix, blind=is_blind)
        return probe.table(replies)

    def save(self) -> None:
        """Weights, tokenizer, metrics and curves; published if asked for."""
        began = time.monotonic()
        save_model(self.model, self.tokenizer, self.work / "model")
        curves.draw(self.work / "metrics.jsonl", self.work / "curves.png")
        if self.chosen.publish:
            others = [self.work / "metrics.jsonl", self.work / "curves.png"]
            publish(self.work / "model", others, self.chosen.publish)
        log.info("saved in %.1f s at step %d", time.monotonic() - began, self.step)

    def close(self) -> None:
        """End the workers."""
        self.source.close()
        self.metrics.close()


def by_kind(each: Tensor, kind: Tensor) -> Tensor:
    """Mean cross entropy of each kind's tokens [KINDS]; nan where there are none."""
    sums = torch.zeros(2, len(KINDS), device=each.device)
    sums.index_add_(1, kind, torch.stack((each, torch.ones_like(each))))
    return sums[0] / sums[1]


def _targets(batch: Batch) -> tuple[Targets, float]:
    """Answer tokens as flat indices, and the sum of their weights."""
    clips, branches, length = batch.ids.shape
    row, number = np.indices((clips, branches))
    base = ((row * branches + number) * length)[..., None]
    at = np.arange(length)
    inside = (at >= batch.start[..., None]) & (at < batch.stop[..., None])
    dense = np.isin(batch.kind, [KINDS.index(kind) for kind in DENSE_KINDS])
    weight = np.where(dense, DENSE_TOKEN_WEIGHT, 1.0)[..., None] * inside
    index = (base + at)[inside]
    device = batch.ids.device
    flat = to_device(index, device)
    weights = to_device(weight[inside].astype(np.float32), device)
    kinds = to_device(np.broadcast_to(batch.kind[..., None], inside.shape)[inside], device)
    tokens = batch.ids.flatten().index_select(0, flat)
    return Targets(flat - 1, tokens, weights, kinds), float(weight.sum())


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" else "float32"
    return getattr(torch, name)  # type: ignore[no-any-return]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _count(model: nn.Module) -> str:
    return f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M"
