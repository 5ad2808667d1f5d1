"""Hidden states from inside the decoder."""

from __future__ import annotations

import torch

from spatial_ttt.train.branches import ingest
from spatial_ttt.train.listening import before_anchors, listening, middle
from tests.train import clips


def test_what_is_heard_is_what_the_next_layer_gets() -> None:
    model, ring = clips.model(), clips.ring()
    frames = ring.frames[ring.ready]
    layers = [*before_anchors(model), *middle(model)]
    got: dict[int, torch.Tensor] = {}
    handles = [
        model.decoder.layers[n + 1].register_forward_pre_hook(
            lambda _module, inputs, n=n: got.update({n: inputs[0][0].hidden})  # given away
        )
        for n in layers
        if n + 1 < len(model.decoder.layers)
    ]
    with torch.no_grad(), listening(model, layers) as heard:
        plain = ingest(model, clips.prefix(), frames, clips.SPEC).hidden
    for handle in handles:
        handle.remove()
    assert len(heard) == len(layers) and got
    for n, hidden in zip(sorted(layers), heard, strict=True):
        assert hidden.shape == plain.shape
        if n in got:
            torch.testing.assert_close(hidden, got[n], atol=0, rtol=0)


def test_nothing_is_heard_afterwards() -> None:
    model, ring = clips.model(), clips.ring()
    with listening(model, [0]) as heard:
        pass
    with torch.no_grad():
        ingest(model, clips.prefix(), ring.frames[ring.ready], clips.SPEC)
    assert not heard
