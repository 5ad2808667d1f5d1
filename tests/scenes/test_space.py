import math

import pytest

from spatial_ttt.scenes.catalogue import make
from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.floorplan import FloorPlan, make_plan
from spatial_ttt.scenes.space import Block, RoomSpace, block_of, overlap, yaw_of


@pytest.fixture
def plan() -> FloorPlan:
    return make_plan(Dice(4), 2, ("living room", "bedroom"))


@pytest.fixture
def space(plan: FloorPlan) -> RoomSpace:
    return RoomSpace(plan, plan.rooms[0])


def test_touching_is_no_overlap() -> None:
    a = Block(0, 0, 0, 1, 1, 1)
    assert not overlap(a, Block(1, 0, 0, 2, 1, 1))
    assert overlap(a, Block(0.99, 0, 0, 2, 1, 1))
    assert not overlap(a, Block(0, 0, 1, 1, 1, 2))


def test_block_grows_with_turning() -> None:
    sofa = make("sofa", Dice(1))
    width, depth, height = sofa.size
    straight, quarter = block_of(sofa, 0, 0, 0, 0.0), block_of(sofa, 0, 0, 0, math.pi / 2)
    assert straight.x1 - straight.x0 == pytest.approx(width)
    assert quarter.x1 - quarter.x0 == pytest.approx(depth)
    slanted = block_of(sofa, 0, 0, 0.5, math.pi / 4)
    assert slanted.x1 - slanted.x0 == pytest.approx((width + depth) / math.sqrt(2), abs=1e-6)
    assert slanted.z1 == pytest.approx(0.5 + height)


def test_furniture_must_stay_in_the_room_and_off_door_zones(space: RoomSpace) -> None:
    b = space.room.bounds
    assert not space.fits(Block(b.x0 - 0.1, b.y0 + 1, 0, b.x0 + 0.3, b.y0 + 1.3, 1))
    zone = next(zone for zone in space.zones if zone.z0 < 0.1)
    before_door = Block(zone.x0, zone.y0, 0, zone.x1, zone.y1, 1)
    assert not space.fits(before_door)


def test_a_wall_across_the_room_bars_the_way(plan: FloorPlan) -> None:
    room = next(r for r in plan.rooms if r.notch is None)
    space = RoomSpace(plan, room)
    b = room.bounds
    assert space.is_walkable(space.free)
    gate = space.gates[0]
    ring = Block(gate[0] - 0.9, gate[1] - 0.9, 0, gate[0] + 0.9, gate[1] + 0.9, 1)
    assert space.leaves_way(ring) is None
    corner = Block(b.x0, b.y0, 1.9, b.x1, b.y1, 2.0)
    assert space.leaves_way(corner) is space.free  # above heads


def test_copies_are_independent(space: RoomSpace) -> None:
    other = space.copy()
    other.add(Block(0, 0, 0, 1, 1, 1), 5, other.without(space.room.bounds))
    assert len(other.solids) == len(space.solids) + 1
    assert space.free.any() and not other.free.any()


def test_yaw_faces_the_normal() -> None:
    for normal in ((0, -1), (1, 0), (0, 1), (-1, 0)):
        yaw = yaw_of(normal)
        assert (math.sin(yaw), -math.cos(yaw)) == pytest.approx(normal, abs=1e-6)
