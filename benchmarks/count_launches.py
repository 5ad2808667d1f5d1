"""Launches of a training step of the 2B model, counted without a GPU.

    python benchmarks/count_launches.py                          # stage 2, 128 frames, 2 samples a pack
    python benchmarks/count_launches.py --case 1:32 --samples 3

The model and a pack of real shapes lie on torch's `meta` device: every operation is dispatched as on a GPU and nothing
is computed. Triton kernels are counted where they would be launched. The table says, for one pack's forward and
backward pass by part of the model: launches (views are none), operations of products, bytes read and written, and the
device's time were each launch bounded by those alone (`--tflops`, `--terabytes`). A host that issues launches more
slowly than the device runs them is what a step then waits for.

A captured graph is one launch. What a compiler fuses (`spatial_ttt.engine`) counts as its products and one launch for
everything between two of them.
FSDP's own launches and the update are left out.
"""

from __future__ import annotations

import argparse
import bisect
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.train_2b import WINDOW, Case, samples_of
from spatial_ttt.model import (
    decoder,
    fast_weights,
    fused_attention,
    kernels,
    whole_convolution,
)
from spatial_ttt.model.anchor import Attention
from spatial_ttt.model.kernels import wide_scan, wide_scan_triton
from spatial_ttt.model.kernels.captured import Products, ready
from spatial_ttt.model.layers import RMSNorm
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.ttt import TTTAttention
from spatial_ttt.presets import spatial_ttt_2b
from spatial_ttt.processor import Processor, qwen3_vl_frames
from spatial_ttt.testing.small import byte_tokenizer
from spatial_ttt.train.annealing import set_window
from spatial_ttt.train.packed import PackedModel

SIZE = (352, 480)
VIEWS = frozenset({
    "view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select",
    "unsqueeze", "squeeze", "split", "split_with_sizes", "unbind", "detach", "alias",
    "as_strided", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided",
    "unfold", "chunk", "_reshape_alias", "lift_fresh", "is_same_size", "promote_types",
    "device", "dtype", "layout",
})  # fmt: skip
"""Operations of torch that launch nothing."""
COMPILED = frozenset({"norms", "projections: norms, rotation", "mlp"})


@dataclass
class Sums:
    """What a part launches."""

    launches: int = 0
    flops: float = 0.0
    moved: float = 0.0
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    times: defaultdict[str, float] = field(
        default_factory=lambda: defaultdict(float)
    )  # of a kind, s


class Launches(TorchDispatchMode):
    """Counts what reaches the device, by direction and part of the model."""

    def __init__(self, tflops: float, terabytes: float) -> None:
        super().__init__()
        self.speed, self.width = tflops * 1e12, terabytes * 1e12
        self.parts: dict[tuple[str, str], Sums] = {}
        self.stack = ["rest"]
        self.borders: list[int] = [0]  # autograd's sequence numbers at which a part begins
        self.names: list[str] = ["rest"]
        self.is_backward = False
        self.run: tuple[str, str] | None = None  # of fused operations that goes on
        self.graphs = 0  # captured work that is being replayed

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Everything inside, and its gradients, belongs to a part."""
        self._mark(name)
        self.stack.append(name)
        yield
        self.stack.pop()
        self._mark(self.stack[-1])

    @contextmanager
    def graph(self) -> Iterator[None]:
        """Everything inside is one launch."""
        self.add("graph", 0.0, ())
        self.graphs += 1
        yield
        self.graphs -= 1

    def _mark(self, name: str) -> None:
        self.borders.append(torch.autograd._get_sequence_nr())  # type: ignore[attr-defined]
        self.names.append(name)

    def here(self) -> tuple[str, str]:
        """Direction and part of the operation that is dispatched now."""
        if not self.is_backward:
            return "forward", self.stack[-1]
        node: Any = torch._C._current_autograd_node()
        if node is None or "AccumulateGrad" in node.name():
            return "backward", "sums of gradients"
        number = node._sequence_nr()
        return "backward", self.names[bisect.bisect_right(self.borders, number) - 1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        has_dtype = func._overloadname == "dtype_out"  # unknown to the meta device
        out = kwargs["out"] if has_dtype else func(*args, **kwargs)
        if name not in VIEWS and _is_on_device((args, kwargs, out)):
            told = (args, kwargs, out)
            if name in ("index_copy_", "index_put_"):  # touch what they write alone
                told = (args[-1], args[-1], ())
            self.add(name, _operations(func, args, kwargs, out), told)
        return out

    def add(self, name: str, operations: float, tensors: Any) -> None:
        """One launch."""
        key = self.here()
        sums = self.parts.setdefault(key, Sums())
        is_fused = key[1] in COMPILED and not operations
        sums.flops += operations
        if is_fused and self.run == key:
            return
        self.run = key if is_fused else None
        moved = float(sum(_bytes(x) for x in tree_leaves(tensors) if isinstance(x, Tensor)))
        sums.launches += not self.graphs
        sums.moved += moved
        seconds = max(operations / self.speed, moved / self.width)
        sums.seconds += seconds
        sums.kinds[name] += not self.graphs
        sums.times[name] += seconds


def _is_on_device(tensors: Any) -> bool:
    return any(isinstance(x, Tensor) and x.is_meta for x in tree_leaves(tensors))


def _operations(func: Any, args: Any, kwargs: Any, out: Any) -> float:
    """Of a product."""
    name = func._schema.name.split("::")[1]
    if name in ("mm", "bmm", "addmm", "baddbmm"):
        return 2.0 * args[1 if "add" in name else 0].shape[-1] * out.numel()
    if func._overloadpacket in flop_registry and name != "_flash_attention_forward":
        return float(flop_registry[func._overloadpacket](*args, **kwargs, out_val=out))
    return 0.0


def _bytes(x: Tensor) -> int:
    """Of what is really there: an expanded tensor is read once."""
    sizes = [n for n, step in zip(x.shape, x.stride(), strict=True) if step]
    return int(torch.Size(sizes).numel()) * x.element_size()


def main() -> int:
    """Print the table."""
    options = parse()
    stage, frames = (int(x) for x in options.case.split(":"))
    counted = Launches(options.tflops, options.terabytes)
    with torch.device("meta"):
        model = SpatialTTTForConditionalGeneration(spatial_ttt_2b()).to(torch.bfloat16)
    set_window(model, WINDOW[stage])
    model.model.visual.requires_grad_(False)
    processor = Processor(byte_tokenizer(), qwen3_vl_frames(SIZE))
    packed = PackedModel(model.train(), processor, 0)
    case = Case(stage, frames, options.samples, 1)
    pack = samples_of(case, model.config, SIZE, seed=0)
    for module in model.modules():
        if isinstance(module, TTTAttention):
            for weight in module.fast_weights.parameters():
                weight.data = weight.data.float()  # as the rule keeps them
    with ExitStack() as stack:
        for patched in (*as_on_a_gpu(counted), *named_parts(counted)):
            stack.enter_context(patched)
        with counted:
            loss = packed(pack).loss
            counted.is_backward = True
            loss.backward()
    tell(counted, options.kinds)
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", default="2:128", help="STAGE:FRAMES, as in train_2b.py")
    parser.add_argument("--samples", type=int, default=2, help="of the pack")
    parser.add_argument("--tflops", type=float, default=600.0, help="of the device's products")
    parser.add_argument("--terabytes", type=float, default=3.5, help="it moves in a second")
    parser.add_argument("--kinds", type=int, default=0, help="print so many operations of a part")
    return parser.parse_args()


def as_on_a_gpu(counted: Launches) -> Iterator[Any]:
    """Every choice made as on a CUDA device, Triton kernels counted instead of run."""
    from triton.runtime.jit import JITFunction

    original = kernels.resolve_backend

    def resolve(name: str, device: Any, dtype: torch.dtype, problem: str | None = None) -> Any:
        wrong = problem or dtype not in kernels.DTYPES
        return ("reference", str(wrong)) if wrong else ("triton", "counted")

    for module in list(sys.modules.values()):
        if getattr(module, "resolve_backend", None) is original:
            yield patch.object(module, "resolve_backend", resolve)

    def launch(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        width = kwargs.get("D")
        is_product = self.fn.__name__ in ("_square", "_multiply")
        share = grid[0] * kwargs["M"] * kwargs.get("N", kwargs["M"]) * grid[1] if is_product else 0
        counted.add(f"triton {self.fn.__name__}", 2.0 * share * (width or 0), args)

    yield patch.object(JITFunction, "run", launch)

    def applies(q: Tensor, *, differentiable: bool = False) -> bool:
        return differentiable or not torch.is_grad_enabled()

    yield patch.object(fused_attention, "applies", applies)

    def attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, **how: Any) -> Tensor:
        how.pop("enable_gqa", None)
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, **how)[0]

    yield patch.object(F, "scaled_dot_product_attention", attention)

    def as_graph(*args: Any) -> Products:
        products = ready(*args)

        def run() -> Tensor:
            with counted.graph():
                return products.run()

        return products._replace(run=run)

    yield patch.object(wide_scan_triton, "ready", as_graph)


def named_parts(counted: Launches) -> Iterator[Any]:
    """The functions that are the parts of the table."""

    def named(owner: Any, function: str, name: str) -> Any:
        plain: Callable[..., Any] = getattr(owner, function)

        def run(*args: Any, **kwargs: Any) -> Any:
            with counted.part(name):
                return plain(*args, **kwargs)

        return patch.object(owner, function, run)

    yield named(PackedModel, "_see", "vision tower")
    yield named(PackedModel, "_embed", "embedding")
    yield named(PackedModel, "_sums", "loss")
    yield named(Attention, "project", "projections")
    yield named(Attention, "heads", "projections: norms, rotation")
    yield named(TTTAttention, "shape", "projections: norms, rotation")
    yield named(whole_convolution, "convolve_whole", "convolution")
    yield named(TTTAttention, "_through_window", "window attention")
    yield named(TTTAttention, "_gated_sum", "gated sum")
    yield named(TTTAttention, "fast_inputs", "fast weights: inputs")
    yield named(TTTAttention, "_read_and_write", "fast weights: rest")
    yield named(fast_weights, "apply", "fast weights: apply")
    yield named(fast_weights, "gradient", "fast weights: gradient")
    yield named(fast_weights, "commit", "fast weights: commit")
    yield named(wide_scan, "scan", "fast weights: scan")
    yield named(Attention, "remember", "anchor attention")
    yield named(decoder.DecoderLayer, "feed_forward", "mlp")
    yield named(RMSNorm, "forward", "norms")


def tell(counted: Launches, kinds: int) -> None:
    """The table."""
    print(f"{'':9}{'part':32}{'launches':>9}{'TFLOP':>9}{'GB':>9}{'ms':>9}")
    for direction in ("forward", "backward"):
        found = {part: sums for (way, part), sums in counted.parts.items() if way == direction}
        for part, sums in sorted(found.items(), key=lambda pair: -pair[1].launches):
            _row(direction, part, sums)
            for kind, number in sums.kinds.most_common(kinds):
                print(f"{'':13}{number:6} {kind:42}{sums.times[kind] * 1e3:16.1f}")
        all_of_it = Sums(
            sum(s.launches for s in found.values()),
            sum(s.flops for s in found.values()),
            sum(s.moved for s in found.values()),
            sum(s.seconds for s in found.values()),
        )
        _row(direction, "all", all_of_it)


def _row(direction: str, part: str, sums: Sums) -> None:
    numbers = f"{sums.flops / 1e12:9.2f}{sums.moved / 1e9:9.1f}{sums.seconds * 1e3:9.1f}"
    print(f"{direction:9}{part:32}{sums.launches:9}{numbers}")


if __name__ == "__main__":
    sys.exit(main())
