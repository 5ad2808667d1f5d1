"""From an error to an exit code and one sentence on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from spatial_ttt.errors import SpatialTTTError

OK, USER_MISTAKE, INTERRUPTED = 0, 1, 130

_EXTRAS = {
    "moderngl": "scenes",
    "scipy": "scenes",
    "matplotlib": "scenes",
    "tensorboard": "train",
    "fastapi": "serve",
    "uvicorn": "serve",
    "websockets": "serve",
    "httpx": "serve",
    "prometheus_client": "serve",
    "rerun": "rerun",
    "pyarrow": "lerobot",
}
"""Which extra of the package brings an optional dependency."""


def report_errors(run: Callable[[], None]) -> int:
    """Run a command; its exit code. Usage errors were told by then; others are told here."""
    try:
        run()
    except SystemExit as stop:  # typer's way to end: 0, 2 for usage, or what a command chose
        return stop.code if isinstance(stop.code, int) else OK
    except KeyboardInterrupt:
        return INTERRUPTED
    except SpatialTTTError as error:
        return _tell(str(error))
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        return _tell(
            f"this needs {error.name}; install it with: pip install 'spatial-ttt[{extra}]'"
        )
    return OK


def _tell(message: str) -> int:
    logging.getLogger(__name__).debug("where it happened:", exc_info=True)
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return USER_MISTAKE
