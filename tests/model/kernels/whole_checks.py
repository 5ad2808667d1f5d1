"""The convolution of whole videos, for training, against the stream's through autograd."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from spatial_ttt.model.holding import Plan, plan
from spatial_ttt.model.kernels import request_backend
from spatial_ttt.model.layout import (
    END,
    Layout,
    join,
    num_tokens,
    slot,
    text,
    uneven_rows,
)
from tests.model.kernels.check import Check, each_way

REAL_CHANNELS = 512  # of 6,144: blocks of channels are alike, and the plain version in float64 takes minutes for all


def whole_convolution(device: torch.device) -> Iterator[Check]:
    """Slots at equal and at other distances, one slot, videos alike and of different sizes; two rows that differ."""
    from spatial_ttt.model.stream_convolution import convolve_released
    from spatial_ttt.model.whole_convolution import applies, convolve_whole

    layouts: dict[str, Layout] = {
        "regular": (text(3), *(slot(2, 3), text(2)) * 4, END, text(4)),
        "irregular": (*(slot(2, 3), text(1), slot(2, 3), text(2)) * 2, END, text(1)),
        "one": (text(1), slot(3, 1), END, text(2)),
        "two": (slot(2, 2), slot(2, 2), END, text(2), slot(1, 4), text(1), slot(1, 4), END),
        "alike": (text(1), *(*(slot(3, 1), text(1)) * 3, END, text(2)) * 3, slot(3, 1), END),
        "long": (*(slot(1, 1), text(1)) * 66, END),
        "no text": (*(slot(1, 6),) * 5, END),
        "large": (*(slot(4, 7), text(1)) * 2, END, slot(4, 7), text(1), slot(4, 7), END),
    }
    channels = {"alike": 80, "no text": 130}
    if device.type == "cuda":  # small shapes have hidden what a compiler did to large ones
        layouts["longer"] = (
            *(slot(5, 16), text(1)) * 70,
            END,
            text(1),
            *(slot(5, 16), text(2)) * 3,
            END,
        )
        layouts["real"] = (*(text(13), *(slot(11, 15), text(8)) * 64, END, text(50)) * 2,)
    kinds = [(torch.float32, 2e-6)] + [(torch.bfloat16, 1e-2)] * (device.type == "cuda")
    ways = each_way(layouts.items(), ("centred", "causal"), device)
    for ((name, layout), how), (dtype, limit) in product(ways, kinds):
        todo, is_centred = plan(layout, None, how), how == "centred"

        def plain(
            fast: Tensor, weight: Tensor, todo: Plan = todo, is_centred: bool = is_centred
        ) -> Tensor:
            with request_backend("reference"):
                return convolve_released(fast, todo, None, weight, is_centred)[0]

        def whole(
            fast: Tensor, weight: Tensor, todo: Plan = todo, is_centred: bool = is_centred
        ) -> Tensor:
            with request_backend("triton"):
                assert applies(fast, todo, None)
                return convolve_whole(fast, todo, weight, is_centred)

        length = sum(run.length for run in layout)
        rows, width = (1, REAL_CHANNELS) if name == "real" else (2, channels.get(name, 48))
        fast = torch.randn(rows, length, width, device=device).to(dtype)
        weight = torch.randn(width, 1, 3, 3, 3, device=device).to(dtype)
        yield Check(f"{name} {how} {dtype}", whole, plain, (fast, weight), limit)
    yield _rows_that_differ(layouts["regular"], layouts["two"], device)


def _rows_that_differ(first: Layout, second: Layout, device: torch.device) -> Check:
    """Together by the kernels, one after the other by the plain rule."""
    from spatial_ttt.model.stream_convolution import convolve_released
    from spatial_ttt.model.whole_convolution import convolve_whole

    rows = uneven_rows((first, second))

    def plain(fast: Tensor, weight: Tensor) -> Tensor:
        found = []
        for layout, row in zip((first, second), fast.split(1), strict=True):
            todo = plan(join(layout, (text(rows.length - num_tokens(layout)),)), None, "centred")
            with request_backend("reference"):
                found.append(convolve_released(row, todo, None, weight, True)[0])
        return torch.cat(found)

    def together(fast: Tensor, weight: Tensor) -> Tensor:
        with request_backend("triton"):
            return convolve_whole(fast, plan(rows, None, "centred"), weight, True)

    fast = torch.randn(2, rows.length, 48, device=device)
    weight = torch.randn(48, 1, 3, 3, 3, device=device)
    return Check("rows that differ", together, plain, (fast, weight), 2e-6)


def packed(device: torch.device) -> Iterator[Check]:
    """A pack of two layouts in one batch through a whole model in training, with several writes: loss and gradients."""
    from torch.func import functional_call

    from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
    from spatial_ttt.presets import preset
    from spatial_ttt.processor import Processor, qwen3_vl_frames
    from spatial_ttt.testing.small import byte_tokenizer
    from spatial_ttt.train.conversation import Encoded
    from spatial_ttt.train.dataset import LoadedSample
    from spatial_ttt.train.packed import PackedModel

    rule = {"chunk_size": 21, "window_size": 21, "newton_schulz_dtype": "float32"}
    ids = {name: n for n, name in enumerate(TOKENS, start=1)}
    model = SpatialTTTForConditionalGeneration(preset("test", token_ids=ids, **rule)).to(device)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    frames = torch.randint(0, 256, (2, 8, 64, 96, 3), dtype=torch.uint8)
    samples = []
    for gap, video in enumerate(frames, start=2):
        layout = (text(3), *(text(gap), slot(2, 3)) * 4, END, text(9 + gap))
        length = sum(run.length for run in layout)
        tokens = torch.randint(9, 200, (length,)).tolist()
        encoded = Encoded(tokens, [False] * (length - 5) + [True] * 5, layout)
        samples.append(LoadedSample(str(gap), encoded, (video,)))
    processor = Processor(byte_tokenizer(), qwen3_vl_frames((64, 96)))
    wrapped = PackedModel(model.train(), processor, 0)
    names = [name for name, _ in wrapped.named_parameters()]
    given = [p.detach() for _, p in wrapped.named_parameters()]

    def run(how: str, *parameters: Tensor) -> Tensor:
        with request_backend(how):
            state = dict(zip(names, parameters, strict=True))
            loss: Tensor = functional_call(wrapped, state, (samples,)).loss
        return loss

    # On a GPU such narrow heads in float32 keep their plain rule.
    own = "auto" if device.type == "cuda" else "triton"
    fast, plain = (lambda *p, how=how: run(how, *p) for how in (own, "reference"))
    # Gradients of 1e-7, of the rates' biases, are 8e-3 off in float32 however they are made.
    yield Check("pack", fast, plain, given, 0.02)


TOKENS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
