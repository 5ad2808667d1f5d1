from spatial_ttt.scenes.catalogue import make
from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.floorplan import make_plan
from spatial_ttt.scenes.furnish import Furnisher
from spatial_ttt.scenes.habits import desk_place, fill, hang_curtains, scatter
from spatial_ttt.scenes.space import RoomSpace


def _room(seed: int, plenty: float = 1.0) -> Furnisher:
    plan = make_plan(Dice(seed), 1, ("office",))
    return Furnisher(RoomSpace(plan, plan.rooms[0]), Dice(seed, 1), [], plenty)


def test_curtains_of_a_room_are_alike_and_hang_at_windows() -> None:
    hung = 0
    for seed in range(15):
        plan = make_plan(Dice(seed), 1, ("bedroom",))
        room = Furnisher(RoomSpace(plan, plan.rooms[0]), Dice(seed, 1), [])
        hang_curtains(room)
        curtains = [p for p in room.placed if p.furniture.category == "curtain"]
        hung += len(curtains)
        assert len({p.furniture.solids[1].paint for p in curtains}) <= 1
        assert len(curtains) <= sum(o.kind == "window" for o in plan.openings)
    assert hung >= 10


def test_small_things_go_on_their_hosts_only() -> None:
    room = _room(3)
    scatter(room, ("desk",), (("cup", 1.0),))
    assert room.placed == []
    desk_place(room)
    desk = room.indices("desk")[0]
    scatter(room, ("desk",), (("cup", 1.0), ("books", 1.0)))
    on_desk = {p.furniture.category for p in room.placed if p.support == desk}
    assert {"cup", "books"} & on_desk
    assert room.indices("chair") and on_desk & {"monitor", "laptop"}


def test_filling_stops_at_its_share_and_heeds_plenty() -> None:
    kinds = ("bookshelf", "cabinet", "dresser", "plant", "box", "basket", "armchair", "stool")
    full, sparse = _room(5), _room(5, plenty=0.3)
    fill(full, kinds, 0.3)
    fill(sparse, kinds, 0.3)
    assert sparse.covered() < full.covered()
    largest = make("armchair", Dice(0)).size
    assert full.covered() < 0.3 + 1.2 * largest[0] * largest[1] / full.room.area
