"""Models for the evaluator: a checkpoint behind streaming or offline sessions, and a blind prior.

open_model("path/to/checkpoint") -> CheckpointModel      open_model("prior") -> PriorModel
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from spatial_ttt import loading
from spatial_ttt.errors import ConfigError, VideoError
from spatial_ttt.eval.interface import (
    EvalSession,
    ModelCard,
    NotOffered,
    SessionOptions,
    SpatialModel,
)
from spatial_ttt.eval.variants import variant
from spatial_ttt.generate import Decoding
from spatial_ttt.inference import piece_slots
from spatial_ttt.model.bounded_cache import AnchorPolicy, policy_within
from spatial_ttt.model.layout import END, Layout, join_all, text
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import TTTState
from spatial_ttt.model.vision import VisionTokens
from spatial_ttt.processor import Processor
from spatial_ttt.session import StreamingSession
from spatial_ttt.video.frame import Frame

PRIOR = "prior"


def open_model(
    spec: str | None = None, *, device: str = "auto", dtype: str = "auto"
) -> SpatialModel:
    """The model `--model` names: a checkpoint's folder, "prior", or None for the shipped model."""
    if spec == PRIOR:
        return PriorModel()
    loaded = loading.open_model(spec, device=device, dtype=dtype)
    folder = loading.SHIPPED if spec is None else Path(spec)
    card = ModelCard(
        name=loaded.name,
        checkpoint=spec or ("shipped" if loaded.is_trained else "random weights, seed 0"),
        checkpoint_hash=hash_weights(folder),
        rule=describe_rule(loaded.model),
        dtype=str(loaded.model.dtype).removeprefix("torch."),
    )
    return CheckpointModel(loaded.model, loaded.processor, card)


def hash_weights(folder: Path) -> str:
    """SHA-256 over the weight files of a checkpoint, in order of name; "none" without files."""
    digest = hashlib.sha256()
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        return "none"
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def describe_rule(model: SpatialTTTForConditionalGeneration) -> str:
    """The update rule in words."""
    ttt = model.config.ttt_config
    parts = [
        f"Muon ({ttt.newton_schulz_dtype})" if ttt.use_muon else "no Muon",
        f"{ttt.norm_placement}-norm",
        "momentum" if ttt.use_momentum else "no momentum",
        f"{ttt.convolution} convolution",
        f"chunk {ttt.chunk_size}, window {ttt.window_size}",
    ]
    return ", ".join(parts)


class CheckpointModel:
    """A loaded model. One variant at a time: sessions with other switches must be closed first."""

    def __init__(
        self, model: SpatialTTTForConditionalGeneration, processor: Processor, card: ModelCard
    ) -> None:
        self.card = card
        self._model = model
        self._processor = processor
        self._active: tuple[SessionOptions, ExitStack] | None = None

    def open_session(self, options: SessionOptions) -> EvalSession:
        """A fresh stream with these switches."""
        self._switch_to(replace(options, mode="streamed", system_prompt=None))
        processor = with_system_prompt(self._processor, options.system_prompt)
        anchors = self._anchor_policy(options)
        if options.mode == "offline":
            if anchors is not None:
                raise NotOffered("bounded anchors are a mode of the stream; evaluate them streamed")
            return OfflineSession(self._model, processor)
        slots = piece_slots(self._model.device)
        session = StreamingSession(self._model, processor, slots_per_piece=slots, anchors=anchors)
        return StreamedSession(session)

    def _anchor_policy(self, options: SessionOptions) -> AnchorPolicy | None:
        if options.anchor_budget_bytes is None:
            return None
        config, dtype = self._model.config, self._model.dtype
        return policy_within(options.anchor_budget_bytes, config, dtype, block_tokens=64)

    def _switch_to(self, switches: SessionOptions) -> None:
        if self._active is not None and self._active[0] == switches:
            return
        if self._active is not None:
            self._active[1].close()
            self._active = None
        stack = ExitStack()
        stack.enter_context(variant(self._model, switches))
        self._active = (switches, stack)


class StreamedSession:
    """A `StreamingSession` as the evaluator speaks to it."""

    def __init__(self, session: StreamingSession) -> None:
        self._session = session

    def observe(self, frames: Iterable[Frame]) -> None:
        """Watch frames."""
        self._session.observe(frames)

    def ask(self, question: str, *, max_new_tokens: int) -> Iterator[str]:
        """The greedy reply."""
        return self._session.ask(question, Decoding(max_new_tokens=max_new_tokens))

    def fork(self) -> StreamedSession:
        """A session that has seen the same."""
        return StreamedSession(self._session.fork())

    def close(self) -> None:
        """Free the state."""
        self._session.close()

    def adopt_memory(self, donor: object) -> None:
        """Take the donor's fast weights in every TTT layer that both have run."""
        if not isinstance(donor, StreamedSession):
            raise ConfigError(f"a {type(donor).__name__} has no fast weights to take")
        ours, theirs = self._session.state.decoder, donor._session.state.decoder
        layers = tuple(
            mine._replace(fast=other.fast)
            if isinstance(mine, TTTState) and isinstance(other, TTTState)
            else mine
            for mine, other in zip(ours.layers, theirs.layers, strict=True)
        )
        decoder = ours._replace(layers=layers)
        self._session._state = self._session.state._replace(decoder=decoder)


class OfflineSession:
    """Keeps the frames; every token of a reply is one whole forward over all that came before it.

    Carries no state from frame to frame or from token to token: it is what streaming must equal.
    """

    def __init__(
        self,
        model: SpatialTTTForConditionalGeneration,
        processor: Processor,
        frames: tuple[Frame, ...] = (),
    ) -> None:
        self._model = model
        self._processor = processor
        self._frames = frames

    def observe(self, frames: Iterable[Frame]) -> None:
        """Keep frames."""
        self._frames = (*self._frames, *frames)

    def fork(self) -> OfflineSession:
        """A session with the same frames."""
        return OfflineSession(self._model, self._processor, self._frames)

    def close(self) -> None:
        """Let go of the frames."""
        self._frames = ()

    def ask(self, question: str, *, max_new_tokens: int) -> Iterator[str]:
        """The greedy reply, given whole."""
        if not question.strip():
            raise VideoError("the question is empty; ask something")
        video = self._video()
        asked = self._processor.question_ids(question)
        reply: list[int] = []
        for _ in range(max_new_tokens):
            token = self._next_token(video, [*asked, *reply])
            if token == self._processor.stop_id:
                break
            reply.append(token)
        yield self._processor.decode(reply)

    def _video(self) -> _Video:
        """Everything up to the question, as one piece."""
        ids = list(self._processor.prefix_ids)
        layouts: list[Layout] = [(text(len(ids)),)]
        if not self._frames:
            return _Video(ids, layouts, None)
        padded = [*self._frames, self._frames[-1]] if len(self._frames) % 2 else list(self._frames)
        pixels = torch.from_numpy(np.stack([frame.pixels for frame in padded]))
        patches, (height, width) = self._processor.patches(pixels.to(self._model.device))
        merge = self._processor.frames.spatial_merge_size
        for first, second in zip(padded[::2], padded[1::2], strict=True):
            time = (first.time + second.time) / 2
            slot = self._processor.slot_ids(time, (height // merge, width // merge))
            ids += slot[0]
            layouts.append(slot[1])
        with torch.no_grad():
            return _Video(ids, layouts, self._model.encode(patches, (height, width)))

    def _next_token(self, video: _Video, tail: list[int]) -> int:
        row = torch.tensor([[*video.ids, *tail]], device=self._model.device)
        layout = join_all([*video.layouts, (END, text(len(tail)))])
        start = self._model.decoder.start()
        with torch.no_grad():
            done, _ = self._model.decode_piece(row, layout, video.vision, start)
            return int(self._model.lm_head(done.hidden[0, -1]).float().argmax())


class _Video(NamedTuple):
    """Token ids up to the question, their layouts, and the vision tokens among them."""

    ids: list[int]
    layouts: list[Layout]
    vision: VisionTokens | None


def with_system_prompt(processor: Processor, system_prompt: str | None) -> Processor:
    """The processor, or a copy that opens every stream with a system message."""
    if system_prompt is None:
        return processor
    changed = copy.copy(processor)
    message = f"<|im_start|>system\n{system_prompt}<|im_end|>\n"
    changed.prefix_ids = [*processor.encode(message), *processor.prefix_ids]
    return changed


class PriorModel:
    """Looks at nothing: "2" to every number question, the first option to every choice.

    Runs the whole evaluator without a checkpoint, and scores what a lazy guess scores.
    """

    def __init__(self) -> None:
        self.card = ModelCard(
            name=PRIOR, checkpoint=PRIOR, checkpoint_hash="none", rule="none", dtype="none"
        )

    def open_session(self, options: SessionOptions) -> EvalSession:
        """A session that forgets everything at once."""
        return PriorSession()


class PriorSession:
    """See `PriorModel`."""

    def observe(self, frames: Iterable[Frame]) -> None:
        """Look away, but take every frame, so that unreadable clips are still found."""
        for _ in frames:
            pass

    def ask(self, question: str, *, max_new_tokens: int) -> Iterator[str]:
        """ "A." where the prompt offers an A., else "2"."""
        yield "A." if "A. " in question else "2"

    def fork(self) -> PriorSession:
        """Nothing to copy."""
        return self

    def close(self) -> None:
        """Nothing to free."""
