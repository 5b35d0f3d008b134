"""Which store keeps the registry: a Redis URL, or the path of an SQLite file."""

from pathlib import Path

from recsys_kd.registry.protocol import Registry
from recsys_kd.registry.sqlite import SqliteRegistry

SQLITE = "registry.sqlite"
VARIABLE = "RECSYS_KD_REGISTRY"
_SCHEMES = ("redis://", "rediss://", "unix://")


def is_url(where: str) -> bool:
    """Return whether a registry's address is Redis."""
    return where.startswith(_SCHEMES)


def open_registry(where: str | None, store: Path) -> Registry:
    """Return the registry at a Redis URL or a path; the SQLite file in `store` where `where` is None."""
    if where is None:
        return SqliteRegistry(store / SQLITE)
    if not is_url(where):
        return SqliteRegistry(Path(where))
    from recsys_kd.registry.redis import RedisRegistry  # services with an embedded registry need no redis package

    return RedisRegistry(where)
