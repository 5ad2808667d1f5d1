"""The C library's heap: what of it is in use, and giving the rest back to the system.

A stream's tensors are made anew with every slot, on several threads. The C library keeps what is freed in
between for later and seldom gives it back: many sessions leave holes of a tenth of the process and more.
Where it is not glibc (musl, macOS, an allocator that was preloaded) nothing is known and nothing done.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


class _Mallinfo2(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


@cache
def _library() -> Any | None:
    """glibc 2.33 or later, or None."""
    try:
        library = ctypes.CDLL(None)
        library.mallinfo2.restype = _Mallinfo2
        library.malloc_trim.argtypes = (ctypes.c_size_t,)
    except (OSError, AttributeError):
        return None
    return library


def live_bytes() -> int | None:
    """Bytes that the process has allocated and not freed; None where the library does not tell."""
    library = _library()
    if library is None:
        return None
    info = library.mallinfo2()
    return int(info.uordblks + info.hblkhd)


def give_back() -> None:
    """Return free pages of the heap to the system: about 10 ms per 500 MB. Call it from a thread."""
    library = _library()
    if library is not None:
        library.malloc_trim(0)
