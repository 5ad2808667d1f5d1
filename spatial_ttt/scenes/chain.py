"""Long streams: one home after another, minutes to hours, with something to remember.

`stream(seed, ...)` yields stops, each a home with its camera and the second it starts at; only one
home lives at a time. For recall, one unusual thing is placed at four spots spread over the stream,
each beside a different kind of furniture; for counting, every home is another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.catalogue import TABLETOP_UNUSUAL, UNUSUAL
from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.furnish import Furnisher
from spatial_ttt.scenes.homes import Home, assemble, home_seed, make_home
from spatial_ttt.scenes.physics import rooms_at
from spatial_ttt.scenes.scene import Camera
from spatial_ttt.scenes.space import Block, Placed
from spatial_ttt.scenes.walk import walk

NUM_SPOTS = 4
"""How often the unusual thing appears in a stream."""
SHORTEST_S = 120.0
_HOMES_PER_STOP = 6  # tried in turn when the unusual thing is due but finds no clear spot
LANDMARKS = (
    "bed", "sofa", "table", "desk", "coffee table", "dresser", "nightstand", "bookshelf", "piano",
    "stove", "refrigerator", "bathtub", "toilet", "washer", "wardrobe", "armchair", "tv stand",
    "fireplace", "bench", "side table", "shower", "dishwasher", "crib",
)  # fmt: skip
"""Furniture that a spot is named by."""
_FREE_AROUND = 0.35
"""Any other category than the landmark is at least this much farther from the thing, metres."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where the unusual thing is in one home."""

    category: str  # of the unusual thing
    object_id: int
    landmark: str  # category of the furniture it is on or beside
    landmark_id: int
    room_id: int


@dataclass(frozen=True, slots=True)
class Stop:
    """One home of a stream, from `start_s` on; camera times count from the stop's own start."""

    index: int
    home: Home
    camera: Camera
    start_s: float
    length_s: float
    spot: Spot | None = None

    @property
    def end_s(self) -> float:
        """When the next stop starts."""
        return self.start_s + self.length_s


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """How long a stream is and how it is filmed."""

    duration_s: float
    fps: float = 1.0
    width: int = 480
    height: int = 352
    fov_deg: float = 70.0
    split: str = "train"
    unusual: str | None = None
    """A kind of the catalogue's `UNUSUAL`; None picks one by the seed."""
    with_spots: bool = True
    """Whether the unusual thing is placed at all."""

    def __post_init__(self) -> None:
        if not self.duration_s >= SHORTEST_S:
            raise SceneError(
                f"a stream lasts at least {SHORTEST_S:.0f} s, got duration_s {self.duration_s}"
            )
        if self.unusual is not None and self.unusual not in UNUSUAL:
            raise SceneError(
                f"no unusual thing {self.unusual!r}; choose one of {', '.join(UNUSUAL)}"
            )


def stream(seed: int, options: StreamOptions) -> Iterator[Stop]:
    """The stops of one stream in order, about `duration_s` in all; four have a spot."""
    dice = Dice(seed, 20)
    kind = options.unusual or dice.pick(tuple(UNUSUAL))
    due = [options.duration_s * (k + dice.uniform(0.0, 0.4)) / NUM_SPOTS for k in range(NUM_SPOTS)]
    used: list[str] = []
    start, index = 0.0, 0
    while start < options.duration_s - 1e-6:
        longest = min(options.duration_s / (2 * NUM_SPOTS), options.duration_s - start)
        wants_spot = options.with_spots and len(used) < NUM_SPOTS
        for attempt in range(_HOMES_PER_STOP):
            home_id = _stop_seed(options.split, seed, index * _HOMES_PER_STOP + attempt)
            home = make_home(home_id, num_rooms=dice.between(1, 6))
            if _has(home, kind) and attempt + 1 < _HOMES_PER_STOP:
                continue  # the thing must be seen at its four spots only
            camera = _film(home, options, longest)
            spot: Spot | None = None
            is_due = wants_spot and start + len(camera.times) / options.fps > due[len(used)]
            if is_due:
                home, camera, spot = _with_spot(home, camera, (kind, dice, used), options, longest)
            if spot is not None or not is_due:
                break
        if spot is not None:
            used.append(spot.landmark)
        length = len(camera.times) / options.fps
        yield Stop(index, home, camera, round(start, 6), round(length, 6), spot)
        start += length
        index += 1


def _has(home: Home, kind: str) -> bool:
    return any(thing.furniture.category == kind for thing in home.placed)


def _with_spot(
    home: Home,
    camera: Camera,
    thing: tuple[str, Dice, list[str]],
    options: StreamOptions,
    longest: float,
) -> tuple[Home, Camera, Spot | None]:
    """The home with the unusual thing in a room that its camera enters, or as it was."""
    kind, dice, used = thing
    kept = place_unusual(home, kind, dice, tuple(used), _entered(home, camera))
    if kept is None:
        return home, camera, None
    # The thing may stand in the old way: walk the home as it is now.
    again = _film(kept[0], options, longest)
    if kept[1].room_id not in _entered(kept[0], again):
        return home, camera, None
    return kept[0], again, kept[1]


def _stop_seed(split: str, seed: int, index: int) -> int:
    """Streams use the upper half of a split's seeds, 8192 homes each: none meets a single home."""
    if not 0 <= seed < 1 << 26:
        raise SceneError(f"a stream's seed must be 0 to {(1 << 26) - 1}, got {seed}")
    return home_seed(split, (1 << 39) + (seed << 13) + index % 8192)


def _film(home: Home, options: StreamOptions, longest: float) -> Camera:
    """One tour, cut off when it would last longer than allowed."""
    camera = walk(
        home,
        0,
        fps=options.fps,
        width=options.width,
        height=options.height,
        fov_deg=options.fov_deg,
    )
    count = max(1, int(longest * options.fps + 1e-6))
    if len(camera.times) <= count:
        return camera
    return replace(
        camera, camera_to_world=camera.camera_to_world[:count], times=camera.times[:count]
    )


def _entered(home: Home, camera: Camera) -> tuple[int, ...]:
    """The rooms a camera was in."""
    rooms = rooms_at(home.scene, camera.camera_to_world[:, :2, 3])
    return tuple(sorted({int(room) for room in rooms} - {-1}))


def place_unusual(
    home: Home,
    kind: str,
    dice: Dice,
    used: tuple[str, ...] = (),
    room_ids: tuple[int, ...] | None = None,
) -> tuple[Home, Spot] | None:
    """The home with one more thing, on or beside a landmark whose category is not in `used`.

    Only spots (in `room_ids`) are taken where the landmark is clearly what the thing is at. None
    when there is no such spot.
    """
    candidates = [
        i
        for i, thing in enumerate(home.placed)
        if thing.furniture.category in LANDMARKS
        and thing.furniture.category not in used
        and (room_ids is None or thing.room_id in room_ids)
    ]
    for landmark in dice.shuffled(candidates):
        thing = home.placed[landmark]
        spaces = [space.copy() for space in home.spaces]
        placed = list(home.placed)
        room = Furnisher(spaces[thing.room_id], dice, placed)
        index = None
        if kind in TABLETOP_UNUSUAL:
            index = room.on(landmark, kind)
        if index is None:
            index = room.beside(landmark, kind, 0.05)
        if index is None or not _is_clear(placed, index, landmark):
            continue
        grown = assemble(home.seed, home.plan, tuple(spaces), placed)
        spot = Spot(
            placed[index].furniture.category,
            index + 1,
            thing.furniture.category,
            landmark + 1,
            thing.room_id,
        )
        return grown, spot
    return None


def _gap(a: Block, b: Block) -> float:
    """Distance between two blocks, metres."""
    dx = max(a.x0 - b.x1, b.x0 - a.x1, 0.0)
    dy = max(a.y0 - b.y1, b.y0 - a.y1, 0.0)
    dz = max(a.z0 - b.z1, b.z0 - a.z1, 0.0)
    return float((dx * dx + dy * dy + dz * dz) ** 0.5)


def _is_clear(placed: list[Placed], index: int, landmark: int) -> bool:
    """Whether no other category of furniture is about as near as the landmark."""
    mine, room = placed[index].block, placed[index].room_id
    near = _gap(mine, placed[landmark].block) + _FREE_AROUND
    category = placed[landmark].furniture.category
    return all(
        _gap(mine, other.block) >= near
        for i, other in enumerate(placed)
        if i != index and other.room_id == room and other.furniture.category != category
    )
