"""The generated reference names every command and option."""

import typer

from spatial_ttt.cli.reference import render_reference


def test_every_command_and_option_is_in_it():
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    group = typer.Typer(help="A group.")

    @app.command()
    def alone(count: int = typer.Option(3, help="How many.")) -> None:
        """Do it alone."""

    @group.command()
    def inner(path: str) -> None:
        """Do it inside."""

    @group.command(hidden=True)
    def secret() -> None:
        """Not to be seen."""

    app.add_typer(group, name="group")
    text = render_reference(app)
    for expected in (
        "## `spatial-ttt`",
        "### `spatial-ttt alone`",
        "--count",
        "[default: 3]",
        "#### `spatial-ttt group inner`",
        "Do it inside.",
    ):
        assert expected in text
    assert "secret" not in text
