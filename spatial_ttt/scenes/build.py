"""The data builder: settings -> shards of clips, scenes and examples, made by any number of workers.

tasks not done yet -> workers: scene -> film -> texts -> tar shards -> part file, last of all
all parts there -> examples.jsonl per size and split, manifest.json with seeds, versions, checksums

A part file lists a shard's files with their checksums and is written when they are whole, so a
killed build goes on where it was. Nothing written depends on the clock or on who made it.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatial_ttt.data_format import to_jsonl
from spatial_ttt.scenes.build_plan import (
    BUILD_FORMAT,
    BuildConfig,
    ShardTask,
    clip_folder,
    shard_tasks,
)
from spatial_ttt.scenes.examples import PoolLine, samples_of
from spatial_ttt.scenes.homes import SPLITS
from spatial_ttt.scenes.make_scene import make_scene, renderer_for
from spatial_ttt.scenes.parts import (
    EXAMPLES_NAME,
    MANIFEST_NAME,
    file_facts,
    json_bytes,
    prepare,
    read_part,
    read_pool,
    versions,
    write_part,
)
from spatial_ttt.scenes.shards import remove_leftovers, shard_writers, write_atomic
from spatial_ttt.scenes.workers import Step, run_tasks


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a build is, in scenes (or in frames, for long streams)."""

    done: int
    total: int
    frames: int  # made by this run


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did."""

    shards_made: int
    shards_kept: int  # found whole from an earlier run
    shards_missing: int  # left to other machines
    frames: int


def build(
    config: BuildConfig,
    out: Path,
    *,
    workers: int = 1,
    part: tuple[int, int] = (0, 1),
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> BuildReport:
    """Make the shards that `out` lacks; with `part` = (i, n), every n-th from the i-th.

    Writes examples.jsonl and manifest.json once all shards are there, whoever made them.
    """
    prepare(out, config.to_json())
    tasks = list(shard_tasks(config))
    mine = tasks[part[0] :: part[1]]
    missing = [task for task in mine if read_part(out, task.name) is None]
    frames = _run(config, out, mine, missing, workers, on_progress)
    parts = [read_part(out, task.name) for task in tasks]
    whole = [record for record in parts if record is not None]
    if len(whole) == len(tasks):
        _finish(config, out, tasks, whole)
    return BuildReport(
        shards_made=len(missing),
        shards_kept=len(mine) - len(missing),
        shards_missing=len(tasks) - len(whole),
        frames=frames,
    )


def _run(
    config: BuildConfig,
    out: Path,
    mine: list[ShardTask],
    missing: list[ShardTask],
    workers: int,
    on_progress: Callable[[Progress], None],
) -> int:
    total = sum(len(task.scenes) for task in mine)
    done = total - sum(len(task.scenes) for task in missing)
    frames = 0
    on_progress(Progress(done, total, frames))

    def on_step(text: str) -> None:
        nonlocal done, frames
        done, frames = done + 1, frames + int(text)
        on_progress(Progress(done, total, frames))

    work = functools.partial(build_shard, config, out)
    try:
        run_tasks(missing, work, workers=workers, on_step=on_step)
    finally:
        remove_leftovers(out)  # those of workers that were ended in the middle
    return frames


# --- One shard -----------------------------------------------------------------------------------


def build_shard(config: BuildConfig, out: Path, task: ShardTask, step: Step) -> None:
    """Make one shard of every size, then its part file. Calls `step` with each scene's frames."""
    renderer = renderer_for(config.width, config.height)
    folders = [clip_folder(out, size, task.split) for size in config.sizes]
    paths = [folder / f"{task.name}.tar" for folder in folders]
    pool, scenes = [], []
    with shard_writers(paths) as writers:
        for scene_task in task.scenes:
            video = f"{task.name}.tar/{scene_task.key}.mp4"
            made = make_scene(config, scene_task, renderer, video=video)
            for writer, clip in zip(writers, made.film.clips, strict=True):
                writer.add(scene_task.key, "mp4", clip)
                writer.add(scene_task.key, "json", json_bytes(made.summary))
            for suffix, content in made.facts:  # scene, camera, visibility: once, with the largest
                writers[0].add(scene_task.key, suffix, content)
            pool.append(made.pool)
            scenes.append(made.summary)
            step(str(made.summary["frames"]))
    write_part(out, task.name, pool, paths, {"device": renderer.device, "scenes": scenes})


# --- The whole -----------------------------------------------------------------------------------


def _finish(
    config: BuildConfig, out: Path, tasks: Iterable[ShardTask], parts: list[dict[str, Any]]
) -> None:
    """Write the balanced examples of every split, then the manifest."""
    files: dict[str, Any] = {}
    pools: dict[str, list[PoolLine]] = {split: [] for split in SPLITS}
    for task, record in zip(tasks, parts, strict=True):
        files |= record["files"]
        pools[task.split] += read_pool(out, task.name)
    examples = {}
    for split, pool in pools.items():
        if not pool:
            continue
        samples = list(samples_of(pool, config.seed))
        types = Counter(sample.question_type or "" for sample in samples)
        examples[split] = dict(sorted(types.items()))
        for size in config.sizes:
            path = clip_folder(out, size, split) / EXAMPLES_NAME
            write_atomic(path, to_jsonl(samples).encode())
            files |= file_facts(out, [path])
    manifest = {
        "format": BUILD_FORMAT,
        "settings": config.to_json(),
        "versions": versions(),
        "devices": sorted({record["device"] for record in parts}),
        "scenes": [scene for record in parts for scene in record["scenes"]],
        "examples": examples,
        "files": dict(sorted(files.items())),
    }
    write_atomic(out / MANIFEST_NAME, json_bytes(manifest))
