"""The world of a chaos run: a tiny shop, two Redis servers, workers under a supervisor, and who watches them."""

import datetime as dt
import mmap
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from jobs.board import Board
from jobs.config import JobsConfig, load
from jobs.desk import Desk, Wanted
from jobs.keeper import Supervisor
from recsys_kd.data.synth import synthesize
from recsys_kd.data.synth_config import ShopConfig
from recsys_kd.errors import RecsysKdError
from recsys_kd.registry.redis import RedisRegistry
from tests.chaos.recovery import Timeline
from tests.chaos.warm import site
from tests.redis_server import RedisServer, free_port

ROOT = Path(__file__).resolve().parents[2]
MARK = "RECSYS_KD_CHAOS"
FIRST = dt.date(2026, 1, 9)
"""The shop's log starts four days earlier: the first night has something to learn from."""
RECIPE = {
    "data": {
        "path": "log",
        "catalogue": "items.parquet",
        "columns": {"request_id": "request_id"},
        "timestamp_unit": "ms",
        "fields": [{"name": "device", "side": "request", "kind": "categorical"}],
    },
    "split": {"validation_days": 1, "test_days": 1},
    "teacher": {"kind": "dcnv2", "width": 32, "hidden": [32], "cross_rank": 4, "epochs": 1},
    "soft_labels": {"protocol": "in_sample"},
    "student": {"width": 4, "hidden": [8, 4], "epochs": 1},
    "compress": {"keep_rows": 0.9, "recovery": {"epochs": 0}},
    "gate": {"teacher_margin": 0.9, "champion_margin": 0.9, "max_ece": 0.9, "min_ratio": 1},
    "threads": 1,
    "store": "store",
}
POISON = {
    "column": {"data": {**RECIPE["data"], "columns": {"label": "nowhere"}}},
    "empty split": {"split": {"validation_days": 400, "test_days": 1}},
    "unknown key": {"teachers": 1},
}


@dataclass
class Limits:
    """How quick a run is: as quick as a machine of 2 cores allows that does other things too."""

    stage: float = 100
    visibility: float = 102
    lease: float = 10
    requeue: float = 30
    attempts: int = 10_000
    keep_versions: int = 5
    reconcile: float = 1


@dataclass
class Seen:
    """What the watcher saw: digests per night, problems, and every night's states."""

    digests: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    timeline: Timeline = field(default_factory=Timeline)
    epochs: dict[str, tuple[int, str]] = field(default_factory=dict)


def is_ours(process: psutil.Process, folder: Path) -> bool:
    """Return whether a process was started by the run in `folder`: its environment has the run's mark."""
    try:
        return process.environ().get(MARK) == str(folder)
    except psutil.Error:
        return False


class World:
    """Everything that runs; `close` ends it.

    `watch`: seconds between two looks at board and registry. `warm`: see the module of that name.
    """

    def __init__(
        self, folder: Path, models: int, nights: int, limits: Limits, heavy: int = 2, watch: float = 0.1,
        recipe: dict[str, Any] | None = None, warm: bool = False,
    ) -> None:  # fmt: skip
        self.watch, self.recipe = watch, RECIPE | (recipe or {})
        self.folder, self.models = folder, [f"shop-{n}" for n in range(models)]
        self.dates = [(FIRST + dt.timedelta(days=n)).isoformat() for n in range(nights)]
        self.shop = folder / "shop"
        synthesize(ShopConfig(rows=300 * (nights + 4), days=nights + 4, users=30, items=50), self.shop)
        (folder / "tmp").mkdir()
        self._shim()
        self.environment = self._environment()
        if warm:
            self.environment["PYTHONPATH"] = f"{site(folder / 'site')}{os.pathsep}{ROOT}"
        self.broker = self._redis("broker")
        self.registry_server = self._redis("registry")
        self.config = self._configure(limits)
        self.desk, self.board = Desk(self.config.desk), Board(self.config.state)
        self.registry = RedisRegistry(self.config.registry or "")
        self.seen, self.samples = Seen(), []
        self.supervisor = Supervisor(self._commands(heavy), folder / "logs", self.environment)
        self._stop = threading.Event()
        self.threads = [threading.Thread(target=self.supervisor.run), threading.Thread(target=self._watch)]

    def start(self) -> None:
        """Start workers and watcher."""
        for thread in self.threads:
            thread.start()

    def close(self) -> list[str]:
        """End everything; return the processes that were left over."""
        self._stop.set()
        self.supervisor.stopping.set()
        for thread in self.threads:
            thread.join()
        for server in (self.broker, self.registry_server):
            server.stop()
        time.sleep(0.5)  # what dies with its parent is dead by then
        left = self.ours()
        for process in left:
            process.kill()
        return [" ".join(p.cmdline()) for p in left]

    def ours(self) -> list[psutil.Process]:
        """Return all processes of this run, by a mark in their environment."""
        found = []
        for process in psutil.process_iter():
            try:
                if is_ours(process, self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return [p for p in found if p.pid != os.getpid()]

    @staticmethod
    def compiler() -> str | None:
        """Return the C compiler, which tampering with clock and disk needs."""
        return shutil.which("cc")

    def _shim(self) -> None:
        self.control_path = self.folder / "control"
        self.control_path.write_bytes(bytes(16))
        with self.control_path.open("r+b") as file:
            self.control = mmap.mmap(file.fileno(), 16)
        self.library = self.folder / "shim.so"
        compiler = self.compiler()
        if compiler is not None:
            source = Path(__file__).with_name("shim.c")
            subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", self.library, source, "-ldl"], check=True)

    @property
    def has_shim(self) -> bool:
        """Whether clock and disk can be tampered with (there is a C compiler)."""
        return self.library.exists()

    def tamper(self, clock: int = 0, full: bool = False) -> None:
        """Set the clock's offset in seconds, and whether the disk is full."""
        self.control[:] = struct.pack("<qq", clock, int(full))

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("RECSYS_KD")}
        shim = {"LD_PRELOAD": str(self.library)} if self.has_shim else {}
        return kept | shim | {
            MARK: str(self.folder),
            "RECSYS_KD_JOBS": str(self.folder / "jobs.yaml"),
            "PYTHONPATH": str(ROOT),
            "CHAOS_CONTROL": str(self.control_path),
            "CHAOS_DISK": str(self.folder / "shop"),
            "TMPDIR": str(self.folder / "tmp"),
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip

    def _redis(self, name: str) -> RedisServer:
        (self.folder / name).mkdir()
        rewrite = ("--auto-aof-rewrite-min-size", "1mb")  # 64 MB by default: too long a wait for a soak
        return RedisServer(self.folder / name, *rewrite, environment=self.environment)

    def _configure(self, limits: Limits) -> JobsConfig:
        for model in (*self.models, *POISON):
            recipe = {"name": model.replace(" ", "-"), **self.recipe, **POISON.get(model, {})}
            (self.shop / f"{recipe['name']}.yaml").write_text(yaml.safe_dump(recipe))
        plain = {
            "broker": self.broker.url(0),
            "state": self.broker.url(1),
            "registry": self.registry_server.url(0),
            "desk": str(self.shop / "desk"),
            "metrics_port": free_port(),
            "server_port": free_port(),
            "server_grpc_port": free_port(),
            "limits": {
                **limits.__dict__, "grace": 1, "backoff": 0.2, "keep_seconds": 30
            },
        }  # fmt: skip
        (self.folder / "jobs.yaml").write_text(yaml.safe_dump(plain))
        return load(self.folder / "jobs.yaml")

    def _commands(self, heavy: int) -> dict[str, list[str]]:
        celery = [sys.executable, "-m", "celery", "-A", "jobs.app"]
        worker = [*celery, "worker", "--without-gossip", "--without-mingle", "-c", "1"]
        return {
            **{f"heavy-{n}": [*worker, "-Q", "heavy", "-n", f"heavy-{n}@%h"] for n in range(heavy)},
            "light": [*worker, "-Q", "light", "-n", "light@%h"],
            "reconcile": [sys.executable, "-m", "jobs.reconciler"],
            "beat": self.beat("one"),
        }

    def beat(self, name: str) -> list[str]:
        """Return the command of a beat with a schedule file of its own."""
        schedule = str(self.folder / f"beat-{name}")
        return [sys.executable, "-m", "celery", "-A", "jobs.app", "beat", "-s", schedule, "--pidfile="]

    def want(self) -> None:
        """Record every model's nights as wanted, as `recsys-kd jobs backfill` does."""
        for model in self.models:
            for night in self.dates:
                self.desk.want(Wanted(model, night, str(self.shop / f"{model}.yaml")))

    def want_poison(self, kind: str, night: str) -> None:
        """Want a night that can't work."""
        name = kind.replace(" ", "-")
        self.desk.want(Wanted(name, night, str(self.shop / f"{name}.yaml")))

    def done(self) -> bool:
        """Return whether every wanted night is recorded."""
        try:
            return all(set(self.dates) <= set(self.registry.state(m).nights) for m in self.models)
        except RecsysKdError:
            return False

    def _watch(self) -> None:
        while not self._stop.wait(self.watch):
            try:
                self._look()
            except RecsysKdError:
                continue

    def _look(self) -> None:
        self.seen.timeline.look(self.board.all(), time.monotonic())
        for model in self.models:
            state = self.registry.state(model)
            for date, record in state.nights.items():
                run = f"{model}@{date}"
                if self.seen.digests.setdefault(run, record.digest) != record.digest:
                    self.seen.problems.append(f"{run}: published as {record.digest[:12]} after another artifact")
            self._champion(model, state)

    def _champion(self, model: str, state) -> None:  # type: ignore[no-untyped-def]
        live = {p.epoch: p.night for p in state.nights.values() if p.outcome == "live"}
        if state.epoch not in live:
            return
        epoch, night = self.seen.epochs.get(model, (0, ""))
        if state.epoch > epoch and live[state.epoch] < night:
            self.seen.problems.append(f"{model}: night {live[state.epoch]} went live after {night}")
        self.seen.epochs[model] = max((epoch, night), (state.epoch, live[state.epoch]))
