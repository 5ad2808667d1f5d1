"""A scene from above as an SVG drawing: rooms, doors, labelled objects, the camera's path."""

from __future__ import annotations

from html import escape

import numpy as np

from spatial_ttt.scenes.boxes import footprint
from spatial_ttt.scenes.scene import Array, Camera, Scene, SceneObject

_PIXELS_PER_METRE = 90
_MARGIN = 0.6  # m around the scene
_ARROW_EVERY_S = 5.0
_COLORS = ("#f3e9dc", "#e3eef5", "#e7f2e1", "#f5e3ea", "#ece6f5", "#f6f1d5", "#e0f0ee", "#f0e4d8")
_ON_WALL = frozenset({"picture", "curtain", "ceiling light", "clock", "mirror", "radiator"})


def plan_svg(scene: Scene, camera: Camera | None) -> str:
    """The plan, north (y) up, one metre `_PIXELS_PER_METRE` pixels."""
    view = _View(_extent(scene, camera))
    shapes = [view.room(n, room.polygon, room.function) for n, room in enumerate(scene.rooms)]
    for opening in scene.openings:
        color = "#a0622d" if opening.kind == "door" else "#4a90d9"
        shapes.append(view.line(np.stack([opening.start, opening.end]), color, 6))
    for item in sorted(scene.objects, key=lambda item: float(item.box.center[2])):
        shapes.append(view.object(item))
    if camera is not None:
        shapes += view.path(camera)
    width, height = view.size
    style = "text{font:11px sans-serif;text-anchor:middle}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(shapes)}</svg>'
    )


def _extent(scene: Scene, camera: Camera | None) -> tuple[Array, Array]:
    """Lower left and upper right corner of all there is, m."""
    points = [room.polygon for room in scene.rooms]
    points += [footprint(item.box) for item in scene.objects]
    if camera is not None:
        points.append(camera.camera_to_world[:, :2, 3])
    if not points:
        points = [np.zeros((1, 2))]
    everything = np.concatenate(points)
    return everything.min(0) - _MARGIN, everything.max(0) + _MARGIN


class _View:
    """From metres to pixels, and shapes as SVG elements."""

    def __init__(self, extent: tuple[Array, Array]) -> None:
        self._low, self._high = extent
        width, height = (self._high - self._low) * _PIXELS_PER_METRE
        self.size = (float(width), float(height))

    def _pixels(self, points: Array) -> Array:
        x = (points[:, 0] - self._low[0]) * _PIXELS_PER_METRE
        y = (self._high[1] - points[:, 1]) * _PIXELS_PER_METRE
        return np.stack([x, y], axis=1)

    def _points(self, points: Array) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self._pixels(points))

    def room(self, number: int, polygon: Array, function: str) -> str:
        """A room's floor and its name."""
        color = _COLORS[number % len(_COLORS)]
        x, y = self._pixels(polygon.mean(0, keepdims=True))[0]
        return (
            f'<polygon points="{self._points(polygon)}" fill="{color}" stroke="#333" '
            f'stroke-width="5"/><text x="{x:.1f}" y="{y:.1f}" font-weight="bold" '
            f'style="font-size:16px" fill="#999">{escape(function)}</text>'
        )

    def object(self, item: SceneObject) -> str:
        """An object's footprint with its category and id."""
        outline = footprint(item.box)
        x, y = self._pixels(outline.mean(0, keepdims=True))[0]
        high = item.category in _ON_WALL
        fill = "none" if high else "#8fb3d9"
        dash = ' stroke-dasharray="3 2"' if high else ""
        label = escape(f"{item.category} {item.object_id}")
        return (
            f'<polygon points="{self._points(outline)}" fill="{fill}" fill-opacity="0.6" '
            f'stroke="#345"{dash}><title>{label}</title></polygon>'
            f'<text x="{x:.1f}" y="{y + 4:.1f}" style="font-size:{8 if high else 10}px">'
            f"{label}</text>"
        )

    def line(self, points: Array, color: str, width: int) -> str:
        """A line through points."""
        return (
            f'<polyline points="{self._points(points)}" fill="none" stroke="{color}" '
            f'stroke-width="{width}"/>'
        )

    def path(self, camera: Camera) -> list[str]:
        """The way walked, with the time and direction of look every few seconds."""
        eye, look = camera.camera_to_world[:, :2, 3], camera.camera_to_world[:, :2, 2]
        shapes = [self.line(eye, "#d33", 2)]
        moments = np.arange(0.0, float(camera.times[-1]) + 1e-9, _ARROW_EVERY_S)
        for index in np.unique(np.searchsorted(camera.times, moments)):
            index = min(int(index), len(eye) - 1)
            tip = eye[index] + 0.35 * look[index] / max(float(np.linalg.norm(look[index])), 1e-9)
            shapes.append(self.line(np.stack([eye[index], tip]), "#d33", 2))
            x, y = self._pixels(eye[index][None])[0]
            shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#d33"/>')
            shapes.append(
                f'<text x="{x:.1f}" y="{y - 7:.1f}" fill="#d33">{camera.times[index]:.0f} s</text>'
            )
        return shapes
