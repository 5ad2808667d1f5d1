"""Counting words, both ways, for every category a home may hold and for awkward ones."""

from __future__ import annotations

import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes import wording as W
from spatial_ttt.scenes.catalogue import KINDS

PLURALS = {
    "chair": "chairs",
    "bookshelf": "bookshelves",
    "shoe rack": "shoe racks",
    "couch": "couches",
    "box": "boxes",
    "vase": "vases",
    "glass": "glasses",
    "bus": "buses",
    "battery": "batteries",
    "tray": "trays",
    "stove": "stoves",
    "knife": "knives",
    "chest of drawers": "chests of drawers",
    "piano": "pianos",
    "mattress": "mattresses",
    "dish": "dishes",
    "toothbrush": "toothbrushes",
    "suitcase": "suitcases",
    "fireplace": "fireplaces",
}


@pytest.mark.parametrize(("one", "many"), PLURALS.items())
def test_plurals(one: str, many: str) -> None:
    assert W.plural(one) == many
    assert W.singular(many) == one


@pytest.mark.parametrize("count", [1, 2, 7, 20, 21, 140])
@pytest.mark.parametrize("name", sorted({*PLURALS, *KINDS, "books", "curtains", "clothes"}))
def test_counts_come_back(count: int, name: str) -> None:
    assert W.read_counted(W.counted(count, name)) == (count, name)
    assert W.unspoken(W.spoken(name)) == name


def test_counted_by_hand() -> None:
    assert W.counted(1, "oven") == "an oven"
    assert W.counted(1, "unicycle") == "a unicycle"
    assert W.counted(3, "books") == "three sets of books"
    assert W.counted(25, "chair") == "25 chairs"


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_lists_come_back(count: int) -> None:
    counts = dict(list(zip(PLURALS, (1, 2, 13, 40, 1, 5), strict=False))[:count])
    assert W.read_counted_list(W.counted_list(counts)) == counts
    assert list(W.read_counted_list(W.counted_list(counts))) == list(counts), "in order"
    assert W.listed(["x", "y", "z"]) == "x, y and z"


@pytest.mark.parametrize("text", ["some chairs", "chairs", "two chair", ""])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(SceneError):
        W.read_counted(text)
