"""How well a model answers held-out clips: every question type, with the video and without it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from spatial_ttt.eval.metrics import mean_relative_accuracy, score_reply
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.scenes.questions.question import NUMBER_TYPES, QUESTION_TYPES, STREAM_TYPES
from spatial_ttt.train.branches import generate, ingest, ingest_blind
from spatial_ttt.train.clip_text import Prefix, room_for_branch
from spatial_ttt.train.clip_types import KINDS, ClipSpec
from spatial_ttt.train.ring import Batch, ClipRing

ANSWER_TOKENS = 6
NUMBERS = (*NUMBER_TYPES, "vsc")
ASKED = (*QUESTION_TYPES, *STREAM_TYPES)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the model beside the truth."""

    kind: str
    reply: str
    truth: str
    seed: int
    """Of the home that was asked about."""
    question: str
    """With its options and instructions."""

    @property
    def score(self) -> float:
        """1 or 0 for a choice, mean relative accuracy for a number."""
        return score(self.kind, self.reply, self.truth)


def score(kind: str, reply: str, truth: str) -> float:
    """What the evaluation would give this reply, 0..1."""
    return score_reply(reply, truth, "number" if kind in NUMBERS else "choice").official


@torch.no_grad()
def answer_ring(
    model: SpatialTTTForConditionalGeneration,
    tokenizer: Any,
    ring: ClipRing,
    prefix: Prefix,
    *,
    clips: int = 32,
    branches: int = 16,
    blind: bool = False,
    slots: slice | None = None,
) -> list[Reply]:
    """Greedy answers to up to `branches` questions of each clip in a ring (dense exchanges left out).

    `slots` shows a part of each clip only; `prefix` is that part's.
    """
    room = room_for_branch(prefix, model.config.ttt_config.chunk_size)
    was_training = model.training
    model.eval()
    replies: list[Reply] = []
    places = sorted(ring.ready)
    for at in range(0, len(places), clips):
        some = places[at : at + clips]
        batch = ring.collect(some, [_asked(ring, place, branches) for place in some])
        state = (
            ingest_blind(model, prefix, len(some), batch.ids.device)
            if blind
            else ingest(model, prefix, *_shown(batch.frames, ring.spec, slots))
        ).state
        start = torch.from_numpy(batch.start).to(batch.ids.device)
        tokens = generate(model, state, _prompts(batch, room), start, ANSWER_TOKENS).cpu().tolist()
        seeds = [record.seed for place in some if (record := ring.records[place]) is not None]
        replies += _read(batch, tokens, tokenizer, seeds)
    model.train(was_training)
    return replies


def _shown(frames: Tensor, spec: ClipSpec, slots: slice | None) -> tuple[Tensor, ClipSpec]:
    """The frames of some slots, and their shape."""
    if slots is None:
        return frames, spec
    chosen = frames.unflatten(1, (-1, 2))[:, slots].flatten(1, 2)
    return chosen, replace(spec, num_slots=chosen.shape[1] // 2)


def _asked(ring: ClipRing, place: int, branches: int) -> NDArray[np.intp]:
    record = ring.records[place]
    assert record is not None
    wanted = [n for n, kind in enumerate(record.exchanges.kind) if KINDS[kind] in ASKED]
    rng = np.random.default_rng(record.seed % (1 << 32))
    chosen = rng.permutation(wanted)[:branches] if wanted else np.zeros(1, np.intp)
    return np.resize(chosen, branches).astype(np.intp)


def _prompts(batch: Batch, room: int) -> Tensor:
    """The branches without their answers, with space for longer ones as far as a branch has `room`."""
    index = torch.arange(batch.ids.shape[-1], device=batch.ids.device)
    start = torch.from_numpy(batch.start).to(batch.ids.device)
    needed = min(int(batch.start.max()) + ANSWER_TOKENS - 1, room)
    more = max(needed - batch.ids.shape[-1], 0)
    return F.pad(batch.ids.masked_fill(index >= start[..., None], 0), (0, more))


def _read(
    batch: Batch, tokens: list[list[list[int]]], tokenizer: Any, seeds: list[int]
) -> list[Reply]:
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    replies = []
    for row, answers in enumerate(tokens):
        seen: set[bytes] = set()
        for n, ids in enumerate(answers):
            key = batch.ids[row, n].cpu().numpy().tobytes()
            kind = KINDS[batch.kind[row, n]]
            if key in seen or kind not in ASKED:
                continue
            seen.add(key)
            said = ids[: ids.index(end)] if end in ids else ids
            text = tokenizer.decode(said, skip_special_tokens=True)
            words = tokenizer.decode(batch.ids[row, n, : batch.start[row, n]])
            question = words.split("<|im_end|>")[0]
            replies.append(Reply(kind, text, batch.truth[row][n], seeds[row], question))
    return replies


def table(replies: Iterable[Reply]) -> dict[str, tuple[float, float, int]]:
    """Per type: mean score, the best constant answer's, and the number of questions."""
    by_kind: dict[str, list[Reply]] = defaultdict(list)
    for reply in replies:
        by_kind[reply.kind].append(reply)
    return {
        kind: (
            float(np.mean([reply.score for reply in by_kind[kind]])),
            _constant(kind, [reply.truth for reply in by_kind[kind]]),
            len(by_kind[kind]),
        )
        for kind in ASKED
        if kind in by_kind
    }


def _constant(kind: str, truths: list[str]) -> float:
    common = Counter(truths).most_common(40)
    if kind not in NUMBERS:
        return common[0][1] / len(truths)
    wanted = np.array([float(truth) for truth in truths])
    return max(float(mean_relative_accuracy(float(guess), wanted).mean()) for guess, _ in common)
