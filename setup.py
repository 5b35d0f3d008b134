"""Everything is in pyproject.toml but the native kernel, which is built into the wheel where there is a compiler."""

import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from recsys_kd.runtime.build import BuildFailed, compile_library  # noqa: E402
from recsys_kd.runtime.sources import library_path  # noqa: E402


class BuildWithKernel(build_py):
    """Copies the modules, then compiles the kernel beside them."""

    def run(self) -> None:
        """Build; a missing compiler is said and is no failure: the NumPy twin serves then."""
        super().run()
        if self.editable_mode:
            return
        try:
            compile_library(library_path(Path(self.build_lib) / "recsys_kd" / "runtime" / "native"))
        except (BuildFailed, OSError) as error:
            print(f"kernel: not built, the wheel will score with NumPy: {error}", file=sys.stderr)


class PlatformWheel(bdist_wheel):
    """A wheel for this platform and any Python: the kernel is called through ctypes."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tags of the wheel's name."""
        return "py3", "none", super().get_tag()[2]


class WithKernel(Distribution):
    """A distribution that is not the same on every platform."""

    def has_ext_modules(self) -> bool:
        """Say so."""
        return True


setup(distclass=WithKernel, cmdclass={"build_py": BuildWithKernel, "bdist_wheel": PlatformWheel})
