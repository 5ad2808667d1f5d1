"""Walks through procedural homes as a source: frames to watch, and the plan that is true."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spatial_ttt.scenes.boxes import footprint
from spatial_ttt.scenes.build_plan import BuildConfig
from spatial_ttt.scenes.homes import Home
from spatial_ttt.scenes.make_scene import make_walk, renderer_for
from spatial_ttt.scenes.scene import Camera
from spatial_ttt.serve.records import WalkSpec

FRAMES_PER_PASS = 16
MAX_ROOMS = 3
"""Homes that a few minutes show whole."""


def film_walk(spec: WalkSpec) -> Iterator[tuple[dict[str, Any], Any]]:
    """Frames of a walk as (time and size, pixels), drawn as they are wanted."""
    home, camera = _home_and_camera(spec)
    renderer = renderer_for(spec.width, spec.height)
    for begin in range(0, len(camera.times), FRAMES_PER_PASS):
        frames = slice(begin, begin + FRAMES_PER_PASS)
        pictures = renderer.render(home.parts, camera, frames).rgb
        for pixels, time in zip(pictures, camera.times[frames].tolist(), strict=True):
            yield {"time": time, "height": spec.height, "width": spec.width}, pixels


def plan_of_walk(spec: WalkSpec) -> dict[str, Any]:
    """What is true of a walk's home: rooms, objects from above, the camera's path; metres and seconds."""
    home, camera = _home_and_camera(spec)
    scene = home.scene
    rooms = [{"function": r.function, "polygon": r.polygon.round(3).tolist()} for r in scene.rooms]
    objects = [
        {
            "category": item.category,
            "polygon": footprint(item.box).round(3).tolist(),
            "center": item.box.center[:2].round(3).tolist(),
        }
        for item in scene.objects
    ]
    path = [
        [float(t), *(float(round(v, 3)) for v in pose[:2, 3])]
        for t, pose in zip(camera.times, camera.camera_to_world, strict=True)
    ]
    return {"rooms": rooms, "objects": objects, "path": path, "counts": scene.object_counts}


def _home_and_camera(spec: WalkSpec) -> tuple[Home, Camera]:
    config = BuildConfig(
        train_scenes=1,
        val_scenes=0,
        test_scenes=0,
        fps=spec.fps,
        duration_s=spec.seconds,
        width=spec.width,
        height=spec.height,
        small_sizes=(),
        max_rooms=MAX_ROOMS,
    )
    return make_walk(config, spec.seed)
