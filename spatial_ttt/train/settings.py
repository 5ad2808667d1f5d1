"""From YAML and `--set a.b=c` to frozen dataclasses, by their own type annotations.

Nothing is dropped and nothing guessed: an unknown key names the nearest known one, a value of the
wrong kind says which was wanted.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from spatial_ttt.errors import ConfigError
from spatial_ttt.train.run_config import TrainConfig

T = TypeVar("T")
STAGES = "stages"


def load_recipe(path: str | Path, stage: int, changes: Iterable[str] = ()) -> TrainConfig:
    """The configuration of one stage of a recipe; `changes` are `a.b=c`, applied last."""
    values = read_yaml(path)
    stages = values.pop(STAGES, {})
    if not isinstance(stages, dict) or stage not in stages:
        known = ", ".join(str(key) for key in stages) if isinstance(stages, dict) else "none"
        raise ConfigError(f"{path} has no stage {stage}; its `stages` are: {known or 'none'}")
    merged = overlay(values, stages[stage] or {})
    for change in changes:
        merged = overlay(merged, parse_change(change))
    merged = _fill(merged, {"out": str(merged.get("out", ""))})
    return build(TrainConfig, merged, str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds a mapping."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}, expected keys and values")
    return values


def parse_change(text: str) -> dict[str, Any]:
    """`a.b=c` -> {"a": {"b": c}}, c read as YAML."""
    key, mark, value = text.partition("=")
    if not mark or not all(key.split(".")):
        raise ConfigError(f"--set takes KEY=VALUE, for example data.packs_per_step=4, got {text!r}")
    try:
        nested: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text}: the value is not YAML") from error
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return nested


def overlay(base: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with every leaf of `above` put in its place; mappings merge, all else replaces."""
    merged = dict(base)
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = overlay(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _fill(value: Any, names: Mapping[str, str]) -> Any:
    """Replace "{out}" in every text."""
    if isinstance(value, str):
        for name, content in names.items():
            value = value.replace("{" + name + "}", content)
        return value
    if isinstance(value, Mapping):
        return {key: _fill(item, names) for key, item in value.items()}
    return [_fill(item, names) for item in value] if isinstance(value, list) else value


def build(cls: type[T], values: Any, where: str, path: str = "") -> T:
    """An instance of a dataclass from nested mappings."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: {path or 'the file'} wants keys and values, got {values!r}")
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    made = {}
    for key, value in values.items():
        full = f"{path}.{key}" if path else str(key)
        if key not in known:
            near = get_close_matches(str(key), known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{where}: nobody knows the key {full!r}; {hint}")
        made[key] = _convert(hints[key], value, where, full)
    for name, f in known.items():
        if name not in made and f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"{where} lacks {path + '.' if path else ''}{name}")
    return cls(**made)


def _convert(kind: Any, value: Any, where: str, path: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _convert_union(inner, value, where, path)
    if is_dataclass(kind) and isinstance(kind, type):
        return build(kind, value, where, path)
    if origin is Literal:
        if value not in inner:
            raise ConfigError(
                f"{where}: {path} must be one of {', '.join(map(str, inner))}, got {value!r}"
            )
        return value
    if origin is tuple:
        return _convert_tuple(inner, value, where, path)
    if kind is Any:
        return value
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: {path} wants keys and values, got {value!r}")
        return {k: _convert(inner[1], v, where, f"{path}.{k}") for k, v in value.items()}
    return _convert_plain(kind, value, where, path)


def _convert_union(inner: tuple[Any, ...], value: Any, where: str, path: str) -> Any:
    if value is None and type(None) in inner:
        return None
    choices = [kind for kind in inner if kind is not type(None)]
    problem: ConfigError | None = None
    for kind in choices:
        try:
            return _convert(kind, value, where, path)
        except ConfigError as error:
            problem = error if problem is None or is_dataclass(kind) else problem
    assert problem is not None
    raise problem


def _convert_tuple(inner: tuple[Any, ...], value: Any, where: str, path: str) -> tuple[Any, ...]:
    items = value if isinstance(value, list | tuple) else [value]
    many = len(inner) == 2 and inner[1] is Ellipsis
    if not many and len(items) != len(inner):
        raise ConfigError(f"{where}: {path} wants {len(inner)} values, got {value!r}")
    kinds = [inner[0]] * len(items) if many else inner
    return tuple(_convert(k, v, where, path) for k, v in zip(kinds, items, strict=True))


def _convert_plain(kind: type, value: Any, where: str, path: str) -> Any:
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:  # YAML reads 1e-6 as a text
            return float(value)
        except ValueError:
            pass
    is_wrong_bool = isinstance(value, bool) and kind is not bool
    if not isinstance(value, kind) or is_wrong_bool:
        raise ConfigError(f"{where}: {path} must be a {kind.__name__}, got {value!r}")
    return value


def to_plain(config: Any) -> dict[str, Any]:
    """A configuration as JSON-ready values; `build` reads it back."""
    return _plain(asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
