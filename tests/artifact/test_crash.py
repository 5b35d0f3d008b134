"""Writing is killed at every step: a reader sees the old artifact or the new one, never half of one."""

import json
import subprocess
import sys
from pathlib import Path


def test_a_writer_killed_at_any_line_leaves_the_old_or_the_new(tmp_path):
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "tests.artifact.crash_writer", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    found = json.loads(done.stdout)
    # Nothing new is seen until some line, and from then on all of it: the rename is the only step that shows.
    assert found["kills"] > 60
    assert found["new"] == sorted(found["new"]) and set(found["new"]) == {0, 1}
    hidden = [p for p in (tmp_path / "shop").iterdir() if p.name.startswith(".building-")]
    assert hidden, "no kill came while files were being written"
