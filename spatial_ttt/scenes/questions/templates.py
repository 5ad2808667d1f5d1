"""The benchmark's wording, written once: templates to ask with, and their reading back.

`parse` accepts the templates and loose variants of them (case, spaces, "are there in the room"),
so that benchmark files written by others can be checked too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DIRECTION_NOTES = {
    "object_rel_direction_easy": "",
    "object_rel_direction_medium": (
        "\nAn object is to my back if I would have to turn at least 135 degrees in order to face "
        "it."
    ),
    "object_rel_direction_hard": (
        "\nThe directions refer to the quadrants of a Cartesian plane (if I am standing at the "
        "origin and facing along the positive y-axis)."
    ),
}
MULTIPLE_NOTE = "\nIf there are multiple instances of an object category, measure to the closest."
ROUTE_NOTE = (
    "(Note: for each [please fill in], choose either 'turn back,' 'turn left,' or 'turn right.')"
)
BLANK = "[please fill in]"


def ask_count(category: str) -> str:
    return f"How many {category}(s) are in this room?"


def ask_distance(a: str, b: str) -> str:
    return (
        f"Measuring from the closest point of each object, what is the distance between the {a} "
        f"and the {b} (in meters)?"
    )


def ask_size(category: str) -> str:
    return (
        "What is the length of the longest dimension (length, width, or height) of the "
        f"{category}, measured in centimeters?"
    )


def ask_room_size() -> str:
    return (
        "What is the size of this room (in square meters)? \n"
        "If multiple rooms are shown, estimate the size of the combined space."
    )


def ask_nearest(candidates: tuple[str, ...], reference: str, multiple: bool) -> str:
    words = (
        "Measuring from the closest point of each object, which of these objects "
        f"({', '.join(candidates)}) is the closest to the {reference}?"
    )
    return words + MULTIPLE_NOTE if multiple else words


def ask_direction(question_type: str, standing: str, facing: str, target: str) -> str:
    ending = {
        "object_rel_direction_easy": f"to the left or the right of the {facing}?",
        "object_rel_direction_medium": "to my left, right, or back?",
        "object_rel_direction_hard": "to my front-left, front-right, back-left, or back-right?",
    }[question_type]
    return (
        f"If I am standing by the {standing} and facing the {facing}, is the {target} {ending}"
        f"{DIRECTION_NOTES[question_type]}"
    )


def ask_appearance(categories: tuple[str, ...]) -> str:
    return (
        "What will be the first-time appearance order of the following categories in the video: "
        f"{', '.join(categories)}?"
    )


def ask_route(start: str, facing: str, goal: str, actions: tuple[str, ...]) -> str:
    steps = " ".join(f"{n}. {action}" for n, action in enumerate(actions, 1))
    return (
        f"You are a robot beginning at the {start} and facing the {facing}. You want to navigate "
        f"to the {goal}. You will perform the following actions {ROUTE_NOTE}: {steps}. "
        "You have reached the final destination."
    )


def ask_recall(item: str) -> str:
    return (
        "Which of the following correctly represents the order in which the "
        f"{item} appeared in the video?"
    )


def ask_stream_count(category: str) -> str:
    return f"How many different {category}(s) are there in the video?"


# --- Reading back --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a question asks: its type and the categories it names, in the order of its rule."""

    question_type: str
    names: tuple[str, ...]
    """count, size: (x); distance: (a, b); nearest: (candidates..., reference); direction:
    (standing, facing, target)."""
    multiple: bool = False
    """Whether the nearest of several instances is meant."""


_PATTERNS: tuple[tuple[str, str], ...] = (
    (
        "room_size_estimation",
        r"(?:what is|estimate) the (?:size|floor area|area) of (?:this|the) "
        r"(?:room|space|apartment)",
    ),
    (
        "object_size_estimation",
        r"longest dimension(?: \([^)]*\))? of (?:the|this) (?P<a>.+?),? "
        r"(?:measured in|in|\(in) (?:centi|c)",
    ),
    (
        "object_abs_distance",
        r"distance between the (?P<a>.+?) and (?:the )?(?P<b>.+?) ?(?:\(|in met|measured in|\?)",
    ),
    (
        "object_rel_distance",
        r"which of these objects ?\((?P<list>.+)\) is (?:the )?(?:closest|nearest) to the "
        r"(?P<a>.+?)\?",
    ),
    (
        "object_rel_direction",
        r"standing (?:by|at|next to|beside) the (?P<a>.+?) and facing (?:to )?the (?P<b>.+?), "
        r"is the (?P<c>.+?) (?P<ending>to my .+?|to the left or .+?)\?",
    ),
    (
        "object_counting",
        r"how many (?P<a>.+?)(?: ?\(s\)|s)? are (?:there )?(?:in|visible|present|shown)\b",
    ),
)


def parse(question: str, question_type: str | None = None) -> Parsed | None:
    """What a question asks; None if no template of the given type, if one is given, fits."""
    words = re.sub(r"\s+", " ", question).strip()
    for kind, pattern in _PATTERNS:
        if question_type is not None and not question_type.startswith(kind):
            continue
        match = re.search(pattern, words, re.IGNORECASE)
        if match:
            return _parsed(kind, match, words)
    return None


def _parsed(kind: str, match: re.Match[str], words: str) -> Parsed:
    found = match.groupdict()
    if kind == "object_rel_distance":
        candidates = [item.strip() for item in re.split(r", (?:and |or )?", found["list"])]
        return Parsed(kind, (*candidates, found["a"]), "multiple instances" in words.lower())
    if kind == "object_rel_direction":
        ending = found["ending"].lower()
        level = "hard" if "front-left" in ending else "medium" if "back" in ending else "easy"
        return Parsed(f"{kind}_{level}", (found["a"], found["b"], found["c"]))
    names = tuple(found[key].strip() for key in ("a", "b") if found.get(key))
    return Parsed(kind, names)
