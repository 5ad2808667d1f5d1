"""A walk through a home as a person with a camera makes it.

walk(home, seed) = tour of rooms -> stations (go, look around) -> a track at 30 Hz, smoothed ->
poses at the frames' times. Speeds stay below 1.4 m/s and about 100 degrees a second.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import numpy as np

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.gaze import NUM_BEARINGS, Sights
from spatial_ttt.scenes.homes import Home
from spatial_ttt.scenes.paths import Gate, Point, RoomPaths, gates_of, keeps_clear, obstacles, tour
from spatial_ttt.scenes.scene import Array, Camera

STEP = 1.0 / 30.0
"""Time step of the track, seconds."""
MAX_SPEED = 1.4
MAX_TURN = math.radians(100.0)
"""Fastest turn of the head, radians a second."""
LEAST_CLEARANCE = 0.1
"""The camera's axis never comes nearer to anything solid than this, metres."""


@dataclass
class _Track:
    """Where one is and where one looks, sample by sample; looks are unwrapped radians."""

    x: list[float] = field(default_factory=list)
    y: list[float] = field(default_factory=list)
    yaw: list[float] = field(default_factory=list)
    moving: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.x)

    def stand(self, point: Point, yaws: list[float]) -> None:
        """More samples on the spot, one for each direction."""
        count = len(yaws)
        self.x += [point[0]] * count
        self.y += [point[1]] * count
        self.yaw += yaws
        self.moving += [0.0] * count


def walk(
    home: Home,
    seed: int,
    *,
    duration_s: float | None = None,
    fps: float = 2.0,
    num_frames: int | None = None,
    width: int = 480,
    height: int = 352,
    fov_deg: float = 70.0,
    room_ids: tuple[int, ...] | None = None,
) -> Camera:
    """The camera of one walk.

    Without `duration_s` the walk lasts as long as one tour of all rooms takes; a longer one revisits
    rooms, a shorter one hurries (to 1.4 m/s) and may end before every room was entered. `num_frames`
    spreads that many frames evenly over the walk instead of `fps`. `fov_deg` is horizontal.
    `room_ids` keeps the walk to some connected rooms.
    """
    _check(duration_s, fps, num_frames)
    dice = Dice(home.seed, 4, seed)
    rooms = room_ids if room_ids is not None else tuple(r.room_id for r in home.scene.rooms)
    known = {room.room_id for room in home.scene.rooms}
    if not rooms or not set(rooms) <= known:
        raise SceneError(f"room_ids must name rooms 0 to {len(known) - 1}, got {rooms}")
    track = _make_track(home, dice, rooms, duration_s)
    position, yaw = _smooth(home, track)
    total = (len(track) - 1) * STEP
    hurry = 1.0
    if duration_s is not None and total > duration_s:
        hurry = min(total / duration_s, 1.25)
    length = total if duration_s is None else duration_s
    count = num_frames if num_frames is not None else max(int(length * fps + 1e-9), 1)
    spacing = length / count if num_frames is not None else 1.0 / fps
    times = np.round(np.arange(count) * spacing, 9)
    clock = np.arange(len(track)) * STEP / hurry
    eye = _eye(dice, position, np.array(track.moving))
    columns = (position[:, 0], position[:, 1], eye, yaw, _pitch(dice, len(track)))
    sampled = np.stack([np.interp(times, clock, column) for column in columns], axis=1)
    focal = width / 2.0 / math.tan(math.radians(fov_deg) / 2.0)
    intrinsics = np.array([[focal, 0.0, width / 2.0], [0.0, focal, height / 2.0], [0.0, 0.0, 1.0]])
    return Camera(width, height, np.round(intrinsics, 9), poses(sampled), times)


def _check(duration_s: float | None, fps: float, num_frames: int | None) -> None:
    if duration_s is not None and not duration_s > 0.0:
        raise SceneError(f"duration_s must be above 0 seconds, got {duration_s}")
    if not fps > 0.0:
        raise SceneError(f"fps must be above 0, got {fps}")
    if num_frames is not None and num_frames < 1:
        raise SceneError(f"num_frames must be at least 1, got {num_frames}")


def poses(samples: Array) -> Array:
    """camera_to_world [T, 4, 4] from x, y, z (m), yaw and pitch (rad; up is positive) [T, 5]."""
    yaw, pitch = samples[:, 3], samples[:, 4]
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    zero = np.zeros_like(yaw)
    out = np.zeros((len(samples), 4, 4))
    out[:, :3, 0] = np.stack([sy, -cy, zero], axis=1)
    out[:, :3, 1] = np.stack([cy * sp, sy * sp, -cp], axis=1)
    out[:, :3, 2] = np.stack([cy * cp, sy * cp, sp], axis=1)
    out[:, :3, 3] = samples[:, :3]
    out[:, 3, 3] = 1.0
    return np.round(out, 9) + 0.0


def _make_track(home: Home, dice: Dice, rooms: tuple[int, ...], duration_s: float | None) -> _Track:
    """Tours of the rooms until the time is filled (at least one)."""
    paths = {room: RoomPaths(home.spaces[room]) for room in rooms}
    sights = {room: Sights(home, room) for room in rooms}
    gates = {gate.rooms: gate for gate in gates_of(home)}
    track = _Track()
    here: Point | None = None
    start = rooms[0] if dice.chance(0.5) else dice.pick(rooms)
    while True:
        order = tour(home, dice, start, rooms)
        seen: set[int] = set()
        for index, room in enumerate(order):
            area = home.plan.rooms[room].area
            number = (1 if area < 8.0 else 2 if area < 17.0 else 3) if room not in seen else 0
            if room in seen and dice.chance(0.3):
                number = 1
            if here is not None and number and index:
                _look_in(track, dice, here, paths[room].middle())
            for stop in paths[room].viewpoints(dice, number):
                focus = sights[room].focus(dice, *stop)
                way = paths[room].path(here, stop) if here else [stop]
                here = _go(track, dice, way, focus)
                _look_around(track, dice, here, sights[room], is_first=room not in seen)
                seen.add(room)
            if here is None:
                here = _go(track, dice, paths[room].viewpoints(dice, 1))
            if index + 1 < len(order):
                near, far = _through(gates, room, order[index + 1])
                here = _go(track, dice, [*paths[room].path(here, near), far])
            if duration_s is not None and seen and len(track) * STEP > 1.25 * duration_s + 1.0:
                return track
        if duration_s is None or (len(track) - 1) * STEP >= duration_s:
            return track
        start = order[-1]


def _through(gates: dict[tuple[int, int], Gate], room: int, other: int) -> tuple[Point, Point]:
    """The points before and behind the door from one room to another."""
    if (room, other) in gates:
        return gates[room, other].points
    far, near = gates[other, room].points
    return near, far


def _go(track: _Track, dice: Dice, points: list[Point], focus: Point | None = None) -> Point:
    """Walk along points at an even pace, looking ahead with glances to the sides or at a focus."""
    if len(points) == 1 or len(track) == 0:
        track.stand(points[0], [dice.uniform(-math.pi, math.pi)])
    line = np.array(points)
    pieces = np.sqrt((np.diff(line, axis=0) ** 2).sum(1))
    total = float(pieces.sum())
    if total < 1e-6:
        return points[-1]
    at = np.concatenate([[0.0], np.cumsum(pieces)])
    pace = dice.uniform(0.55, 1.05)
    count = max(int(total / pace / STEP), 1)
    along = total * np.arange(1, count + 1) / count
    x, y = np.interp(along, at, line[:, 0]), np.interp(along, at, line[:, 1])
    ahead, behind = np.minimum(along + 0.6, total), np.maximum(along - 0.1, 0.0)
    heading = np.arctan2(
        np.interp(ahead, at, line[:, 1]) - np.interp(behind, at, line[:, 1]),
        np.interp(ahead, at, line[:, 0]) - np.interp(behind, at, line[:, 0]),
    )
    heading = np.unwrap(np.concatenate([[track.yaw[-1]], heading]))[1:]
    _turn(track, (track.x[-1], track.y[-1]), float(heading[0]), MAX_TURN * 0.65)
    fade = np.minimum(1.0, np.minimum(np.arange(count), count - np.arange(count)) * STEP)
    if focus is None:
        swing, period = dice.uniform(0.15, 0.55), dice.uniform(2.5, 5.0)
        glance = swing * np.sin(np.arange(count) * STEP * 2.0 * math.pi / period) * dice.sign()
    else:
        toward = np.arctan2(focus[1] - y, focus[0] - x) - heading
        fade = np.minimum(1.0, np.arange(count) * STEP)  # keeps looking at it on arrival
        glance = 0.85 * np.clip(np.angle(np.exp(1j * toward)), -1.3, 1.3)
    track.x.extend(x.tolist())
    track.y.extend(y.tolist())
    track.yaw.extend((heading + fade * glance).tolist())
    track.moving.extend([1.0] * count)
    return points[-1]


def _turn(track: _Track, point: Point, goal: float, rate: float) -> None:
    """Turn on the spot to an unwrapped direction at a rate in radians a second."""
    start = track.yaw[-1]
    count = int(abs(goal - start) / rate / STEP)
    track.stand(point, [start + (goal - start) * k / count for k in range(1, count + 1)])


def _look_in(track: _Track, dice: Dice, point: Point, middle: Point) -> None:
    """On the threshold: a slow look across the room before going on."""
    facing = math.atan2(middle[1] - point[1], middle[0] - point[0])
    start = track.yaw[-1]
    facing = start + _wrap(facing - start)
    side, rate = dice.sign(), math.radians(dice.uniform(35.0, 50.0))
    _turn(track, point, facing + side * math.radians(dice.uniform(20.0, 40.0)), rate)
    _turn(track, point, facing - side * math.radians(dice.uniform(20.0, 40.0)), rate)


def _look_around(
    track: _Track, dice: Dice, point: Point, sights: Sights, *, is_first: bool
) -> None:
    """Once round on entering a room, else a look to both sides; slowly where there is much."""
    interest = sights.interest(*point).tolist()
    side = dice.sign()
    turns: tuple[float, ...]
    if is_first:
        turns = (side * math.radians(dice.uniform(290.0, 360.0)),)
    else:
        first, second = dice.uniform(40.0, 120.0), dice.uniform(30.0, 110.0)
        turns = (side * math.radians(first), -side * math.radians(first + second))
    for turn in turns:
        _survey(track, point, turn, interest)
    best = max(range(NUM_BEARINGS), key=lambda k: interest[k]) * 2.0 * math.pi / NUM_BEARINGS
    _turn(track, point, track.yaw[-1] + _wrap(best - track.yaw[-1]), 1.2)
    track.stand(point, [track.yaw[-1]] * int(dice.uniform(0.2, 0.7) / STEP))


def _survey(track: _Track, point: Point, turn: float, interest: list[float]) -> None:
    """Turn on the spot, fast (95 degrees a second) over bare walls and slowly (40) elsewhere."""
    yaw = track.yaw[-1]
    goal, side = yaw + turn, math.copysign(1.0, turn)
    steps = [math.radians(95.0 - 55.0 * share) * STEP for share in interest]
    yaws = []
    while (left := (goal - yaw) * side) > 1e-9:
        step = steps[round(yaw * NUM_BEARINGS / (2.0 * math.pi)) % NUM_BEARINGS]
        yaw += side * (step if step < left else left)
        yaws.append(yaw)
    track.stand(point, yaws)


def _wrap(angle: float) -> float:
    return math.remainder(angle, 2.0 * math.pi)


def _box_filter(values: Array, seconds: float) -> Array:
    """Moving average over a window of this length, ends held."""
    half = int(seconds / STEP / 2.0)
    if half == 0:
        return values
    padded = np.concatenate([np.full(half, values[0]), values, np.full(half, values[-1])])
    sums = np.concatenate([[0.0], np.cumsum(padded)])
    return np.asarray((sums[2 * half + 1 :] - sums[: -2 * half - 1]) / (2 * half + 1))


def _smooth(home: Home, track: _Track) -> tuple[Array, Array]:
    """Positions [N, 2] and yaw [N] without jerks; smoothing shrinks where it would cut a corner."""
    raw = np.array([track.x, track.y]).T
    rects = obstacles(home)
    position = raw
    for seconds in (0.7, 0.4, 0.2):
        tried = np.stack(
            [_box_filter(_box_filter(raw[:, axis], seconds), seconds * 0.7) for axis in (0, 1)], 1
        )
        if keeps_clear(rects, tried, LEAST_CLEARANCE):
            position = tried
            break
    yaw = _box_filter(_box_filter(np.array(track.yaw), 0.5), 0.4)
    limit = MAX_TURN * STEP / 1.25
    if float(np.abs(np.diff(yaw)).max(initial=0.0)) > limit:
        values = list(
            itertools.accumulate(yaw.tolist(), lambda at, to: at + min(max(to - at, -limit), limit))
        )
        yaw = _box_filter(np.array(values), 0.2)
    return position, yaw


def _eye(dice: Dice, position: Array, moving: Array) -> Array:
    """Eye height [N], m: a person's, with the small bob of steps."""
    height = dice.uniform(1.4, 1.72)
    going = _box_filter(moving, 0.6)
    steps = np.sqrt((np.diff(position, axis=0, prepend=position[:1]) ** 2).sum(1))
    return height + 0.012 * going * np.sin(np.cumsum(steps) * 2.0 * math.pi / 0.7)


def _pitch(dice: Dice, count: int) -> Array:
    """Looking slightly down, slowly wandering [N], radians."""
    knots = max(count // 45, 2) + 2
    base = dice.uniform(-21.0, -12.0)
    values = [base + dice.uniform(-8.0, 8.0) for _ in range(knots)]
    degrees = np.interp(np.arange(count) / 45.0, np.arange(knots), values)
    return np.radians(_box_filter(_box_filter(degrees, 1.0), 0.6))
