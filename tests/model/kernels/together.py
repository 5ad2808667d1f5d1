"""Operations checked in one process of its own, which takes longer to begin than most of them take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[3]


class Found(NamedTuple):
    """What a process tells of each operation that did not raise, and what it said else."""

    by_operation: dict[str, Any]
    errors: str

    def of(self, operation: str) -> Any:
        """Fails where the operation raised, with the traceback."""
        assert operation in self.by_operation, self.errors[-6000:]
        return self.by_operation[operation]


def tell_each(operations: Sequence[str], find: Callable[[str], Any]) -> int:
    """Print what is found of each as a line of JSON; where one raises, the others go on. Returns an exit code."""
    failed = 0
    for operation in operations:
        try:
            found = find(operation)
        except Exception:
            failed = 1
            sys.stderr.write(f"{operation}:\n{traceback.format_exc()}")
        else:
            sys.stdout.write(json.dumps({operation: found}) + "\n")
            sys.stdout.flush()
    return failed


def ask(module: str, operations: Sequence[str], environment: Mapping[str, str]) -> Found:
    """What `tell_each` prints when the module is run for these operations."""
    done = subprocess.run(
        [sys.executable, "-m", module, *operations],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        timeout=1200,
    )
    found: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        if line.startswith('{"'):
            found |= json.loads(line)
    return Found(found, done.stderr)


def operations_for(test: Callable[..., None], request: pytest.FixtureRequest) -> list[str]:
    """Those for which this session runs the test."""
    items = (item for item in request.session.items if isinstance(item, pytest.Function))
    return [item.callspec.params["operation"] for item in items if item.function is test]
