"""Run Triton kernels on the CPU: Triton's interpreter, mended for numpy 2.4 and later, and three times as fast.

Import before any kernel, in a process of its own; TRITON_INTERPRET is read when kernels are defined, Triton's own
among them, so it must be set before anything (transformers, say) imports Triton.

Most of the interpreter's time goes into what changes no number, and is left out here. It puts its own functions in
the language's place at every launch and wherever one function calls another: nothing else uses the language in this
process, so once is enough. It looks whether integers overflow and drops what it found. It makes the same shapes anew.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from operator import index
from typing import Any, NamedTuple

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import triton.language as tl
from triton.language import core
from triton.runtime import interpreter

_patch_tensor = interpreter._patch_lang_tensor
_init_block_type = core.block_type.__init__
_init_tensor = core.tensor.__init__
_numpy_type_of_scalars = cache(interpreter._get_np_dtype)


def _patch_lang_tensor(tensor: Any, scope: Any) -> None:
    """Loop bounds are arrays of one entry, which numpy no longer turns into integers by itself."""
    _patch_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


class _Shape(NamedTuple):
    """What a type of blocks and a tensor of it say of their shape."""

    of_type: Any
    count: int
    text: str
    of_tensor: Any
    numel: Any


@cache
def _shape(sizes: tuple[int, ...]) -> _Shape:
    made = core.block_type.__new__(core.block_type)
    _init_block_type(made, tl.float32, list(sizes))
    tensor = core.tensor.__new__(core.tensor)
    _init_tensor(tensor, None, made)
    return _Shape(made.shape, made.numel, str(made.shape), tensor.shape, tensor.numel)


def _block_type(self: Any, element: Any, sizes: Any) -> None:
    self.element_ty = element
    self.kept = _shape(tuple(map(index, sizes)))
    self.shape, self.numel = self.kept.of_type, self.kept.count
    self.name = f"<{self.kept.text}, {element}>"


def _tensor(self: Any, handle: Any, type: Any) -> None:
    if not type.is_block():
        _init_tensor(self, handle, type)
        return
    self.handle, self.type, self.dtype = handle, type, type.element_ty
    self.shape, self.numel = type.kept.of_tensor, type.kept.numel


def _equal_tuples(self: Any, other: Any) -> Any:
    return core.constexpr(self.values == list(core._unwrap_if_constexpr(other)))


def _numpy_type(of: Any) -> Any:
    scalar = of.scalar
    return np.dtype(np.uint64) if scalar.is_ptr() else _numpy_type_of_scalars(scalar)


interpreter._patch_lang_tensor = _patch_lang_tensor
interpreter._patch_lang(_patch_lang_tensor)
interpreter._patch_lang = lambda fn: interpreter._LangPatchScope()
_builder = interpreter.interpreter_builder
_builder.options = replace(_builder.options, sanitize_overflow=False)
core.block_type.__init__, core.tensor.__init__ = _block_type, _tensor
core.tuple.__eq__ = _equal_tuples
interpreter._get_np_dtype = _numpy_type
