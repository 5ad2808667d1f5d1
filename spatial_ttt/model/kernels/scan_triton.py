"""The fast-weight recurrence of one sample and head in one Triton program, forward and backward.

Per chunk: read with every query, sum the gradient over the chunk in registers, then write (momentum,
Newton-Schulz, add). What a program carries over chunks lies in blocks of its own, which stay in the caches:
`totals` [n + 1, 3, D, D] (slot 0: where the scan starts; slot c + 1: the sum that write c makes; the
weights of chunk c are slot c with its row norms restored) and `writes` (write c before orthogonalisation).
The backward pass walks the chunks in reverse and makes everything else again.

Lengths differ from batch to batch: they are not specialised, or each would compile its own kernel.
Matrices go in the order gate, up, down; learning rates in the order gate, down, up.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are Triton's language, which has no types of Python's.
from __future__ import annotations

import triton
import triton.language as tl

from spatial_ttt.model.kernels.newton_schulz_triton import polish, polish_backward
from spatial_ttt.model.kernels.products import constant, product, total

_ROW_EPS = constant(1e-5)


@triton.jit
def _tile(D: tl.constexpr):
    row = tl.arange(0, D)
    return row[:, None] * D + row[None, :]


@triton.jit
def _row_norms(x):
    return tl.sqrt(tl.sum(x * x, axis=1))


@triton.jit
def _weights(slot, norms, matrix, as_it_is, D: tl.constexpr):
    """One matrix of a slot of `totals` with its row norms restored (or as it is, at a fresh start)."""
    x = tl.load(slot + matrix * (D * D) + _tile(D))
    target = tl.load(norms + matrix * D + tl.arange(0, D))
    factor = tl.where(as_it_is, 1.0, target / (_row_norms(x) + _ROW_EPS))
    return x * factor[:, None]


@triton.jit
def _hidden(x, gate, up, ROUND: tl.constexpr, WIDE: tl.constexpr):
    """Gate and up products of tokens x [T, D], and sigmoid of the former: [T, F] each."""
    a = product(x, tl.trans(gate), ROUND, WIDE)
    u = product(x, tl.trans(up), ROUND, WIDE)
    return a, u, tl.sigmoid(a)


@triton.jit(do_not_specialize=["length", "num_writes"])
def forward(
    query, key, value, lr, beta, norms, totals, writes, out, length, num_writes, chunk, heads,
    has_momentum, is_fresh,
    D: tl.constexpr, TOKENS: tl.constexpr, MUON: tl.constexpr, MOMENTUM: tl.constexpr, PRE: tl.constexpr,
    ROUND: tl.constexpr, POLISH: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Outputs of all chunks, and the slots of `totals` and `writes` that the writes make."""
    program = tl.program_id(0).to(tl.int64)
    batch, head = program // heads, program % heads
    at = _tile(D)
    totals += program * (num_writes + 1) * (3 * D * D)
    writes += program * (num_writes + has_momentum) * (3 * D * D)
    norms += head * (3 * D)
    query += program * length * D
    key += program * length * D
    value += program * length * D
    lr += program * length * 3
    out += (batch * length * heads + head) * D
    channel = tl.arange(0, D)
    for c in tl.range(0, num_writes + 1, num_stages=1):
        slot = totals + c * (3 * D * D)
        as_it_is = (c == 0) & (is_fresh != 0)
        gate = _weights(slot, norms, 0, as_it_is, D).to(ROUND)
        up = _weights(slot, norms, 1, as_it_is, D).to(ROUND)
        down = _weights(slot, norms, 2, as_it_is, D).to(ROUND)
        stop = tl.minimum((c + 1) * chunk, length)
        g_gate = tl.zeros((D, D), tl.float32)
        g_up = tl.zeros((D, D), tl.float32)
        g_down = tl.zeros((D, D), tl.float32)
        for start in tl.range(c * chunk, stop, TOKENS, num_stages=1):
            token = start + tl.arange(0, TOKENS)
            inside = token < stop
            where = token[:, None] * D + channel[None, :]
            q = tl.load(query + where, mask=inside[:, None], other=0.0)
            a, u, s = _hidden(q, gate, up, ROUND, WIDE)
            o = product((a * s * u).to(ROUND), tl.trans(down), ROUND, WIDE)
            to = token[:, None] * (heads * D) + channel[None, :]
            tl.store(out + to, o.to(out.dtype.element_ty), mask=inside[:, None])
            if c < num_writes:
                k = tl.load(key + where, mask=inside[:, None], other=0.0)
                v = tl.load(value + where, mask=inside[:, None], other=0.0)
                lr_gate = tl.load(lr + token * 3, mask=inside, other=0.0)
                lr_down = tl.load(lr + token * 3 + 1, mask=inside, other=0.0)
                lr_up = tl.load(lr + token * 3 + 2, mask=inside, other=0.0)
                a, u, s = _hidden(k, gate, up, ROUND, WIDE)
                e = product(v, down, ROUND, WIDE)
                d_gate = (e * u * (s * (1.0 + a * (1.0 - s))) * lr_gate[:, None]).to(ROUND)
                d_up = (e * a * s * lr_up[:, None]).to(ROUND)
                d_down = (a * s * u * lr_down[:, None]).to(ROUND)
                g_gate += product(tl.trans(d_gate), k, ROUND, WIDE)
                g_up += product(tl.trans(d_up), k, ROUND, WIDE)
                g_down += product(tl.trans(v), d_down, ROUND, WIDE)
        if c < num_writes:
            own = writes + (c + has_momentum) * (3 * D * D)
            tl.store(own + at, g_gate)
            tl.store(own + D * D + at, g_up)
            tl.store(own + 2 * D * D + at, g_down)
            tl.debug_barrier()
            share = tl.load(beta + program * num_writes + c)
            for matrix in tl.range(0, 3, num_stages=1):
                here = matrix * (D * D) + at
                write = tl.load(own + here)
                if MOMENTUM:
                    has_last = (c > 0) | (has_momentum != 0)
                    write += share * tl.load(
                        own - 3 * D * D + here, mask=has_last & (here >= 0), other=0.0
                    )
                    tl.debug_barrier()
                    tl.store(own + here, write)
                delta = write
                if MUON:
                    delta = polish(write, POLISH, WIDE).to(tl.float32)
                base = tl.load(slot + here) if PRE else _weights(slot, norms, matrix, as_it_is, D)
                tl.store(slot + 3 * D * D + here, base + delta)
            tl.debug_barrier()


@triton.jit
def _apply_backward(q, d_out, gate, up, down, ROUND: tl.constexpr, WIDE: tl.constexpr):
    """Gradients of the reads of a tile: of the queries, and of gate, up and down."""
    a, u, s = _hidden(q, gate, up, ROUND, WIDE)
    d_hidden = product(d_out, down, ROUND, WIDE)
    d_down = product(tl.trans(d_out), (a * s * u).to(ROUND), ROUND, WIDE)
    d_a = (d_hidden * u * (s * (1.0 + a * (1.0 - s)))).to(ROUND)
    d_u = (d_hidden * a * s).to(ROUND)
    d_q = product(d_a, gate, ROUND, WIDE) + product(d_u, up, ROUND, WIDE)
    return (
        d_q,
        product(tl.trans(d_a), q, ROUND, WIDE),
        product(tl.trans(d_u), q, ROUND, WIDE),
        d_down,
    )


@triton.jit(do_not_specialize=["length", "num_writes"])
def backward(
    query, key, value, lr, beta, norms, totals, writes, d_out,
    d_query, d_key, d_value, d_lr, d_beta, d_norms, d_total, d_write, d_grad, scratch,
    length, num_writes, chunk, heads, has_momentum, is_fresh,
    D: tl.constexpr, TOKENS: tl.constexpr, MUON: tl.constexpr, MOMENTUM: tl.constexpr, PRE: tl.constexpr,
    ROUND: tl.constexpr, POLISH: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Gradients of everything `forward` reads.

    `d_total` and `d_write` [3, D, D] hold the gradients of the last slots when they come in, and those of the first
    when they go out; in between they are carried from chunk to chunk. `d_grad` [3, D, D] and `scratch` are
    working space; `d_norms` [3, D] starts at zero.
    """
    program = tl.program_id(0).to(tl.int64)
    batch, head = program // heads, program % heads
    at = _tile(D)
    row = tl.arange(0, D)
    totals += program * (num_writes + 1) * (3 * D * D)
    writes += program * (num_writes + has_momentum) * (3 * D * D)
    norms += head * (3 * D)
    d_norms += program * (3 * D)
    d_total += program * (3 * D * D)
    d_write += program * (3 * D * D)
    d_grad += program * (3 * D * D)
    scratch += program * (5 * D * D)
    query += program * length * D
    key += program * length * D
    value += program * length * D
    d_query += program * length * D
    d_key += program * length * D
    d_value += program * length * D
    lr += program * length * 3
    d_lr += program * length * 3
    d_out += (batch * length * heads + head) * D
    for turn in tl.range(0, num_writes + 1, num_stages=1):
        c = num_writes - turn
        slot = totals + c * (3 * D * D)
        as_it_is = (c == 0) & (is_fresh != 0)
        if c < num_writes:
            own = writes + (c + has_momentum) * (3 * D * D)
            share = tl.load(beta + program * num_writes + c)
            d_share = 0.0
            for matrix in tl.range(0, 3, num_stages=1):
                here = matrix * (D * D) + at
                d = tl.load(d_total + here)
                if MUON:
                    d = polish_backward(tl.load(own + here), d, scratch, D, POLISH, WIDE)
                if MOMENTUM:
                    d += tl.load(d_write + here)
                    has_last = (c > 0) | (has_momentum != 0)
                    last = tl.load(own - 3 * D * D + here, mask=has_last & (here >= 0), other=0.0)
                    d_share += total(d * last)
                    tl.debug_barrier()
                    tl.store(d_write + here, share * d)
                tl.store(d_grad + here, d.to(ROUND))
            if MOMENTUM:
                tl.store(d_beta + program * num_writes + c, d_share)
            tl.debug_barrier()
        gate = _weights(slot, norms, 0, as_it_is, D).to(ROUND)
        up = _weights(slot, norms, 1, as_it_is, D).to(ROUND)
        down = _weights(slot, norms, 2, as_it_is, D).to(ROUND)
        w_gate = tl.zeros((D, D), tl.float32)
        w_up = tl.zeros((D, D), tl.float32)
        w_down = tl.zeros((D, D), tl.float32)
        stop = tl.minimum((c + 1) * chunk, length)
        for start in tl.range(c * chunk, stop, TOKENS, num_stages=1):
            token = start + tl.arange(0, TOKENS)
            inside = token < stop
            where = token[:, None] * D + row[None, :]
            q = tl.load(query + where, mask=inside[:, None], other=0.0)
            from_out = token[:, None] * (heads * D) + row[None, :]
            d_o = tl.load(d_out + from_out, mask=inside[:, None], other=0.0)
            d_q, p_gate, p_up, p_down = _apply_backward(q, d_o, gate, up, down, ROUND, WIDE)
            w_gate += p_gate
            w_up += p_up
            w_down += p_down
            tl.store(d_query + where, d_q.to(d_query.dtype.element_ty), mask=inside[:, None])
            # The last chunk is never written: its keys, values and learning rates reach nothing.
            d_k = tl.zeros((TOKENS, D), tl.float32)
            d_v = tl.zeros((TOKENS, D), tl.float32)
            d_lr_gate = tl.zeros((TOKENS,), tl.float32)
            d_lr_down = tl.zeros((TOKENS,), tl.float32)
            d_lr_up = tl.zeros((TOKENS,), tl.float32)
            if c < num_writes:
                k = tl.load(key + where, mask=inside[:, None], other=0.0)
                v = tl.load(value + where, mask=inside[:, None], other=0.0)
                lr_gate = tl.load(lr + token * 3, mask=inside, other=0.0)[:, None]
                lr_down = tl.load(lr + token * 3 + 1, mask=inside, other=0.0)[:, None]
                lr_up = tl.load(lr + token * 3 + 2, mask=inside, other=0.0)[:, None]
                dg_gate = tl.load(d_grad + at)
                dg_up = tl.load(d_grad + D * D + at)
                dg_down = tl.load(d_grad + 2 * D * D + at)
                a, u, s = _hidden(k, gate, up, ROUND, WIDE)
                e = product(v, down, ROUND, WIDE)
                silu = a * s
                slope = s * (1.0 + a * (1.0 - s))
                # r_*: gradients of the rows that the three sums add up.
                r_gate = product(k, tl.trans(dg_gate), ROUND, WIDE)
                r_up = product(k, tl.trans(dg_up), ROUND, WIDE)
                r_down = product(v, dg_down, ROUND, WIDE)
                d_lr_gate = tl.sum(r_gate * e * u * slope, axis=1)
                d_lr_up = tl.sum(r_up * e * silu, axis=1)
                d_lr_down = tl.sum(r_down * silu * u, axis=1)
                d_k = product((e * u * slope * lr_gate).to(ROUND), dg_gate, ROUND, WIDE)
                d_k += product((e * silu * lr_up).to(ROUND), dg_up, ROUND, WIDE)
                d_v = product((silu * u * lr_down).to(ROUND), tl.trans(dg_down), ROUND, WIDE)
                r_gate *= lr_gate
                r_up *= lr_up
                r_down *= lr_down
                d_e = (r_gate * u * slope + r_up * silu).to(ROUND)
                d_u = (r_gate * e * slope + r_down * silu).to(ROUND)
                bend = s * (1.0 - s) * (2.0 + a * (1.0 - 2.0 * s))
                d_a = (r_gate * e * u * bend + (r_up * e + r_down * u) * slope).to(ROUND)
                d_k += product(d_a, gate, ROUND, WIDE) + product(d_u, up, ROUND, WIDE)
                d_v += product(d_e, tl.trans(down), ROUND, WIDE)
                w_gate += product(tl.trans(d_a), k, ROUND, WIDE)
                w_up += product(tl.trans(d_u), k, ROUND, WIDE)
                w_down += product(tl.trans(v), d_e, ROUND, WIDE)
            tl.store(d_key + where, d_k.to(d_key.dtype.element_ty), mask=inside[:, None])
            tl.store(d_value + where, d_v.to(d_value.dtype.element_ty), mask=inside[:, None])
            tl.store(d_lr + token * 3, d_lr_gate, mask=inside)
            tl.store(d_lr + token * 3 + 1, d_lr_down, mask=inside)
            tl.store(d_lr + token * 3 + 2, d_lr_up, mask=inside)
        _carry(w_gate, slot, norms, d_norms, d_total, 0, c == num_writes, as_it_is, D, PRE)
        _carry(w_up, slot, norms, d_norms, d_total, 1, c == num_writes, as_it_is, D, PRE)
        _carry(w_down, slot, norms, d_norms, d_total, 2, c == num_writes, as_it_is, D, PRE)
        tl.debug_barrier()


@triton.jit
def _carry(
    d_weight,
    slot,
    norms,
    d_norms,
    d_total,
    matrix,
    is_last,
    as_it_is,
    D: tl.constexpr,
    PRE: tl.constexpr,
):
    """From the gradient of a chunk's weights and of the next slot to that of the chunk's own slot.

    The last chunk has no next slot: there `d_total` holds the gradient of its own slot already.
    """
    row = tl.arange(0, D)
    here = matrix * (D * D) + _tile(D)
    carried = tl.load(d_total + here)
    base = carried if PRE else tl.where(is_last, carried, 0.0)
    if not PRE:
        d_weight += tl.where(is_last, 0.0, carried)
    x = tl.load(slot + here)
    target = tl.load(norms + matrix * D + row)
    length = _row_norms(x)
    scale = 1.0 / (length + _ROW_EPS)
    along = tl.sum(d_weight * x, axis=1)
    bend = along * target * scale * scale / tl.where(length > 0, length, 1.0)
    through = d_weight * (target * scale)[:, None] - x * bend[:, None]
    sum_norms = tl.load(d_norms + matrix * D + row) + tl.where(as_it_is, 0.0, along * scale)
    tl.debug_barrier()
    tl.store(d_norms + matrix * D + row, sum_norms)
    tl.store(d_total + here, base + tl.where(as_it_is, d_weight, through))
