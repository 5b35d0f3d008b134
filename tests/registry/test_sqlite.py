"""What is special to the embedded store."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from recsys_kd.errors import OutsideError
from recsys_kd.registry.protocol import RegistryUnreachable
from recsys_kd.registry.sqlite import SqliteRegistry
from tests.registry.test_registry import night


def test_the_audit_log_versions_and_nights_can_not_be_changed_even_by_hand(tmp_path):
    registry = SqliteRegistry(tmp_path / "registry.sqlite")
    night(registry, "2026-01-05", "a")
    db = sqlite3.connect(registry.path)
    for attack in (
        "DELETE FROM audit",
        "UPDATE audit SET who = 'eve'",
        "UPDATE versions SET digest = 'evil'",
        "UPDATE nights SET digest = 'evil'",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            db.execute(attack)
    db.close()


def test_a_store_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutsideError, match="file"):
        SqliteRegistry(tmp_path / "file" / "registry.sqlite")


def test_a_registry_that_goes_while_it_is_open_is_not_made_anew(tmp_path):
    store = tmp_path / "a store"
    registry = SqliteRegistry(store / "registry.sqlite")
    night(registry, "2026-01-05", "a")
    store.rename(tmp_path / "away")
    store.mkdir()  # where its share is mounted
    with pytest.raises(RegistryUnreachable, match=r"a store/registry\.sqlite: unable to open"):
        registry.state("shop")
    assert list(store.iterdir()) == []
    store.rmdir()
    (tmp_path / "away").rename(store)
    assert list(registry.state("shop").nights) == ["2026-01-05"]


FULL = """
import resource, sys
from pathlib import Path
from recsys_kd.registry.sqlite import SqliteRegistry

registry = SqliteRegistry(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
for number in range(100):
    registry.register("shop", f"{number:064}", Path("/a"), {"data": "x" * 1000}, "ann")
"""


def test_where_nothing_more_can_be_written_the_message_says_that_the_disk_may_be_full(tmp_path):
    command = [sys.executable, "-c", FULL, str(tmp_path / "registry.sqlite")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    told = done.stderr.splitlines()[-1]
    assert "RegistryUnreachable" in told and "registry.sqlite: " in told and "free space if the disk is full" in told
