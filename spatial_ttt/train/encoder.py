"""Texts to token ids as the tokenizer does it, each word only once.

Scene workers encode the same few hundred words in ever new sentences. A byte-level tokenizer cuts a
text at its fixed phrases and before every blank that stands alone, and what lies between two cuts
has the same ids wherever it stands; so ids are kept by piece.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

MOST_PIECES = 1 << 16
"""Pieces kept before all are forgotten: a bound, never met by the words of scenes."""


class Encoder:
    """`encode(text)` gives what `tokenizer.encode(text).ids` does."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is a `tokenizers.Tokenizer`; one that looks beyond a piece is called every time."""
        self.tokenizer = tokenizer
        self.pieces: dict[str, tuple[int, ...]] = {}
        added = tokenizer.get_added_tokens_decoder()
        self.fixed = {token.content: (number,) for number, token in added.items()}
        longest_first = sorted(self.fixed, key=len, reverse=True)
        self.cut = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        self.is_plain = bool(
            added
            and tokenizer.normalizer is None
            and _is_byte_level(tokenizer.pre_tokenizer)
            and not any(
                token.lstrip or token.rstrip or token.single_word or token.normalized
                for token in added.values()
            )
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        if not self.is_plain:
            return list(self.tokenizer.encode(text).ids)
        if len(self.pieces) > MOST_PIECES:
            self.pieces.clear()
        ids: list[int] = []
        for n, part in enumerate(self.cut.split(text)):
            if n % 2:
                ids += self.fixed[part]
            elif part:
                for piece in _words(part):
                    ids += self.pieces.get(piece) or self._add(piece)
        return ids

    def _add(self, piece: str) -> tuple[int, ...]:
        ids = self.pieces[piece] = tuple(self.tokenizer.encode(piece).ids)
        return ids


def encode_exchange(
    encode: Callable[[str], list[int]], prompt: str, answer: str
) -> tuple[list[int], list[int]]:
    """Token ids of a question up to where its answer begins, and of the answer with the token that ends it."""
    head = encode(f"{prompt}<|im_end|>\n<|im_start|>assistant\n")
    return head, encode(f"{answer}<|im_end|>")


def _is_byte_level(pre_tokenizer: Any) -> bool:
    """Whether the rules by which words are cut are those of `spatial_ttt.tokenizer`."""
    text = "A. a cup, 12.5\nB. it's (here)"
    pieces = [piece for piece, _ in pre_tokenizer.pre_tokenize_str(text)] if pre_tokenizer else []
    wanted = "A . Ġa Ġcup , Ġ 1 2 . 5 Ċ B . Ġit 's Ġ( here )"
    return pieces == wanted.split(" ")


def _words(part: str) -> list[str]:
    """A text cut before every blank that stands alone between two other signs."""
    first, *rest = part.split(" ")
    if (first and first[-1].isspace()) or any(
        not word or word[0].isspace() or word[-1].isspace() for word in rest
    ):
        return [part]
    words = [" " + word for word in rest]
    return [first, *words] if first else words
