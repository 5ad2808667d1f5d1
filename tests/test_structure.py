"""The shape of the code: ranks, sizes, borders, and a test file for every module."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "spatial_ttt"
TESTS = ROOT / "tests"
MAX_FILE, MAX_FUNCTION = 400, 60

LAZY_KERNELS = {
    ("model.newton_schulz", "model.kernels.newton_schulz"),
    ("model.fast_weights", "model.kernels.scan"),
    ("model.fast_weights", "model.kernels.wide_scan"),
}
"""Imports inside functions that point up: from the plain formula to its kernel."""

LAZY_COMMANDS = {
    ("testing.golden", f"testing.golden_{kind}") for kind in ("unit", "layer", "model")
}
"""Imports inside functions within a folder that would be circles at the top."""

BARE_CATCHES = {"scenes/renderer.py": "moderngl and its loader raise bare Exceptions"}

_KERNEL = "a kernel's state lives in the registers of one function"
LONG_FUNCTIONS = {
    "cli.serve.serve": "an option a line: its signature is the command's reference",
    "model.kernels.scan_triton.backward": _KERNEL,
    "model.kernels.scan_triton.forward": _KERNEL,
}
"""Functions that may be longer than the rest, and why."""

COVERED_ELSEWHERE = {
    "bench.*": "bench/test_run.py",  # one run at toy size drives them all
    "bench.__main__": "cli/test_bench.py",
    "cli.demo": "test_demo.py",
    "cli.progress": "cli/test_data.py",
    "serve.*": "serve/test_sessions.py",  # driven whole, through its HTTP and WebSocket doors
    "eval.benchmarks.media": "eval/benchmarks/test_benchmarks.py",
    "eval.benchmarks.mindcube": "eval/benchmarks/test_benchmarks.py",
    "eval.benchmarks.procedural": "eval/benchmarks/test_benchmarks.py",
    "eval.benchmarks.records": "eval/benchmarks/test_benchmarks.py",
    "eval.benchmarks.vsi_super": "eval/benchmarks/test_benchmarks.py",
    "eval.frames": "eval/test_evaluate.py",
    "eval.page": "eval/test_report.py",
    "eval.published": "eval/test_report.py",
    "eval.question_types": "eval/test_metrics.py",
    "eval.tables": "eval/test_evaluate.py",
    "eval.thumbnails": "eval/test_report.py",
    "eval.variants": "eval/test_models.py",
    "model.kernels.*": "model/kernels/test_kernels.py",
    "pieces": "test_session.py",
    "stream_state": "test_session.py",
    "scenes.catalogue.*": "scenes/catalogue/test_catalogue.py",
    "scenes.glsl": "scenes/test_renderer.py",
    "scenes.shading_code": "scenes/test_shading.py",
    "scenes.raycast_kernel": "scenes/test_raycast.py",
    "testing.authors_decode": "test_golden.py",
    "testing.golden_layer": "test_golden.py",
    "testing.golden_model": "test_golden.py",
    "testing.golden_unit": "test_golden.py",
}
"""Modules that no test imports by name, and the test that runs them."""


class Import(NamedTuple):
    """One import of one of our modules."""

    module: str  # "" is the package itself
    line: int
    is_lazy: bool  # inside a function


@cache
def modules() -> dict[str, Path]:
    """Every module by its dotted name below the package; a folder's __init__ has the folder's name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def for_types_only(path: Path) -> set[int]:
    """Nodes under `if TYPE_CHECKING:`."""
    return {
        id(inner)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }


@cache
def raw_imports(path: Path) -> list[tuple[str, int, bool]]:
    """(absolute name, line, inside a function) of every import that runs."""
    skipped = for_types_only(path)
    functions = [
        n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lazy = {id(inner) for function in functions for inner in ast.walk(function)}
    found = []
    for node in ast.walk(tree(path)):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found += [
                (f"{node.module}.{a.name}", node.lineno, id(node) in lazy) for a in node.names
            ]
        elif isinstance(node, ast.Import):
            found += [(a.name, node.lineno, id(node) in lazy) for a in node.names]
    return found


@cache
def imports(name: str) -> tuple[Import, ...]:
    """The imports of one of our modules among ourselves."""
    found = []
    for target, line, is_lazy in raw_imports(modules()[name]):
        if target.split(".")[0] == "spatial_ttt":
            own = target.removeprefix("spatial_ttt").removeprefix(".")
            while own not in modules():
                own = own.rpartition(".")[0]
            found.append(Import(own, line, is_lazy))
    return tuple(i for i in found if i.module != name)


@cache
def ranks() -> dict[str, int]:
    """The table in docs/architecture.md."""
    block = re.search(r"```ranks\n(.*?)```", (ROOT / "docs/architecture.md").read_text(), re.DOTALL)
    assert block, "docs/architecture.md has no block of ranks"
    table = {}
    for line in block[1].splitlines():
        number, *names = line.split()
        for name in names:
            assert name not in table, f"{name} stands twice in the table of ranks"
            table[name] = int(number)
    return table


def rank(name: str) -> int:
    """Of the module itself, or of the folder it lies in."""
    table, folder = ranks(), name
    if not name:
        return table["spatial_ttt"]
    if name in table:
        return table[name]
    while folder := folder.rpartition(".")[0]:
        if f"{folder}.*" in table:
            return table[f"{folder}.*"]
    raise AssertionError(f"{name} has no rank; add it to docs/architecture.md")


def folders() -> list[str]:
    return sorted({name.partition(".")[0] for name in modules() if "." in name} | {""})


def of_folder(folder: str) -> list[str]:
    if not folder:
        return [n for n, p in modules().items() if p.parent == PACKAGE]
    return [n for n in modules() if n == folder or n.startswith(f"{folder}.")]


@pytest.mark.parametrize("folder", folders())
def test_imports_point_down(folder):
    wrong = []
    for name in of_folder(folder):
        for found in imports(name):
            same_rank_and_folder = rank(found.module) == rank(name) and _top(found.module) == _top(
                name
            )
            if rank(found.module) < rank(name) or same_rank_and_folder:
                continue
            if found.is_lazy and (name, found.module) in LAZY_KERNELS:
                continue
            wrong.append(
                f"{name} (rank {rank(name)}) imports {found.module} (rank {rank(found.module)}), line {found.line}"
            )
    assert not wrong, "\n".join(wrong)


def _top(name: str) -> str:
    return name.partition(".")[0] if "." in name or (PACKAGE / name).is_dir() else name


def test_no_import_goes_in_a_circle():
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " > ".join((*above[above.index(name) :], name))
        if name in done:
            return
        for found in imports(name):
            if not (found.is_lazy and (name, found.module) in LAZY_KERNELS | LAZY_COMMANDS):
                visit(found.module, (*above, name))
        done.add(name)

    for name in modules():
        visit(name, ())


def test_every_rank_names_something():
    for name in ranks():
        plain = name.removesuffix(".*")
        assert name == "spatial_ttt" or plain in modules(), f"the table of ranks names {name}"


@pytest.mark.parametrize("folder", ["spatial_ttt", "tests", "benchmarks", "scripts"])
def test_files_are_short(folder):
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > MAX_FILE
    }
    assert not long, f"more than {MAX_FILE} lines: {long}"


@pytest.mark.parametrize("folder", folders())
def test_functions_are_short(folder):
    long = {name: lines for name, lines in long_functions(folder) if name not in LONG_FUNCTIONS}
    assert not long, f"more than {MAX_FUNCTION} lines: {long}"


def long_functions(folder: str) -> list[tuple[str, int]]:
    """(dotted name, lines) of functions that are longer than they should be."""
    return [
        (f"{name}.{node.name}", lines)
        for name in of_folder(folder)
        for node in ast.walk(tree(modules()[name]))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION
    ]


@cache
def imported_by_tests() -> frozenset[str]:
    """Modules that a test file imports by name."""
    names = set()
    for path in TESTS.rglob("test_*.py"):
        for target, _, _ in raw_imports(path):
            if target.split(".")[0] == "spatial_ttt":
                own = target.removeprefix("spatial_ttt").removeprefix(".")
                while own not in modules():
                    own = own.rpartition(".")[0]
                names.add(own)
    return frozenset(names)


def covering(name: str) -> str | None:
    """The test file that COVERED_ELSEWHERE names for a module."""
    folder = f"{name.rpartition('.')[0]}.*"
    return COVERED_ELSEWHERE.get(name, COVERED_ELSEWHERE.get(folder))


@pytest.mark.parametrize("folder", folders())
def test_every_module_has_a_test_file(folder):
    missing = []
    for name in of_folder(folder):
        if modules()[name].name == "__init__.py" or name == "__main__":
            continue  # a package speaks through its modules
        *above, last = name.split(".")
        last = last.removesuffix("_triton")  # a kernel is tested beside its plain version
        own = Path(*above, f"test_{last}.py")
        elsewhere = covering(name)
        if not (
            (TESTS / own).is_file()
            or name in imported_by_tests()
            or (elsewhere and (TESTS / elsewhere).is_file())
        ):
            missing.append(f"{name}: tests/{own}")
    assert not missing, "no test file, and no test imports it:\n" + "\n".join(missing)


def test_exceptions_are_still_needed():
    for name, test in COVERED_ELSEWHERE.items():
        assert name.removesuffix(".*") in modules() and (TESTS / test).is_file(), f"{name}: {test}"
    assert set(LONG_FUNCTIONS) <= {n for f in folders() for n, _ in long_functions(f)}
    for path in BARE_CATCHES:
        assert "except Exception" in (PACKAGE / path).read_text(), path


@pytest.mark.parametrize("folder", folders())
def test_errors_are_caught_by_name(folder):
    wrong = [
        f"{name}, line {node.lineno}"
        for name in of_folder(folder)
        for node in ast.walk(tree(modules()[name]))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) == "Exception")
        and str(modules()[name].relative_to(PACKAGE)) not in BARE_CATCHES
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("folder", [f for f in folders() if f != "cli"])
def test_only_the_command_line_prints(folder):
    wrong = [
        f"{name}, line {node.lineno}"
        for name in of_folder(folder)
        for node in ast.walk(tree(modules()[name]))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]
    assert not wrong, wrong


@cache
def libraries(name: str, *, at_load: bool) -> set[str]:
    """Foreign packages a module imports; `at_load` leaves out imports inside functions."""
    return {
        target.split(".")[0]
        for target, _, is_lazy in raw_imports(modules()[name])
        if not (at_load and is_lazy)
    } - {"spatial_ttt"}


def loaded_with(name: str) -> set[str]:
    """Foreign packages in memory once a module is imported, by our own imports."""
    seen, queue, found = set(), [name], set()
    while queue:
        module = queue.pop()
        if module in seen:
            continue
        seen.add(module)
        found |= libraries(module, at_load=True)
        parents = [module.rpartition(".")[0]] if "." in module else []
        queue += [i.module for i in imports(module) if not i.is_lazy] + parents
    return found


def test_scenes_work_without_torch():
    casters = {n for n in of_folder("scenes") if n.startswith("scenes.raycast")}
    for name in set(of_folder("scenes")) - casters:
        assert "torch" not in libraries(name, at_load=False), name
        assert "torch" not in loaded_with(name), f"{name} loads torch through what it imports"


@pytest.mark.parametrize(
    ("library", "folder"),
    [("typer", "cli"), ("fastapi", "serve"), ("starlette", "serve"), ("uvicorn", "serve")],
)
def test_frameworks_stay_in_their_folder(library, folder):
    users = [n for n in modules() if library in libraries(n, at_load=False)]
    assert all(n == folder or n.startswith(f"{folder}.") for n in users), users


def test_the_command_line_starts_light():
    heavy = {"torch", "transformers", "numpy", "av", "moderngl", "scipy", "fastapi", "matplotlib"}
    for name in ("", "cli", "__main__"):
        assert not heavy & loaded_with(name), name
    # Verbs import what they need when they run.
    for name in of_folder("cli"):
        assert not {"torch", "transformers"} & libraries(name, at_load=True), name
