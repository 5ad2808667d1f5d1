"""The benchmarks, each read from the user's own files: `load_benchmark(name, data)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from spatial_ttt.errors import ConfigError
from spatial_ttt.eval.benchmarks import mindcube, procedural, vsi_bench, vsi_super
from spatial_ttt.eval.benchmarks.item import Benchmark, BenchmarkItem, Clip, FrameSampling
from spatial_ttt.eval.benchmarks.media import check_clips
from spatial_ttt.eval.benchmarks.records import read_rows

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "BenchmarkItem",
    "Clip",
    "FrameSampling",
    "load_benchmark",
    "read_questions",
]

_LOADERS: dict[str, tuple[Callable[[Path], Benchmark], str]] = {
    "vsi-bench": (vsi_bench.load_vsi_bench, vsi_bench.WHAT),
    "mindcube-tiny": (mindcube.load_mindcube_tiny, mindcube.WHAT),
    "mindcube": (mindcube.load_mindcube, mindcube.WHAT),
    "vsr": (vsi_super.load_vsr, vsi_super.WHAT_RECALL),
    "vsc": (vsi_super.load_vsc, vsi_super.WHAT_COUNT),
    "vsc-streaming": (vsi_super.load_vsc_streaming, vsi_super.WHAT_COUNT),
    "procedural": (procedural.load_procedural, procedural.WHAT),
}
BENCHMARKS = tuple(_LOADERS)
"""The names `--benchmark` knows."""


def load_benchmark(
    name: str, data: Path, *, only: Mapping[str, str] | None = None, with_clips: bool = True
) -> Benchmark:
    """Read benchmark `name` from `data`, a folder or the question file itself.

    `only` keeps the items whose type or tags match. `with_clips` checks that every clip is there
    and whole, before anything is asked; turn it off to score replies made elsewhere.
    """
    if name not in _LOADERS:
        raise ConfigError(f"no benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    loader, what = _LOADERS[name]
    benchmark = loader(Path(data))
    if only:
        benchmark = benchmark.only(only)
    if with_clips:
        check_clips(benchmark.items, what)
    return benchmark


def read_questions(source: Path) -> tuple[BenchmarkItem, ...]:
    """Questions of VSI-Bench's file or of the project's own examples.jsonl; clips need not exist."""
    rows = read_rows(source)
    if "conversations" in rows[0].fields:
        return procedural.load_procedural(source).items
    return vsi_bench.read_questions(source)
