"""Ways to put furniture into a room: against a wall, beside, before, around, on top, on the wall.

`Furnisher` holds one room's space and the home's list of placed things. Each verb tries a few
spots, checks that nothing overlaps and that the room can still be walked through, and returns the
index of the placed thing, or None when there was no room for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from spatial_ttt.scenes.catalogue import make
from spatial_ttt.scenes.catalogue.mesh import Furniture, cosine_sine
from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.floorplan import Edge
from spatial_ttt.scenes.space import (
    CEILING,
    FLOOR,
    STEP_OVER,
    WALL_SIDE,
    Block,
    Placed,
    RoomSpace,
    block_of,
    yaw_of,
)

Item = str | Furniture
PI = 3.141592654
HALF_PI = 1.570796327


class Furnisher:
    """Furnishes one room; `placed` is shared by the whole home."""

    def __init__(
        self, space: RoomSpace, dice: Dice, placed: list[Placed], plenty: float = 1.0
    ) -> None:
        self.space = space
        self.plenty = plenty  # how readily small things are put about, 0..1
        self.dice = dice
        self.placed = placed
        self.room = space.room
        self.first = len(placed)

    def get(self, item: Item) -> Furniture:
        """A piece of furniture from a kind's name."""
        return make(item, self.dice) if isinstance(item, str) else item

    def put(
        self,
        furniture: Furniture,
        spot: tuple[float, float, float],
        yaw: float,
        support: int = FLOOR,
    ) -> int | None:
        """Place at a spot (x, y, z of the footprint's centre) if it fits and leaves the way free."""
        x, y, z = (round(v, 4) for v in spot)
        block = block_of(furniture, x, y, z, yaw)
        on_wall = support in (WALL_SIDE, CEILING)
        is_window_dressing = furniture.category in ("curtain", "radiator")
        flat = furniture.size[2] <= STEP_OVER
        skip = support if support >= 0 else -99
        if not self.space.fits(block, skip, is_window_dressing or flat or support >= 0):
            return None
        free = None
        if support < 0 and not flat:
            free = self.space.leaves_way(block)
            if free is None:
                return None
        if on_wall and is_window_dressing and self._bars_door(block):
            return None
        index = len(self.placed)
        self.space.add(block, index, free)
        self.placed.append(Placed(furniture, x, y, z, yaw, support, block, self.room.room_id))
        return index

    def _bars_door(self, block: Block) -> bool:
        return any(
            zone.z0 == STEP_OVER and zone.x0 < block.x1 and block.x0 < zone.x1
            and zone.y0 < block.y1 and block.y0 < zone.y1
            for zone in self.space.zones
        )  # fmt: skip

    def keep_free(self, index: int, depth: float) -> None:
        """Reserve the floor before a placed thing, so that doors and drawers open."""
        thing = self.placed[index]
        width, along, _ = thing.furniture.size
        low = self._world(thing, -width / 2, -along / 2 - depth)
        high = self._world(thing, width / 2, -along / 2)
        x0, x1 = min(low[0], high[0]), max(low[0], high[0])
        y0, y1 = min(low[1], high[1]), max(low[1], high[1])
        self.space.zones.append(Block(x0, y0, 0.021, x1, y1, 1.2))

    @staticmethod
    def _world(thing: Placed, dx: float, dy: float) -> tuple[float, float]:
        c, s = cosine_sine(thing.yaw)
        return thing.x + c * dx - s * dy, thing.y + s * dx + c * dy

    def edges(self) -> list[Edge]:
        """The room's walls, longer ones likelier first."""
        keyed = [
            (-(e.high - e.low) * (0.4 + self.dice.random()), i)
            for i, e in enumerate(self.room.edges)
        ]
        return [self.room.edges[i] for _, i in sorted(keyed)]

    def against_wall(
        self, item: Item, *, front: float = 0.0, where: str = "any", keep: bool = True
    ) -> int | None:
        """Back to a wall with `front` metres free before it; where: "any", "corner" or "inner".

        `keep` reserves that floor; without it, things may be put there later (a chair at a desk).
        """
        furniture = self.get(item)
        width, depth, _ = furniture.size
        for edge in self.edges():
            room = edge.high - edge.low - width
            if room < 0.0:
                continue
            for share in self._shares(where):
                along = edge.low + width / 2 + room * share
                if front and not self._front_is_free(edge, along, furniture, front):
                    continue
                x, y = edge.point(along, depth / 2 + 0.005)
                index = self.put(furniture, (x, y, 0.0), yaw_of(edge.normal))
                if index is not None:
                    if front and keep:
                        self.keep_free(index, front)
                    return index
        return None

    def _shares(self, where: str) -> list[float]:
        """Where along a wall to try, as shares of the play there is."""
        dice = self.dice
        if where == "inner":
            return [
                0.5,
                *(dice.uniform(0.25, 0.75) for _ in range(3)),
                dice.random(),
                dice.random(),
            ]
        ends = [0.0, 1.0] if dice.chance(0.5) else [1.0, 0.0]
        if where == "corner":
            return [*ends, dice.random(), dice.random()]
        first = ends[:1] if dice.chance(0.35) else []
        return [*first, *(dice.random() for _ in range(5)), *ends]

    def _front_is_free(self, edge: Edge, along: float, furniture: Furniture, front: float) -> bool:
        """Whether a strip before furniture at a wall is clear of solids (kept-free zones may lie there)."""
        width, depth, height = furniture.size
        x0, y0, x1, y1 = edge.strip(along - width / 2, along + width / 2, depth + front)
        return self.space.fits(Block(x0, y0, 0.021, x1, y1, min(height, 1.2)), ignore_zones=True)

    def opposite(self, index: int, item: Item, rise: float = 0.0) -> int | None:
        """Against the wall that a placed thing looks at, centred on it as well as it fits.

        `rise` metres above the item must be free too, for what will stand on it.
        """
        furniture, thing = self.get(item), self.placed[index]
        c, s = cosine_sine(thing.yaw)
        look = (round(s), round(-c))
        for edge in self.room.edges:
            if edge.normal != (-look[0], -look[1]):
                continue
            at = thing.x if edge.axis == 0 else thing.y
            half = furniture.size[0] / 2
            for shift in (0.0, 0.25, -0.25, 0.5, -0.5, 0.9, -0.9):
                along = min(max(at + shift, edge.low + half), edge.high - half)
                if not edge.low + half <= along <= edge.high - half:
                    continue
                x, y = edge.point(along, furniture.size[1] / 2 + 0.005)
                block = block_of(furniture, x, y, 0.0, yaw_of(edge.normal))
                if rise and not self.space.fits(block._replace(z1=block.z1 + rise)):
                    continue
                placed = self.put(furniture, (x, y, 0.0), yaw_of(edge.normal))
                if placed is not None:
                    return placed
        return None

    def beside(
        self, index: int, item: Item, gap: float = 0.06, sides: Sequence[int] = ()
    ) -> int | None:
        """Next to a placed thing with backs in line, on one side or the other."""
        furniture, thing = self.get(item), self.placed[index]
        first = self.dice.sign()
        for side in sides or (first, -first):
            dx = side * (thing.furniture.size[0] / 2 + furniture.size[0] / 2 + gap)
            dy = thing.furniture.size[1] / 2 - furniture.size[1] / 2
            x, y = self._world(thing, dx, dy)
            placed = self.put(furniture, (x, y, 0.0), thing.yaw)
            if placed is not None:
                return placed
        return None

    def before(self, index: int, item: Item, gap: float, turn: float = 0.0) -> int | None:
        """In front of a placed thing, `gap` metres away."""
        furniture, thing = self.get(item), self.placed[index]
        c, s = cosine_sine(turn)
        reach = (abs(s) * furniture.size[0] + abs(c) * furniture.size[1]) / 2
        x, y = self._world(thing, 0.0, -thing.furniture.size[1] / 2 - gap - reach)
        return self.put(furniture, (x, y, 0.0), round(thing.yaw + turn, 9))

    def around(self, index: int, item: str, seats: int) -> list[int]:
        """Chairs at a table, facing it, pulled out a little; long sides first."""
        thing = self.placed[index]
        width, depth, _ = thing.furniture.size
        per_side = max(1, int(width / 0.6))
        spots: list[tuple[float, float, float]] = []
        for k in range(per_side):
            offset = width * ((k + 0.5) / per_side - 0.5)
            spots += [(offset, 1.0, 0.0), (offset, -1.0, PI)]
        spots += [(1.0, 0.0, -HALF_PI), (-1.0, 0.0, HALF_PI)] if seats > len(spots) else []
        chair = self.get(item)
        out: list[int] = []
        for a, b, turn in spots[:seats]:
            gap = self.dice.uniform(0.02, 0.14)
            reach = chair.size[1] / 2 + gap
            at_side = turn in (0.0, PI)
            dx, dy = (a, b * (depth / 2 + reach)) if at_side else (a * (width / 2 + reach), 0.0)
            x, y = self._world(thing, dx, dy)
            placed = self.put(chair, (x, y, 0.0), round(thing.yaw + turn, 9))
            if placed is not None:
                out.append(placed)
        return out

    def in_middle(self, item: Item, margin: float, tries: int = 14) -> int | None:
        """Free-standing, `margin` metres from anything, as near to the room's middle as comes up."""
        furniture = self.get(item)
        bounds = self.room.bounds
        middle = ((bounds.x0 + bounds.x1) / 2, (bounds.y0 + bounds.y1) / 2)
        yaw = 0.0 if bounds.width >= bounds.depth else HALF_PI
        for attempt in range(tries):
            spread = 0.04 * attempt
            x = middle[0] + self.dice.uniform(-spread, spread) * bounds.width
            y = middle[1] + self.dice.uniform(-spread, spread) * bounds.depth
            turn = yaw if attempt % 3 < 2 else HALF_PI - yaw
            tight = block_of(furniture, x, y, 0.0, turn)
            wide = Block(
                tight.x0 - margin,
                tight.y0 - margin,
                0.03,
                tight.x1 + margin,
                tight.y1 + margin,
                1.0,
            )
            if not self.space.fits(wide, ignore_zones=True):
                continue
            placed = self.put(furniture, (x, y, 0.0), turn)
            if placed is not None:
                return placed
        return None

    def on(
        self, index: int, item: Item, turn: float = 0.25, at: tuple[float, float] | None = None
    ) -> int | None:
        """On top of a placed thing; `at` is a spot on the surface in shares of it, else anywhere."""
        furniture, thing = self.get(item), self.placed[index]
        width, depth, height = furniture.size
        for surface in thing.furniture.surfaces:
            if height > surface.headroom:
                continue
            for _ in range(6 if at is None else 1):
                yaw = round(thing.yaw + self.dice.uniform(-turn, turn), 6) if turn else thing.yaw
                slack_x = surface.x1 - surface.x0 - width
                slack_y = surface.y1 - surface.y0 - depth
                if slack_x < -0.08 or slack_y < -0.08:
                    break
                px, py = at or (self.dice.random(), self.dice.random())
                dx = (surface.x0 + surface.x1) / 2 + (px - 0.5) * max(slack_x, 0.0)
                dy = (surface.y0 + surface.y1) / 2 + (py - 0.5) * max(slack_y, 0.0)
                x, y = self._world(thing, dx, dy)
                placed = self.put(furniture, (x, y, thing.z + surface.z), yaw, index)
                if placed is not None:
                    return placed
        return None

    def on_wall(
        self, item: Item, bottom: float, above: int | None = None, facing: int | None = None
    ) -> int | None:
        """Hung on a wall: over a placed thing, or on a wall that one looks at, when asked."""
        furniture = self.get(item)
        half = furniture.size[0] / 2
        if above is not None:
            thing = self.placed[above]
            spots = [
                (edge, thing.x if edge.axis == 0 else thing.y)
                for edge in self.room.edges
                if yaw_of(edge.normal) == thing.yaw
            ]
        else:
            spots = [
                (
                    edge,
                    edge.low
                    + half
                    + (edge.high - edge.low - 2 * half) * self.dice.uniform(0.1, 0.9),
                )
                for edge in self.edges()
            ]
        if facing is not None:
            c, s = cosine_sine(self.placed[facing].yaw)
            spots = [spot for spot in spots if spot[0].normal == (round(-s), round(c))]
        for edge, along in spots:
            if not edge.low + half <= along <= edge.high - half:
                continue
            x, y = edge.point(along, furniture.size[1] / 2 + 0.002)
            placed = self.put(furniture, (x, y, bottom), yaw_of(edge.normal), WALL_SIDE)
            if placed is not None:
                return placed
        return None

    def on_ceiling(self, item: Item) -> int | None:
        """Under the ceiling near the middle of the room (of the larger half of an L)."""
        furniture, bounds, cut = self.get(item), self.room.bounds, self.room.notch
        x, y = (bounds.x0 + bounds.x1) / 2, (bounds.y0 + bounds.y1) / 2
        if cut is not None:
            x = (cut.x1 + bounds.x1) / 2 if cut.x0 == bounds.x0 else (bounds.x0 + cut.x0) / 2
        z = self.space.height - furniture.size[2]
        return self.put(furniture, (x, y, z), 0.0, CEILING)

    def covered(self) -> float:
        """The share of the floor under furniture."""
        blocks = [p.block for p in self.placed[self.first :] if p.support == FLOOR]
        areas = [(b.x1 - b.x0) * (b.y1 - b.y0) for b in blocks if b.z1 > STEP_OVER]
        return sum(areas) / self.room.area

    def indices(self, category: str) -> list[int]:
        """Placed things of a category in this room."""
        return [
            i
            for i in range(self.first, len(self.placed))
            if self.placed[i].furniture.category == category
        ]
