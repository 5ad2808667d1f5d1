"""A contact sheet: frames of a walk side by side, with the id and name of what is clearly seen."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from spatial_ttt.scenes.questions.seen import SeenRule
from spatial_ttt.scenes.scene import Array, Camera, Scene, Visibility

_COLUMNS = 4
_GAP = 6  # pixels between pictures


def spread_frames(camera: Camera, count: int) -> list[int]:
    """Indices of `count` frames spread evenly over a walk."""
    return sorted(set(np.linspace(0, len(camera.times) - 1, count).round().astype(int).tolist()))


def contact_sheet(
    scene: Scene,
    camera: Camera,
    visibility: Visibility,
    frames: Sequence[int],
    pixels: NDArray[np.uint8],
) -> bytes:
    """A PNG of the chosen frames, `pixels` [N, H, W, 3], labelled with ids and times."""
    height, width = pixels.shape[1:3]
    rows = -(-len(frames) // _COLUMNS)
    columns = min(_COLUMNS, len(frames))
    sheet = Image.new(
        "RGB", (columns * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP), "white"
    )
    for place, index in enumerate(frames):
        picture = Image.fromarray(pixels[place])
        _label(picture, scene, camera, visibility, index)
        row, column = divmod(place, _COLUMNS)
        sheet.paste(picture, (column * (width + _GAP), row * (height + _GAP)))
    out = io.BytesIO()
    sheet.save(out, format="PNG")
    return out.getvalue()


def project(points: Array, camera: Camera, index: int, size: tuple[int, int]) -> Array:
    """World points [N, 3] to columns and rows in a picture of (width, height), and depth: [N, 3]."""
    pose = camera.camera_to_world[index]
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    depth = local[:, 2]
    image = local @ camera.intrinsics.T
    scale = np.array([size[0] / camera.width, size[1] / camera.height])
    with np.errstate(divide="ignore", invalid="ignore"):
        place = image[:, :2] / image[:, 2:] * scale
    return np.concatenate([place, depth[:, None]], axis=1)


def _label(
    picture: Image.Image, scene: Scene, camera: Camera, visibility: Visibility, index: int
) -> None:
    draw = ImageDraw.Draw(picture)
    draw.text((4, 2), f"{camera.times[index]:.1f} s", fill="white", stroke_width=2, stroke_fill=0)
    needed = SeenRule().clear_share * camera.width * camera.height
    seen = {
        int(object_id)
        for object_id, count in zip(visibility.object_ids, visibility.pixels[index], strict=True)
        if count >= needed
    }
    items = [item for item in scene.objects if item.object_id in seen]
    if not items:
        return
    centers = np.stack([item.box.center for item in items])
    for item, (x, y, depth) in zip(
        items, project(centers, camera, index, picture.size), strict=True
    ):
        if depth <= 0:
            continue
        # A centre outside the picture is labelled at its edge: part of the object is inside.
        place = (min(max(x, 45), picture.width - 45), min(max(y, 16), picture.height - 8))
        draw.text(
            place,
            f"{item.object_id} {item.category}",
            fill="yellow",
            stroke_width=2,
            stroke_fill="black",
            anchor="mm",
        )
