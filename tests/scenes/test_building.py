import numpy as np

from spatial_ttt.scenes.building import build
from spatial_ttt.scenes.catalogue.mesh import Solid
from spatial_ttt.scenes.catalogue.palette import Material
from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.floorplan import WALL, FloorPlan, make_plan


def _inside_any(solids: list[Solid], point: tuple[float, float, float]) -> bool:
    return any(
        all(abs(p - c) <= h + 1e-9 for p, c, h in zip(point, s.center, s.half, strict=True))
        for s in solids
    )


def _plans() -> list[FloorPlan]:
    return [make_plan(Dice(seed, n), n) for n in (1, 3, 6) for seed in range(4)]


def test_walls_are_closed_but_for_the_openings() -> None:
    """Points just inside every wall's face: solid away from openings, free within doors."""
    for plan in _plans():
        solids = build(Dice(1), plan)
        for room in plan.rooms:
            for edge in room.edges:
                holes = [o for o in plan.openings if edge in o.edges]
                for along in np.arange(edge.low + 0.03, edge.high, 0.11):
                    for z in (0.3, 1.5, plan.height - 0.05):
                        hole = [o for o in holes if o.low - 0.07 < along < o.high + 0.07]
                        x, y = edge.point(float(along), -WALL / 4)
                        if not hole:
                            assert _inside_any(solids, (x, y, z))


def test_doorways_are_free() -> None:
    for plan in _plans():
        solids = build(Dice(1), plan)
        for opening in plan.openings:
            if opening.kind == "door" and opening.leaf != "closed":
                edge = opening.edges[0]
                for inward in np.arange(-WALL - 0.3, 0.3, 0.04):
                    x, y = edge.point((opening.low + opening.high) / 2, float(inward))
                    assert not _inside_any(solids, (x, y, 1.0))


def test_every_room_has_a_floor_and_a_ceiling() -> None:
    for plan in _plans():
        solids = build(Dice(1), plan)
        for room in plan.rooms:
            x, y = room.edges[0].point((room.edges[0].low + room.edges[0].high) / 2, 0.3)
            assert _inside_any(solids, (x, y, -0.01))
            assert _inside_any(solids, (x, y, plan.height + 0.01))
            assert not _inside_any(solids, (x, y, plan.height - 0.05))


def test_each_window_has_a_pane() -> None:
    for plan in _plans():
        panes = [s for s in build(Dice(1), plan) if s.paint.material == Material.GLASS]
        assert len(panes) == sum(o.kind == "window" for o in plan.openings)
