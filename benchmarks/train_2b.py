"""A training step of the 2B model at real packed shapes, beside stock Qwen3-VL-2B at the same shapes.

    python benchmarks/train_2b.py --model ours [--cases 1:32 2:64 2:128] [--checkpointed none]
    torchrun --standalone --nproc-per-node 2 benchmarks/train_2b.py ...
    python benchmarks/train_2b.py --tiny        # the script itself, on a CPU
    python benchmarks/train_2b_all.py           # every model and setting, a process each, GPUs side by side

A case is STAGE:FRAMES at 352 x 480 pixels. Random weights and frames; frames lie pinned on the CPU as a loader
gives them, and are sent as the trainer sends them. Stage 1 has a description of 300 tokens and a window of 5,600,
stage 2 an answer of 2 tokens and 2,648. The tower is frozen. Both models have float32 masters, the same AdamW and
logits at the targets only; stock runs under FSDP2, ours on several GPUs. MFU counts the model's own operations, not
those done again by checkpointing.
Whole steps are timed without waiting for the device inside them; how they divide is seen in one more.
One JSON line per measurement, cases by rising size of pack; the first that does not fit ends the process.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn

from benchmarks.repeated import Repeated
from benchmarks.train_stock import StockPack, stock_model
from spatial_ttt.bench.record import surroundings
from spatial_ttt.engine import compile_for_training, keep_newton_schulz
from spatial_ttt.model.layout import END, Layout, join_all, slot, text
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.ttt import TTTAttention
from spatial_ttt.presets import preset, spatial_ttt_2b
from spatial_ttt.processor import Processor, qwen3_vl_frames
from spatial_ttt.testing.small import byte_tokenizer
from spatial_ttt.train.ahead import Ahead, Sent
from spatial_ttt.train.annealing import set_window
from spatial_ttt.train.at_once import append_line
from spatial_ttt.train.conversation import Encoded
from spatial_ttt.train.dataset import LoadedSample
from spatial_ttt.train.distributed import Processes, processes
from spatial_ttt.train.flops import FlopCounter, SampleShape, peak_flops
from spatial_ttt.train.garbage import collected_between_steps
from spatial_ttt.train.measures import memory_gib
from spatial_ttt.train.packed import PackedModel
from spatial_ttt.train.run_config import RatesConfig
from spatial_ttt.train.sharded_adamw import ShardedAdamW, rate_groups
from spatial_ttt.train.sharding import begin_pack, freeze, shard

RESULTS = Path(__file__).parent / "results"
RATES = {"base": 1e-6, "ttt": 1e-5, "head": 1e-6, "vision": 0.0}
COPIES = frozenset(
    {"aten::copy_", "aten::add", "aten::add_", "aten::mul", "aten::cat", "aten::sum"}
)
"""Operations whose sizes tell where they come from, in a profile."""
STAMP, QUESTION = 8, 60  # tokens of a time stamp with its mark, and of a question
TARGETS = {1: 300, 2: 2}
TOY_IDS = {
    "image_token_id": 1,
    "video_token_id": 2,
    "vision_start_token_id": 3,
    "vision_end_token_id": 4,
}
WINDOW = {1: 5600, 2: 2648}


@dataclass(frozen=True)
class Case:
    """What a step holds on each GPU."""

    stage: int
    frames: int
    samples: int
    """Of one pack: as many as fit `--max-tokens`."""
    packs: int


@dataclass
class Subject:
    """A sharded model with its optimizer."""

    name: str
    module: nn.Module
    """Takes what `send` makes of samples, returns an object with a summed `loss`."""
    send: Callable[[Sequence[LoadedSample]], Sent]
    optimizer: ShardedAdamW
    counter: FlopCounter
    set_window: Callable[[int], None]
    begin_pack: Callable[[int, int], None]
    """Told before each pack its number in the step, and how many there are."""


def main() -> int:
    """Measure every case of one model; 0 when all fitted."""
    options = parse()
    options.size = (64, 96) if options.tiny else (352, 480)
    attention = prefer_cudnn() if options.attention == "cudnn" else nullcontext()
    with attention, processes("cpu" if options.tiny else "auto") as group:
        subject = make(options.model, options, group)
        for case in cases(options):
            if not run_case(subject, case, options, group):
                return 1  # what the device was doing when memory ran out is undefined
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["ours", "stock"], default="ours")
    parser.add_argument("--cases", nargs="+", default=["1:32", "2:64", "2:128"])
    parser.add_argument("--checkpointed", default="none", help="layers: all, none or a number")
    parser.add_argument(
        "--max-tokens", type=int, nargs="+", default=[12_000, 24_000], help="of a pack"
    )
    parser.add_argument("--packs", type=int, default=2, help="packs a step on each GPU")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="the token-wise parts of ours (default: on a GPU)",
    )
    parser.add_argument(
        "--keep-newton-schulz",
        action=argparse.BooleanOptionalAction,
        help="for the backward pass of ours (default: on a GPU)",
    )
    parser.add_argument(
        "--attention", choices=["auto", "cudnn"], default="auto", help="of full attention"
    )
    parser.add_argument("--profile", action="store_true", help="print where the time goes, too")
    parser.add_argument("--tiny", action="store_true", help="a toy model on the CPU")
    parser.add_argument("--commit", help="of this code, where there is no repository")
    parser.add_argument("--out", type=Path, default=RESULTS / "train_2b.jsonl")
    options = parser.parse_args()
    if options.compile is None:
        options.compile = not options.tiny
    if options.keep_newton_schulz is None:
        options.keep_newton_schulz = not options.tiny
    return options


def prefer_cudnn() -> AbstractContextManager[None]:
    """Full attention through cuDNN, with the others behind it."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION,
             SDPBackend.MATH]  # fmt: skip
    return sdpa_kernel(order, set_priority=True)


def make(name: str, options: argparse.Namespace, group: Processes) -> Subject:
    """A model of random weights, dealt out."""
    config = preset("test", token_ids=TOY_IDS) if options.tiny else spatial_ttt_2b()
    precision = torch.float32 if options.tiny else torch.bfloat16
    torch.manual_seed(0)
    rates, how = RatesConfig(learning_rate=RATES), options.checkpointed
    if name == "stock":
        module, stock_config = stock_model(config, how, group, precision)
        optimizer = ShardedAdamW(rate_groups(module, rates, RATES), rates, group)
        counter = FlopCounter(stock_config, 1 << 30, trains_vision=False)
        return Subject(
            name,
            module,
            lambda samples: StockPack(samples, group.device),
            optimizer,
            counter,
            lambda _: None,
            lambda *_: None,
        )
    with torch.device(group.device):
        model = SpatialTTTForConditionalGeneration(config).float()
    open_gates(model)
    freeze(model, RATES)
    layers = len(model.decoder.layers)
    checkpointed = {"all": layers, "none": 0}.get(how)
    number = int(how) if checkpointed is None else checkpointed
    processor = Processor(byte_tokenizer(), qwen3_vl_frames(options.size))
    packed = PackedModel(model.train(), processor, number)
    shard(packed, group, precision)
    if options.compile:
        compile_for_training(model)
    if options.keep_newton_schulz:
        keep_newton_schulz(model)
    optimizer = ShardedAdamW(rate_groups(packed, rates, RATES), rates, group)
    counter = FlopCounter(config, config.ttt_config.window_size, trains_vision=False)
    return Subject(
        name,
        packed,
        packed.given,
        optimizer,
        counter,
        lambda tokens: set_window(model, tokens),
        partial(begin_pack, packed),
    )


def open_gates(model: SpatialTTTForConditionalGeneration) -> None:
    """Fresh gates are zero and would hide the branch's gradients."""
    for module in model.modules():
        if isinstance(module, TTTAttention) and module.ttt_scale_proj is not None:
            nn.init.normal_(module.ttt_scale_proj.weight, std=0.02)


def samples_of(case: Case, config: Any, size: tuple[int, int], seed: int) -> list[LoadedSample]:
    """Random samples whose time stamps differ in length, as those of different clips do."""
    generator = torch.Generator().manual_seed(seed)
    grid = (size[0] // 32, size[1] // 32)
    made = []
    for number in range(case.samples):
        slots = case.frames // 2
        targets = TARGETS[case.stage]
        pieces: list[Layout] = [(text(4),)]
        ids = [5] * 4
        for _ in range(slots):
            stamp = STAMP + (number % 3)
            pieces += [(text(stamp),), (slot(*grid),), (text(1),)]
            ids += [*[7] * stamp, *[config.video_token_id] * (grid[0] * grid[1]), 8]
        pieces += [(END,), (text(QUESTION + targets),)]
        ids += torch.randint(9, 200, (QUESTION + targets,), generator=generator).tolist()
        is_target = [False] * (len(ids) - targets) + [True] * targets
        frames = torch.randint(
            0, 256, (case.frames, *size, 3), dtype=torch.uint8, generator=generator
        )
        made.append(LoadedSample(f"{number}", Encoded(ids, is_target, join_all(pieces)), (frames,)))
    return made


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """What to measure, smaller packs first."""
    sizes = [2_000] if options.tiny else sorted(options.max_tokens)
    found = []
    for text_case in options.cases:
        stage, frames = (int(part) for part in text_case.split(":"))
        if options.tiny:
            frames = 2 * max(1, frames // 16)
        per_slot = (options.size[0] // 32) * (options.size[1] // 32) + STAMP + 3
        length = frames // 2 * per_slot + QUESTION + TARGETS[stage] + 8
        counts = dict.fromkeys(max(1, size // length) for size in sizes)
        found += [(count * length, Case(stage, frames, count, options.packs)) for count in counts]
    yield from (case for _, case in sorted(found, key=lambda pair: pair[0]))


def run_case(subject: Subject, case: Case, options: argparse.Namespace, group: Processes) -> bool:
    """Measure one case; False where it did not fit into memory."""
    line = surroundings(group.device, options.commit)
    line |= {"model": subject.name, "stage": case.stage, "frames": case.frames}
    line |= {"samples_per_pack": case.samples, "packs_per_gpu": case.packs, "gpus": group.world}
    line |= {"checkpointed": options.checkpointed, "attention": options.attention}
    is_ours = subject.name == "ours"
    line |= {"compiled": options.compile and is_ours}
    line |= {"keeps_newton_schulz": options.keep_newton_schulz and is_ours}
    fits = True
    try:
        line |= measure(subject, case, options, group)
    except torch.OutOfMemoryError:
        if group.world > 1:
            raise  # the others would wait for ever
        fits = False
        line |= {"problem": "out of memory"}
    if group.is_first:
        hidden = ("versions", "time", "flops_by_part", "all_seconds")
        print({key: value for key, value in line.items() if key not in hidden}, flush=True)
        append_line(options.out, json.dumps(line))
    return fits


def measure(
    subject: Subject, case: Case, options: argparse.Namespace, group: Processes
) -> dict[str, Any]:
    """Median seconds of a step and what follows from them."""
    window = WINDOW[case.stage] if not options.tiny else 128
    subject.set_window(window)
    config = subject.counter.config
    is_cuda = group.device.type == "cuda"
    pack = samples_of(case, config, options.size, seed=group.rank)
    packs = Ahead(Repeated(pack, pinned=is_cuda), subject.send, group.device)
    shapes = [SampleShape(len(s.encoded.ids), s.encoded.num_targets, s.grids) for s in pack]
    counter = subject.counter
    if subject.name == "ours":
        counter = FlopCounter(config, window, trains_vision=False)
    began = time.perf_counter()
    step(subject, packs, case.packs, Watch(is_cuda))  # code is made, memory is found
    first = time.perf_counter() - began
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    step(subject, packs, case.packs, Watch(is_cuda))
    with collected_between_steps():  # as the trainer does
        times = [timed(subject, packs, case.packs, is_cuda) for _ in range(options.steps)]
    watch = Watch(is_cuda)
    step(subject, packs, case.packs, watch)
    seconds = sorted(times)[len(times) // 2]
    tokens = sum(shape.tokens for shape in shapes) * case.packs
    flops = counter.step(shapes) * case.packs
    peak = peak_flops(group.device)
    if options.profile and group.is_first:
        profile_step(subject, packs, is_cuda)
    return {
        "tokens_per_gpu": tokens,
        "seconds": seconds,
        "all_seconds": times,
        "first_seconds": first,
        "parts": watch.parts,
        "tokens_per_second": tokens * group.world / seconds,
        "tflops_per_gpu": flops / seconds / 1e12,
        "mfu": flops / seconds / peak if peak else None,
        "peak_gib": memory_gib(group.device),
        "flops_by_part": counter.forward(shapes[0]) | {"vision": counter.vision(shapes[0])},
    }


def timed(subject: Subject, packs: Ahead[Sent], count: int, is_cuda: bool) -> float:
    """Seconds of a whole step."""
    began = time.perf_counter()
    step(subject, packs, count, Watch(False))
    if is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


class Watch:
    """Seconds by part, the device waited for at every border."""

    def __init__(self, is_cuda: bool) -> None:
        self.is_cuda = is_cuda
        self.parts: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time of a block to a part."""
        began = time.perf_counter()
        yield
        if self.is_cuda:
            torch.cuda.synchronize()
        self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - began


def step(subject: Subject, packs: Ahead[Sent], count: int, watch: Watch) -> None:
    """Forward and backward passes of `count` packs, then one update."""
    targets = 0
    for number in range(count):
        subject.begin_pack(number, count)
        with watch.part("forward"):
            pack, sent = packs.next_pack()
            loss: Tensor = subject.module(sent).loss
        with watch.part("backward"):
            loss.backward()
        packs.fetch()
        targets += sum(s.encoded.num_targets for s in pack.samples)
    with watch.part("update"):
        subject.optimizer.normalise(float(targets))
        subject.optimizer.step(1.0)


def profile_step(subject: Subject, packs: Ahead[Sent], is_cuda: bool) -> None:
    """Print the functions of Python and the kernels that take longest in a pack."""
    from torch.profiler import ProfilerActivity, profile

    python = cProfile.Profile()
    subject.begin_pack(0, 1)
    # The backward pass has its own thread.
    loss = python.runcall(lambda: subject.module(packs.next_pack()[1]).loss)
    loss.backward()
    subject.optimizer.step(1.0)
    pstats.Stats(python).sort_stats("tottime").print_stats(50)
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if is_cuda else [])
    with profile(activities=kinds, record_shapes=True) as found:
        step(subject, packs, 1, Watch(is_cuda))
    key = "self_device_time_total" if is_cuda else "self_cpu_time_total"
    print(
        found.key_averages().table(sort_by=key, row_limit=45, max_name_column_width=80), flush=True
    )
    copies = [e for e in found.key_averages(group_by_input_shape=True) if e.key in COPIES]
    for event in sorted(copies, key=lambda e: -float(getattr(e, key)))[:40]:
        print(
            f"{getattr(event, key) / 1e3:9.3f} ms {event.count:5} {event.key} {event.input_shapes}"
        )


if __name__ == "__main__":
    sys.exit(main())
