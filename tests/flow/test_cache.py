"""Stages of runs that are killed, that meet in one work folder, and whose code or disk changes under them."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from recsys_kd.flow import cache, provenance
from recsys_kd.flow.cache import CHECKPOINT, StageDamaged, Stages, WorkUnwritable, key_of, remove_leftovers
from recsys_kd.flow.night import read
from recsys_kd.progress import SILENT
from recsys_kd.settings import load_recipe


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_an_interrupted_stage_leaves_nothing_and_is_done_again(tmp_path):
    stages = Stages(tmp_path, SILENT)

    def killed(out):
        (out / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stages.run("read", "k", killed)
    assert names(tmp_path) == []
    (tmp_path / ".read-12345678").mkdir()
    remove_leftovers(tmp_path)
    made = stages.run("read", "k", lambda out: (out / "whole").write_text("x"))
    assert names(tmp_path) == ["read-k"] and names(made) == ["stage.json", "whole"]
    assert stages.run("read", "k", killed) == made and stages.done == {"read": "reused"}


def test_checkpoints_outlive_an_interruption_but_not_the_whole_stage(tmp_path):
    stages = Stages(tmp_path, SILENT)

    def interrupted(out):
        (out / CHECKPOINT).mkdir()
        (out / CHECKPOINT / "epoch").write_text("1")
        (out / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stages.run("teacher", "k", interrupted)
    remove_leftovers(tmp_path)

    def continued(out):
        assert not (out / "half").exists() and (out / CHECKPOINT / "epoch").read_text() == "1"
        (out / "whole").write_text("x")

    assert names(stages.run("teacher", "k", continued)) == ["stage.json", "whole"]


def test_leftovers_of_dead_runs_go_and_those_of_live_ones_stay(tmp_path):
    for name in (".read-12345678", ".teacher-0123456789abcdef0123", ".student-0123456789abcdef0123"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("x")
    (tmp_path / ".teacher-0123456789abcdef0123" / ".lock").write_text("")
    with (tmp_path / ".student-0123456789abcdef0123" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_leftovers(tmp_path)
    assert names(tmp_path) == [".student-0123456789abcdef0123"]
    assert names(tmp_path / ".student-0123456789abcdef0123") == [".lock", "half"]


def test_a_second_run_waits_for_the_first_and_takes_its_result(tmp_path):
    started, finish, made = threading.Event(), threading.Event(), []

    def slow(out):
        made.append(1)
        (out / "whole").write_text("x")
        started.set()
        assert finish.wait(30)

    def run():
        runs.append(Stages(tmp_path, SILENT))
        found.append(runs[-1].run("read", "k", slow))

    runs, found = [], []
    threads = [threading.Thread(target=run) for _ in range(3)]
    threads[0].start()
    assert started.wait(30)
    for thread in threads[1:]:
        thread.start()
    remove_leftovers(tmp_path)  # what a starting night does; the stage in work must not suffer
    time.sleep(0.1)
    finish.set()
    for thread in threads:
        thread.join(30)
    assert made == [1] and set(found) == {tmp_path / "read-k"} and names(found[0]) == ["stage.json", "whole"]
    assert sorted(s.done["read"] for s in runs) == ["reused", "reused", "run"]


def test_two_processes_that_race_make_one_result(tmp_path):
    code = (
        "import sys, pathlib; from recsys_kd.flow.cache import Stages, remove_leftovers; "
        "from recsys_kd.progress import SILENT; folder = pathlib.Path(sys.argv[1]); remove_leftovers(folder); "
        "s = Stages(folder, SILENT); "
        "[s.run(f'stage{i}', 'k', lambda out: (out / 'f').write_text('x')) for i in range(40)]; print(s.done)"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    outs = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], outs
    assert names(tmp_path) == sorted(f"stage{i}-k" for i in range(40))
    assert sum(out.decode().count("'run'") for out, _ in outs) == 40


class Told(type(SILENT)):
    """Keeps what it is told."""

    def __init__(self):
        self.said = []

    def note(self, message):
        self.said.append(message)


def flip(path):
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)


DAMAGES = {
    "rows/item.npy is missing": lambda folder: (folder / "rows" / "item.npy").unlink(),
    "fit.json holds 0 bytes instead of 13": lambda folder: (folder / "fit.json").write_text(""),
    "rows/item.npy holds 40 bytes instead of 80": lambda folder: os.truncate(folder / "rows" / "item.npy", 40),
    "rows/item.npy holds other bytes than were written": lambda folder: flip(folder / "rows" / "item.npy"),
    "stage.json can't be read": lambda folder: flip(folder / "stage.json"),
}


def make_stage(out):
    (out / "rows").mkdir()
    (out / "rows" / "item.npy").write_bytes(bytes(range(80)))
    (out / "fit.json").write_text('{"epochs": 3}')


@pytest.mark.parametrize("why", DAMAGES)
def test_a_damaged_stage_is_done_again_and_told(tmp_path, why):
    folder, told = Stages(tmp_path, SILENT).run("control", "k", make_stage), Told()
    DAMAGES[why](folder)
    again = Stages(tmp_path, told)
    assert again.run("control", "k", make_stage) == folder and again.done == {"control": "run"}
    assert told.said == [f"warning: {folder}: {why}; done again"]
    assert (folder / "rows" / "item.npy").read_bytes() == bytes(range(80))
    last = Stages(tmp_path, told)
    assert last.run("control", "k", make_stage) == folder and last.done == {"control": "reused"}
    assert told.said[1:] == ["control: unchanged, reused"] and names(tmp_path) == ["control-k"]


def test_a_damaged_stage_that_can_not_be_removed_is_named(tmp_path, monkeypatch):
    folder = Stages(tmp_path, SILENT).run("control", "k", make_stage)
    (folder / "fit.json").write_text("")

    def refuse(path, ignore_errors=False):
        if not ignore_errors:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(cache.shutil, "rmtree", refuse)
    why = "fit.json holds 0 bytes instead of 13, and it can't be removed (Permission denied); remove this folder"
    with pytest.raises(StageDamaged) as found:
        Stages(tmp_path, SILENT).run("control", "k", make_stage)
    assert str(found.value) == f"{folder}: {why}"


def test_a_flipped_bit_in_an_encoded_label_is_never_trained_on(shop, tmp_path):
    recipe = load_recipe(shop.recipe).model_copy(update={"work": tmp_path / "work", "store": tmp_path / "store"})
    first, digest = read(recipe, Stages(recipe.work, SILENT))
    labels = np.array(first.column("label"))
    flip(next(recipe.work.glob("read-*/rows/**/label.npy")))
    second, again = read(recipe, Stages(recipe.work, SILENT))
    assert np.array_equal(second.column("label"), labels) and again == digest


def test_a_full_disk_is_told_from_a_failing_input(tmp_path):
    def full(out):
        raise OSError(errno.ENOSPC, "No space left on device")

    def missing(out):
        (tmp_path / "absent").read_text()

    with pytest.raises(WorkUnwritable, match="free space"):
        Stages(tmp_path / "w", SILENT).run("read", "k", full)
    with pytest.raises(FileNotFoundError):
        Stages(tmp_path / "w", SILENT).run("read", "k", missing)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkUnwritable):
        Stages(tmp_path / "file", SILENT).run("read", "k", full)


def test_a_finished_stage_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def fsync(handle):
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    monkeypatch.setattr(cache.os, "fsync", fsync)

    def make(out):
        (out / "rows").mkdir()
        (out / "rows" / "a.npy").write_text("x")

    Stages(tmp_path, SILENT).run("read", "k", make)
    inside = [str(tmp_path / ".read-k" / "rows" / "a.npy"), str(tmp_path / ".read-k" / "rows"), str(tmp_path)]
    assert set(inside) <= set(synced)


def test_a_key_changes_with_the_code_and_the_libraries(tmp_path, monkeypatch):
    before = key_of("read", 1)
    assert key_of("read", 1) == before != key_of("read", 2)
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("x = 1\n")
    digests = [provenance.digest_of_files(package, "*.py")]
    (package / "a.py").write_text("x = 2\n")
    digests.append(provenance.digest_of_files(package, "*.py"))
    (package / "a.py").rename(package / "b.py")
    digests.append(provenance.digest_of_files(package, "*.py"))
    assert len(set(digests)) == 3
    monkeypatch.setattr(provenance, "version", lambda name: "0")
    provenance.code_digest.cache_clear()
    try:
        assert key_of("read", 1) != before
    finally:
        provenance.code_digest.cache_clear()
