"""The README tells the truth: its ten lines run, its commands exist, its files are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spatial_ttt import loading
from spatial_ttt.cli import build_app, main
from spatial_ttt.video import write_mp4
from tests.scenery import frames, write_checkpoint

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_ten_lines_run_on_a_cpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loading, "SHIPPED", write_checkpoint(tmp_path / "shipped"))
    monkeypatch.chdir(tmp_path)
    write_mp4(tmp_path / "walk.mp4", [f.pixels for f in frames(8)], fps=2.0)
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    assert len(code.splitlines()) <= 11
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()
    assert (tmp_path / "walk.safetensors").is_file()


def test_every_command_exists():
    from typer.main import get_command

    verbs = set(re.findall(r"`spatial-ttt ([a-z-]+)", README))
    assert verbs <= set(get_command(build_app()).commands)
    assert {"ask", "watch", "inspect", "import-checkpoint"} <= verbs


def test_the_inspected_figure_is_the_stated_one(capsys):
    assert main(["inspect", "spatial_ttt_2b"]) == 0
    stated = re.search(r"([\d,]+) bytes per token", README)[1]
    assert stated in capsys.readouterr().out


@pytest.mark.parametrize(
    "page", [*sorted(p.name for p in (ROOT / "docs").glob("*.md")), "../README.md"]
)
def test_links_and_paths_lead_somewhere(page):
    path = ROOT / "docs" / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{page} links to {target}"


def test_the_file_map_is_true():
    for cell in re.findall(r"^\| (`[^|]+) \|", README, re.MULTILINE):
        names = re.findall(r"`([^`]+)`", cell)
        if not names[0].startswith(("spatial_ttt/", "docs/", "tests/")):
            continue
        folder = Path(names[0]).parent if "." in Path(names[0]).name else Path(names[0])
        for name in names:
            assert any(
                (base / name).exists() for base in (ROOT, ROOT / folder, ROOT / "spatial_ttt")
            ), name
