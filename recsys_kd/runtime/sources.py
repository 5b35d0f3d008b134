"""Where the native kernel's sources lie, how they are compiled, and the name of the library they make.

The name holds the hash of sources and flags, so a library is built once, and one of other sources is never loaded.
"""

import hashlib
import platform
from pathlib import Path

NATIVE = Path(__file__).parent / "native"
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mf16c", "-mprefer-vector-width=512")
SETS = {
    "vnni": (*_AVX512, "-mavx512vnni"),
    "avx512": _AVX512,
    "avx2": ("-mavx2", "-mfma"),
    "baseline": (),
}
"""Flags per instruction set, best first."""


def instruction_sets() -> tuple[str, ...]:
    """Return the sets that are built for this platform, best first."""
    return tuple(SETS) if platform.machine().lower() in ("x86_64", "amd64") else ("baseline",)


def library_path(folder: Path = NATIVE) -> Path:
    """Return where the library of these sources lies, built or not."""
    digest = hashlib.sha256(repr((FLAGS, SETS, instruction_sets())).encode())
    for source in sorted(NATIVE.iterdir()):
        if source.suffix in (".h", ".cpp"):
            digest.update(source.name.encode() + source.read_bytes())
    return folder / f"kernel-{digest.hexdigest()[:12]}.so"
