"""Where a question's tokens name a category."""

from __future__ import annotations

from functools import cache

from spatial_ttt.scenes.questions import templates
from spatial_ttt.train.clip_types import categories
from spatial_ttt.train.encoder import Encoder
from spatial_ttt.train.named import NameFinder
from tests.train import clips

INDEX = {name: n for n, name in enumerate(categories()) if n}


def encode(text: str) -> list[int]:
    return Encoder(clips.tokenizer().backend_tokenizer).encode(text)


@cache
def finder() -> NameFinder:
    return NameFinder(encode, INDEX)


def named(question: str) -> list[tuple[str, str]]:
    """Names found, each with the text up to its last token."""
    ids = encode(question)
    ends = finder().ends(ids)
    assert len(ends) == len(ids)
    decode = clips.tokenizer().decode
    return [(categories()[n], decode(ids[: at + 1])) for at, n in enumerate(ends) if n]


def test_every_name_is_found_at_its_last_token() -> None:
    question = templates.ask_nearest(("bed", "coffee table", "chair", "tv"), "table", False)
    found = named(question)
    assert [name for name, _ in found] == ["bed", "coffee table", "chair", "tv", "table"]
    assert all(text.endswith(name) for name, text in found)


def test_a_name_within_a_longer_one_is_not_found_twice() -> None:
    found = named("At the coffee table, facing the table: is the tv stand left or right?")
    assert [name for name, _ in found] == ["coffee table", "table", "tv stand"]


def test_every_category_is_found_in_every_wording() -> None:
    for name in INDEX:
        for question in (templates.ask_count(name), templates.ask_size(name), f"A. {name}\n"):
            assert [found for found, _ in named(question)] == [name], question


def test_words_that_name_nothing_are_left_alone() -> None:
    assert not named(templates.ask_room_size())
