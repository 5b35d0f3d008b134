"""Which store keeps the registry: a Redis URL, or the path of an SQLite file."""

from pathlib import Path

from recsys_kd.errors import InputError
from recsys_kd.registry.protocol import Registry
from recsys_kd.registry.sqlite import SqliteRegistry

SQLITE = "registry.sqlite"
VARIABLE = "RECSYS_KD_REGISTRY"
_SCHEMES = ("redis://", "rediss://", "unix://")


def is_url(where: str) -> bool:
    """Return whether a registry's address is Redis."""
    return where.startswith(_SCHEMES)


class RegistryMissing(InputError):
    """There is no registry where one is to be read."""


def open_registry(where: str | None, store: Path, *, create: bool = True) -> Registry:
    """Return the registry at a Redis URL or a path; the SQLite file in `store` where `where` is None.

    Raises: RegistryMissing where there is no such file and none is to be created.
    """
    if where is None or not is_url(where):
        path = store / SQLITE if where is None else Path(where)
        if not create and not path.is_file():
            raise RegistryMissing(
                f"{path}: there is no registry; run a night, or name another by --store or --registry"
            )
        return SqliteRegistry(path)
    from recsys_kd.registry.redis import RedisRegistry  # services with an embedded registry need no redis package

    return RedisRegistry(where)
