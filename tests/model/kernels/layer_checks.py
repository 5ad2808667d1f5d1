"""All kernels in their places: whole layers in training and in streaming."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from tests.model.kernels.check import Check, Function


def decoder(device: torch.device) -> Iterator[Check]:
    """All kernels in their places: two layers over a clip of several chunks, plain and checkpointed."""
    from torch.func import functional_call

    from spatial_ttt.model.decoder import HybridDecoder
    from spatial_ttt.model.kernels import request_backend
    from spatial_ttt.model.layout import END, slot, text
    from spatial_ttt.presets import _small

    size = {"hidden": 64, "mlp": 32, "layers": 2, "heads": 2, "vocab": 8}
    tower = {"hidden": 16, "mlp": 32, "depth": 1, "heads": 2, "positions": 16, "taps": [0]}
    ttt = {"num_fast_heads": 2, "chunk_size": 16, "newton_schulz_dtype": "float32"}
    config = _small(size, tower, None, ttt | {"layer_pattern": ("ttt", "anchor")})
    layout = (text(3), slot(2, 3), text(2), slot(2, 3), text(2), slot(2, 3), END, text(15))
    model = HybridDecoder(config.text_config, config.ttt_config).to(device).train()
    # Muon forgets the size of a write: the gradient of lr_proj.bias is rounding noise.
    names = [
        name
        for name, _ in model.named_parameters()
        if "embed" not in name and "lr_proj.bias" not in name
    ]
    parameters = [p.detach() + 0.02 * torch.randn_like(p) for p in map(model.get_parameter, names)]
    hidden = torch.randn(1, 40, 64, device=device)

    def forward(module: HybridDecoder, hidden: Tensor) -> Tensor:
        tokens, _ = module.tokens(hidden, layout, 0)
        return module(tokens, module.start(), keep_state=False)[0].hidden

    def run(backend: str) -> Function:
        def call(hidden: Tensor, *values: Tensor) -> Tensor:
            parts = {f"model.{k}": v for k, v in zip(names, values, strict=True)}
            rest = {
                f"model.{k}": v.detach().to(hidden.dtype)
                for k, v in model.named_parameters()
                if k not in names
            }
            with request_backend(backend):
                return functional_call(_Call(model, forward), parts | rest, (hidden,))

        return call

    def run_checkpointed(hidden: Tensor) -> Tensor:
        own = deepcopy(model).to(hidden.dtype)
        own.gradient_checkpointing = hidden.dtype == torch.float32
        with request_backend("triton" if own.gradient_checkpointing else "reference"):
            out = forward(own, hidden)
            # The layers run again inside the backward pass: it belongs into the block.
            (grad,) = torch.autograd.grad(out.square().sum(), hidden)
        return out.detach() + grad + 0 * hidden

    yield Check("decoder", run("triton"), run("reference"), (hidden, *parameters), 1e-4)
    yield Check("checkpointed decoder", run_checkpointed, run_checkpointed, (hidden,), 1e-4)


class _Call(torch.nn.Module):
    """A module whose call is a function of another module."""

    def __init__(self, model: torch.nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *inputs: Tensor) -> Tensor:
        """The function of the model."""
        return self.function(self.model, *inputs)


def steady(device: torch.device) -> Iterator[Check]:
    """The steady engine against the decoder: windows that slide, pages that fill up, forks in between."""
    from spatial_ttt.model import kv_cache
    from spatial_ttt.model.kernels import request_backend
    from spatial_ttt.model.layout import END, slot, text
    from spatial_ttt.model.state import DecoderState
    from spatial_ttt.model.steady import SteadyDecoder, SteadyTTT
    from tests.model.streams import model_of

    model = model_of(torch.float32, chunk_size=20, window_size=22, use_muon=False).to(device)
    piece = (text(1), slot(2, 2), text(1))
    pieces = [piece] * 13 + [piece * 2] * 4
    inputs = [
        torch.randn(1, sum(run.length for run in layout), 32, device=device) for layout in pieces
    ]
    question = torch.randn(1, 5, 32, device=device)

    def plain(*inputs: Tensor) -> Tensor:
        own = deepcopy(model).to(inputs[0].dtype)
        state, out = own.decoder.start(), []
        for hidden, layout in zip(inputs, pieces, strict=True):
            tokens, position = own.decoder.tokens(hidden, layout, state.position)
            done, state = own.decoder(tokens, state._replace(position=position))
            out.append(done.hidden)
        return torch.cat(out, dim=1)

    def fast(*inputs: Tensor) -> Tensor:
        engine, out = SteadyDecoder(model.decoder), []
        with request_backend("triton"):
            engine.load(model.decoder.start())
            for number, (hidden, layout) in enumerate(zip(inputs, pieces, strict=True)):
                tokens, engine.position = model.decoder.tokens(hidden, layout, engine.position)
                out.append(engine.push(tokens).hidden.clone())
                if number % 4 == 3:
                    ask(engine.export())
            slides = [layer.window for layer in engine.layers if isinstance(layer, SteadyTTT)]
        if not all(slides):
            raise RuntimeError("no window slid")
        return torch.cat(out, dim=1)

    def ask(fork: DecoderState) -> None:
        tokens, _ = model.decoder.tokens(question, (END, text(5)), fork.position)
        model.decoder(tokens, fork)

    page, kv_cache.PAGE_TOKENS = kv_cache.PAGE_TOKENS, 64
    yield Check("steady", fast, plain, inputs, 1e-4, False)
    kv_cache.PAGE_TOKENS = page


def runs(device: torch.device) -> Iterator[Check]:
    """Keys and values from one part of a buffer to another, as they are."""
    from spatial_ttt.model.kernels import runs as kernel

    shapes = [(1, 2, 7, 16), (2, 3, 300, 8)] + [(1, 8, 2648, 128)] * (device.type == "cuda")
    for shape, dtype in product(shapes, (torch.float32, torch.bfloat16)):
        batch, heads, length, dim = shape
        wide = torch.randn(2, batch, heads, length + 5, dim, device=device).to(dtype)

        def copy(wide: Tensor, length: int = length) -> Tensor:
            k, v = wide
            made = torch.zeros_like(wide)
            source, place = (
                (k[:, :, 5:], v[:, :, 5:]),
                (made[0, :, :, :length], made[1, :, :, :length]),
            )
            if wide.dtype == torch.float64:
                place[0].copy_(source[0]), place[1].copy_(source[1])
            else:
                kernel.copy(source, place)
            return made

        yield Check(f"runs {shape} {dtype}", copy, copy, (wide,), 0.0, False)
    sizes = ((5000,), (2, 3, 4096), (7,))
    given = [torch.randn(size, device=device) for size in sizes]

    def put(*given: Tensor) -> tuple[Tensor, ...]:
        """All to places of their own, the second rounded too, and zeros."""
        kinds = (torch.float32, torch.float32, torch.float32, torch.bfloat16, torch.float32)
        sources = (*given, given[1], None)
        places = [torch.full_like(given[0] if x is None else x, 9.0) for x in sources]
        places = [place.to(kind) for place, kind in zip(places, kinds, strict=True)]
        kernel.put(sources, places)
        return tuple(places)

    def plainly(*given: Tensor) -> tuple[Tensor, ...]:
        return *given, given[1].to(torch.bfloat16), torch.zeros_like(given[0])

    yield Check("put", put, plainly, given, 0.0, False)


def patching(device: torch.device) -> Iterator[Check]:
    """Frames as bytes, which a comparison in float64 passes on as they are: the same bits in every type."""
    from spatial_ttt.model.kernels import request_backend
    from spatial_ttt.testing.small import small_processor

    shapes = [(2, 32, 48), (6, 64, 32)] + [(64, 352, 480)] * (device.type == "cuda")
    kinds = (torch.float32, torch.bfloat16)
    for shape, dtype in product(shapes, kinds):
        processor = small_processor()
        processor.frames = replace(processor.frames, size=shape[1:], std=(0.3, 0.2, 0.7))
        frames = torch.randint(0, 256, (*shape, 3), device=device).float()

        def run(frames: Tensor, backend: str, own: Any = processor, dtype: Any = dtype) -> Tensor:
            with request_backend(backend):
                made: Tensor = own.patches(frames.to(torch.uint8), dtype)[0]
            return made

        fast, plain = (partial(run, backend=name) for name in ("triton", "reference"))
        is_cut = device.type == "cpu" and dtype == torch.bfloat16  # the interpreter does not round
        limit = 5e-3 if is_cut else 0.0
        yield Check(f"patching {shape} {dtype}", fast, plain, (frames,), limit, False)


def tower(device: torch.device) -> Iterator[Check]:
    """Slots through the vision tower, whose biases are added late, fresh and prepared: of weights as they are."""
    from spatial_ttt.model.kernels import request_backend
    from spatial_ttt.model.vision import encode_slots
    from spatial_ttt.testing.small import small_model

    visual = small_model().model.visual.to(device)
    visual.blocks.extend(deepcopy(block) for block in list(visual.blocks))
    visual.config.depth = len(visual.blocks)
    visual.config.deepstack_visual_indexes = [1]
    with torch.no_grad():
        for parameter in visual.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    weight = visual.patch_embed.proj.weight
    patches = torch.randn(3, 24, weight[0].numel(), device=device)
    kinds = [(torch.float32, 1e-5)] + [(torch.bfloat16, 3e-2)] * (device.type == "cuda")

    def run(patches: Tensor, backend: str, is_prepared: bool) -> tuple[Tensor, Tensor]:
        own = deepcopy(visual).to(patches.dtype)
        for block in own.blocks:
            block.attn.__dict__.update({"packed": {}} if is_prepared else {})
        last = own.blocks[0].mlp.linear_fc2.bias
        with request_backend(backend):
            for change in (8.0, -8.0) if is_prepared else ():
                encode_slots(own, patches.clone(), (4, 6))
                last.add_(change)  # what was derived of it no longer holds
            seen = encode_slots(own, patches.clone(), (4, 6))
        return seen.tokens, seen.deepstack

    for (dtype, limit), is_prepared in product(kinds, (False, True)):
        fast = partial(run, backend="triton", is_prepared=is_prepared)
        plain = partial(run, backend="reference", is_prepared=False)
        name = f"{dtype} prepared {is_prepared}"
        yield Check(f"tower {name}", fast, plain, (patches.to(dtype),), limit, False)


def streaming(device: torch.device) -> Iterator[Check]:
    """Pieces of a stream through two layers, without gradients: every kernel that streaming uses.

    As if its pieces were long: layers leave room for what the next ones held back, anchors make zeros behind them,
    which reach over the end of a page.
    """
    from spatial_ttt.model import decoder, fused_attention, kv_cache
    from spatial_ttt.model.decoder import HybridDecoder
    from spatial_ttt.model.kernels import request_backend
    from spatial_ttt.model.layers import pack
    from spatial_ttt.model.layout import END, slot, text
    from spatial_ttt.presets import _small

    tower = {"hidden": 16, "mlp": 32, "depth": 1, "heads": 2, "positions": 16, "taps": [0]}
    size = {"hidden": 64, "mlp": 40, "layers": 2, "heads": 4, "vocab": 8}
    pieces = (
        (text(3), slot(2, 3), text(2), slot(2, 3)),
        (text(2), slot(2, 3), text(2), slot(2, 3), text(2), slot(2, 3)),
        (text(1), slot(2, 3), text(1)),
        (slot(2, 3),),
        (text(2), slot(2, 3), END, text(15)),
    )
    cases = (("centred", True, 2), ("causal", False, 2), ("centred", True, 1))
    for convolution, packed, rows in cases:
        ttt = {"num_fast_heads": 2, "chunk_size": 16, "newton_schulz_dtype": "float32"}
        order = ("ttt", "anchor") if rows > 1 else ("ttt", "ttt")
        ttt |= {"layer_pattern": order, "convolution": convolution}
        config = _small(size, tower, None, ttt)
        config.text_config.num_key_value_heads = 2
        model = HybridDecoder(config.text_config, config.ttt_config).to(device).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        if packed:
            attention = model.layers[0].self_attn
            pack(attention, (attention.q_proj, attention.k_proj, attention.v_proj))
            pack(attention, attention.rate_layers)
            pack(model.layers[1].mlp, (model.layers[1].mlp.gate_proj, model.layers[1].mlp.up_proj))
        inputs = [
            torch.randn(rows, sum(run.length for run in piece), 64, device=device)
            for piece in pieces
        ]

        def stream(*inputs: Tensor, backend: str, model: HybridDecoder = model) -> Tensor:
            state, out = model.start(), []
            long = {"LONG_QUERIES": 6, "QUERY_STEP": 16}
            with (
                request_backend(backend),
                patch.object(decoder, "ROOMY_TOKENS", 1),
                patch.multiple(fused_attention, **long),
                patch.object(kv_cache, "PAGE_TOKENS", 40),
            ):
                for hidden, piece in zip(inputs, pieces, strict=True):
                    tokens, position = model.tokens(hidden, piece, state.position)
                    done, state = model(tokens, state._replace(position=position))
                    out.append(done.hidden)
            return torch.cat(out, dim=1)

        def fast(*inputs: Tensor, run: Function = stream) -> Tensor:
            return run(*inputs, backend="triton")

        def plain(*inputs: Tensor, run: Function = stream) -> Tensor:
            return run(*(x.float() for x in inputs), backend="reference")

        name = f"{convolution}, packed {packed}, rows {rows}"
        yield Check(name, fast, plain, inputs, 2e-5, False)
