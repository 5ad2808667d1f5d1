"""Which convolutions a model in training makes with a backward pass of its own."""

from __future__ import annotations

import torch

from spatial_ttt.model.holding import plan
from spatial_ttt.model.kernels import request_backend
from spatial_ttt.model.layout import END, Layout, num_tokens, slot, text
from spatial_ttt.model.state import Context
from spatial_ttt.model.whole_convolution import applies

VIDEO: Layout = (text(2), slot(2, 2), text(1), slot(2, 2))


def _applies(layout: Layout, context: Context | None = None) -> bool:
    tokens = torch.zeros(1, num_tokens(layout), 6)
    grid = context.grid if context else None
    return applies(tokens, plan(layout, grid, "centred"), context)


def test_never_without_kernels() -> None:
    """On a CPU the usual way is taken; what the kernels make is compared in `kernels.whole_checks`."""
    with request_backend("reference"):
        assert not _applies((*VIDEO, END))


def test_only_of_whole_videos_in_training(monkeypatch) -> None:
    """An open video, one that began before, text alone and reading go the usual way."""
    monkeypatch.setattr(
        "spatial_ttt.model.whole_convolution.resolve_backend", lambda *_: ("triton", "a test")
    )
    assert _applies((*VIDEO, END, text(3)))
    assert not _applies(VIDEO)
    assert not _applies((text(3),))
    before = Context(torch.zeros(1, 1, 2, 2, 6), (2, 2))
    assert not _applies((*VIDEO, END), before)
    with torch.no_grad():
        assert not _applies((*VIDEO, END))
