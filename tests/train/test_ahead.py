"""Packs sent ahead: in order, one at a time, errors where the source raises them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
import torch
from torch import Tensor

from spatial_ttt.errors import DataError
from spatial_ttt.model.layout import text
from spatial_ttt.train.ahead import Ahead
from spatial_ttt.train.conversation import Encoded
from spatial_ttt.train.dataset import LoadedPack, LoadedSample

CPU = torch.device("cpu")


def sample(number: int) -> LoadedSample:
    return LoadedSample(str(number), Encoded([number], [False], (text(1),)), ())


class Packs:
    """As many packs of one sample, of which one may be bad; `is_read` says whether the next is there."""

    def __init__(self, count: int, bad: int = -1) -> None:
        self.count, self.bad = count, bad
        self.at, self.is_read = 0, True

    def ready(self) -> Sequence[LoadedSample] | None:
        if not self.is_read or self.at >= self.count:
            return None
        return () if self.at == self.bad else (sample(self.at),)

    def next_pack(self) -> LoadedPack:
        assert self.at < self.count, "more packs than there are"
        self.at += 1
        if self.at - 1 == self.bad:
            raise DataError(f"{self.bad} is bad")
        return LoadedPack((sample(self.at - 1),), 0)


class Named:
    """Names of what was sent."""

    def __init__(self, samples: Sequence[LoadedSample]) -> None:
        self.names = [one.name for one in samples]

    def tensors(self) -> Iterable[Tensor]:
        return ()


def ahead(source: Packs) -> tuple[Ahead[Named], list[list[str]]]:
    """Packs, and the names of what was sent so far."""
    told: list[list[str]] = []

    def send(samples: Sequence[LoadedSample]) -> Named:
        told.append([one.name for one in samples])
        return Named(samples)

    return Ahead(source, send, CPU), told


def test_each_pack_is_sent_once_with_its_samples():
    packs, told = ahead(Packs(3))
    for number in range(3):
        pack, sent = packs.next_pack()
        assert [one.name for one in pack.samples] == sent.names == [str(number)]
        assert len(told) == number + 1, "nothing goes ahead unasked"
        packs.fetch()
        packs.fetch()
        assert len(told) == min(number + 2, 3)
    assert told == [["0"], ["1"], ["2"]] and packs.waited >= 0


def test_what_is_not_read_yet_is_not_waited_for():
    source = Packs(2)
    packs, told = ahead(source)
    packs.next_pack()
    source.is_read = False
    packs.fetch()
    assert told == [["0"]]
    assert packs.next_pack()[1].names == ["1"]


def test_a_bad_pack_is_told_when_it_is_asked_for():
    packs, _ = ahead(Packs(2, bad=1))
    packs.next_pack()
    packs.fetch()
    with pytest.raises(DataError, match="1 is bad"):
        packs.next_pack()
