"""Builds the native kernel: `python -m recsys_kd.runtime.build`. Without a compiler the NumPy twin serves instead.

Only a C++ compiler is needed, no Python headers. A second call finds the library and does nothing.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from recsys_kd.runtime.sources import FLAGS, NATIVE, SETS, instruction_sets, library_path

_PER_SET = ("score", "keys", "direct")


class BuildFailed(RuntimeError):
    """The compiler is missing or refuses the sources."""


def compiler() -> str:
    """Return the C++ compiler: $CXX, or the first of c++, g++ and clang++ that is there. Raises: BuildFailed."""
    wanted = os.environ.get("CXX")
    for name in [wanted] if wanted else ["c++", "g++", "clang++"]:
        if path := shutil.which(name):
            return path
    looked = f"CXX={wanted} is not on PATH" if wanted else "no C++ compiler on PATH (c++, g++ or clang++)"
    raise BuildFailed(f"{looked}; install one, or name it in CXX")


def run(command: Sequence[str]) -> None:
    """Run a compiler. Raises: BuildFailed with what it says."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildFailed(f"`{' '.join(command)}` failed:\n{done.stderr.strip()}")


def compile_objects(folder: Path, extra: Sequence[str] = ()) -> list[str]:
    """Compile every source for every instruction set into `folder`; return the object files. Raises: BuildFailed."""
    cxx = compiler()
    units = [("dispatch", instruction_sets()[-1])]
    units += [(unit, name) for name in instruction_sets() for unit in _PER_SET]
    objects = [str(folder / f"{unit}-{name}.o") for unit, name in units]
    commands = [
        [cxx, *FLAGS, *extra, *SETS[name], f"-DRK_NAME={name}", "-c", str(NATIVE / f"{unit}.cpp"), "-o", made]
        for (unit, name), made in zip(units, objects, strict=True)
    ]
    with ThreadPoolExecutor() as pool:
        list(pool.map(run, commands))
    return objects


def compile_library(target: Path) -> None:
    """Compile and link into `target`, which appears whole or not at all. Raises: BuildFailed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=target.parent) as name:
        linked = Path(name) / target.name
        objects = compile_objects(Path(name))
        # The C library is all it needs: a host's own C++ runtime is never met.
        run([compiler(), "-shared", "-nodefaultlibs", *objects, "-lc", "-lgcc", "-o", str(linked)])
        linked.replace(target)


def build() -> Path:
    """Return the library, built if it was not there, and remove those of other sources. Raises: BuildFailed."""
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
