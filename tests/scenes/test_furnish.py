import math

import pytest

from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.floorplan import make_plan
from spatial_ttt.scenes.furnish import Furnisher
from spatial_ttt.scenes.space import CEILING, FLOOR, WALL_SIDE, Placed, RoomSpace, overlap


@pytest.fixture
def room() -> Furnisher:
    plan = make_plan(Dice(8), 1, ("living room",))
    return Furnisher(RoomSpace(plan, plan.rooms[0]), Dice(9), [])


def _front(thing: Placed) -> tuple[float, float]:
    return (math.sin(thing.yaw), -math.cos(thing.yaw))


def test_against_wall_touches_it_and_faces_the_room(room: Furnisher) -> None:
    index = room.against_wall("sofa")
    assert index is not None
    thing = room.placed[index]
    front, depth = _front(thing), thing.furniture.size[1]
    back = (thing.x - front[0] * depth / 2, thing.y - front[1] * depth / 2)
    gaps = [
        abs((back[1] if e.axis == 0 else back[0]) - e.offset)
        for e in room.room.edges
        if e.normal == (round(front[0]), round(front[1]))
    ]
    assert min(gaps) == pytest.approx(0.005, abs=1e-3)


def test_chairs_look_at_their_table(room: Furnisher) -> None:
    table = room.in_middle("table", 0.6)
    assert table is not None
    chairs = room.around(table, "chair", 4)
    assert len(chairs) >= 3
    for index in chairs:
        chair, top = room.placed[index], room.placed[table]
        toward = (top.x - chair.x, top.y - chair.y)
        front = _front(chair)
        assert toward[0] * front[0] + toward[1] * front[1] > 0.3
        assert not overlap(chair.block, top.block)
    assert len({room.placed[i].furniture for i in chairs}) == 1  # a set of chairs is alike


def test_things_on_top_rest_there(room: Furnisher) -> None:
    desk = room.against_wall("desk", front=0.7, keep=False)
    assert desk is not None
    lamp = room.on(desk, "lamp")
    assert lamp is not None
    thing, under = room.placed[lamp], room.placed[desk]
    assert thing.support == desk
    assert thing.z == pytest.approx(under.furniture.size[2])
    assert under.block.x0 < thing.x < under.block.x1
    assert under.block.y0 < thing.y < under.block.y1


def test_wall_and_ceiling(room: Furnisher) -> None:
    picture, light = room.on_wall("picture", 1.4), room.on_ceiling("ceiling light")
    assert picture is not None and light is not None
    assert room.placed[picture].support == WALL_SIDE
    assert room.placed[light].support == CEILING
    assert room.placed[light].block.z1 == pytest.approx(room.space.height, abs=1e-3)


def test_opposite_faces_back(room: Furnisher) -> None:
    sofa = room.against_wall("sofa", front=1.2, keep=False)
    assert sofa is not None
    stand = room.opposite(sofa, "tv stand")
    assert stand is not None
    a, b = _front(room.placed[sofa]), _front(room.placed[stand])
    assert a[0] * b[0] + a[1] * b[1] == pytest.approx(-1.0)


def test_beside_and_before_keep_clear(room: Furnisher) -> None:
    sofa = room.against_wall("sofa", front=1.2, keep=False)
    assert sofa is not None
    for index in (room.beside(sofa, "side table"), room.before(sofa, "coffee table", 0.4)):
        if index is not None:
            assert not overlap(room.placed[index].block, room.placed[sofa].block)
            assert room.placed[index].support == FLOOR


def test_nothing_fits_twice_in_the_same_place(room: Furnisher) -> None:
    index = room.against_wall("wardrobe")
    assert index is not None
    thing = room.placed[index]
    assert room.put(thing.furniture, (thing.x, thing.y, 0.0), thing.yaw) is None


def test_kept_free_floor_stays_free(room: Furnisher) -> None:
    index = room.against_wall("wardrobe", front=0.6)
    assert index is not None
    assert room.before(index, "box", 0.05) is None
    assert room.covered() > 0.0
