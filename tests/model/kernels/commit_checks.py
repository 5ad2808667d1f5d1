"""Wide fast weights of a stream against the rule: chunk by chunk, at a desk, at home with a border on the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise, product
from typing import NamedTuple

import torch
from torch import Tensor

from spatial_ttt.model import fast_weights as fw
from spatial_ttt.model.configuration import TTTConfig
from spatial_ttt.model.kernels import request_backend
from tests.model.kernels.check import Check, Function
from tests.model.streams import model_of

HEADS = 2
AS_NEAR = 1.1
"""The kernels may be this many times as far from the exact rule as the plain one in half precision."""
CONFIG = model_of(torch.float32).config.ttt_config


def commit(device: torch.device) -> Iterator[Check]:
    """Both placements of the norm, with and without momentum, several chunks, pieces that end anywhere."""
    cases = [(1, 32, 8, torch.float32)]
    if device.type == "cuda":
        cases = [(1, 128, 40, torch.float32), (2, 384, 40, torch.bfloat16)]
        cases += [(1, 512, 300, torch.bfloat16)]
    for case, (norm, has_momentum) in product(cases, (("post", True), ("pre", False))):
        batch, dim, chunk, dtype = case
        work = "float32" if dtype == torch.float32 else "bfloat16"
        rule = replace(
            CONFIG,
            chunk_size=chunk,
            norm_placement=norm,
            use_momentum=has_momentum,
            newton_schulz_dtype=work,
        )
        length = 3 * chunk + 3
        query, key, value = torch.nn.functional.normalize(
            torch.randn(3, batch, HEADS, length, dim, device=device), dim=-1
        ).to(dtype)
        lr = 0.1 * torch.rand(batch, HEADS, length, 3, device=device)
        momentum = torch.rand(batch, HEADS, length, device=device).to(dtype)
        first = torch.randn(3, HEADS, dim, dim, device=device) * dim**-0.5
        inputs = (query, key, value, lr, momentum, first)
        cuts = [0, chunk // 2, chunk + 1, length]

        def plain(*given: Tensor, rule: TTTConfig = rule) -> tuple[Tensor, ...]:
            with request_backend("reference"):
                rows, initial = fw.FastInputs(*given[:5]), fw.FastWeights(*given[5])
                rule = replace(rule, newton_schulz_dtype="float32")
                out, state = fw.plain_scan(
                    fw.initial_state(initial, rows.query.shape[0]), rows, initial, rule
                )
            return out, *_told(state)

        def scanned(*given: Tensor, rule: TTTConfig = rule, cuts: list[int] = cuts):  # type: ignore[no-untyped-def]
            return _pieces(given, rule, cuts, at_home=False)

        def at_home(*given: Tensor, rule: TTTConfig = rule, chunk: int = chunk):  # type: ignore[no-untyped-def]
            end = given[0].shape[2]
            steps = list(range(2 * chunk + 1, end, chunk // 4 + 1))
            return _pieces(given, rule, [0, *steps, end], at_home=True)

        close = 1e-3 if device.type == "cuda" else 1e-4
        limit = close if dtype == torch.float32 else AS_NEAR * _noise(inputs, rule, plain)
        name = f"{batch} x {dim} {dtype} {norm} {has_momentum}"
        yield Check(f"scan {name}", scanned, plain, inputs, limit, False)
        told = _Case(inputs, rule, cuts, plain, limit, name)
        yield _at_desk(told)
        yield _continued(told)
        yield Check(f"home {name}", at_home, plain, inputs, limit, False)


class _Case(NamedTuple):
    """What is checked in several ways against the plain rule."""

    inputs: tuple[Tensor, ...]
    rule: TTTConfig
    cuts: list[int]
    plain: Function
    limit: float
    name: str


def _begun(given: tuple[Tensor, ...]) -> tuple[fw.FastInputs, Tensor, fw.FastState]:
    """Tokens, norms of the trained weights' rows, and the state before the first token."""
    rows, initial = fw.FastInputs(*given[:5]), fw.FastWeights(*given[5])
    return rows, _norms(given[5]), fw.initial_state(initial, rows.query.shape[0])


def _norms(first: Tensor) -> Tensor:
    return torch.stack([w.norm(dim=-1) for w in first], dim=1)


def _continued(case: _Case) -> Check:
    """What a continuation reads, whose last write keeps nothing but rounded weights, and the state it began with."""
    from spatial_ttt.model import fast_stream

    inputs, rule, cuts, plain, limit, name = case
    first = cuts[1]

    def read(*given: Tensor) -> tuple[Tensor, ...]:
        begun = tuple(x[:, :, :first] for x in given[:5])
        return plain(*given)[0], *plain(*begun, given[5])[1:]

    def continued(*given: Tensor) -> tuple[Tensor, ...]:
        rows, norms, start = _begun(given)
        out, state = fast_stream.scan(start, rows.cut(0, first), norms, rule)
        parts, brief = [out], fw.BriefState(*state, rows.length - first)
        for piece in pairwise(cuts[1:]):
            out, brief = fast_stream.scan(brief, rows.cut(*piece), norms, rule)
            parts.append(out)
        return torch.cat(parts, dim=2), *_told(state)

    return Check(f"continued {name}", continued, read, inputs, limit, False)


def _at_desk(case: _Case) -> Check:
    """Queries, keys and values made on the desk, against the plain rule with those made before."""
    from spatial_ttt.model import fast_desk
    from spatial_ttt.model.kernels import mixing

    inputs, rule, cuts, plain, limit, name = case
    query, lr, momentum = (x[:1] for x in (inputs[0], *inputs[3:5]))  # a desk has one row
    first = inputs[5]
    batch, heads, length, dim = query.shape
    fast = torch.randn(batch, length, 3 * heads * dim, device=query.device).to(query.dtype)
    rope = torch.randn(batch, length, dim // 2, device=query.device).to(query.dtype)
    norms = _norms(first)

    def shaped(fast: Tensor, rope: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        dtype = query.dtype if fast.dtype == torch.float64 else fast.dtype
        rows = mixing.prepare(fast.to(dtype), rope.to(dtype), dim, 1e-5)
        return plain(*(x.to(fast.dtype) for x in rows), *given)  # type: ignore[return-value]

    def made_there(fast: Tensor, rope: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        lr, momentum, first = given
        state = fw.initial_state(fw.FastWeights(*first), batch)
        out = []
        with _own_stream(fast.device):
            for start, stop in pairwise(cuts):
                rates = lr[:, :, start:stop], momentum[:, :, start:stop]
                rows = fast[:, start:stop].clone()  # written over
                coming = fast_desk.Unshaped(rows, rope[:, start:stop], *rates, 1e-5)
                place = fast_desk.room(state, stop - start, rule)
                found, state = fast_desk.scan(state, coming, norms, rule, place)
                assert found.data_ptr() == rows.data_ptr()
                out.append(found)
        return torch.cat(out, dim=2), *_told(state)

    given = (fast, rope, lr, momentum, first)
    return Check(f"desk {name}", made_there, shaped, given, limit, False)


@contextmanager
def _own_stream(device: torch.device) -> Iterator[None]:
    """On a GPU a stream that is not the default one, where work may be captured."""
    if device.type != "cuda":
        yield
        return
    side, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        yield
    side.synchronize()


def _noise(inputs: tuple[Tensor, ...], rule: TTTConfig, plain: Function) -> float:
    """How far the plain rule in half precision is from the exact one.

    Chunks narrower than the weights leave directions that only rounding fills, and Newton-Schulz makes them large:
    0.12 to 0.16 with 40 tokens and 384 channels, 0.06 to 0.07 with 300 and 512.
    """
    rows, initial = fw.FastInputs(*inputs[:5]), fw.FastWeights(*inputs[5])
    with request_backend("reference"):
        out, state = fw.plain_scan(
            fw.initial_state(initial, rows.query.shape[0]), rows, initial, rule
        )
    exact = plain(*(x.double() for x in inputs))
    pairs = zip((out, *_told(state)), exact, strict=True)
    return max(float((a.double() - b).norm() / b.norm().clamp_min(1e-12)) for a, b in pairs)


def _told(state: fw.FastState) -> tuple[Tensor, ...]:
    assert state.gradient is not None and state.beta_sum is not None
    parts = (state.weights, state.gradient, *((state.momentum,) if state.momentum else ()))
    return *(torch.stack(tuple(part)) for part in parts), state.beta_sum


def _pieces(
    given: tuple[Tensor, ...], rule: TTTConfig, cuts: list[int], *, at_home: bool
) -> tuple[Tensor, ...]:
    """A scan in pieces; at home all but the first are written over in place."""
    from spatial_ttt.model import fast_stream
    from spatial_ttt.model.kernels import commit as kernels
    from spatial_ttt.model.state import own

    rows, norms, state = _begun(given)
    out = []
    for start, stop in pairwise(cuts):
        piece = rows.cut(start, stop)
        if not (at_home and start):
            found, state = fast_stream.scan(state, piece, norms, rule)
            state = own(state) if at_home else state
            low = kernels.rounded(state.weights, piece.query.dtype)
        else:
            room = rule.chunk_size - state.num_tokens
            crosses = piece.length > room
            border = torch.tensor(room, device=piece.query.device) if crosses else None
            home = fast_stream.HomeState(*state[:5], border, low)
            found, _ = fast_stream.scan(home, piece, norms, rule)
            count = piece.length - room if crosses else state.num_tokens + piece.length
            state = state._replace(num_tokens=count)
        out.append(found)
    return torch.cat(out, dim=2), *_told(state)
