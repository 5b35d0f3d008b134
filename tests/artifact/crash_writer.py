"""Writes artifacts in child processes that are killed before each line of the writer in turn; prints what it saw.

`python -m tests.artifact.crash_writer FOLDER`. A process of its own, since only one without threads may fork.
"""

import json
import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from recsys_kd.artifact import write
from recsys_kd.artifact.read import open_artifact
from tests.attacks.small import small_artifact

KILLED, DONE = 9, 0


def kill_before(line: int) -> Any:
    """Return a trace function that ends the process before the `line`th line run in the writer's module."""
    seen = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if frame.f_code.co_filename != write.__file__:
            return None
        if event == "line":
            seen += 1
            if seen == line:
                os._exit(KILLED)  # as kill -9 does: no `finally`, no flush
        return trace

    return trace


def write_killed(store: Path, seed: int, line: int) -> bool:
    """Write an artifact in a child that dies before `line`; return whether it lived to the end."""
    child = os.fork()
    if child == 0:
        sys.settrace(kill_before(line))
        small_artifact(store, seed)
        os._exit(DONE)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == DONE


def main() -> None:
    """Kill at every step, look at what a reader sees after each, and print it."""
    store = Path(sys.argv[1])
    old = small_artifact(store, seed=0).digest
    seen: list[list[str]] = []
    finished = False
    while not finished:
        finished = write_killed(store, 1, len(seen) + 1)
        visible = sorted(p.name for p in (store / "shop").iterdir() if not p.name.startswith("."))
        for name in visible:
            open_artifact(store / "shop" / name)  # raises if it is not whole
        seen.append([name for name in visible if name != old])
        for name in seen[-1]:
            for file in (store / "shop" / name).iterdir():
                file.unlink()
            (store / "shop" / name).rmdir()
    print(json.dumps({"kills": len(seen) - 1, "new": [len(s) for s in seen]}))


if __name__ == "__main__":
    main()
