"""Python's garbage, collected between steps.

A step makes so many objects that the collector looks through all of them in the middle of it, again and again, and on
every process at another moment, for which all the others wait.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 50
"""Steps from one collection to the next."""


@contextmanager
def collected_between_steps(every: int = EVERY) -> Iterator[Callable[[], None]]:
    """Nothing is collected within the block but when the given function, called after each step, says so.

    What was there before the block is not looked through any more; afterwards all is as it was.
    """
    was_on, steps = gc.isenabled(), 0

    def after_step() -> None:
        nonlocal steps
        steps += 1
        if steps % every == 0:
            gc.collect()

    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield after_step
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()
