"""Writes `shading.shade` out as source code, so that graphics cards run the very same model.

`shade` is called once with traced values that note each operation; the notes become GLSL for the
fragment shader or Python for Triton.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from spatial_ttt.scenes.shading import PATTERN_FIELDS, Surface, Vec3, shade

Language = Literal["glsl", "triton"]

ARGUMENTS = (
    *(f"{name}_{axis}" for name in ("local", "normal", "world", "world_normal") for axis in "xyz"),
    "footprint",
    *(f"half_{axis}" for axis in "xyz"),
    *(f"color_{channel}" for channel in "rgb"),
    "object_id",
    *PATTERN_FIELDS,
)
"""Argument names of the generated function, in order."""


@dataclass(frozen=True, slots=True, eq=False)
class Traced:
    """A value inside the generated code."""

    name: str
    code: Code

    def __add__(self, other: Any) -> Traced:
        return self.code.note(self, "+", other)

    def __radd__(self, other: Any) -> Traced:
        return self.code.note(other, "+", self)

    def __sub__(self, other: Any) -> Traced:
        return self.code.note(self, "-", other)

    def __rsub__(self, other: Any) -> Traced:
        return self.code.note(other, "-", self)

    def __mul__(self, other: Any) -> Traced:
        return self.code.note(self, "*", other)

    def __rmul__(self, other: Any) -> Traced:
        return self.code.note(other, "*", self)

    def __truediv__(self, other: Any) -> Traced:
        return self.code.note(self, "/", other)

    def __rtruediv__(self, other: Any) -> Traced:
        return self.code.note(other, "/", self)

    def __neg__(self) -> Traced:
        return self.code.note(0.0, "-", self)

    def __lt__(self, other: Any) -> Traced:
        return self.code.note(self, "<", other)

    def __le__(self, other: Any) -> Traced:
        return self.code.note(self, "<=", other)

    def __gt__(self, other: Any) -> Traced:
        return self.code.note(self, ">", other)

    def __ge__(self, other: Any) -> Traced:
        return self.code.note(self, ">=", other)

    def __and__(self, other: Any) -> Traced:
        return self.code.note(self, "&", other)

    def __or__(self, other: Any) -> Traced:
        return self.code.note(self, "|", other)


@dataclass(slots=True)
class Code:
    """Collects one line per operation; equal operations share a line. Also the `Ops` of a trace."""

    language: Language
    lines: list[str] = field(default_factory=list)
    known: dict[str, Traced] = field(default_factory=dict)

    def note(self, left: Any, operator: str, right: Any) -> Traced:
        boolean = operator in ("<", "<=", ">", ">=", "&", "|")
        if self.language == "glsl" and operator in "&|":
            operator *= 2
        return self._name(f"{_text(left)} {operator} {_text(right)}", boolean)

    def where(self, condition: Any, yes: Any, no: Any) -> Traced:
        if self.language == "glsl":
            return self._name(f"{_text(condition)} ? {_text(yes)} : {_text(no)}")
        return self._name(f"tl.where({_text(condition)}, {_text(yes)}, {_text(no)})")

    def floor(self, x: Any) -> Traced:
        return self._call("floor", x)

    def sqrt(self, x: Any) -> Traced:
        return self._call("sqrt", x)

    def abs(self, x: Any) -> Traced:
        return self._call("abs", x)

    def minimum(self, a: Any, b: Any) -> Traced:
        return self._call("min" if self.language == "glsl" else "minimum", a, b)

    def maximum(self, a: Any, b: Any) -> Traced:
        return self._call("max" if self.language == "glsl" else "maximum", a, b)

    def _call(self, function: str, *arguments: Any) -> Traced:
        prefix = "" if self.language == "glsl" else "tl."
        return self._name(f"{prefix}{function}({', '.join(map(_text, arguments))})")

    def _name(self, expression: str, boolean: bool = False) -> Traced:
        if expression not in self.known:
            name = f"v{len(self.lines)}"
            if self.language == "glsl":
                self.lines.append(f"{'bool' if boolean else 'float'} {name} = {expression};")
            else:
                self.lines.append(f"{name} = {expression}")
            self.known[expression] = Traced(name, self)
        return self.known[expression]


def _text(value: Any) -> str:
    return value.name if isinstance(value, Traced) else repr(float(value))


def _trace(language: Language) -> tuple[Code, Vec3]:
    code = Code(language)
    values = [Traced(name, code) for name in ARGUMENTS]
    local, normal, world, up, half, color = (Vec3(*values[i : i + 3]) for i in (0, 3, 6, 9, 13, 16))
    pattern = tuple(values[20:])
    surface = Surface(local, normal, world, up, values[12], half, color, values[19], pattern)
    return code, shade(surface, code)


@cache
def shade_glsl() -> str:
    """`vec3 shade(float local_x, ...)`: sRGB in 0..1, arguments as in ARGUMENTS."""
    code, color = _trace("glsl")
    arguments = ", ".join(f"float {name}" for name in ARGUMENTS)
    body = "\n    ".join(code.lines)
    result = ", ".join(map(_text, color))
    return f"vec3 shade({arguments}) {{\n    {body}\n    return vec3({result});\n}}\n"


@cache
def shade_triton() -> str:
    """`def shade(local_x, ...)` returning three blocks: sRGB in 0..1, arguments as in ARGUMENTS."""
    code, color = _trace("triton")
    body = "\n    ".join(code.lines)
    result = ", ".join(map(_text, color))
    return f"def shade({', '.join(ARGUMENTS)}):\n    {body}\n    return {result}\n"
