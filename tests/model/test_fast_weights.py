"""The fast-weight rule: closed-form gradient, write by hand, and a scan that any cutting leaves alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spatial_ttt.errors import ConfigError
from spatial_ttt.model import fast_weights as fw
from spatial_ttt.model.configuration import paper_ttt_config
from spatial_ttt.model.newton_schulz import plain_newton_schulz
from tests.model.streams import difference, relative


def rule(**changes):
    return paper_ttt_config(**({"chunk_size": 5, "newton_schulz_dtype": "float32"} | changes))


def inputs(length: int, *, batch=2, heads=2, dim=6, dtype=torch.float64, seed=0) -> fw.FastInputs:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, heads, length, *shape, generator=g, dtype=torch.float64).to(dtype)

    return fw.FastInputs(
        normal(dim), normal(dim), normal(dim), normal(3).sigmoid() * 0.1, normal().sigmoid()
    )


def weights(*, heads=2, dim=6, hidden=6, dtype=torch.float64, seed=1) -> fw.FastWeights:
    g = torch.Generator().manual_seed(seed)

    def normal(rows: int, cols: int) -> Tensor:
        w = torch.randn(heads, rows, cols, generator=g, dtype=torch.float64)
        return (w * cols**-0.5).to(dtype)

    return fw.FastWeights(normal(hidden, dim), normal(hidden, dim), normal(dim, hidden))


@pytest.mark.parametrize("hidden", [6, 4, 9])
def test_the_closed_form_is_the_negative_gradient_of_the_loss(hidden):
    x, w = inputs(7), weights(hidden=hidden)
    leaves = fw.FastWeights(*(t.expand(2, *t.shape).clone().requires_grad_() for t in w))
    for part, column in (("gate", 0), ("down", 1), ("up", 2)):
        # Each matrix has its own rate, so each has its own loss.
        loss = -(x.lr[..., column] * (fw.apply(leaves, x.key) * x.value).sum(-1)).sum()
        (expected,) = torch.autograd.grad(loss, [getattr(leaves, part)])
        got = getattr(fw.gradient(leaves, x), part)
        assert relative(got, -expected) <= 1e-12, part


def test_gradients_of_a_chunk_add_up_and_broadcast_over_the_batch():
    x, w = inputs(9), weights()
    whole = fw.gradient(fw.initial_state(w, 2).weights, x)
    parts = [
        fw.gradient(fw.FastWeights(*(t[None] for t in w)), x.cut(a, b)) for a, b in ((0, 4), (4, 9))
    ]
    assert difference(fw.FastWeights(*(a + b for a, b in zip(*parts, strict=True))), whole) <= 1e-12


def test_bfloat16_keeps_the_sums_in_float32():
    x, w = inputs(5, dtype=torch.bfloat16), weights(dtype=torch.float32)
    state = fw.accumulate(fw.initial_state(w, 2), x)
    assert {t.dtype for t in (*state.gradient, state.beta_sum)} == {torch.float32}
    assert fw.apply(state.weights, x.query).dtype == torch.bfloat16


def by_hand(x: fw.FastInputs, initial: fw.FastWeights, config) -> tuple[Tensor, fw.FastWeights]:
    """The rule as the paper writes it, chunk after chunk, from nothing but torch and its autograd."""
    w = [t.expand(x.query.shape[0], *t.shape) for t in initial]
    norms = [t.norm(dim=-1, keepdim=True) for t in w]
    total, moment, out = list(w), [torch.zeros_like(t) for t in w], []
    for start in range(0, x.length, config.chunk_size):
        piece = x.cut(start, min(start + config.chunk_size, x.length))
        gate, up, down = w
        out.append(
            (torch.nn.functional.silu(piece.query @ gate.mT) * (piece.query @ up.mT)) @ down.mT
        )
        if start + config.chunk_size >= x.length:
            break  # the last chunk, full or not, is never written
        leaves = [t.detach().requires_grad_() for t in w]
        read = (
            torch.nn.functional.silu(piece.key @ leaves[0].mT) * (piece.key @ leaves[1].mT)
        ) @ leaves[2].mT
        dot = (read * piece.value).sum(-1)
        grads = [
            torch.autograd.grad((piece.lr[..., c] * dot).sum(), leaves[i], retain_graph=True)[0]
            for i, c in enumerate((0, 2, 1))
        ]
        beta = piece.momentum.mean(-1)[..., None, None]
        if config.use_momentum:
            moment = grads = [g + beta * m for g, m in zip(grads, moment, strict=True)]
        step = [plain_newton_schulz(g, "float32") for g in grads] if config.use_muon else grads
        if config.norm_placement == "pre":
            total = [t + s for t, s in zip(total, step, strict=True)]
        else:
            total = [t + s for t, s in zip(w, step, strict=True)]
        w = [
            t / (t.norm(dim=-1, keepdim=True) + 1e-5) * n for t, n in zip(total, norms, strict=True)
        ]
    return torch.cat(out, 2), fw.FastWeights(*w)


@pytest.mark.parametrize("length", [3, 5, 6, 10, 17])
@pytest.mark.parametrize("momentum", [True, False])
@pytest.mark.parametrize("muon", [True, False])
@pytest.mark.parametrize("placement", ["pre", "post"])
def test_a_scan_is_the_written_rule(length, muon, placement, momentum):
    config = rule(use_muon=muon, norm_placement=placement, use_momentum=momentum)
    x, initial = inputs(length), weights()
    expected, last = by_hand(x, initial, config)
    out, state = fw.scan(fw.initial_state(initial, 2), x, initial, config)
    assert relative(out, expected) <= 1e-11
    assert difference(state.weights, last) <= 1e-11
    assert state.num_tokens == (length - 1) % 5 + 1, "a full chunk waits for the next token"


def test_rows_keep_the_norms_of_the_initial_weights():
    x, initial = inputs(23), weights()
    _, state = fw.scan(fw.initial_state(initial, 2), x, initial, rule())
    for now, first in zip(state.weights, initial, strict=True):
        assert relative(now.norm(dim=-1), first.norm(dim=-1).expand(2, -1, -1)) <= 1e-4
    assert state.master is None
    _, state = fw.scan(fw.initial_state(initial, 2), x, initial, rule(norm_placement="pre"))
    assert state.master is not None and relative(state.master.gate, state.weights.gate) > 0.1


@settings(derandomize=True, deadline=None, max_examples=80)
@given(
    length=st.integers(1, 23),
    borders=st.sets(st.integers(1, 22)),
    muon=st.booleans(),
    placement=st.sampled_from(("pre", "post")),
    chunk=st.sampled_from((1, 4, 5, 30)),
)
def test_any_cutting_of_a_scan_gives_the_same(length, borders, muon, placement, chunk):
    config = rule(use_muon=muon, norm_placement=placement, chunk_size=chunk)
    x, initial = inputs(length), weights()
    whole, end = fw.scan(fw.initial_state(initial, 2), x, initial, config)
    state, out = fw.initial_state(initial, 2), []
    for start, stop in pairwise(sorted({0, *(b for b in borders if b < length), length})):
        piece, state = fw.scan(state, x.cut(start, stop), initial, config)
        out.append(piece)
    assert relative(torch.cat(out, 2), whole) <= 1e-10
    assert difference(state, end) <= 1e-10


def test_an_unread_last_chunk_is_not_summed_up():
    x, initial = inputs(12), weights()
    kept, _ = fw.scan(fw.initial_state(initial, 2), x, initial, rule())
    out, state = fw.scan(fw.initial_state(initial, 2), x, initial, rule(), keep_state=False)
    assert torch.equal(out, kept) and state.gradient is None


def test_gradients_through_a_scan_are_those_of_finite_differences():
    config = rule(chunk_size=3, norm_placement="pre")
    x, initial = inputs(7, batch=1, heads=1, dim=3), weights(heads=1, dim=3, hidden=3)

    def run(*tensors: Tensor) -> Tensor:
        own, start = fw.FastInputs(*tensors[:5]), fw.FastWeights(*tensors[5:])
        return fw.scan(fw.initial_state(start, 1), own, start, config, keep_state=False)[0]

    leaves = tuple(t.clone().requires_grad_() for t in (*x, *initial))
    assert torch.autograd.gradcheck(run, leaves, eps=1e-6, atol=1e-6, rtol=1e-4)


def test_branches_read_what_forks_read():
    config, initial = rule(chunk_size=10), weights()
    _, state = fw.scan(fw.initial_state(initial, 2), inputs(14), initial, config)
    asked = inputs(6, seed=5)
    side = fw.read_branches(state, asked, initial, config, branches=2)
    for a, b in ((0, 3), (3, 6)):
        assert torch.equal(side[:, :, a:b], fw.scan(state, asked.cut(a, b), initial, config)[0])
    _, full = fw.scan(fw.initial_state(initial, 2), inputs(10), initial, config)
    after, _ = fw.scan(full, asked.cut(0, 3), initial, config)
    assert relative(fw.read_branches(full, asked, initial, config, 2)[:, :, :3], after) <= 1e-12
    with pytest.raises(ConfigError, match="shorten the branch"):
        fw.read_branches(state, inputs(14), initial, config, branches=2)


@pytest.mark.parametrize("use_momentum", [True, False])
@pytest.mark.parametrize("use_muon", [True, False])
@pytest.mark.parametrize("norm_placement", ["pre", "post"])
def test_a_scan_that_does_not_know_its_border_equals_one_that_does(
    norm_placement, use_muon, use_momentum
):
    """Borders before, inside, at the end of and beyond the piece."""
    chunk, length, limit = 6, 5, 1e-10 if use_muon else 1e-12
    config = rule(
        chunk_size=chunk,
        norm_placement=norm_placement,
        use_muon=use_muon,
        use_momentum=use_momentum,
    )
    initial, news = weights(), inputs(length, seed=2)
    _, state = fw.scan(fw.initial_state(initial, 2), inputs(chunk + 1), initial, config)
    early = state
    for room in range(chunk - 1, -1, -1):  # from a chunk that holds one token to a full one
        if state.num_tokens < chunk - room:
            _, state = fw.scan(state, inputs(1, seed=10 + room), initial, config)
        assert state.num_tokens == chunk - room
        expected, after = fw.scan(state, news, initial, config)
        unknown = fw.BorderState(*state[:5], torch.tensor(room))
        found, last = fw.scan(unknown, news, initial, config)
        assert relative(found, expected) <= limit, f"border at {room}"
        assert difference(tuple(last[:5]), tuple(after[:5])) <= limit, f"border at {room}"
    far = fw.BorderState(*early[:5], torch.tensor(100))
    expected, after = fw.scan(early, news.cut(0, 3), initial, config)
    found, last = fw.scan(far, news.cut(0, 3), initial, config)
    assert relative(found, expected) <= limit
    assert difference(tuple(last[:5]), tuple(after[:5])) <= limit
