"""Counting words and lists in English, both ways: "two shelves" <-> (2, "shelf")."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from spatial_ttt.errors import SceneError

NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen", "twenty",
)  # fmt: skip
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_SET = "set of "
_IRREGULAR = {"shelf": "shelves", "knife": "knives", "leaf": "leaves", "loaf": "loaves"}
_HISSING = ("s", "x", "z", "ch", "sh")


def plural(name: str) -> str:
    """The plural of a category: "bookshelf" -> "bookshelves", "chest of drawers" -> "chests of"."""
    head, of, rest = name.partition(" of ")
    if of:
        return plural(head) + of + rest
    for one, many in _IRREGULAR.items():
        if name.endswith(one):
            return name[: -len(one)] + many
    if name.endswith(_HISSING):
        return name + "es"
    if name.endswith("y") and name[-2:-1] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"


def singular(name: str) -> str:
    """The category whose plural this is."""
    head, of, rest = name.partition(" of ")
    if of:
        return singular(head) + of + rest
    for one, many in _IRREGULAR.items():
        if name.endswith(many):
            return name[: -len(many)] + one
    for guess in (name[:-2], name[:-3] + "y", name[:-1]):
        if guess and plural(guess) == name and not (guess == name[:-2] and _is_bare_s(guess)):
            return guess
    raise SceneError(f"{name!r} is not a plural this package writes; expected e.g. 'chairs'")


def _is_bare_s(guess: str) -> bool:
    """Whether "-es" more likely ends a word in "-se": vases, not vas + es."""
    return guess.endswith("s") and not guess.endswith(("ss", "us"))


def spoken(name: str) -> str:
    """A category as a countable noun: "set of books" for a name that is a plural already."""
    is_plural = name.endswith("s") and not name.endswith(("ss", "us", "is", "as"))
    return _SET + name if is_plural and " of " not in name else name


def unspoken(noun: str) -> str:
    """The category of what `spoken` wrote."""
    return noun.removeprefix(_SET)


def article(name: str) -> str:
    """ "a" or "an" before a category, by its first letter as spoken."""
    return "an" if name[:1] in "aeiou" and not name.startswith(("uni", "use")) else "a"


def counted(count: int, name: str) -> str:
    """ "a chair", "three chairs", "two sets of books"."""
    noun = spoken(name)
    if count == 1:
        return f"{article(noun)} {noun}"
    word = NUMBER_WORDS[count] if count < len(NUMBER_WORDS) else str(count)
    return f"{word} {plural(noun)}"


def read_counted(text: str) -> tuple[int, str]:
    """The count and category of what `counted` wrote."""
    first, _, name = text.partition(" ")
    if first in ("a", "an", "one"):
        return 1, unspoken(name)
    if first in NUMBER_WORDS:
        return NUMBER_WORDS.index(first), unspoken(singular(name))
    if first.isdigit():
        return int(first), unspoken(singular(name))
    raise SceneError(f"{text!r} does not begin with a count; expected e.g. 'two chairs'")


def listed(items: Sequence[str]) -> str:
    """ "x", "x and y", "x, y and z"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def read_listed(text: str) -> list[str]:
    """The items of what `listed` wrote."""
    return re.split(r", | and ", text)


def counted_list(counts: Mapping[str, int]) -> str:
    """ "a sink, two tables and four chairs", in the mapping's order."""
    return listed([counted(count, name) for name, count in counts.items()])


def read_counted_list(text: str) -> dict[str, int]:
    """The counts of what `counted_list` wrote."""
    return {name: count for count, name in map(read_counted, read_listed(text))}
