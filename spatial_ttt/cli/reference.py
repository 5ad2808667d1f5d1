"""docs/cli.md, made from the commands' own --help so that it cannot be wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
import typer.main

_WIDTH = 92
_HEAD = """# Command line

Made by `scripts/make_cli_docs` from `--help`; a test fails when it is out of date.
"""


def render_reference(app: typer.Typer) -> str:
    """The whole reference as Markdown: one section per command, its help verbatim."""
    sections = [_HEAD]
    for depth, title, text in _help_of(typer.main.get_command(app), "spatial-ttt", None, 0):
        sections.append(f"{'#' * (depth + 2)} `{title}`\n\n```text\n{text.strip()}\n```\n")
    return "\n".join(sections)


def _help_of(command: Any, name: str, parent: Any, depth: int) -> Iterator[tuple[int, str, str]]:
    """(depth, full name, help text) of a command and all below it."""
    context = command.make_context(
        name, [], parent=parent, resilient_parsing=True, terminal_width=_WIDTH
    )
    yield depth, context.command_path, command.get_help(context)
    if not hasattr(command, "list_commands"):
        return
    for child in command.list_commands(context):
        found = command.get_command(context, child)
        if not found.hidden:
            yield from _help_of(found, child, context, depth + 1)
