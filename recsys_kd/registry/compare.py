"""What differs between two versions of a model."""

from typing import Any

from recsys_kd.registry.protocol import Version


def differences(old: Version, new: Version) -> dict[str, tuple[Any, Any]]:
    """Return every value of digest, time, path and lineage that differs: dotted key -> (old, new), None if absent."""
    before, after = (
        _flat("", {"digest": v.digest, "created": v.created, "path": v.path, "lineage": v.lineage}) for v in (old, new)
    )
    keys = sorted(before.keys() | after.keys())
    return {k: (before.get(k), after.get(k)) for k in keys if before.get(k) != after.get(k)}


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    return found
