"""Run Triton kernels on the CPU: Triton's interpreter, mended for numpy 2.4 and later.

Import before any kernel, in a process of its own; TRITON_INTERPRET is read when kernels are defined, Triton's own
among them, so it must be set before anything (transformers, say) imports Triton.
"""

from __future__ import annotations

import os
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

from triton.runtime import interpreter

_original = interpreter._patch_lang_tensor


def _patch_lang_tensor(tensor: Any, scope: Any) -> None:
    """Loop bounds are arrays of one entry, which numpy no longer turns into integers by itself."""
    _original(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


interpreter._patch_lang_tensor = _patch_lang_tensor
