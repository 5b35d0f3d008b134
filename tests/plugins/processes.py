"""`recsys-kd serve` as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.paths import PATHS

ROOT = Path(__file__).resolve().parents[2]


class Process:
    """A serving process; `lines` is what it wrote so far, as JSON."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        paths = os.pathsep.join([str(ROOT), *PATHS])
        command = [sys.executable, "-m", "recsys_kd", "serve", *arguments, "--port", "0", "--grpc-port", "0"]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths} | (environment or {})
        )
        self.raw: list[str] = []
        self._heard = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            with self._heard:
                self.raw.append(line)
                self._heard.notify_all()
        with self._heard:
            self.raw.append("")
            self._heard.notify_all()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.raw if line]

    def event(self, name: str, count: int = 1) -> dict[str, Any]:
        """Wait for the `count`-th event of a name."""

        def found() -> list[str]:
            return [line for line in self.raw if f'"event": "{name}"' in line]

        with self._heard:
            heard = self._heard.wait_for(lambda: len(found()) >= count or "" in self.raw, timeout=120)
            assert heard and len(found()) >= count, "".join(self.raw)
            return dict(json.loads(found()[count - 1]))

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self) -> int:
        """Wait for its end; return the exit code."""
        code = self.process.wait(timeout=60)
        self._reader.join()
        assert self.process.stderr
        self.process.stderr.close()
        return code
