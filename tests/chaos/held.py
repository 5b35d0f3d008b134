"""What a run holds at one moment, in memory and on disk, and whether that grows from night to night."""

import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil

from jobs.board import PREFIX
from jobs.desk import DEAD
from recsys_kd.registry.store import COPY
from tests.chaos.world import World

ALLOWED_GROWTH = 1.2
GATED = ("workers", "disk", "redis")
"""What has to be flat; the columns beside them tell what the disk is made of, and what others look after."""


@dataclass
class Sample:
    """Megabytes at one moment."""

    at: float
    """Seconds since the run began."""
    nights: int
    """Published by then, of all models."""
    workers: float
    """Resident memory of all standing processes; the nights' own come and go and are left out."""
    disk: float
    """Store, desk and temporary folders, without `records`."""
    redis: float
    """What both Redis servers hold in memory."""
    closed: float
    """Of `disk`: without the nights that are open."""
    records: float
    """The registry's copies, which remember every night for good: 1.2 kB a night."""
    append: float
    """Redis's append-only files, which it rewrites by itself."""
    logs: float
    """The processes' logs, which the service manager turns over."""

    def line(self) -> str:
        """Return the sample as a line of a table."""
        return "".join(f"{getattr(self, f.name):>9.{0 if f.name in ('at', 'nights') else 2}f}" for f in fields(self))


HEADER = "".join(f"{f.name:>9}" for f in fields(Sample))


def sample(world: World, began: float) -> Sample:
    """Return what is held now. Raises: RegistryUnreachable, RedisError."""
    published = {model: set(world.registry.state(model).nights) for model in world.models}
    memory = sum(_rss(p) for p in world.ours() if not _is_night(p))
    servers = (world.broker, world.registry_server)
    redis = sum(s.client().info("memory")["used_memory"] for s in servers)
    records = sum(_size(path) for path in (world.shop / "store").glob(f"*/{COPY}"))
    whole = sum(_size(folder) for folder in (world.shop / "store", world.shop / "desk", world.folder / "tmp")) - records
    opened = sum(_size(folder) for folder in nights(world) if _is_open(folder, published))
    amounts = {
        "workers": memory,
        "disk": whole,
        "redis": redis,
        "closed": whole - opened,
        "records": records,
        "append": sum(_size(s.folder) for s in servers),
        "logs": _size(world.folder / "logs"),
    }
    number = sum(len(dates) for dates in published.values())
    return Sample(round(time.monotonic() - began, 1), number, **{k: round(v / 1e6, 3) for k, v in amounts.items()})


def nights(world: World) -> list[Path]:
    """Return the folders of all nights."""
    return [path for path in (world.shop / "desk" / "nights").glob("*/*") if path.is_dir()]


def _is_open(folder: Path, published: dict[str, set[str]]) -> bool:
    return folder.name not in published.get(folder.parent.name, set()) and not (folder / DEAD).exists()


def left_over(world: World, kept: int) -> list[str]:
    """Return what the nights of the models should not have left, once all are published."""
    found = []
    for model in world.models:
        folders = [path for path in nights(world) if path.parent.name == model]
        found += [f"{path} is half-made" for path in folders if path.name.startswith(".")]
        found += [f"{path / 'work'} is of a published night" for path in folders if (path / "work").exists()]
        if len(folders) > kept + 1:  # one more where the last to be tidied was an older one
            found.append(f"{len(folders)} folders of {model}'s nights are there, {kept} are to be kept")
    for kind in ("night", "log"):
        number = sum(1 for _ in world.board.redis.scan_iter(f"{PREFIX}:{kind}:shop-*"))
        if number > (kept + 1) * len(world.models):
            found.append(f"{number} keys of the kind {kind} are on the board, {kept} of each model are to be kept")
    return found


def growth(values: Sequence[float]) -> float:
    """Return the mean of the last quarter over that of the second quarter."""
    quarter = len(values) // 4
    return statistics.mean(values[-quarter:]) / statistics.mean(values[quarter : 2 * quarter])


def write(samples: Sequence[Sample], folder: Path) -> tuple[bool, str]:
    """Write all samples, and return whether what has to be is flat, with a table."""
    (folder / "samples.json").write_text(json.dumps([asdict(s) for s in samples], indent=0))
    lines, flat = ["MB at every twentieth of the run:", HEADER], True
    lines += [s.line() for s in samples[:: max(1, len(samples) // 20)]]
    for name in (f.name for f in fields(Sample) if f.name not in ("at", "nights")):
        values = [getattr(s, name) for s in samples]
        times = growth(values)
        if name in GATED:
            flat &= times <= ALLOWED_GROWTH
        word = ("flat" if times <= ALLOWED_GROWTH else "GROWS") if name in GATED else ""
        quarter = values[len(values) // 4]
        lines.append(
            f"{name:<8} {quarter:8.2f} MB after a quarter, {values[-1]:8.2f} MB at the end, x{times:.2f} {word}"
        )
    return flat, "\n".join(lines)


def _is_night(process: psutil.Process) -> bool:
    """Return whether a process is a night's own: it leads a session, and a pool process started it."""
    try:
        parent = process.parent()
        pool = parent is not None and "spawn_main" in " ".join(parent.cmdline())
        return pool and os.getsid(process.pid) == process.pid
    except (psutil.Error, ProcessLookupError):
        return True


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _size(path: Path) -> int:
    """Return the bytes of a file or of all files of a folder; what goes meanwhile counts nothing."""
    total = 0
    for file in [path] if path.is_file() else path.rglob("*"):
        try:
            total += file.lstat().st_size if not file.is_dir() else 0
        except FileNotFoundError:
            continue
    return total
