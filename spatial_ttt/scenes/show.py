"""A page to look at a scene: plan with the camera's path, contact sheet, description, questions.

subject (a home's seed, a scene in a built shard, or a scan's annotations) -> Subject -> one HTML file
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.random import PCG64, Generator
from numpy.typing import NDArray

from spatial_ttt.data_format import read_media
from spatial_ttt.errors import DataError
from spatial_ttt.scenes.build_plan import BuildConfig
from spatial_ttt.scenes.contact_sheet import contact_sheet, spread_frames
from spatial_ttt.scenes.describe import describe
from spatial_ttt.scenes.make_scene import (
    make_texts,
    make_walk,
    renderer_for,
    visibility_from_bytes,
)
from spatial_ttt.scenes.plan_svg import plan_svg
from spatial_ttt.scenes.questions.generate import generate
from spatial_ttt.scenes.questions.question import Question
from spatial_ttt.scenes.questions.seen import observe_all
from spatial_ttt.scenes.readers import read_scenes
from spatial_ttt.scenes.scene import Camera, Scene, Visibility
from spatial_ttt.scenes.scene_json import camera_from_json, scene_from_json
from spatial_ttt.video.sources import open_source

NUM_PICTURES = 12
_PER_TYPE = 2


@dataclass(frozen=True, slots=True)
class Walk:
    """What was filmed of a scene."""

    camera: Camera
    visibility: Visibility
    frames: tuple[int, ...]  # chosen for the contact sheet
    pixels: NDArray[np.uint8]  # [N, H, W, 3], of these


@dataclass(frozen=True, slots=True)
class Subject:
    """Everything a page shows."""

    scene: Scene
    walk: Walk | None  # None: a scan without its video
    description: str
    questions: tuple[Question, ...]


def read_subject(name: str) -> Subject:
    """A subject by its name: a seed (`17`), `.../train-000000.tar/train-0000003`, or
    `annotations.json`, with `#SCENE` if the file holds several."""
    if name.isdigit():
        return _from_seed(int(name))
    if ".tar/" in name:
        return _from_shard(name)
    path, _, scene_id = name.partition("#")
    scenes = read_scenes(path)
    chosen = [scene for scene in scenes if scene_id in ("", scene.scene_id)]
    if len(chosen) != 1:
        known = ", ".join(scene.scene_id for scene in scenes[:5])
        raise DataError(
            f"{path} holds {len(scenes)} scenes ({known}{', ...' if len(scenes) > 5 else ''}); "
            f"name one as {path}#SCENE"
        )
    seen = observe_all(chosen[0])
    draw = Generator(PCG64(0))
    texts = describe(seen, draw).text if seen.objects else ""
    return Subject(chosen[0], None, texts, tuple(generate(seen, draw, _PER_TYPE)))


def _from_seed(seed: int) -> Subject:
    config = BuildConfig(train_scenes=1, val_scenes=0, test_scenes=0, fps=2.0)
    home, camera = make_walk(config, seed)
    renderer = renderer_for(config.width, config.height)
    visibility = renderer.visibility(home.parts, camera)
    frames = spread_frames(camera, NUM_PICTURES)
    pixels = renderer.render(home.parts, camera, frames).rgb
    return _with_texts(home.scene, Walk(camera, visibility, tuple(frames), pixels), seed)


def _from_shard(name: str) -> Subject:
    """A built scene: its files out of the shard, its frames out of the clip."""
    folder, _, key = name.rpartition("/")

    def member(suffix: str) -> bytes:
        content = read_media(folder, f"{key}.{suffix}")
        return content if isinstance(content, bytes) else content.read_bytes()

    scene = scene_from_json(json.loads(member("scene.json")))
    camera = camera_from_json(json.loads(member("camera.json")))
    visibility = visibility_from_bytes(member("visibility.npy.gz"), scene, camera)
    frames = spread_frames(camera, NUM_PICTURES)
    with open_source(member("mp4"), num_frames=len(frames)) as source:
        pixels = np.stack([frame.pixels for frame in source])
    seed = int(json.loads(member("json"))["seed"])
    return _with_texts(scene, Walk(camera, visibility, tuple(frames), pixels), seed)


def _with_texts(scene: Scene, walk: Walk, seed: int) -> Subject:
    texts = make_texts(scene, walk.visibility, walk.camera, seed, _PER_TYPE)
    return Subject(scene, walk, texts[0], tuple(texts[1]))


def page(subject: Subject) -> str:
    """The whole page as HTML that needs nothing beside it."""
    scene, walk = subject.scene, subject.walk
    facts = f"{len(scene.rooms)} rooms, {len(scene.objects)} objects"
    if scene.room_size is not None:
        facts += f", {scene.room_size:.1f} m²"
    if walk is not None:
        facts += f", {walk.camera.times[-1]:.0f} s of walk"
    parts = [
        f"<h1>{escape(scene.scene_id)}</h1><p>{escape(scene.source)}: {facts}</p>",
        f"<h2>Plan</h2>{plan_svg(scene, None if walk is None else walk.camera)}",
    ]
    if walk is not None:
        sheet = contact_sheet(scene, walk.camera, walk.visibility, walk.frames, walk.pixels)
        data = base64.b64encode(sheet).decode()
        parts.append(f'<h2>Frames</h2><img alt="frames" src="data:image/png;base64,{data}">')
    paragraphs = "".join(f"<p>{escape(line)}</p>" for line in subject.description.splitlines())
    parts.append(f"<h2>Description</h2>{paragraphs}")
    parts.append(f"<h2>Questions</h2><table>{''.join(map(_row, subject.questions))}</table>")
    return f"<!doctype html><meta charset=utf-8><title>{escape(scene.scene_id)}</title>{_STYLE}" + (
        "\n".join(parts)
    )


def _row(question: Question) -> str:
    words = escape(question.question).replace("\n", "<br>")
    options = "<br>".join(escape(option) for option in question.options or ())
    return (
        f"<tr><td>{question.question_type}<td>{words}<td>{options}"
        f"<td><b>{escape(question.ground_truth)}</b><td>{question.visible_until_s:.1f} s</tr>"
    )


def write_page(name: str, out: Path) -> None:
    """Write the page of a subject."""
    text = page(read_subject(name))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")


_STYLE = (
    "<style>body{font:15px sans-serif;margin:2em;max-width:2000px}"
    "table{border-collapse:collapse}td{border-top:1px solid #ccc;padding:.4em;vertical-align:top}"
    "img,svg{max-width:100%;height:auto}</style>"
)
