"""What a reply says: the official reading, the lenient one beside it, and MindCube's.

The official reading decides scores. The lenient one is reported beside it, never instead: it tells
a model that knows the answer but chats from one that does not know.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|[-+]?\.\d+")
_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.DOTALL | re.IGNORECASE)
_SPOKEN_LETTER = re.compile(r"(?:answer|option|choice)\s*(?:is|:)?\s*[\(\[\*\"']*([A-Z])\b")
_LEADING_LETTER = re.compile(r"^[\s\(\[\*\"']*([A-Z])(?=$|[\)\]\*\"'.:,]|\s*$)")
_LONE_LETTER = re.compile(r"(?<![A-Za-z'])([B-HJ-Z])(?![A-Za-z'])")  # "A" and "I" are also words

_SMALL_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
_TENS_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORD_VALUES = {word: value for value, word in enumerate(_SMALL_WORDS.split())} | {
    word: 10 * value for value, word in enumerate(_TENS_WORDS.split(), start=2)
}
_SCALES = {"hundred": 100, "thousand": 1000}


def official_text(reply: str) -> str:
    """The text before the first space, without trailing full stops."""
    return reply.split(" ")[0].rstrip(".").strip()


def official_number(reply: str) -> float | None:
    """The official text as a number; None when it is none (also for "two", "3m", "[2," and "")."""
    try:
        return float(official_text(reply))
    except ValueError:
        return None


def lenient_number(reply: str) -> float | None:
    """The first number anywhere in the reply, in digits or, failing those, in English words.

    Units are ignored, not converted: "2.5 m" and "2.5 feet" are both 2.5.
    """
    text = _inside_answer_tag(reply)
    match = _NUMBER.search(text)
    if match is None:
        return _spelled_number(text)
    value = float(match.group().replace(",", ""))
    return value if math.isfinite(value) else None


def lenient_letter(reply: str, options: Sequence[str] = ()) -> str | None:
    """The option meant: by a spoken or leading letter, the option's own text, or a lone letter."""
    text = _inside_answer_tag(reply).strip()
    spoken = _SPOKEN_LETTER.findall(text)
    if spoken:
        return str(spoken[-1])
    if leading := _LEADING_LETTER.match(text):
        return leading.group(1)
    if re.fullmatch(r"[a-z]\W*", text):
        return text[0].upper()
    named = [option[0] for option in options if _names_option(text, option)]
    if len(named) == 1:
        return named[0]
    lone = _LONE_LETTER.findall(text)
    return str(lone[-1]) if lone else None


def option_text(option: str) -> str:
    """The option without its letter: "A. front-left" -> "front-left"."""
    return re.sub(r"^[A-Z]\s*[.:)]\s*", "", option).strip()


_MINDCUBE_SECTION = re.compile(r"<Answer>(.*?)(?:<|$)", re.DOTALL)
_MINDCUBE_IN_SECTION = (
    r"[Mm]y answer is ([A-E])",
    r"[Tt]he answer is ([A-E])",
    r"\b([A-E])\b",
)
_MINDCUBE_ANYWHERE = (
    r"([A-E])(?:$|\s)",
    r"[*\"]([A-E])[*\"]",
    r"\bAnswer:?\s*([A-E])\b",
    r"answer is ([A-E])",
)


def mindcube_letter(reply: str) -> str | None:
    """MindCube's reading: the last `X.`, else an <Answer> section, else its looser patterns.

    The rules are the benchmark's own, oddities included: the fallback takes the last capital A-E
    before a space or the end, even as the end of a longer word.
    """
    if dotted := re.findall(r"([A-E])\.", reply):
        return str(dotted[-1])
    if section := _MINDCUBE_SECTION.search(reply):
        letter = _last_of_first_match(_MINDCUBE_IN_SECTION, section.group(1))
        if letter is not None:
            return letter
    letter = _last_of_first_match(_MINDCUBE_ANYWHERE, reply)
    if letter is not None:
        return letter
    for line in reversed(reply.split("\n")):
        if lone := re.search(r"\b([A-E])\b", line):
            return lone.group(1)
    return None


def _last_of_first_match(patterns: Sequence[str], text: str) -> str | None:
    for pattern in patterns:
        if found := re.findall(pattern, text):
            return str(found[-1])
    return None


def _inside_answer_tag(reply: str) -> str:
    tagged = _TAGGED.findall(reply)
    return str(tagged[-1]) if tagged else reply


def _names_option(text: str, option: str) -> bool:
    name = option_text(option).lower()
    return bool(name) and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text.lower()) is not None


def _spelled_number(text: str) -> float | None:
    """The first run of number words: "about twenty-one chairs" -> 21."""
    total, current, seen = 0, 0, False
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in _WORD_VALUES:
            current, seen = current + _WORD_VALUES[word], True
        elif word in _SCALES and seen:
            scale = _SCALES[word]
            total, current = (total + current * scale, 0) if scale > 100 else (total, current * 100)
        elif seen and word != "and":
            break
    return float(total + current) if seen else None
