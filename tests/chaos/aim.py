"""What a fault strikes: a night at the stage that it is aimed at, and the processes that have that night."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import psutil

from jobs.machine import OVER, Night
from recsys_kd.errors import RecsysKdError
from tests.chaos.world import World, is_ours

AIM_SECONDS = 3.0
LATE_AIM_SECONDS = 6.0
"""For publish and tidy: a night reaches them seldom, and leaves them within a tenth of a second."""


class Aim:
    """Finds nights and their owners; waits for a night to come to a stage, but not for long."""

    def __init__(self, world: World, patience: float = AIM_SECONDS) -> None:
        self.world, self.patience = world, patience

    def night(self, stage: str) -> Night | None:
        """Return a night whose stage runs; any running one where none is at that stage."""
        late = LATE_AIM_SECONDS if stage in ("publish", "tidy") else 0.0
        deadline = time.monotonic() + max(self.patience, late)
        while True:
            try:
                nights = self.world.board.all()
            except RecsysKdError:
                nights = []
            running = [n for n in nights if n.phase == "running" and n.owner]
            if stage == "tidy":
                running += [replace(n, stage="tidy") for n in nights if self._is_being_tidied(n)]
            if nights and all(n.phase in OVER for n in nights):
                return None
            for night in running:
                if night.stage == stage:
                    return night
            if time.monotonic() > deadline:
                return running[0] if running else None
            time.sleep(0.01)  # publish takes tens of milliseconds; it tells nobody that it begins

    def _is_being_tidied(self, night: Night) -> bool:
        folder = self.world.desk.night_folder(night.model, night.night)
        return night.phase == "published" and (folder / "work").exists()

    def owner(self, night: Night | None) -> psutil.Process | None:
        """Return the pool process that owns a night; tidying, which nobody owns, is the light worker's."""
        if night is None or (night.owner is None and night.stage != "tidy"):
            return None
        try:
            if night.owner is None:
                light = psutil.Process(self.world.supervisor.running["light"].pid).children()
                return next((p for p in light if "spawn_main" in " ".join(p.cmdline())), None)
            process = psutil.Process(int(night.owner.rsplit(":", 3)[1]))
        except psutil.Error:
            return None
        return process if is_ours(process, self.world.folder) else None


def worker_of(process: psutil.Process, folder: Path) -> psutil.Process:
    """Return a pool process's worker; itself where that is gone, since it then has a parent that is not the run's."""
    parent = process.parent()
    return parent if parent is not None and is_ours(parent, folder) else process


def kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.Error:
        return


def kill_popen(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.kill()


def resume(process: psutil.Process) -> None:
    try:
        process.resume()
    except psutil.Error:
        return
