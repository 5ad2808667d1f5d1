"""Notes of a slot: the definition layer by layer, whoever copied the states in between."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from spatial_ttt.model.decoder import TTTLayer
from spatial_ttt.model.state import TTTState
from spatial_ttt.serve.memory_note import memory_note
from spatial_ttt.session import StreamingSession
from spatial_ttt.steady_stream import SharedStream
from spatial_ttt.testing.small import small_model
from tests.scenery import frames, processor


def norm(parts: Any) -> float:
    return float(sum(x.double().square().sum() for x in parts) ** 0.5)


@torch.no_grad()
def by_definition(session: StreamingSession, before: Any, after: Any) -> tuple[list[float], ...]:
    """Update, surprise and gate of each TTT layer of a plain session, where weights stay the same object until a
    chunk is written."""
    update, surprise, gate = [], [], []
    for layer, old, new in zip(session.model.decoder.layers, before.layers, after.layers, strict=True):  # fmt: skip
        if not isinstance(layer, TTTLayer) or not isinstance(new, TTTState):
            continue
        past = old.fast if isinstance(old, TTTState) else None
        written = past is not None and not all(
            torch.equal(a, b) for a, b in zip(past.weights, new.fast.weights, strict=True)
        )
        change = [b - a for a, b in zip(past.weights, new.fast.weights, strict=True)] if written else []  # fmt: skip
        update.append(norm(change) / norm(past.weights) if written else 0.0)
        added, count = new.fast.gradient, new.fast.num_tokens
        if added is not None and past is not None and past.gradient is not None and not written:
            added = [b - a for a, b in zip(past.gradient, added, strict=True)]
            count -= past.num_tokens
        surprise.append(0.0 if added is None else norm(added) / max(1, count))
        if new.held is None:
            gate.append(0.0)
            continue
        heads = layer.self_attn.config.num_fast_heads
        raw = new.held.raw.rates[..., -heads:].float()
        has_gate = layer.self_attn.ttt_scale_proj is not None
        gate.append(float(F.silu(raw).abs().mean()) if has_gate else 1.0)
    return update, surprise, gate


@pytest.mark.parametrize("rule", [{}, {"use_gate": False}, {"chunk_size": 20, "window_size": 40}])
def test_a_note_says_what_the_states_say_with_and_without_copies(rule: dict[str, Any]) -> None:
    model = small_model(**({"chunk_size": 40, "window_size": 40} | rule))
    plain = StreamingSession(model, processor())
    shared = StreamingSession(model, processor(), steady=SharedStream(model))
    writes = 0
    for number in range(8):
        notes = []
        for session in (plain, shared):
            before = session.state.decoder
            session.observe(frames(2, start=2 * number))
            after = session.state.decoder
            notes.append(memory_note(model.decoder, before, after, number, number / 2))
            if session is plain:
                wanted = by_definition(session, before, after)
        for note in notes:
            for found, figures in zip((note.update, note.surprise, note.gate), wanted, strict=True):
                assert found == pytest.approx(figures, rel=1e-3, abs=1e-7), number
        writes += sum(figure > 0 for figure in notes[0].update)
    assert writes > 3 and any(figure > 0 for figure in notes[0].surprise)


def test_nothing_is_said_of_a_decoder_that_has_seen_nothing() -> None:
    model = small_model(chunk_size=40, window_size=40)
    start = model.decoder.start()
    note = memory_note(model.decoder, start, start, 0, 0.0)
    assert note.update == note.surprise == note.gate == ()
