"""Tasks: validate, run the night as a subprocess, return a small summary.

The night is a subprocess because `multiprocessing` fails inside a prefork worker, and so that a crash of native code
ends the night, not the worker. Stages are keyed by content, so a night that is delivered twice does its work once.
"""

import json
import subprocess
import sys
from typing import Any

from jobs.app import NIGHT_LIMIT_SECONDS, app
from recsys_kd.errors import RecsysKdError

KEPT = ("passed", "artifact", "version", "bytes", "report", "seconds")
HELD_BACK = 1


class NightFailed(RecsysKdError):
    """A night's subprocess did not end with a verdict."""

    exit_code = 3


@app.task(name="recsys_kd.night")  # type: ignore[untyped-decorator]
def night(recipe: str) -> dict[str, Any]:
    """Run the night of the recipe at a path; return its summary. Raises: NightFailed with the night's last words."""
    command = [sys.executable, "-m", "recsys_kd", "run", recipe, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=NIGHT_LIMIT_SECONDS - 60, check=False)
    if done.returncode not in (0, HELD_BACK):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise NightFailed(f"night of {recipe}: exit code {done.returncode}: {last}")
    found = json.loads(done.stdout)
    return {name: found[name] for name in KEPT}
