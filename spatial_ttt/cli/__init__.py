"""The command line: `spatial-ttt VERB`. Answers on stdout, everything else on stderr.

main -> app of all verbs -> one command body     (each verb group: a file here with register(app))
Exit codes: 0 fine, 1 the user's mistake in one sentence, 2 usage, 130 Ctrl-C.
Command bodies import what they need; this package itself imports only typer, so --help is instant.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from typing import Annotated

import typer

from spatial_ttt import __version__
from spatial_ttt.cli.problems import report_errors

VERB_GROUPS = ("ask", "demo", "data", "train", "evaluate", "serve", "bench")
"""Files of this folder, in the order in which `--help` shows their verbs."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return report_errors(lambda: _run(argv))


def _run(argv: list[str] | None) -> None:
    build_app()(args=argv, prog_name="spatial-ttt")


def build_app() -> typer.Typer:
    """The command line with every verb group that is there."""
    app = typer.Typer(
        name="spatial-ttt",
        help="Watch video streams of any length and answer questions about the space seen.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # plain help: instant, and the same text in docs/cli.md
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for group in VERB_GROUPS:
        name = f"{__name__}.{group}"
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name).register(app)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"spatial-ttt {__version__}")
        raise typer.Exit


def _root(
    verbose: Annotated[
        int, typer.Option("-v", "--verbose", count=True, help="Log more; twice: debug.")
    ] = 0,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", force=True
    )
