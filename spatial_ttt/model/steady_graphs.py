"""The tensors of fixed address that captured work reads and writes, and how much of it is kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spatial_ttt.errors import SessionError
from spatial_ttt.model.state import Tokens

MAX_GRAPHS = 4  # kinds of pieces per layer


class Buffers:
    """Tensors of fixed address that layers share, by name and shape: each is free again when the next layer runs."""

    def __init__(self) -> None:
        self.known: dict[Any, Tensor] = {}

    def like(self, name: str, x: Tensor) -> Tensor:
        """The buffer of this name for tensors like x."""
        key = (name, x.shape, x.dtype)
        if key not in self.known:
            self.known[key] = torch.empty_like(x, memory_format=torch.contiguous_format)
        return self.known[key]

    def put(self, name: str, x: Tensor) -> Tensor:
        """Copy x to its buffer, unless it lies there already."""
        buffer = self.like(name, x)
        return buffer if buffer.data_ptr() == x.data_ptr() else buffer.copy_(x)

    def put_tokens(self, tokens: Tokens) -> Tokens:
        """Copy the tensors of tokens to where every layer reads and leaves them."""
        deepstack = tokens.deepstack
        return tokens._replace(
            hidden=self.put("hidden", tokens.hidden),
            room=0,
            rope=self.put("rope", tokens.rope),
            deepstack=None if deepstack is None else self.put("deepstack", deepstack),
        )


def copy_all(places: list[Tensor], values: list[Tensor]) -> None:
    """Copy values to their places, side by side in few launches; what lies there already stays."""
    if len(places) != len(values):
        raise SessionError(f"a steady state has {len(places)} tensors, its next one {len(values)}")
    pairs = [(to, value) for to, value in zip(places, values, strict=True) if to is not value]
    # Copies run side by side: none may read a place that is written.
    taken = {to.data_ptr() for to in places}
    pairs = [(to, value.clone() if value.data_ptr() in taken else value) for to, value in pairs]
    by_type: dict[torch.dtype, list[tuple[Tensor, Tensor]]] = {}
    for to, value in pairs:
        if (
            to.is_contiguous() and value.is_contiguous()
        ):  # of one stride, one launch copies them all
            to, value = to.view(-1), value.view(-1)
        by_type.setdefault(to.dtype, []).append((to, value))
    for group in by_type.values():
        torch._foreach_copy_([to for to, _ in group], [value for _, value in group])


@dataclass
class Moves:
    """Copies that are made side by side, once all are known."""

    places: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def add(self, places: Iterable[Tensor], values: Iterable[Tensor]) -> None:
        """Copy values to their places, later."""
        self.places.extend(places)
        self.values.extend(values)

    def make(self) -> None:
        """Copy now."""
        copy_all(self.places, self.values)


def keep_latest(known: dict[Any, Any], key: Any, value: Any) -> None:
    """Keep captured work as the latest used; what was not used for longest gives way."""
    known.pop(key, None)
    known[key] = value
    if len(known) > MAX_GRAPHS:
        del known[next(iter(known))]


def taps(tokens: Tokens) -> int:
    """DeepStack features that come along."""
    return 0 if tokens.deepstack is None else tokens.deepstack.shape[0]
