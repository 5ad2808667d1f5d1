"""Choosing the next token, one at a time, from a decoder state."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from spatial_ttt.errors import ConfigError
from spatial_ttt.model.answering import Answer
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import DecoderState


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How an answer is chosen. Temperature 0 is greedy."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps every token."""
    seed: int = 0
    stop_ids: tuple[int, ...] = ()
    """Beside the end of an answer."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if not self.temperature >= 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ConfigError(
                f"want temperature >= 0, 0 < top_p <= 1 and top_k >= 0, got temperature {self.temperature}, "
                f"top_p {self.top_p}, top_k {self.top_k}"
            )


def choose(logits: Tensor, decoding: Decoding, generator: torch.Generator) -> int:
    """One token id from logits [V]."""
    if decoding.temperature == 0:
        return int(logits.argmax())
    exact = logits.double()
    # From the largest down: any temperature above zero, however small, leaves finite chances.
    scores = (exact - exact.max()) / decoding.temperature
    if decoding.top_k and decoding.top_k < scores.numel():
        scores = scores.masked_fill(scores < scores.topk(decoding.top_k).values[-1], float("-inf"))
    chances = scores.softmax(-1)
    if decoding.top_p < 1:
        ordered, index = chances.sort(descending=True)
        beyond = ordered.cumsum(-1) - ordered >= decoding.top_p
        chances = chances.index_fill(0, index[beyond], 0.0)
    return int(torch.multinomial(chances.cpu(), 1, generator=generator))


def generate(
    model: SpatialTTTForConditionalGeneration,
    state: DecoderState,
    last_hidden: Tensor,
    decoding: Decoding,
) -> Generator[tuple[int, DecoderState], DecoderState | None, None]:
    """Yield token ids up to a stop id (not yielded) or the limit, each with the state that the answer still needs.

    `last_hidden` [D] belongs to the last token of the question. A token is pushed when the next is asked for, so a
    stop costs nothing. The state may lack what the model's engine for answers holds (see `Answer.state`). Whoever
    moved its tensors in the meantime sends it back; None stands for the same.
    """
    generator = torch.Generator().manual_seed(decoding.seed)
    logits = model.lm_head(last_hidden).float()
    answer = Answer(model, state)
    del state
    try:
        for step in range(decoding.max_new_tokens):
            token = choose(logits, decoding, generator)
            if token in decoding.stop_ids:
                return
            answer.state = (yield token, answer.state) or answer.state
            if step + 1 == decoding.max_new_tokens:
                return
            logits = answer.push(token)
    finally:
        answer.close()
