"""The engine of answers with every kernel in its place: windows with room, pages where they lie, blocks that close."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from tests.model.kernels.check import Check

PAGE, ROOM, WINDOW = 16, 5, 24
TOKENS = (17, 4, 9, 33, 2, 25)


def answer(device: torch.device) -> Iterator[Check]:
    """Two answers on one engine, of a short stream and of a longer one; exact and bounded anchors."""
    from spatial_ttt.model import answer_pages, kv_cache, steady_answer
    from spatial_ttt.model.bounded_cache import AnchorPolicy
    from spatial_ttt.model.kernels import request_backend
    from spatial_ttt.model.layout import END, slot, text
    from spatial_ttt.model.state import brief
    from tests.model.streams import model_of

    model = model_of(torch.float32, chunk_size=700, window_size=WINDOW).to(device)
    piece = (text(1), slot(2, 3), text(1))
    streams = [torch.randn(1, 8 * count, 32, device=device) for count in (1, 5)]
    question = torch.randn(1, 5, 32, device=device)

    def fork_of(own: Any, hidden: Tensor, asked: Tensor, policy: AnchorPolicy | None) -> Any:
        state = own.decoder.start(policy)
        for piece_hidden in hidden.split(8, dim=1):
            tokens, position = own.decoder.tokens(piece_hidden, piece, state.position)
            state = own.decoder(tokens, state._replace(position=position))[1]
        tokens, position = own.decoder.tokens(asked, (END, text(5)), state.position)
        fork = brief(state._replace(position=position), 5 + len(TOKENS))
        return own.decoder(tokens, fork)[1]

    def plain(short: Tensor, long: Tensor, asked: Tensor, policy: AnchorPolicy | None) -> Tensor:
        own, out = deepcopy(model).to(short.dtype), []
        for hidden in (short, long):
            fork = fork_of(own, hidden, asked, policy)
            for token in TOKENS:
                ids = torch.tensor([[token]], device=device)
                done, fork = own.decode_piece(ids, (text(1),), None, fork)
                out.append(done.hidden[:, -1])
        return torch.cat(out)

    def fast(short: Tensor, long: Tensor, asked: Tensor, policy: AnchorPolicy | None) -> Tensor:
        engine, out = None, []
        for hidden in (short, long):
            with request_backend("reference"):
                fork = fork_of(model, hidden, asked, policy)
            with request_backend("triton"):
                kind = steady_answer.kind_of(model, fork, len(TOKENS))
                if kind is None or None in kind or not kind[0]:
                    raise RuntimeError("no kernel would run")
                engine = engine or steady_answer.SteadyAnswer(model, kind)
                engine.load(fork)
                out += [engine.push(token).hidden.clone()[None] for token in TOKENS]
                engine.clear()
        return torch.cat(out)

    sizes = answer_pages.PAGE, steady_answer.ROOM, kv_cache.PAGE_TOKENS
    answer_pages.PAGE, steady_answer.ROOM, kv_cache.PAGE_TOKENS = PAGE, ROOM, 2 * PAGE
    inputs = (*streams, question)
    for policy in (None, AnchorPolicy(1, 1, 0, PAGE, 16)):

        def found(*inputs: Tensor, policy: AnchorPolicy | None = policy) -> Tensor:
            return fast(*inputs, policy=policy)

        def wanted(*inputs: Tensor, policy: AnchorPolicy | None = policy) -> Tensor:
            return plain(*inputs, policy=policy)

        name = "exact" if policy is None else "bounded"
        yield Check(name, found, wanted, inputs, 1e-4, False)
    answer_pages.PAGE, steady_answer.ROOM, kv_cache.PAGE_TOKENS = sizes
