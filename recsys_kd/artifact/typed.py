"""Plain JSON values -> dataclasses whose annotations hold: what came from a file is what its type says, or refused."""

import math
from collections.abc import Hashable, Mapping
from functools import lru_cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def typed(kind: type[T], data: Any) -> T:
    """Return `kind` made of a JSON object with just its fields. Raises: ValueError naming the field that is wrong."""
    key: Any = kind  # mypy doubts that a type variable can be a key
    hints = _hints(key)
    if not isinstance(data, dict) or set(data) != set(hints):
        raise ValueError(f"{kind.__name__} needs keys {sorted(hints)}, got {_shown(data)}")
    for name, value in data.items():
        if not fits(value, hints[name]):
            raise ValueError(f"{kind.__name__}.{name} can't be {_shown(value)}")
    return kind(**data)


@lru_cache
def _hints(kind: Hashable) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _shown(value: Any) -> str:
    text = repr(sorted(value) if isinstance(value, dict) else value)
    return text if len(text) <= 80 else text[:77] + "..."


def fits(value: Any, hint: Any) -> bool:
    """Return whether a JSON value is of an annotated type; a float may be written as integer, a bool is no number."""
    if hint is str or hint is int:  # most values are
        return type(value) is hint
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(fits(value, arg) for arg in args)
    if origin is Literal:
        # Which of them it is, a rule of its own says; here it is of their type.
        return type(value) in {type(arg) for arg in args}
    if origin is list:
        return isinstance(value, list) and all(fits(v, args[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(k, str) and fits(v, args[1]) for k, v in value.items())
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e38
    return type(value) is (type(None) if hint is None else hint)
