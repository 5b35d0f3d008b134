"""The embedded registry: one SQLite file beside the artifacts, safe for many processes of one machine."""

import datetime as dt
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recsys_kd.evaluate.gate import Verdict
from recsys_kd.registry.protocol import (
    Event,
    NothingToRollBackTo,
    Pointer,
    RegistryUnreachable,
    StaleEpoch,
    UnknownModel,
    Verify,
    Version,
    check_verdict,
)

_TABLES = """
CREATE TABLE IF NOT EXISTS versions (
  model TEXT NOT NULL, number INTEGER NOT NULL, digest TEXT NOT NULL, path TEXT NOT NULL, created TEXT NOT NULL,
  lineage TEXT NOT NULL, PRIMARY KEY (model, number), UNIQUE (model, digest)) STRICT;
CREATE TABLE IF NOT EXISTS aliases (
  model TEXT NOT NULL, alias TEXT NOT NULL, number INTEGER NOT NULL, epoch INTEGER NOT NULL,
  PRIMARY KEY (model, alias), FOREIGN KEY (model, number) REFERENCES versions (model, number)) STRICT;
CREATE TABLE IF NOT EXISTS audit (
  at TEXT NOT NULL, model TEXT NOT NULL, action TEXT NOT NULL, number INTEGER NOT NULL, digest TEXT NOT NULL,
  epoch INTEGER NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL) STRICT;
CREATE TRIGGER IF NOT EXISTS audit_no_update BEFORE UPDATE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS audit_no_delete BEFORE DELETE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS versions_no_update BEFORE UPDATE ON versions
  BEGIN SELECT RAISE(ABORT, 'versions never change'); END;
"""


class SqliteRegistry:
    """A `Registry` in one file. Raises: RegistryUnreachable where the file can't be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as connection:
            connection.executescript(_TABLES)

    @contextmanager
    def _open(self, write: bool = False) -> Iterator[sqlite3.Connection]:
        """Open a connection for one transaction: all of it happens or none."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        except (sqlite3.Error, OSError) as error:
            raise RegistryUnreachable(f"{self.path}: {error}; point `store` at a folder that can be written") from None
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA foreign_keys=ON")
            if write:
                connection.execute("BEGIN IMMEDIATE")
            yield connection
            if write:
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise RegistryUnreachable(f"{self.path}: {error}; check the disk and the file's rights") from None
        finally:
            connection.close()

    def register(self, model: str, digest: str, path: Path, lineage: dict[str, Any], who: str) -> Version:
        """Add an artifact as the next version; the same digest keeps its version."""
        with self._open(write=True) as db:
            known = _version(db, "model = ? AND digest = ?", (model, digest))
            if known is not None:
                return known
            number = db.execute(
                "SELECT COALESCE(MAX(number), 0) + 1 FROM versions WHERE model = ?", (model,)
            ).fetchone()[0]
            version = Version(model, number, digest, str(path), _now(), lineage)
            row = (model, number, digest, str(path), version.created, json.dumps(lineage))
            db.execute("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?)", row)
            _log(db, version, "register", _epoch(db, model), who, "")
            return version

    def models(self) -> list[str]:
        """Return all models, by name."""
        with self._open() as db:
            return [row[0] for row in db.execute("SELECT DISTINCT model FROM versions ORDER BY model")]

    def versions(self, model: str) -> list[Version]:
        """Return a model's versions, oldest first."""
        with self._open() as db:
            rows = db.execute("SELECT * FROM versions WHERE model = ? ORDER BY number", (model,)).fetchall()
        return [_as_version(row) for row in rows]

    def version(self, model: str, number: int) -> Version:
        """Return one version. Raises: UnknownModel."""
        with self._open() as db:
            return self._existing(db, model, number)

    def _existing(self, db: sqlite3.Connection, model: str, number: int) -> Version:
        found = _version(db, "model = ? AND number = ?", (model, number))
        if found is None:
            raise UnknownModel(f"{self.path}: no version {number} of model '{model}'; see `recsys-kd registry list`")
        return found

    def pointer(self, model: str, alias: str) -> Pointer | None:
        """Return what an alias names, None where it names nothing."""
        with self._open() as db:
            return _pointer(db, model, alias)

    def epoch(self, model: str) -> int:
        """Return the epoch of the last change of champion, 0 before the first."""
        with self._open() as db:
            return _epoch(db, model)

    def promote(self, model: str, number: int, verdict: Verdict, expected_epoch: int, who: str, why: str) -> Pointer:
        """Make a version champion. Raises: PromotionRefused, StaleEpoch, UnknownModel."""
        with self._open(write=True) as db:
            version = self._existing(db, model, number)
            check_verdict(version, verdict, dt.datetime.now(dt.UTC))
            epoch = _epoch(db, model)
            if epoch != expected_epoch:
                raise StaleEpoch(
                    f"{model}: epoch is {epoch}, this promotion was decided at {expected_epoch}; evaluate against the "
                    "champion that is live now"
                )
            return _point(db, version, epoch + 1, "promote", who, why)

    def rollback(self, model: str, verify: Verify, who: str, why: str) -> Pointer:
        """Make the previous champion champion again, after `verify` opened it. Raises: NothingToRollBackTo."""
        with self._open(write=True) as db:
            previous = _pointer(db, model, "previous")
            if previous is None:
                raise NothingToRollBackTo(f"{model}: there is no previous champion; promote a version instead")
            version = self._existing(db, model, previous.number)
            verify(Path(version.path))
            return _point(db, version, _epoch(db, model) + 1, "rollback", who, why)

    def audit(self, model: str) -> list[Event]:
        """Return everything that happened to a model, oldest first."""
        with self._open() as db:
            rows = db.execute("SELECT * FROM audit WHERE model = ? ORDER BY rowid", (model,)).fetchall()
        return [Event(*row) for row in rows]


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


def _as_version(row: tuple[Any, ...]) -> Version:
    model, number, digest, path, created, lineage = row
    return Version(model, number, digest, path, created, json.loads(lineage))


def _version(db: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> Version | None:
    row = db.execute(f"SELECT * FROM versions WHERE {where}", values).fetchone()
    return None if row is None else _as_version(row)


def _pointer(db: sqlite3.Connection, model: str, alias: str) -> Pointer | None:
    row = db.execute(
        "SELECT a.alias, a.number, v.digest, a.epoch FROM aliases a JOIN versions v USING (model, number) "
        "WHERE model = ? AND alias = ?",
        (model, alias),
    ).fetchone()
    return None if row is None else Pointer(*row)


def _epoch(db: sqlite3.Connection, model: str) -> int:
    champion = _pointer(db, model, "champion")
    return 0 if champion is None else champion.epoch


def _point(db: sqlite3.Connection, version: Version, epoch: int, action: str, who: str, why: str) -> Pointer:
    """Move `champion` to a version and `previous` to what was champion, unless that is the same version."""
    before = _pointer(db, version.model, "champion")
    moves = [("champion", version.number)]
    if before is not None and before.number != version.number:
        moves.append(("previous", before.number))
    for alias, number in moves:
        db.execute("INSERT OR REPLACE INTO aliases VALUES (?, ?, ?, ?)", (version.model, alias, number, epoch))
    _log(db, version, action, epoch, who, why)
    return Pointer("champion", version.number, version.digest, epoch)


def _log(db: sqlite3.Connection, version: Version, action: str, epoch: int, who: str, why: str) -> None:
    row = (_now(), version.model, action, version.number, version.digest, epoch, who, why)
    db.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
