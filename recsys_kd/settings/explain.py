"""Pydantic's complaints in this project's words: file, path, value, what is allowed there, and so what to do."""

import datetime as dt
import types
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as at
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

_LONGEST = 60
_LIMITS = (
    (at.Ge, "ge", "at least"),
    (at.Gt, "gt", "greater than"),
    (at.Le, "le", "at most"),
    (at.Lt, "lt", "less than"),
)
_PLAIN = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    dt.date: "a date such as 2026-01-31",
}


def explain(error: ValidationError, where: str, model: type[BaseModel]) -> str:
    """Return one line per fault: `file: path: what was given; what to give`. `model`: what was to be read."""
    lines: dict[str, str] = {}
    found = error.errors()
    for item in found:
        if item["type"] == "too_short" and any(_within(other["loc"], item["loc"]) for other in found):
            continue  # its elements are at fault, and told on their own
        spot = _Spot.at(model, item["loc"])
        lines.setdefault(spot.path, f"{where}: {spot.path or '(the whole file)'}: {_fault(item, spot, model)}")
    return "\n".join(lines.values())


def _within(loc: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    return len(loc) > len(outer) and loc[: len(outer)] == outer


class _Spot:
    """A place in a model: its path as text, what may stand there, and the keys beside it."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.path, self.beside = "", [*model.model_fields]
        self.kind: Any = model

    @staticmethod
    def at(model: type[BaseModel], loc: tuple[int | str, ...]) -> "_Spot":
        """Follow a location as far as it names keys and places of lists; pydantic's tags of unions end it."""
        spot = _Spot(model)
        for part in loc:
            if not spot._step(part):
                break
        return spot

    def _step(self, part: int | str) -> bool:
        for kind in _choices(self.kind):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                self.beside, self.path = [*kind.model_fields], f"{self.path}.{part}".removeprefix(".")
                found = kind.model_fields.get(str(part))
                self.kind = Annotated[found.annotation, None, *found.metadata] if found else None
                return True
            if get_origin(kind) in (tuple, list) and isinstance(part, int):
                self.path, self.kind = f"{self.path}[{part}]", get_args(kind)[0]
                return True
            if get_origin(kind) is dict and part != "[key]":
                key, self.kind = get_args(kind)
                self.path, self.beside = f"{self.path}.{part}", [str(v) for v in get_args(key)]
                return True
        return False


def _fault(item: Any, spot: _Spot, model: type[BaseModel]) -> str:
    kind, given = item["type"], item.get("input")
    if kind == "value_error":  # of our own validators, which say all that is needed (and keep passwords to themselves)
        return str(item["msg"]).removeprefix("Value error, ")
    if kind in ("extra_forbidden", "invalid_key") or item["loc"][-1:] == ("[key]",):
        return _unknown(spot, given if kind == "extra_forbidden" else None, model)
    if kind == "missing":
        return f"is missing; give {allowed(spot.kind)}"
    return f"got {_shown(given)}; give {allowed(spot.kind)}"


def _unknown(spot: _Spot, given: Any, model: type[BaseModel]) -> str:
    name = spot.path.rpartition(".")[2]
    near = get_close_matches(name, spot.beside, 1, 0.6)
    value = "" if given is None else f" (with the value {_shown(given)})"
    inside = _sections(model, name) if spot.path == name else []
    advice = f"write '{near[0]}'" if near else f"remove it; known here are: {', '.join(spot.beside)}"
    if inside and not near:
        advice = f"write it inside of {' or '.join(f'`{section}`' for section in inside)}, where it is a key"
    return f"unknown key{value}; {advice}"


def _sections(model: type[BaseModel], name: str) -> list[str]:
    """Return the sections of a model that have a key of this name."""
    return [
        section
        for section, info in model.model_fields.items()
        for kind in _choices(info.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel) and name in kind.model_fields
    ]


def _shown(value: Any) -> str:
    """Return a value as YAML has it, shortened."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _choices(kind: Any) -> Iterator[Any]:
    """Yield the members of a union, without None, each without what annotates it."""
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(bare) in (Union, types.UnionType):
        for member in get_args(bare):
            yield from _choices(member)
    elif bare is not type(None):
        yield bare


def allowed(kind: Any) -> str:
    """Return in words what an annotation takes, with its limits."""
    bare, *told = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    notes = [n for note in told for n in (note.metadata if isinstance(note, FieldInfo) else [note])]
    members = get_args(bare) if get_origin(bare) in (Union, types.UnionType) else (bare,)
    words = " or ".join(_one(member) for member in members if member is not type(None))
    limits = [f"{text} {getattr(note, key):,}" for note in notes for cls, key, text in _LIMITS if isinstance(note, cls)]
    limits += [f"a multiple of {n.multiple_of}" for n in notes if isinstance(n, at.MultipleOf)]
    limits += [f"with at least {n.min_length} in it" for n in notes if isinstance(n, at.MinLen)]
    limits += ["letters, digits, `_`, `.` and `-`, 64 at most" for n in notes if getattr(n, "pattern", None)]
    return ", ".join([words, *limits])


def _one(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Annotated:
        return allowed(kind)
    if origin is Literal:
        values = ", ".join(map(str, get_args(kind)))
        return f"one of {values}" if len(get_args(kind)) > 1 else values
    if origin in (tuple, list):
        return f"a list, each: {allowed(get_args(kind)[0])}"
    if origin is dict:
        return f"a mapping whose values are each: {allowed(get_args(kind)[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"a mapping with keys of: {', '.join(kind.model_fields)}"
    return _PLAIN.get(kind, "another value")
