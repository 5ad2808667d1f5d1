"""Compile every kernel for a Hopper GPU on a machine without a GPU; nothing is run.

    python -m tests.model.kernels.hopper [OPERATION ...]       # a line of JSON each: what each kernel takes

The fast side of each check is called with Triton's compiler in place of its launches, so every variant that the
checks use is built: what the language does not have, the compiler does not take or a multiprocessor
has no shared memory for shows here, before a GPU does. A process of its own: Triton's driver is replaced.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from spatial_ttt.model import kernels
from tests.model.kernels.check import Check
from tests.model.kernels.checks import CHECKS
from tests.model.kernels.together import tell_each


class _Hopper:
    """A driver that knows what to compile for, and nothing else."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0


def _resolve(
    operation: str, device: torch.device, dtype: torch.dtype, problem: str | None = None
) -> tuple[str, str]:
    """Kernels apply where a GPU would run them, on tensors that lie on the CPU."""
    return ("reference" if problem or dtype not in DTYPES else "triton"), "compiled only"  # type: ignore[name-defined]  # noqa: F821


def compile_all(operations: Sequence[str]) -> int:
    """Print, by operation and kernel: variants built, and the most of one: shared and spilled bytes, registers.

    Registers and what does not fit into them are those of a thread.
    """
    found: dict[str, dict[str, int]] = {}
    variants: dict[str, set[str]] = {}
    launch = JITFunction.run

    def only_compile(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        built = launch(self, *args, grid=grid, warmup=True, **options)
        name = self.__name__
        known = variants.setdefault(name, set())
        if built.hash not in known:
            known.add(built.hash)
            most = found.get(name, {})
            takes = {"shared_bytes": built.metadata.shared, **_thread(built.asm["cubin"])}
            found[name] = {what: max(most.get(what, 0), n) for what, n in takes.items()}
            found[name]["variants"] = len(known)
        return built

    def of(operation: str) -> dict[str, dict[str, int]]:
        found.clear()
        variants.clear()
        for check in CHECKS[operation](torch.device("cpu")):
            _call(check)
        return found

    driver.set_active(_Hopper())
    JITFunction.run = only_compile
    kernels.resolve_backend.__code__ = _resolve.__code__  # whoever imported it has this one
    return tell_each(operations, of)


@cache
def _thread(binary: bytes) -> dict[str, int]:
    """What a thread takes: registers, and bytes of what does not fit into them."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        told = subprocess.run(
            [knobs.nvidia.cuobjdump.path, "-res-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    used = {what: int(n) for what, n in re.findall(r"(REG|STACK|LOCAL):(\d+)", told)}
    return {"registers": used["REG"], "spilled_bytes": used["STACK"] + used["LOCAL"]}


def _call(check: Check) -> None:
    """The fast function, and its gradients where it has some; the numbers mean nothing."""
    inputs = [
        x.clone().requires_grad_(check.has_gradients and x.is_floating_point())
        for x in check.inputs
    ]
    with torch.set_grad_enabled(check.has_gradients):
        out = check.fast(*inputs)
    if check.has_gradients:
        parts = out if isinstance(out, tuple) else (out,)
        total = sum((o.float().sum() for o in parts if o.requires_grad), torch.zeros(()))
        assert isinstance(total, Tensor)
        total.backward()


if __name__ == "__main__":
    sys.exit(compile_all(sys.argv[1:] or list(CHECKS)))
