"""The faults, each a real one: signals to real processes, a real Redis killed, hung, refused or emptied.

A fault strikes the stage it is aimed at where it can: it waits a moment for a night to be there, and takes the process
that owns it. What lasts (a paused worker, a full disk) is undone by a timer while other faults go on.
"""

import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from jobs.machine import Night
from jobs.tasks import app, prepare, publish, tidy, train
from recsys_kd.artifact.errors import ArtifactRefused
from recsys_kd.errors import InputError
from recsys_kd.runtime.ranker import Ranker
from tests.chaos.aim import AIM_SECONDS, Aim, kill, kill_popen, resume, worker_of
from tests.chaos.world import POISON, World

AIMS = ("prepare", "train", "publish", "tidy")


@dataclass
class Struck:
    """One fault as it happened."""

    kind: str
    stage: str
    """Of the night that was struck; empty where none ran."""
    run: str
    at: float


@contextmanager
def unmounted(folder: Path, left: str) -> Iterator[None]:
    """Take a folder away and bring it back; `left` in its place is nothing, a file, or an empty folder.

    A file keeps everybody from making the folder anew; what is written into an empty one is lost.
    """
    away = folder.rename(folder.with_name(f"{folder.name}.away"))
    if left == "file":
        folder.write_text("")
    elif left == "folder":
        folder.mkdir()
    yield
    while True:
        try:
            folder.unlink(missing_ok=True)
        except (IsADirectoryError, PermissionError):
            shutil.rmtree(folder, ignore_errors=True)
        try:
            away.rename(folder)
        except OSError:
            continue  # somebody has written there just now
        return


class Faults:
    """Draws faults by a seeded generator and carries them out."""

    def __init__(self, world: World, seed: int, patience: float = AIM_SECONDS) -> None:
        self.world, self.random, self.aim = world, random.Random(seed), Aim(world, patience)
        self.log: list[Struck] = []
        self.poisoned: set[str] = set()
        self.timers: list[threading.Thread] = []
        self.busy = threading.Lock()
        self.kinds: dict[str, tuple[int, Callable[[str], Night | None]]] = {
            "kill the night's process": (12, self.kill_child),
            "kill the pool process": (12, self.kill_pool),
            "kill the worker": (8, self.kill_worker),
            "kill Redis": (6, lambda aim: self.restart_redis(aim, signal.SIGKILL, 0.5)),
            "kill the registry's Redis": (4, self.kill_registry),
            "stop past the lease": (6, lambda aim: self.pause(aim, self.world.config.limits.lease + 2)),
            "stop past the visibility timeout": (2, lambda aim: self.pause(aim, self.visibility + 1)),
            "duplicate delivery": (10, self.duplicate),
            "second beat": (4, self.second_beat),
            "disk full": (5, self.disk_full),
            "store unwritable": (5, lambda aim: self.take_away(aim, "store")),
            "log away": (4, lambda aim: self.take_away("prepare", "log")),
            "Redis refuses": (5, lambda aim: self.restart_redis(aim, signal.SIGTERM, 2.0)),
            "Redis hangs": (4, self.hang_redis),
            "Redis empty after restart": (3, self.empty_broker),
            "registry empty after restart": (2, self.empty_registry),
            "clock jump": (5, self.clock_jump),
            "roll back": (4, self.roll_back),
            "poison recipe": (4, self.poison),
        }
        if not world.has_shim:
            del self.kinds["disk full"], self.kinds["clock jump"]
        app.conf.broker_url = world.config.broker

    @property
    def visibility(self) -> float:
        """The visibility timeout in seconds."""
        return self.world.config.limits.visibility

    def strike(self) -> Struck:
        """Carry out the next fault."""
        names = list(self.kinds)
        (kind,) = self.random.choices(names, [weight for weight, _ in self.kinds.values()])
        return self.carry_out(kind, self.random.choice(AIMS))

    def carry_out(self, kind: str, aim: str) -> Struck:
        """Carry out one fault."""
        at = time.monotonic()
        night = self.kinds[kind][1](aim)
        struck = Struck(kind, night.stage if night else "", night.run if night else "", at)
        self.log.append(struck)
        return struck

    def settle(self) -> None:
        """Wait until everything that lasts is undone."""
        for timer in self.timers:
            timer.join()

    def later(self, seconds: float, undo: Callable[[], None]) -> None:
        """Undo something after a while."""
        timer = threading.Timer(seconds, undo)
        timer.start()
        self.timers.append(timer)

    def kill_child(self, aim: str) -> Night | None:
        night = self.aim.night("train")
        process = self.aim.owner(night)
        children = process.children() if process else []
        for child in children:
            kill(child)
        return night if children else None

    def kill_pool(self, aim: str) -> Night | None:
        night = self.aim.night(aim)
        process = self.aim.owner(night)
        if process is None or night is None:
            return None
        kill(process)
        return night

    def kill_worker(self, aim: str) -> Night | None:
        night = self.aim.night(aim)
        process = self.aim.owner(night)
        if process is None or night is None:
            kill_popen(self.world.supervisor.running[self.random.choice(["heavy-0", "light", "reconcile"])])
            return None
        try:
            kill(worker_of(process, self.world.folder))
        except psutil.Error:
            return None
        return night

    def pause(self, aim: str, seconds: float) -> Night | None:
        """Stop a worker with all its processes, and let it go on when others have taken over."""
        night = self.aim.night(aim)
        process = self.aim.owner(night)
        if process is None or night is None:
            return None
        try:
            worker = worker_of(process, self.world.folder)
            tree = [worker, *worker.children(recursive=True)]
        except psutil.Error:
            return None
        for one in tree:
            with suppress(psutil.Error):  # it ended just now: the others are stopped, and must go on, all the same
                one.suspend()
        self.later(seconds, lambda: [resume(p) for p in tree])
        return night

    def restart_redis(self, aim: str, number: signal.Signals, seconds: float) -> Night | None:
        with self.busy:
            night, server = self.aim.night(aim), self.world.broker
            server.process.send_signal(number)
            server.process.wait()
            time.sleep(seconds)
            server.start()
        return night

    def kill_registry(self, aim: str) -> Night | None:
        with self.busy:
            night, server = self.aim.night(aim), self.world.registry_server
            server.kill()
            time.sleep(0.5)
            server.start()
        return night

    def hang_redis(self, aim: str) -> Night | None:
        with self.busy:
            night = self.aim.night(aim)
            server = self.random.choice([self.world.broker, self.world.registry_server])
            server.process.send_signal(signal.SIGSTOP)
            time.sleep(3.0)
            server.process.send_signal(signal.SIGCONT)
        return night

    def empty_broker(self, aim: str) -> Night | None:
        return self._empty(self.world.broker, aim)

    def empty_registry(self, aim: str) -> Night | None:
        return self._empty(self.world.registry_server, aim)

    def _empty(self, server, aim: str) -> str:  # type: ignore[no-untyped-def]
        with self.busy:
            night = self.aim.night(aim)
            server.kill()
            shutil.rmtree(server.folder)
            server.folder.mkdir()
            server.start()
        return night

    def duplicate(self, aim: str) -> Night | None:
        """Deliver a message that was delivered already, from one of the chain's links."""
        nights = self.world.board.all()
        if not nights:
            return None
        night = self.aim.night(aim) if self.random.random() < 0.7 else self.random.choice(nights)
        if night is None:
            return None
        links = [prepare, train, publish, tidy]
        at = self.random.randrange(len(links))
        chain = links[at].si(night.run)
        for link in links[at + 1 :]:
            chain |= link.si(night.run)
        chain.apply_async(retry=False)
        return night

    def second_beat(self, aim: str) -> Night | None:
        beat = subprocess.Popen(
            self.world.beat("two"), env=self.world.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.later(8.0, lambda: (beat.kill(), beat.wait()))
        return None

    def disk_full(self, aim: str) -> Night | None:
        night = self.aim.night(aim)
        with self.busy:
            self.world.tamper(full=True)
            time.sleep(2.0)
            self.world.tamper()
        return night

    def take_away(self, aim: str, name: str) -> Night | None:
        """Take the store or the log away, as an unmounted share is.

        In the store's place is a file, or the empty folder that a share is mounted on; not before all models have a
        night, since nobody can tell an unmounted store from a new one then.
        """
        night, folder = self.aim.night(aim), self.world.shop / name
        with self.busy:
            if not folder.is_dir():
                return None
            began = {run.partition("@")[0] for run in self.world.seen.digests}
            forms = ["file", "folder"] if began >= set(self.world.models) else ["file"]
            with unmounted(folder, self.random.choice(forms) if name == "store" else "nothing"):
                time.sleep(2.0)
        return night

    def clock_jump(self, aim: str) -> Night | None:
        """Let every process's wall clock, Redis's too, jump an hour, and back."""
        night = self.aim.night(aim)
        with self.busy:
            self.world.tamper(clock=self.random.choice([-3600, 3600, 90_000]))
            time.sleep(2.0)
            self.world.tamper()
        return night

    def roll_back(self, aim: str) -> Night | None:
        """Do what on-call does when a bad model is live, while a night is judged against that model."""
        night = self.aim.night(aim)
        if night is None or night.model not in self.world.models:
            return None
        try:
            self.world.registry.rollback(night.model, Ranker.open, "on-call", "clicks fell")
        except (InputError, ArtifactRefused):
            return None  # the first model has none before it; or the store is away
        return night

    def poison(self, aim: str) -> Night | None:
        kind = self.random.choice(list(POISON))
        date = self.random.choice(self.world.dates)
        self.world.want_poison(kind, date)
        self.poisoned.add(f"{kind.replace(' ', '-')}@{date}")
        return None
