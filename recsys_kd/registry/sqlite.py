"""The embedded registry: one SQLite file beside the artifacts, safe for many processes of one machine."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import TypeVar

from recsys_kd.registry.protocol import Event, Pointer, Publication, RegistryUnreachable, State, Step, Version
from recsys_kd.registry.ruled import RuledRegistry
from recsys_kd.registry.rules import Change

T = TypeVar("T")

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
CREATE TABLE IF NOT EXISTS nights (
  model TEXT NOT NULL, night TEXT NOT NULL, number INTEGER NOT NULL, digest TEXT NOT NULL, epoch INTEGER NOT NULL,
  outcome TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (model, night)) STRICT;
CREATE TABLE IF NOT EXISTS tokens (
  model TEXT NOT NULL, night TEXT NOT NULL, token INTEGER NOT NULL, PRIMARY KEY (model, night)) STRICT;
CREATE TABLE IF NOT EXISTS collected (
  model TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (model, number)) STRICT;
CREATE TABLE IF NOT EXISTS steps (
  model TEXT NOT NULL, epoch INTEGER NOT NULL, number INTEGER NOT NULL, back INTEGER NOT NULL,
  PRIMARY KEY (model, epoch)) STRICT;
CREATE TABLE IF NOT EXISTS services (
  model TEXT NOT NULL, service TEXT NOT NULL, digest TEXT NOT NULL, until REAL NOT NULL,
  PRIMARY KEY (model, service)) STRICT;
CREATE TRIGGER IF NOT EXISTS audit_no_update BEFORE UPDATE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS audit_no_delete BEFORE DELETE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS versions_no_update BEFORE UPDATE ON versions
  BEGIN SELECT RAISE(ABORT, 'versions never change'); END;
CREATE TRIGGER IF NOT EXISTS nights_no_update BEFORE UPDATE ON nights
  BEGIN SELECT RAISE(ABORT, 'a published night never changes'); END;
"""


class SqliteRegistry(RuledRegistry):
    """A `Registry` in one file. Raises: RegistryUnreachable where the file can't be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open(create=True) as connection:
            connection.executescript(_TABLES)

    @contextmanager
    def _open(self, begin: str = "", create: bool = False) -> Iterator[sqlite3.Connection]:
        """Open a connection for one transaction: all of it happens or none.

        A file that goes later, with its share, is not made anew: it would be empty.
        """
        address = f"{self.path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        try:
            if create:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(address, timeout=30, isolation_level=None, uri=True)
        except (sqlite3.Error, OSError) as error:
            raise RegistryUnreachable(f"{self.path}: {error}; point `store` at a folder that can be written") from None
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA foreign_keys=ON")
            if begin:
                connection.execute(begin)
            yield connection
            if begin:
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise RegistryUnreachable(
                f"{self.path}: {error}; free space if the disk is full, else check it and the file's rights"
            ) from None
        finally:
            connection.close()

    def models(self) -> list[str]:
        """Return all models, by name."""
        with self._open() as db:
            return [row[0] for row in db.execute("SELECT DISTINCT model FROM versions ORDER BY model")]

    def state(self, model: str) -> State:
        """Return the whole of a model as of one moment."""
        with self._open("BEGIN") as db:
            return _load(db, model)

    def audit(self, model: str) -> list[Event]:
        """Return everything that happened to a model, oldest first."""
        with self._open() as db:
            rows = db.execute("SELECT * FROM audit WHERE model = ? ORDER BY rowid", (model,)).fetchall()
        return [Event(*row) for row in rows]

    def announce(self, model: str, service: str, digest: str, seconds: int) -> None:
        """Say that a service has an artifact loaded, good for some seconds."""
        with self._open() as db:
            row = (model, service, digest, time.time() + seconds)
            db.execute("INSERT OR REPLACE INTO services VALUES (?, ?, ?, ?)", row)

    def serving(self, model: str) -> dict[str, str]:
        """Return what live services announced."""
        with self._open() as db:
            query = "SELECT service, digest FROM services WHERE model = ? AND until > ? ORDER BY service"
            return dict(db.execute(query, (model, time.time())))

    def _change(self, model: str, decide: Callable[[State], tuple[Change, T]]) -> T:
        with self._open("BEGIN IMMEDIATE") as db:
            change, result = decide(_load(db, model))
            _write(db, model, change)
            return result


def _load(db: sqlite3.Connection, model: str) -> State:
    def rows(query: str) -> list[tuple[str | int, ...]]:
        return db.execute(query, (model,)).fetchall()

    versions = [
        Version(m, number, digest, path, created, json.loads(lineage))
        for m, number, digest, path, created, lineage in db.execute("SELECT * FROM versions WHERE model = ?", (model,))
    ]
    pointers = [
        Pointer(*row)
        for row in db.execute(
            "SELECT a.alias, a.number, v.digest, a.epoch FROM aliases a JOIN versions v USING (model, number) "
            "WHERE model = ?",
            (model,),
        )
    ]
    query = "SELECT night, number, digest, epoch, outcome, at FROM nights WHERE model = ?"
    nights = [Publication(*row) for row in db.execute(query, (model,))]
    return State(
        {v.number: v for v in versions},
        {p.alias: p for p in pointers},
        {n.night: n for n in nights},
        {str(night): int(token) for night, token in rows("SELECT night, token FROM tokens WHERE model = ?")},
        frozenset(int(number) for (number,) in rows("SELECT number FROM collected WHERE model = ?")),
        {
            int(epoch): Step(int(epoch), int(number), bool(back))
            for epoch, number, back in rows("SELECT epoch, number, back FROM steps WHERE model = ? ORDER BY epoch")
        },
    )


def _write(db: sqlite3.Connection, model: str, change: Change) -> None:
    for v in change.versions:
        row = (model, v.number, v.digest, v.path, v.created, json.dumps(v.lineage))
        db.execute("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?)", row)
    for alias, p in change.aliases.items():
        db.execute("INSERT OR REPLACE INTO aliases VALUES (?, ?, ?, ?)", (model, alias, p.number, p.epoch))
    for night in change.nights:
        db.execute("INSERT INTO nights VALUES (?, ?, ?, ?, ?, ?, ?)", (model, *astuple(night)))
    for name, token in change.tokens.items():
        db.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?)", (model, name, token))
    for number, gone in change.collected.items():
        db.execute("DELETE FROM collected WHERE model = ? AND number = ?", (model, number))
        if gone:
            db.execute("INSERT INTO collected VALUES (?, ?)", (model, number))
    for step in change.steps:
        db.execute("INSERT INTO steps VALUES (?, ?, ?, ?)", (model, *astuple(step)))
    if change.event is not None:
        db.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?)", astuple(change.event))
