"""Long streams of 10 to 240 minutes: homes walked through one after another, some of them again.

itinerary (homes, revisits, unusual things at four places) -> filmed segment by segment into one mp4
per size -> recall (`vsr`) and counting (`vsc`) questions. Resumable like any build; a stream is one
part. Memory holds one stack of frames, however long the stream.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import PCG64, Generator
from numpy.typing import NDArray

from spatial_ttt.data_format import to_jsonl
from spatial_ttt.scenes.build import Progress
from spatial_ttt.scenes.build_plan import BUILD_FORMAT, clip_folder
from spatial_ttt.scenes.chain import NUM_SPOTS, Spot, StreamOptions, stream
from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.examples import PoolLine, samples_of
from spatial_ttt.scenes.filming import film_into
from spatial_ttt.scenes.homes import Home
from spatial_ttt.scenes.long_plan import CHAINS_PER_STREAM, LongConfig, StreamTask, stream_tasks
from spatial_ttt.scenes.make_scene import renderer_for
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
from spatial_ttt.scenes.questions.question import Question
from spatial_ttt.scenes.questions.seen import SeenRule
from spatial_ttt.scenes.questions.streams import (
    Segment,
    Sighting,
    recall_question,
    stream_counting,
    stream_end,
)
from spatial_ttt.scenes.scene import Camera, Visibility
from spatial_ttt.scenes.scene_json import scene_to_json
from spatial_ttt.scenes.shards import remove_leftovers, write_atomic
from spatial_ttt.scenes.walk import walk
from spatial_ttt.scenes.workers import Step, run_tasks
from spatial_ttt.video.writing import EncodeOptions, Mp4Writer

log = logging.getLogger(__name__)

_PREVIEW, _PREVIEW_MARGIN = (120, 88), 1.5


@dataclass(frozen=True, slots=True)
class Visit:
    """One walk through a home of a stream."""

    home: Home
    camera: Camera
    spot: Spot | None  # where the unusual thing is, if it is here
    is_revisit: bool = False
    start_s: float = 0.0


def build_long(
    config: LongConfig,
    out: Path,
    *,
    workers: int = 1,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Path:
    """Make the streams that `out` lacks, then its examples and manifest; returns the manifest."""
    prepare(out, config.to_json())
    tasks = list(stream_tasks(config))
    missing = [task for task in tasks if read_part(out, task.name) is None]
    total, frames = config.num_frames * len(tasks), 0
    kept = config.num_frames * (len(tasks) - len(missing))

    def on_step(text: str) -> None:
        nonlocal frames
        frames += int(text)
        on_progress(Progress(kept + frames, total, frames))

    try:
        work = functools.partial(build_stream, config, out)
        run_tasks(missing, work, workers=workers, on_step=on_step)
    finally:
        remove_leftovers(out)
    return _finish(config, out, tasks)


def build_stream(config: LongConfig, out: Path, task: StreamTask, step: Step) -> None:
    """Make one stream in every size, then its part file."""
    renderer = renderer_for(config.width, config.height)
    folders = [clip_folder(out, size, task.split) for size in config.sizes]
    clips = [folder / f"{task.name}.mp4" for folder in folders]
    options = EncodeOptions(crf=config.crf, preset=config.preset)
    visits = itinerary(config, task)
    segments = []
    with contextlib.ExitStack() as stack:
        writers = []
        for path, (width, height) in zip(clips, config.sizes, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = Mp4Writer(path, size=(height, width), options=options)
            writers.append(stack.enter_context(writer))
        for visit in visits:
            visibility = film_into(writers, renderer, visit.home.parts, visit.camera, visit.start_s)
            segments.append(Segment(visit.home.scene, visibility, visit.camera, visit.start_s))
            step(str(len(visit.camera.times)))
    record = clips[0].with_suffix(".json")
    write_atomic(
        record, json_bytes({"format": BUILD_FORMAT, "visits": [*map(_visit_json, visits)]})
    )
    questions = stream_questions(config, task, visits, segments)
    until_s = (config.num_frames - 1) / config.fps
    pool = PoolLine(task.name, f"{task.name}.mp4", until_s, None, tuple(questions))
    facts = {"device": renderer.device, "homes": [visit.home.seed for visit in visits]}
    write_part(out, task.name, [pool], [*clips, record], facts)


def stream_questions(
    config: LongConfig, task: StreamTask, visits: list[Visit], segments: list[Segment]
) -> list[Question]:
    """Recall of what is unusual, if its four places were seen; counting, once or while it runs."""
    draw = Generator(PCG64([task.seed, 12]))
    questions: list[Question] = []
    seen, item = spot_sightings(visits, segments)
    if len(seen) == NUM_SPOTS:
        questions.append(recall_question(task.name, item, seen, stream_end(segments), draw))
    once = config.counting_questions // 2
    questions += stream_counting(task.name, segments, draw, once)
    many = config.counting_questions - once
    return questions + stream_counting(task.name, segments, draw, many, config.num_queries)


def spot_sightings(visits: list[Visit], segments: list[Segment]) -> tuple[list[Sighting], str]:
    """When each spot of the unusual thing came into clear view, and what the thing is."""
    found, item = [], ""
    for visit, segment in zip(visits, segments, strict=True):
        if visit.spot is None:
            continue
        item = visit.spot.category
        clear = spot_pixels(visit.spot, segment.visibility) >= _clear_pixels(segment.camera)
        if clear.any():
            time_s = float(segment.camera.times[clear.argmax()])
            found.append(Sighting(segment.start_s + time_s, visit.spot.landmark))
    return found, item


def spot_pixels(spot: Spot, visibility: Visibility) -> NDArray[np.int32]:
    """Pixels [T] of the unusual thing in each frame."""
    column = int(np.flatnonzero(visibility.object_ids == spot.object_id)[0])
    return visibility.pixels[:, column]


def _clear_pixels(camera: Camera) -> float:
    return SeenRule().clear_share * camera.width * camera.height


# --- The itinerary -------------------------------------------------------------------------------


def itinerary(config: LongConfig, task: StreamTask) -> list[Visit]:
    """Homes, walks and start times that fill the stream to its last frame.

    Of several chains the first is taken whose four spots the camera really sees.
    """
    for attempt in range(CHAINS_PER_STREAM):
        visits = _chain(config, task.seed * CHAINS_PER_STREAM + attempt)
        seen = [_is_seen(visit, visit.spot) for visit in visits if visit.spot is not None]
        if len(seen) == NUM_SPOTS and all(seen):
            break
    else:
        log.warning("%s: no chain shows its unusual thing at four places", task.name)
    start = 0
    timed = []
    for visit in visits:
        timed.append(dataclasses.replace(visit, start_s=start / config.fps))
        start += len(visit.camera.times)
    return timed


def _is_seen(visit: Visit, spot: Spot) -> bool:
    """Whether the walk shows the spot's thing clearly, looked at in small for speed."""
    width, height = _PREVIEW
    seen = renderer_for(width, height).visibility(visit.home.parts, visit.camera)
    needed = _PREVIEW_MARGIN * SeenRule().clear_share * width * height
    return bool(spot_pixels(spot, seen).max() >= needed)


def _chain(config: LongConfig, seed: int) -> list[Visit]:
    """One chain of homes with revisits, as many frames as the stream has."""
    options = StreamOptions(
        duration_s=config.num_frames / config.fps * (1 - config.revisit_share),
        fps=config.fps,
        width=config.width,
        height=config.height,
        split=config.split,
    )
    visits = [Visit(stop.home, stop.camera, stop.spot) for stop in stream(seed, options)]
    _revisit(config, visits, Dice(seed, 21))
    return visits


def _revisit(config: LongConfig, visits: list[Visit], dice: Dice) -> None:
    """Fill `visits` up to the stream's frames with second walks through earlier homes."""
    missing = config.num_frames - sum(len(visit.camera.times) for visit in visits)
    number = 0
    while missing > 0:
        place = dice.between(1, len(visits))
        earlier = visits[dice.below(place)]
        number += 1
        camera = walk(
            earlier.home, number, fps=config.fps, width=config.width, height=config.height
        )
        count = min(missing, len(camera.times))
        camera = dataclasses.replace(
            camera, camera_to_world=camera.camera_to_world[:count], times=camera.times[:count]
        )
        visits.insert(place, Visit(earlier.home, camera, None, is_revisit=True))
        missing -= count


def _visit_json(visit: Visit) -> dict[str, Any]:
    return {
        "start_s": visit.start_s,
        "frames": len(visit.camera.times),
        "seed": visit.home.seed,
        "is_revisit": visit.is_revisit,
        "spot": None if visit.spot is None else dataclasses.asdict(visit.spot),
        "scene": None if visit.is_revisit else scene_to_json(visit.home.scene),
    }


# --- The whole -----------------------------------------------------------------------------------


def _finish(config: LongConfig, out: Path, tasks: list[StreamTask]) -> Path:
    files: dict[str, Any] = {}
    records = {task.name: read_part(out, task.name) or {} for task in tasks}
    for record in records.values():
        files |= record["files"]
    samples = list(
        samples_of([line for task in tasks for line in read_pool(out, task.name)], config.seed)
    )
    for size in config.sizes:
        path = clip_folder(out, size, config.split) / EXAMPLES_NAME
        write_atomic(path, to_jsonl(samples).encode())
        files |= file_facts(out, [path])
    types = Counter(sample.question_type or "" for sample in samples)
    manifest = {
        "format": BUILD_FORMAT,
        "settings": config.to_json(),
        "versions": versions(),
        "devices": sorted({record["device"] for record in records.values()}),
        "streams": {name: record["homes"] for name, record in records.items()},
        "examples": {config.split: dict(sorted(types.items()))},
        "files": dict(sorted(files.items())),
    }
    write_atomic(out / MANIFEST_NAME, json_bytes(manifest))
    return out / MANIFEST_NAME
