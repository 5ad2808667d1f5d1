"""Fast versions of the model's hot operations, each beside a plain reference with the same signature.

For training, with backward passes of their own:

    newton_schulz   orthogonalisation that saves only its input        newton_schulz.py, newton_schulz_triton.py
    convolution     depthwise 3x3x3 over slots                         convolution.py, convolution_triton.py,
                                                                       convolution_gradient_triton.py
    scan            the whole fast-weight recurrence, narrow heads     scan.py, scan_triton.py
    wide_scan       the same for wide heads, products by the library   wide_scan.py, wide_scan_triton.py,
                                                                       kept_steps_triton.py
    network         reads and writes of any width, between products    network.py, network_triton.py
    mixing          what surrounds the scan, one pass each             mixing.py, mixing_triton.py
    trained_heads   what a token brings along, one pass each           trained_heads.py, trained_heads_triton.py
    cudnn_attention windows and whole sequences, by the library        cudnn_attention.py

For streams, without gradients:

    shaping         norms, rotation, heads, what a token brings along  shaping.py, shaping_triton.py
    attention       keys whose number only the device knows            attention.py, attention_triton.py
    tower_attention      full attention within slots          tower_attention.py, tower_attention_triton.py
    blocks          a bounded anchor's blocks where they lie           blocks_triton.py
    merging         partial softmaxes as one                           merging_triton.py
    commit          sums and writes of wide fast weights               commit.py, commit_triton.py
    factors         reads and writes of other widths                   factors.py, factors_triton.py
    stream_convolution   slots convolved where their tokens lie        stream_convolution_triton.py
    patching        frames to patches                                  patching.py, patching_triton.py
    runs            windows of keys and values copied                  runs.py, runs_triton.py

Of both, lists of launches become one in captured.py.

Call sites ask `resolve_backend`; it picks once, says why in the log, and never falls back in silence.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from typing import Literal

import torch

from spatial_ttt.errors import ConfigError

Backend = Literal["reference", "triton"]
VARIABLE = "SPATIAL_TTT_KERNELS"
CHOICES = ("auto", "reference", "triton")
DTYPES = (torch.bfloat16, torch.float32)

_log = logging.getLogger(__name__)
_override: list[str] = []


@contextmanager
def request_backend(name: str) -> Iterator[None]:
    """Ask for "auto", "reference" or "triton" inside the block; outside, the variable SPATIAL_TTT_KERNELS rules."""
    _check(name, "request_backend")
    _override.append(name)
    try:
        yield
    finally:
        _override.pop()


def requested_backend() -> str:
    """What the caller or the environment asks for: "auto", "reference" or "triton"."""
    if _override:
        return _override[-1]
    return _check(os.environ.get(VARIABLE, "auto"), VARIABLE)


def resolve_backend(
    operation: str, device: torch.device, dtype: torch.dtype, problem: str | None = None
) -> tuple[Backend, str]:
    """The backend of one operation and the reason, logged once.

    `problem` says what keeps this operation's kernel from these inputs (None: nothing). Raises
    ConfigError when Triton is asked for and cannot run.
    """
    resolve = _resolved if device.type == "cuda" else _resolve
    name, reason, told = resolve(requested_backend(), operation, device, dtype, problem)
    _announce(operation, name, told)
    return name, reason


def _resolve(
    wanted: str, operation: str, device: torch.device, dtype: torch.dtype, problem: str | None
) -> tuple[Backend, str, str]:
    """The backend, the reason, and what the log says."""
    obstacle = problem or _obstacle(device, dtype)
    if wanted == "triton" and obstacle:
        raise ConfigError(
            f"the Triton kernel of {operation} was asked for and cannot run: {obstacle}; "
            f"set {VARIABLE} to auto or reference"
        )
    name: Backend = "reference" if wanted == "reference" or obstacle else "triton"
    if wanted == "auto" and name == "triton" and device.type != "cuda":
        name, obstacle = "reference", "the interpreter is for tests"
    reason = obstacle or f"{wanted} on {device.type}"
    return name, reason, f"{wanted} was asked for" if wanted == "reference" else reason


_resolved = lru_cache(maxsize=256)(_resolve)
"""The same on a GPU, where nothing else changes the answer and layers ask thousands of times per second."""


def interpreting() -> bool:
    """Triton runs its kernels in Python, on any device (TRITON_INTERPRET=1 before the first import)."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def _check(name: str, source: str) -> str:
    if name not in CHOICES:
        raise ConfigError(f"{source} must be one of {', '.join(CHOICES)}, got {name!r}")
    return name


def _obstacle(device: torch.device, dtype: torch.dtype) -> str | None:
    if dtype not in DTYPES:
        return f"kernels are for bfloat16 and float32, not {str(dtype).removeprefix('torch.')}"
    if device.type != "cuda" and not interpreting():
        return f"no kernels for device type {device.type}"
    if not _has_triton():
        return "triton is not installed"
    if device.type == "cuda" and _capability(device) < (8, 0):
        return "the kernels need compute capability 8.0 or newer"
    return None


@lru_cache(maxsize=1)
def _has_triton() -> bool:
    return find_spec("triton") is not None


@lru_cache(maxsize=16)
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


@lru_cache(maxsize=256)
def _announce(operation: str, name: Backend, reason: str) -> None:
    _log.info("%s: %s backend (%s)", operation, name, reason)
