"""One scene of a build from its seed: home, walk, clips, description, questions.

seed -> home -> walk -> film (clips and visibility) -> observation at the end and at a moment before
-> description and questions. The same seed and settings give the same bytes.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import PCG64, Generator

from spatial_ttt.scenes.build_plan import BuildConfig, SceneTask
from spatial_ttt.scenes.describe import describe
from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.examples import PoolLine
from spatial_ttt.scenes.filming import Film, film
from spatial_ttt.scenes.homes import Home, make_home
from spatial_ttt.scenes.program import MAX_ROOMS
from spatial_ttt.scenes.questions.fair import generate_fair
from spatial_ttt.scenes.questions.question import Question
from spatial_ttt.scenes.questions.seen import observe
from spatial_ttt.scenes.renderer import Renderer
from spatial_ttt.scenes.scene import Camera, Scene, Visibility
from spatial_ttt.scenes.scene_json import camera_to_json, scene_to_json, validate
from spatial_ttt.scenes.walk import walk
from spatial_ttt.video.writing import EncodeOptions

_EARLY_MOMENT = (0.35, 0.8)
"""Some questions are asked at a moment drawn between these shares of the walk."""


@dataclass(frozen=True, slots=True)
class MadeScene:
    """What a scene adds to its shards."""

    film: Film
    pool: PoolLine
    facts: tuple[tuple[str, bytes], ...]  # (suffix, content) of files beside the clip
    summary: dict[str, Any]  # for the manifest


@functools.cache
def renderer_for(width: int, height: int) -> Renderer:
    """This process's renderer for frames of one size; making one takes longer than a frame."""
    return Renderer(width, height)


def make_scene(
    config: BuildConfig, task: SceneTask, renderer: Renderer, *, video: str
) -> MadeScene:
    """Make one scene; `video` is the path its samples name."""
    home, camera = make_walk(config, task.seed)
    validate(home.scene)
    options = EncodeOptions(crf=config.crf, preset=config.preset)
    shot = film(renderer, home.parts, camera, config.sizes, options=options)
    description, questions = make_texts(
        home.scene, shot.visibility, camera, task.seed, config.questions_per_type
    )
    until_s = float(camera.times[-1])
    summary = {
        "key": task.key,
        "scene_id": home.scene.scene_id,
        "seed": task.seed,
        "rooms": len(home.scene.rooms),
        "objects": len(home.scene.objects),
        "frames": len(camera.times),
        "duration_s": until_s,
    }
    facts = (
        ("scene.json", _json_bytes(scene_to_json(home.scene))),
        ("camera.json", _json_bytes(camera_to_json(camera))),
        ("visibility.npy.gz", visibility_bytes(shot.visibility)),
    )
    pool = PoolLine(task.key, video, until_s, description, tuple(questions))
    return MadeScene(shot, pool, facts, summary)


def make_walk(config: BuildConfig, seed: int) -> tuple[Home, Camera]:
    """A home from its seed and the walk through it."""
    dice = Dice(seed, 10)
    rooms = None
    if (config.min_rooms, config.max_rooms) != (1, MAX_ROOMS):  # the full range has weights
        rooms = dice.between(config.min_rooms, config.max_rooms)
    home = make_home(seed, num_rooms=rooms)
    camera = walk(
        home,
        0,
        duration_s=config.duration_s,
        fps=config.fps,
        width=config.width,
        height=config.height,
        fov_deg=dice.uniform(config.min_fov_deg, config.max_fov_deg),
    )
    return home, camera


def make_texts(
    scene: Scene, visibility: Visibility, camera: Camera, seed: int, per_type: int
) -> tuple[str, list[Question]]:
    """The description of a whole walk, and questions at its end and (half as many) before."""
    draw = Generator(PCG64([seed, 11]))
    seen = observe(scene, visibility, camera)
    description = describe(seen, draw)
    questions = generate_fair(seen, draw, per_type)
    share = draw.uniform(*_EARLY_MOMENT)
    early_s = float(camera.times[int(share * (len(camera.times) - 1))])
    early = observe(scene, visibility, camera, until_s=early_s)
    return description.text, questions + generate_fair(early, draw, per_type // 2)


def visibility_bytes(visibility: Visibility) -> bytes:
    """Visible pixels [T, O] as gzipped .npy; objects as the scene lists them, times as the camera."""
    raw = io.BytesIO()
    np.save(raw, visibility.pixels)
    return gzip.compress(raw.getvalue(), mtime=0)


def visibility_from_bytes(content: bytes, scene: Scene, camera: Camera) -> Visibility:
    """What `visibility_bytes` wrote, for the same scene and camera."""
    pixels = np.load(io.BytesIO(gzip.decompress(content)))
    ids = np.array(sorted(item.object_id for item in scene.objects), np.int32)
    return Visibility(ids, pixels, camera.times)


def _json_bytes(record: dict[str, Any]) -> bytes:
    return (json.dumps(record) + "\n").encode()
