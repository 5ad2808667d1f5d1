"""Draws parts as a camera sees them, with OpenGL: colour, object id and metric depth.

Frames are drawn in stacks: one draw per kind of solid and stack, one shading pass, one read-back.
Needs no display; EGL gives a context on a graphics card or, without one, on the CPU (llvmpipe).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import moderngl
import numpy as np
from numpy.typing import NDArray

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes import glsl
from spatial_ttt.scenes.scene import Camera, Parts, Visibility
from spatial_ttt.scenes.shading import pack_parts
from spatial_ttt.scenes.views import (
    FAR,
    NEAR,
    Bounds,
    Views,
    count_pixels,
    pack_views,
    part_bounds,
    visible_faces,
)

CLIP_DISTANCE_0, CLIP_DISTANCE_1 = 0x3000, 0x3001
"""OpenGL's names for the two cuts that keep a frame off its neighbours in the stack."""
STACK_PIXELS = 2_000_000
"""Samples drawn per stack: enough to keep a card busy, few enough to stay in its caches."""


@dataclass(frozen=True, slots=True)
class Layers:
    """What the camera saw in T frames."""

    rgb: NDArray[np.uint8]  # [T, H, W, 3] sRGB
    object_id: NDArray[np.int32]  # [T, H, W]; 0 is the building, or nothing
    depth: NDArray[np.float32]  # [T, H, W] m along the camera's z; 0 where nothing was hit


class Renderer:
    """An OpenGL context and its targets for frames of one size. Use it as a context manager.

    `samples` counts samples along each side of a pixel: 1 draws hard edges, 2 smooth ones.
    Frames show the camera's whole field of view, also where the camera's own size is another.
    A renderer belongs to the thread that made it; several may live side by side.
    """

    _records: moderngl.Texture
    _entries: moderngl.Texture
    _indices: moderngl.Buffer
    _boxes: moderngl.VertexArray
    _rounds: moderngl.VertexArray
    _screen: moderngl.VertexArray
    _bounds: Bounds

    def __init__(self, width: int, height: int, samples: int = 1) -> None:
        if width < 1 or height < 1 or not 1 <= samples <= 4:
            raise SceneError(
                f"a renderer needs a size of at least 1 x 1 and 1 to 4 samples, "
                f"got {width} x {height} and {samples}"
            )
        self.width, self.height, self.samples = width, height, samples
        self._is_closed = False
        self._context = _open_context()
        self.device: str = self._context.info["GL_RENDERER"]
        limit = int(self._context.info["GL_MAX_TEXTURE_SIZE"])
        per_frame = width * height * samples * samples
        if max(width, height) * samples > limit:
            self.close()
            raise SceneError(
                f"frames of {width} x {height} with {samples} samples a side exceed the "
                f"{limit} pixels of {self.device}; draw smaller frames"
            )
        self.stack = max(1, min(STACK_PIXELS // per_frame, limit // (height * samples)))
        self._context.enable_direct(CLIP_DISTANCE_0)
        self._context.enable_direct(CLIP_DISTANCE_1)
        self._make_targets()
        self._make_programs()
        self._make_entries(glsl.ENTRIES_PER_ROW)
        self._parts: Parts | None = None

    def __enter__(self) -> Renderer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the context and everything in it back; closing twice is fine."""
        if not self._is_closed:
            self._is_closed = True
            self._context.release()

    def render(
        self, parts: Parts, camera: Camera, frames: slice | Sequence[int] | None = None
    ) -> Layers:
        """Colour, object ids and depth of the camera's frames (all of them by default)."""
        views = pack_views(camera, frames, self.width, self.height, self.samples)
        shape = (views.count, self.height, self.width)
        layers = Layers(
            np.empty((*shape, 3), np.uint8), np.empty(shape, np.int32), np.empty(shape, np.float32)
        )
        for begin, count in self._draw(parts, views):
            stack = slice(begin, begin + count)
            self._read(0, layers.rgb[stack])
            self._read(1, layers.object_id[stack])
            self._read(2, layers.depth[stack])
        return layers

    def visibility(
        self, parts: Parts, camera: Camera, frames: slice | Sequence[int] | None = None
    ) -> Visibility:
        """Visible pixels of each object (without the building) in each frame."""
        views = pack_views(camera, frames, self.width, self.height, self.samples)
        object_ids = np.unique(parts.object_id[parts.object_id > 0]).astype(np.int32)
        pixels = np.empty((views.count, len(object_ids)), np.int32)
        ids = np.empty((self.stack, self.height, self.width), np.int32)
        for begin, count in self._draw(parts, views):
            self._read(1, ids[:count])
            pixels[begin : begin + count] = count_pixels(ids[:count], object_ids)
        return Visibility(object_ids, pixels, views.times)

    def _draw(self, parts: Parts, views: Views) -> Iterator[tuple[int, int]]:
        """Draws stack after stack; yields (first frame, frames) while one is in the targets."""
        if self._is_closed:
            raise SceneError("this renderer was closed; make another one")
        with self._context:  # makes it current: another renderer may have drawn in between
            self._load_parts(parts)
            for program in self._programs:
                _set(program, lens=views.lens)
            for begin in range(0, views.count, self.stack):
                stack = views.slice(begin, begin + self.stack)
                self._draw_stack(stack)
                yield begin, stack.count

    def _draw_stack(self, views: Views) -> None:
        self._views.write(views.texels.tobytes(), viewport=(0, 0, 6, views.count))
        entries, num_boxes = visible_faces(self._bounds, views)
        self._load_entries(entries)
        for unit, texture in enumerate((self._records, self._views, self._entries, self._winners)):
            texture.use(unit)
        self._visible.use()
        self._visible.clear()
        self._context.enable(moderngl.DEPTH_TEST)
        for vertices, first, end in (
            (self._boxes, 0, num_boxes),
            (self._rounds, num_boxes, len(entries)),
        ):
            if end > first:
                vertices.render(vertices=6 * (end - first), first=6 * first)
        self._context.disable(moderngl.DEPTH_TEST)
        self._shaded.use()
        self._screen.render(vertices=6 * views.count)

    def _read(self, target: int, out: NDArray[Any]) -> None:
        """Copies the first frames of a target into `out`."""
        self._shaded.read_into(
            out,
            viewport=(0, 0, self.width, self.height * len(out)),
            components=3 if target == 0 else 1,
            attachment=target,
            alignment=1,
            dtype=("f1", "i4", "f4")[target],
        )

    def _load_parts(self, parts: Parts) -> None:
        if parts is self._parts:
            return
        texels = pack_texels(pack_parts(parts))
        if len(texels) > self._records.height * glsl.PARTS_PER_ROW:
            self._records.release()
            self._records = _texture_for(
                self._context, len(texels), glsl.PARTS_PER_ROW, glsl.PART_TEXELS
            )
        padded = np.zeros((self._records.height * glsl.PARTS_PER_ROW, *texels.shape[1:]), np.uint32)
        padded[: len(texels)] = texels
        self._records.write(padded)
        self._bounds, self._parts = part_bounds(parts), parts

    def _load_entries(self, entries: NDArray[np.uint32]) -> None:
        if len(entries) > self._entries.height * glsl.ENTRIES_PER_ROW:
            self._make_entries(len(entries))
        rows = max(1, -(-len(entries) // glsl.ENTRIES_PER_ROW))
        padded = np.zeros((rows * glsl.ENTRIES_PER_ROW, 2), np.uint32)
        padded[: len(entries)] = entries
        self._entries.write(padded, viewport=(0, 0, glsl.ENTRIES_PER_ROW, rows))

    def _make_targets(self) -> None:
        make, stack = self._context.texture, self.stack
        fine = (self.width * self.samples, self.height * self.samples * stack)
        self._winners = make(fine, 1, dtype="f4")
        self._visible = self._context.framebuffer(
            [self._winners], self._context.depth_renderbuffer(fine)
        )
        size = (self.width, self.height * stack)
        self._shaded = self._context.framebuffer(
            [make(size, 4), make(size, 1, dtype="i4"), make(size, 1, dtype="f4")]
        )
        self._views = make((6, stack), 4, dtype="f4")
        for texture in (self._winners, self._views):
            texture.filter = (moderngl.NEAREST, moderngl.NEAREST)
        self._records = _texture_for(self._context, 1, glsl.PARTS_PER_ROW, glsl.PART_TEXELS)

    def _make_programs(self) -> None:
        make = self._context.program
        box, round_ = (
            make(vertex_shader=glsl.visibility_vertex(is_round), fragment_shader=fragment)
            for is_round, fragment in ((False, glsl.VISIBILITY_BOX), (True, glsl.VISIBILITY_ROUND))
        )
        shading = make(
            vertex_shader=glsl.SHADING_VERTEX, fragment_shader=glsl.shading_fragment(self.samples)
        )
        self._programs = (box, round_, shading)
        clip_z = ((FAR + NEAR) / (FAR - NEAR), -2.0 * FAR * NEAR / (FAR - NEAR))
        size = (self.width * self.samples, self.height * self.samples)
        for program in self._programs:
            _set(program, parts=0, views=1, entries=2, winners=3)
            _set(program, size=size, frames=self.stack, clip_z=clip_z)

    def _make_entries(self, count: int) -> None:
        """Room for a third more than count faces, and the index buffer to draw them with."""
        if hasattr(self, "_entries"):
            for old in (self._entries, self._boxes, self._rounds, self._screen, self._indices):
                old.release()
        self._entries = _texture_for(self._context, count, glsl.ENTRIES_PER_ROW, 1)
        corners = np.arange(self._entries.height * glsl.ENTRIES_PER_ROW, dtype=np.uint32) * 4
        indices = corners[:, None] + np.array(glsl.FACE_INDICES, np.uint32)
        self._indices = self._context.buffer(indices.tobytes())
        self._boxes, self._rounds, self._screen = (
            self._context.vertex_array(program, [], index_buffer=self._indices)
            for program in self._programs
        )


def pack_texels(records: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Part records as the shaders read them: uint32 [P, 5, 4].

    Centre, half size and two axes as floats in three words each; in the fourth words kind,
    emission and object id as bits, then the material's numbers and the colour as pairs of bfloat16.
    """
    texels = np.empty((len(records), glsl.PART_TEXELS, 4), np.uint32)
    bits = records.view(np.uint32)
    for texel, column in enumerate((0, 4, 8, 12)):
        texels[:, texel, :3] = bits[:, column : column + 3]
    kind, object_id, emission = (records[:, i].astype(np.uint32) for i in (3, 7, 31))
    texels[:, 0, 3] = kind | emission << 2 | object_id << 4
    order = [11, 15, 19, 23, 24, 25, 26, 27, 28, 29, 20, 21, 22, 30]
    short = bits[:, order] >> 16
    pairs = short[:, 0::2] | short[:, 1::2] << 16
    texels[:, 1:4, 3], texels[:, 4] = pairs[:, :3], pairs[:, 3:]
    return texels


def _texture_for(
    context: moderngl.Context, count: int, per_row: int, texels: int
) -> moderngl.Texture:
    """A texture with room for a third more than count items of so many texels."""
    size = (per_row * texels, max(1, -(-count * 4 // (3 * per_row))))
    texture = context.texture(size, 2 if texels == 1 else 4, dtype="u4")
    texture.filter = (moderngl.NEAREST, moderngl.NEAREST)  # whole numbers cannot be blended
    return texture


def _set(program: moderngl.Program, **uniforms: Any) -> None:
    """Sets the uniforms that the program has; compilers drop those it does not use."""
    for name, value in uniforms.items():
        if name in program:
            program[name] = value


def _open_context() -> moderngl.Context:
    libraries: dict[str, Any] = {"libegl": "libEGL.so.1", "libgl": "libGL.so.1"}
    advice = (
        "on Debian or Ubuntu install libegl1, libgl1 and, where there is no graphics card, "
        "libgl1-mesa-dri"
    )
    for name in libraries.values():
        try:
            ctypes.CDLL(name)
        except OSError as error:
            raise SceneError(f"OpenGL without a display needs {name}: {error}; {advice}") from error
    settings: dict[str, Any] = {"backend": "egl", **libraries}
    try:
        return moderngl.create_context(standalone=True, require=430, **settings)
    except Exception as error:  # moderngl and its loader raise bare Exceptions
        raise SceneError(f"EGL gave no OpenGL 4.3 context: {error}; {advice}") from error
