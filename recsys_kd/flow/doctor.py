"""`doctor`: is everything here that a night needs? Each finding says what is wrong and what to do."""

import importlib.metadata
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from recsys_kd.errors import InputError, OutsideError, RecsysKdError
from recsys_kd.flow.folders import FolderUnwritable, check_writable, nearest
from recsys_kd.registry.where import RegistryMissing, open_registry
from recsys_kd.runtime.library import KernelUnavailable, kernel

WANTED = {"torch": "2.13.0", "torchrec": "1.8.0", "pyarrow": "26.0", "numpy": "2.", "pandas": "2.3"}
_FBGEMM = ("fbgemm-gpu-cpu", "fbgemm-gpu")
_LOW_DISK, _LOW_MEMORY = 5 << 30, 2 << 30


@dataclass(frozen=True)
class Finding:
    """One check: `ok`, `warning` or `error`, with what was found."""

    check: str
    level: str
    detail: str
    bad_input: bool = False
    """What was given is wrong, and nothing outside: exit code 2."""


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions() -> list[Finding]:
    found = []
    for name, wanted in WANTED.items():
        have = _installed(name)
        if have is None:
            found.append(Finding(name, "error", "not installed; run `make setup`"))
        elif not have.startswith(wanted):
            found.append(Finding(name, "error", f"{have} is installed, {wanted} works; run `make setup`"))
        else:
            found.append(Finding(name, "ok", have))
    fbgemm = next((f"{n} {v}" for n in _FBGEMM if (v := _installed(n))), None)
    if fbgemm is None or not fbgemm.endswith("1.8.0"):
        found.append(Finding("fbgemm", "error", f"{fbgemm or 'not installed'}; 1.8.0 loads beside torch 2.13.0"))
    else:
        found.append(Finding("fbgemm", "ok", fbgemm))
    return found


def _space(store: Path) -> list[Finding]:
    there = nearest(store)
    disk, memory = shutil.disk_usage(there).free, psutil.virtual_memory().available
    return [
        Finding("disk", "warning" if disk < _LOW_DISK else "ok", f"{disk / 1e9:.1f} GB free at {there}"),
        Finding("memory", "warning" if memory < _LOW_MEMORY else "ok", f"{memory / 1e9:.1f} GB available"),
    ]


def _store(store: Path) -> list[Finding]:
    try:
        check_writable("store", store)
        if not store.exists():
            return [Finding("store", "ok", f"{store} does not exist yet; the first run makes it")]
        models = open_registry(None, store, create=False).models()
    except RegistryMissing:
        return [Finding("store", "ok", str(store)), Finding("registry", "ok", "none yet; the first run makes it")]
    except FolderUnwritable as error:
        return [Finding("store", "error", str(error).removeprefix("store: "))]
    except (OSError, RecsysKdError) as error:
        return [Finding("store", "ok", str(store)), Finding("registry", "error", str(error))]
    return [Finding("store", "ok", str(store)), Finding("registry", "ok", f"{len(models)} model(s) registered")]


def _kernel() -> Finding:
    """Say which kernel scores; NumPy is no error, but slow."""
    try:
        chosen = kernel()
    except KernelUnavailable as error:
        return Finding("scorer", "error", str(error))
    return Finding("scorer", "ok" if chosen.library else "warning", chosen.detail)


def examine(store: Path) -> list[Finding]:
    """Return all findings for this machine and a store."""
    python = Finding("python", "ok" if sys.version_info >= (3, 11) else "error", sys.version.split()[0])
    redis = shutil.which("redis-server")
    return [
        python,
        *_versions(),
        _kernel(),
        Finding(
            "redis-server", "ok" if redis else "warning", redis or "not found; only the batch jobs and tests need it"
        ),
        *_space(store),
        *_store(store),
    ]


def exit_code(findings: list[Finding]) -> int:
    """Return what `doctor` ends with: 3 if anything outside is wrong, 2 if it is the configuration alone."""
    errors = [f for f in findings if f.level == "error"]
    return 0 if not errors else InputError.exit_code if all(f.bad_input for f in errors) else OutsideError.exit_code


def as_json(findings: list[Finding]) -> dict[str, Any]:
    """Return plain values for `--json`."""
    return {"ok": all(f.level != "error" for f in findings), "findings": [asdict(f) for f in findings]}
