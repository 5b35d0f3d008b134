"""Builds the native kernel: `python -m recsys_kd.runtime.build`. Without a compiler the NumPy twin serves instead.

The library's name holds the hash of its sources and flags: it is built once, and a stale one is never loaded. Only a C++
compiler is needed, no Python headers.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NATIVE = Path(__file__).parent / "native"
_FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
_SETS = {
    "avx512": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mprefer-vector-width=512"),
    "avx2": ("-mavx2", "-mfma"),
    "baseline": (),
}
_PER_SET = ("score", "keys")


class BuildFailed(RuntimeError):
    """The compiler is missing or refuses the sources."""


def instruction_sets() -> tuple[str, ...]:
    """Return the sets that are built for this platform, best first."""
    return tuple(_SETS) if platform.machine().lower() in ("x86_64", "amd64") else ("baseline",)


def library_path(folder: Path = NATIVE) -> Path:
    """Return where the library of these sources lies, built or not."""
    digest = hashlib.sha256(repr((_FLAGS, _SETS, instruction_sets())).encode())
    for source in sorted(NATIVE.glob("*.[ch]*")):
        digest.update(source.name.encode() + source.read_bytes())
    return folder / f"kernel-{digest.hexdigest()[:12]}.so"


def compiler() -> str | None:
    """Return the C++ compiler: $CXX, or the first of c++, g++ and clang++ that is there."""
    wanted = os.environ.get("CXX")
    return shutil.which(wanted) if wanted else next((p for n in ("c++", "g++", "clang++") if (p := shutil.which(n))), None)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildFailed(f"`{' '.join(command)}` failed:\n{done.stderr.strip()}")


def compile_library(target: Path, extra: tuple[str, ...] = ()) -> None:
    """Compile and link into `target`, which appears whole or not at all. Raises: BuildFailed."""
    cxx = compiler()
    if cxx is None:
        raise BuildFailed("no C++ compiler on PATH (c++, g++ or clang++); install one, or name it in CXX")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=target.parent) as folder:
        units = [("dispatch", "any", ())]
        units += [(unit, name, _SETS[name]) for name in instruction_sets() for unit in _PER_SET]
        objects = [str(Path(folder) / f"{unit}-{name}.o") for unit, name, _ in units]
        commands = [
            [cxx, *_FLAGS, *extra, *flags, f"-DRK_NAME={name}", "-c", str(NATIVE / f"{unit}.cpp"), "-o", out]
            for (unit, name, flags), out in zip(units, objects, strict=True)
        ]
        with ThreadPoolExecutor() as pool:
            list(pool.map(_run, commands))
        linked = Path(folder) / target.name
        # The C library is all it needs: a host's own C++ runtime is never met.
        _run([cxx, *extra, "-shared", "-nodefaultlibs", *objects, "-lc", "-lgcc", "-o", str(linked)])
        linked.replace(target)


def build() -> Path:
    """Return the library, building it if it is not there; libraries of other sources are removed. Raises: BuildFailed."""
    path = library_path()
    if not path.exists():
        compile_library(path)
        for old in set(NATIVE.glob("kernel-*.so")) - {path}:
            old.unlink(missing_ok=True)
    return path


def main() -> None:
    """Build, and say how it went; a missing compiler is no failure, since the NumPy twin serves then."""
    try:
        print(f"kernel: {build().name}", file=sys.stderr)
    except (BuildFailed, OSError) as error:
        print(f"kernel: not built, scoring will use NumPy (same scores, slower): {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
