"""What a command fills is there whole or not at all, and a refusal says what to do."""

import subprocess
import sys
from pathlib import Path

import pytest

from recsys_kd.flow.filling import Unfinished, filled
from recsys_kd.flow.folders import FolderInUse, FolderUnwritable


def test_what_a_failed_command_has_begun_is_taken_out_so_that_the_next_try_is_not_refused(tmp_path):
    for out in (tmp_path / "new", tmp_path):
        with pytest.raises(Unfinished, match=f"^OUT: {out} could not be filled .No space left"), filled(out):
            (out / "log" / "day=1").mkdir(parents=True)
            (out / "log" / "day=1" / "half").write_text("x")
            raise OSError(28, "No space left on device")
        assert out.exists() == (out == tmp_path) and not [*tmp_path.iterdir()]


def test_a_file_that_was_there_is_neither_mixed_with_nor_removed(tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(FolderInUse), filled(tmp_path):
        raise AssertionError("nothing may begin")
    assert (tmp_path / "mine").read_text() == "x"


@pytest.mark.parametrize("command", [("synth",), ("demo",)])
@pytest.mark.parametrize("out", ["/proc/nowhere/shop", "{}/file/shop"])
def test_a_folder_that_can_not_be_made_is_told_before_any_work(tmp_path, command, out):
    (tmp_path / "file").write_text("")
    out = out.format(tmp_path)
    done = subprocess.run([sys.executable, "-m", "recsys_kd", *command, out], capture_output=True, text=True)
    assert done.returncode == FolderUnwritable.exit_code
    assert f"OUT: {out} can't be written" in done.stderr and "Traceback" not in done.stderr


def test_a_full_disk_is_told_as_one_and_leaves_no_half_of_a_shop(tmp_path):
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); "
        f"from recsys_kd.cli.main import main; sys.argv = ['recsys-kd', 'synth', {str(tmp_path / 'shop')!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == Unfinished.exit_code == 3 and "Traceback" not in done.stderr
    assert "shop could not be filled (File too large" in done.stderr and not Path(tmp_path / "shop").exists()
