"""Descriptions and questions about scans that others annotated: boxes in, examples out.

annotations -> scenes, without those of benchmarks -> everything counts as seen -> pool -> balanced
samples that name each scene's video. Questions that need to know when things were seen are left out.
"""

from __future__ import annotations

import logging
import string
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from numpy.random import PCG64, Generator

from spatial_ttt.data_format import Sample
from spatial_ttt.errors import ConfigError, DataError
from spatial_ttt.scenes.describe import describe
from spatial_ttt.scenes.examples import PoolLine, samples_of
from spatial_ttt.scenes.questions.generate import generate
from spatial_ttt.scenes.questions.seen import observe_all
from spatial_ttt.scenes.readers import read_scenes
from spatial_ttt.scenes.scene import Scene

log = logging.getLogger(__name__)


def benchmark_scenes() -> frozenset[str]:
    """Scenes that must not be trained on."""
    text = resources.files("spatial_ttt.scenes").joinpath("benchmark_scenes.txt").read_text("utf-8")
    return parse_scene_list(text)


def parse_scene_list(text: str) -> frozenset[str]:
    """Scene ids, one per line; '#' starts a comment."""
    names = (line.partition("#")[0].strip() for line in text.splitlines())
    return frozenset(name for name in names if name)


def excluded_scenes(more: Path | None, *, with_benchmark_scenes: bool) -> frozenset[str]:
    """Scenes to leave out: those of benchmarks unless kept for checks, and those `more` lists."""
    excluded = frozenset() if with_benchmark_scenes else benchmark_scenes()
    if more is None:
        return excluded
    try:
        return excluded | parse_scene_list(more.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {more}: {error.strerror}") from error


def annotate(
    annotations: Path,
    *,
    excluded: frozenset[str],
    video_name: str = "{scene_id}.mp4",
    per_type: int = 4,
    seed: int = 0,
) -> list[Sample]:
    """Samples about every scene of an annotation file that is not excluded."""
    check_video_name(video_name)
    scenes = read_scenes(annotations)
    kept = [scene for scene in scenes if scene.scene_id not in excluded]
    if len(kept) < len(scenes):
        log.warning("%d scenes are left out: they are excluded", len(scenes) - len(kept))
    if not kept:
        raise DataError(
            f"all {len(scenes)} scenes of {annotations} are on the list of excluded scenes "
            "(those of benchmarks are never trained on); give other annotations"
        )
    return list(samples_of(list(_pool(kept, video_name, per_type, seed)), seed))


def check_video_name(pattern: str) -> None:
    """Raise ConfigError unless the pattern's only field is {scene_id}."""
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
    except ValueError as error:
        raise ConfigError(f"video name {pattern!r}: {error}") from error
    if fields != {"scene_id"}:
        raise ConfigError(f"a video name holds {{scene_id}} and no other field; got {pattern!r}")


def _pool(scenes: Iterable[Scene], video_name: str, per_type: int, seed: int) -> Iterable[PoolLine]:
    for scene in scenes:
        # A scene's texts depend on itself only: other scenes in the file change nothing.
        draw = Generator(PCG64([seed, *scene.scene_id.encode()]))
        seen = observe_all(scene)
        if not seen.objects:
            log.warning("%s is left out: nothing in it can be asked about", scene.scene_id)
            continue
        description = describe(seen, draw).text
        questions = tuple(generate(seen, draw, per_type))
        video = video_name.format(scene_id=scene.scene_id)
        yield PoolLine(scene.scene_id, video, None, description, questions)
