"""What every test can rely on, whatever started the test run."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """A run started in the background inherits an ignored Ctrl-C; the programs under test must not."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
