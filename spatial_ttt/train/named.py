"""Where a question names a category: the tokens at which its place must be known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


class NameFinder:
    """Finds the last tokens of category names in token ids; the longest name wins."""

    def __init__(self, encode: Callable[[str], list[int]], index: Mapping[str, int]) -> None:
        """`index` numbers the categories; a name counts with and without a blank before it, and capitalised."""
        self.by_first: dict[int, list[tuple[tuple[int, ...], int]]] = {}
        for name, number in index.items():
            for text in (name, f" {name}", name.capitalize(), f" {name.capitalize()}"):
                ids = tuple(encode(text))
                self.by_first.setdefault(ids[0], []).append((ids, number))
        for found in self.by_first.values():
            found.sort(key=lambda pair: -len(pair[0]))

    def ends(self, ids: Sequence[int]) -> list[int]:
        """For each token the category whose name ends there, else 0."""
        out = [0] * len(ids)
        at = 0
        while at < len(ids):
            name = next(
                (
                    (len(known), number)
                    for known, number in self.by_first.get(ids[at], ())
                    if tuple(ids[at : at + len(known)]) == known
                ),
                None,
            )
            if name is None:
                at += 1
                continue
            at += name[0]
            out[at - 1] = name[1]
        return out
