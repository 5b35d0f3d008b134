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


def sqlite_file(where: str | None, store: Path) -> Path | None:
    """Return the file that keeps the registry, the one in `store` where none is named; None where Redis does."""
    if where is None:
        return store / SQLITE
    return None if is_url(where) else Path(where)


class BadAddress(InputError):
    """A registry's address is a URL of something else."""


def check_address(where: str | None) -> None:
    """Raise BadAddress for a URL that is not Redis's: as a path it would be made, with folders named after it."""
    if where is None or is_url(where) or "://" not in where:
        return
    scheme, _, rest = where.partition("://")
    raise BadAddress(
        f"registry: {scheme}://{rest.rpartition('@')[2]}: no registry is kept there; give redis://, rediss:// or "
        f"unix:// with an address, or the path of an SQLite file (as the recipe's `registry`, --registry or {VARIABLE})"
    )


class RegistryMissing(InputError):
    """There is no registry where one is to be read."""


def open_registry(where: str | None, store: Path, *, create: bool = True) -> Registry:
    """Return the registry at a Redis URL or a path; the SQLite file in `store` where `where` is None.

    Raises: BadAddress; RegistryMissing where there is no such file and none is to be created.
    """
    check_address(where)
    path = sqlite_file(where, store)
    if path is not None:
        if not create and not path.is_file():
            raise RegistryMissing(
                f"{path}: there is no registry; run a night, or name another by --store or --registry"
            )
        return SqliteRegistry(path)
    from recsys_kd.registry.redis import RedisRegistry  # services with an embedded registry need no redis package

    return RedisRegistry(str(where))
