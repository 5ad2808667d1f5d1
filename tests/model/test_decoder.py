"""The streaming law: any way of cutting a stream gives the outputs and the state of one pass."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spatial_ttt.errors import ConfigError, VideoError
from spatial_ttt.model.bounded_cache import AnchorPolicy
from spatial_ttt.model.layout import END, Layout, cut, join_all, num_tokens, slot, text
from spatial_ttt.model.state import Tokens
from tests.model.streams import (
    Stream,
    cuttings,
    difference,
    end_video,
    layouts,
    model_of,
    push,
    push_piece,
    random_stream,
    relative,
    same_bits,
    video,
)


def law(examples: int) -> settings:
    slow = [HealthCheck.too_slow]
    return settings(
        derandomize=True, deadline=None, max_examples=examples, suppress_health_check=slow
    )


LIMIT = {(torch.float64, True): 1e-10, (torch.float64, False): 1e-10,
         (torch.float32, True): 5e-4, (torch.float32, False): 1e-5}  # fmt: skip
"""By precision and Muon: Newton-Schulz amplifies rounding up to 490 times."""

MIXED = join_all(
    [(text(3),), video((2, 3), 3), (text(2),), video((1, 2), 2, 0), video((3, 1), 1), (text(4),)]
)
"""Two videos and an image of unequal grids: 3 + 22 + 2 + 4 + 3 + 4 tokens."""

rules = st.fixed_dictionaries(
    {
        "use_muon": st.booleans(),
        "norm_placement": st.sampled_from(("pre", "post")),
        "convolution": st.sampled_from(("centred", "causal", "none")),
        "use_momentum": st.sampled_from((True, True, False)),
        "chunk_size": st.sampled_from((1, 5, 16)),
        "window_size": st.sampled_from((1, 6, 64)),
    }
)


@torch.no_grad()
def check_law(layout: Layout, cuts: object, dtype: torch.dtype, rule: dict[str, object]) -> None:
    model = model_of(dtype, **rule)
    stream = random_stream(model, layout, seed=num_tokens(layout))
    whole, end = push(model, stream)
    pieces, cut_end = push(model, stream, cuts)
    limit = LIMIT[dtype, bool(rule.get("use_muon", True))]
    # Which tokens are determined may differ while a video is open, never what they are.
    assert pieces.shape == whole.shape
    assert relative(pieces, whole) <= limit
    assert difference(cut_end, end) <= limit
    closed, final = end_video(model, end, stream)
    cut_closed, cut_final = end_video(model, cut_end, stream)
    assert relative(cut_closed, closed) <= limit and difference(cut_final, final) <= limit
    assert whole.shape[1] + closed.shape[1] == stream.length, "an ended stream holds nothing back"


@law(150)
@given(layout=layouts(), rule=rules, data=st.data())
def test_any_cutting_equals_one_pass_in_float64(layout, rule, data):
    check_law(layout, data.draw(cuttings(num_tokens(layout))), torch.float64, rule)


@law(60)
@given(layout=layouts(), rule=rules, data=st.data())
def test_any_cutting_equals_one_pass_in_float32(layout, rule, data):
    check_law(layout, data.draw(cuttings(num_tokens(layout))), torch.float32, rule)


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("use_muon", [True, False])
@pytest.mark.parametrize("convolution", ["centred", "causal", "none"])
def test_single_tokens_equal_one_pass(convolution, use_muon, placement):
    rule = {"convolution": convolution, "use_muon": use_muon, "norm_placement": placement}
    for dtype in (torch.float64, torch.float32):
        check_law(MIXED, range(1, num_tokens(MIXED)), dtype, rule)


def test_rows_of_a_batch_are_independent():
    model = model_of()
    stream = random_stream(model, MIXED, batch=3)
    whole, _ = push(model, stream, [4, 20])
    for row in range(3):
        alone = Stream(
            MIXED, stream.hidden[row : row + 1], stream.deepstack[:, row : row + 1].contiguous()
        )
        assert relative(whole[row : row + 1], push(model, alone)[0]) <= 1e-10


@torch.no_grad()
def test_an_open_video_lags_one_slot_per_layer_and_its_end_releases_all():
    model = model_of(layer_pattern=("ttt", "ttt", "anchor", "ttt"))
    stream = random_stream(model, video((2, 2), 6, 1, ends=False))
    state = model.decoder.start()
    released = []
    for number in range(6):
        start = 0 if not number else number * 5 - 1
        out, state = push_piece(model, stream.piece(start, number * 5 + 4), state)
        released.append(out.shape[1])
    # Three TTT layers: slot j leaves the last one when slot j + 3 has come; anchors add nothing.
    assert released == [0, 0, 0, 5, 5, 5]
    out, state = end_video(model, state, stream)
    assert out.shape[1] == 14
    assert all(getattr(s, "held", None) is None for s in state.layers)


def test_what_follows_a_slot_changes_it_only_through_the_next_slot():
    """Centred in time: slot j reads j + 1 of its own layer, so three layers see three slots ahead."""
    model = model_of(layer_pattern=("ttt", "ttt", "ttt", "anchor"), chunk_size=64, window_size=64)
    stream = random_stream(model, video((2, 2), 6, 0))
    changed = stream.hidden.clone()
    changed[:, 16:20] += 1.0  # slot 4
    before, _ = push(model, stream)
    after, _ = push(model, stream._replace(hidden=changed))
    assert torch.equal(before[:, :4], after[:, :4])  # slot 0 is four slots away
    assert not torch.equal(before[:, 4:8], after[:, 4:8])  # slot 1 is three away
    causal = model_of(convolution="causal", chunk_size=64, window_size=64)
    before, _ = push(causal, stream)
    after, _ = push(causal, stream._replace(hidden=changed))
    assert torch.equal(before[:, :16], after[:, :16]) and not torch.equal(before, after)


@torch.no_grad()
def test_a_fork_leaves_its_parent_untouched():
    model = model_of()
    stream = random_stream(model, video((2, 2), 8, 1, ends=False))
    question = random_stream(model, (END, text(9)), seed=7)
    _, state = push(model, stream.piece(0, 20))
    first, _ = push_piece(model, question, state)
    again, _ = push_piece(model, question, state)
    assert torch.equal(first, again)
    rest, end = push(model, stream.piece(20, stream.length), state=state)
    quiet, quiet_end = push(model, stream, [20])
    assert torch.equal(rest, quiet[:, -rest.shape[1] :]) and same_bits(end, quiet_end)


@torch.no_grad()
@pytest.mark.parametrize("window", [4, 100])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_branches_equal_forks(dtype, window):
    model = model_of(dtype, chunk_size=30, window_size=window)
    stream = random_stream(model, join_all([(text(2),), video((2, 2), 4)]), batch=2)
    branches, length = 3, 5
    _, state = push(model, stream)
    generator = torch.Generator().manual_seed(3)
    asked = torch.randn(2, branches * length, 32, generator=generator, dtype=torch.float64).to(
        dtype
    )
    layout = (text(length),)
    expected = [
        push_piece(model, Stream(layout, piece, None), state)[0] for piece in asked.split(length, 1)
    ]
    one, _ = model.decoder.tokens(asked[:, :length], layout, state.position)
    side_by_side = Tokens(asked, one.rope.repeat(1, branches, 1), None, (text(branches * length),))
    done, _ = model.decoder(side_by_side, state, branches=branches, keep_state=False)
    assert relative(done.hidden, torch.cat(expected, 1)) <= LIMIT[dtype, True]
    # 24 of 30 tokens of the chunk are used up: a branch of 7 would write.
    with pytest.raises(ConfigError, match="would write the fast weights"):
        long = Tokens(asked[:, :14], one.rope[:, :1].expand(2, 14, -1), None, (text(14),))
        model.decoder(long, state, branches=2, keep_state=False)


def test_gradients_flow_through_cuts():
    """Training piece by piece gives the gradients of one pass, to embeddings and to every parameter."""
    model = model_of(norm_placement="pre")
    stream = random_stream(model, MIXED)
    weight = torch.randn(1, stream.length, 32, generator=torch.Generator().manual_seed(1)).double()

    def gradients(cuts: object) -> list[torch.Tensor | None]:
        leaf = stream.hidden.clone().requires_grad_()
        out, _ = push(model, stream._replace(hidden=leaf), cuts)
        used = [p for p in model.decoder.parameters()]
        return list(torch.autograd.grad((out * weight).sum(), [leaf, *used], allow_unused=True))

    whole, pieces = gradients(()), gradients([1, 5, 6, 17, 18, 30])
    named = ["embeddings", *(n for n, _ in model.decoder.named_parameters())]
    for name, expected, actual in zip(named, whole, pieces, strict=True):
        if expected is None:
            assert actual is None, name
        else:
            # momentum of a chunk that is never written has a zero gradient
            scale = float(expected.abs().max())
            assert float((actual - expected).abs().max()) <= 1e-9 * max(scale, 1e-3), name


@pytest.mark.parametrize("batch", [1, 2])
def test_gradient_checkpointing_changes_no_gradient(batch):
    model = model_of()
    stream = random_stream(model, MIXED, batch=batch)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        leaf = stream.hidden.clone().requires_grad_()
        out, _ = push(model, stream._replace(hidden=leaf), [11])
        out.square().sum().backward()
        return [leaf.grad, *(p.grad.clone() for p in model.decoder.layers.parameters())]

    plain = gradients()
    model.train()
    model.decoder.gradient_checkpointing = True
    calls = []
    hook = model.decoder.layers[0].input_layernorm.register_forward_hook(lambda *_: calls.append(1))
    try:
        recomputed = gradients()
    finally:
        hook.remove()
        model.decoder.gradient_checkpointing = False
        model.eval().zero_grad()
    assert len(calls) == 4, "each piece runs forward and once more in backward"
    for a, b in zip(plain, recomputed, strict=True):
        assert torch.equal(a, b)


@torch.no_grad()
def test_the_gradients_of_frozen_layers_do_not_break_a_stream_in_pieces():
    """Keys that need no gradient are still read by the backward pass of queries that do."""
    model = model_of(layer_pattern=("anchor",))
    stream = random_stream(model, (text(6),))
    with torch.enable_grad():
        model.requires_grad_(False)
        q_proj = model.decoder.layers[0].self_attn.q_proj
        q_proj.requires_grad_(True)
        try:
            out, _ = push(model, stream, [2, 3, 4])
            (pieces,) = torch.autograd.grad(out.sum(), q_proj.weight)
            (whole,) = torch.autograd.grad(push(model, stream)[0].sum(), q_proj.weight)
        finally:
            model.requires_grad_(True)
    assert relative(pieces, whole) <= 1e-10


@pytest.mark.parametrize("slots", [600, pytest.param(10_000, marks=pytest.mark.slow)])
@torch.no_grad()
def test_ttt_layers_take_the_same_bytes_for_ever(slots):
    model = model_of(torch.float32, chunk_size=12, window_size=12)
    grid, text_tokens, batch = (1, 2), 1, 10
    layout = video(grid, batch, text_tokens, ends=False)
    layout = join_all([(text(text_tokens),), layout])
    state = model.decoder.start()
    sizes, anchors = [], []
    for number in range(slots // batch):
        _, state = push(model, random_stream(model, layout, seed=number % 7), state=state)
        ttt = [s for s in state.layers if hasattr(s, "fast")]
        sizes.append(sum(_bytes(s) for s in ttt))
        anchors.append(state.num_bytes - sizes[-1])
    assert state.num_tokens == slots * 3
    assert set(sizes) == {sizes[0]}, "from slot 10 on, TTT layers neither grow nor shrink"
    assert anchors[-1] - anchors[-2] == anchors[1] - anchors[0] > 0  # anchors grow by each token
    assert all(torch.isfinite(t).all() for s in ttt for t in s.fast.weights)


def _bytes(state: object) -> int:
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    return sum(map(_bytes, state)) if isinstance(state, tuple) else 0


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        ((text(1),), "text arrived in the middle of a slot"),
        ((END,), "declared over in the middle of a slot"),
        ((slot(3, 2),), "cut after token 2"),
        ((slot(2, 2)._replace(start=1, length=3),), "cut after token 2"),
    ],
)
def test_broken_slots_are_refused(second, complaint):
    model = model_of()
    _, state = push(model, random_stream(model, cut((slot(2, 2),), 0, 2)))
    with pytest.raises(VideoError, match=complaint):
        push_piece(model, random_stream(model, second), state)


def test_a_frame_size_may_change_between_videos_only():
    model = model_of()
    with pytest.raises(VideoError, match="end the video before the frame size changes"):
        push(model, random_stream(model, (slot(2, 2), text(1), slot(2, 3))))
    push(model, random_stream(model, (slot(2, 2), END, slot(2, 3))))


def test_foreign_rope_types_are_refused():
    from spatial_ttt.model.decoder import HybridDecoder
    from spatial_ttt.testing.small import small_config

    config = small_config()
    config.text_config.rope_parameters["rope_type"] = "yarn"
    with pytest.raises(ConfigError, match="rope_type must be 'default'"):
        HybridDecoder(config.text_config, config.ttt_config)


@pytest.mark.parametrize("pattern", [("ttt", "ttt", "anchor"), ("ttt",)])
@pytest.mark.parametrize("bits", [None, 8, 16])
@torch.no_grad()
def test_who_only_watches_leaves_the_same_state(pattern: tuple[str, ...], bits: int | None) -> None:
    model = model_of(layer_pattern=pattern)
    stream = random_stream(model, join_all([video((2, 3), 6), (text(3),)]))
    policy = None if bits is None else AnchorPolicy(1, 1, 2, 5, bits)
    states = [model.decoder.start(policy), model.decoder.start(policy)]
    for start, stop in ((0, 13), (13, 14), (14, stream.length)):
        piece = stream.piece(start, stop)
        for n, wanted in enumerate((None, 0)):
            tokens, position = model.decoder.tokens(
                piece.hidden, piece.layout, states[n].position, piece.deepstack
            )
            past = states[n]._replace(position=position)
            done, states[n] = model.decoder(tokens, past, wanted=wanted)
            assert wanted is None or not done.length
    assert same_bits(states[1], states[0])
