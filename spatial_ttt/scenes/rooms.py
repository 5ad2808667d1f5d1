"""From a room's function to its furniture."""

from __future__ import annotations

from collections.abc import Callable

from spatial_ttt.scenes import day_rooms, kitchens, private_rooms
from spatial_ttt.scenes.furnish import Furnisher
from spatial_ttt.scenes.habits import hang_curtains, set_radiators


def furnish_room(room: Furnisher) -> None:
    """Curtains first, then what the room is for, then what finds a place between."""
    hang_curtains(room)
    _RECIPES[room.room.function](room)
    set_radiators(room)
    room.on_ceiling("ceiling light")


_RECIPES: dict[str, Callable[[Furnisher], None]] = {
    "living room": day_rooms.living_room,
    "bedroom": private_rooms.bedroom_room,
    "kitchen": kitchens.kitchen_room,
    "bathroom": private_rooms.bathroom,
    "office": private_rooms.office,
    "dining room": day_rooms.dining_room,
    "hallway": day_rooms.hallway,
    "children's room": private_rooms.childrens_room,
    "laundry room": private_rooms.laundry_room,
    "music room": day_rooms.music_room,
}
