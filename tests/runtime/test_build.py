"""Building and choosing the kernel."""

import subprocess
import sys

import numpy as np
import pytest

from recsys_kd.runtime import library
from recsys_kd.runtime.build import BuildFailed, build, compile_library, main
from recsys_kd.runtime.library import VARIABLE, KernelUnavailable, kernel
from recsys_kd.runtime.ranker import Ranker
from recsys_kd.runtime.sources import library_path
from tests.students import Shape, student

built = pytest.mark.skipif(not library_path().exists(), reason="the native kernel is not built here")


@built
def test_a_second_build_finds_the_first(capsys):
    before = library_path().stat().st_mtime_ns
    assert build() == library_path() and library_path().stat().st_mtime_ns == before
    main()
    assert capsys.readouterr().err == f"kernel: {library_path().name}\n"


def test_without_a_compiler_the_reason_is_said_and_nothing_is_left(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BuildFailed, match="CXX=no-such-compiler is not on PATH"):
        compile_library(tmp_path / "kernel.so")
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_that_fails_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(BuildFailed, match="failed"):
        compile_library(tmp_path / "kernel.so")
    assert list(tmp_path.iterdir()) == []


def test_an_unbuilt_kernel_is_replaced_by_numpy_which_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "library_path", lambda: tmp_path / "kernel.so")
    chosen = library._choose.__wrapped__(None)
    assert chosen.library is None and "python -m recsys_kd.runtime.build" in chosen.detail
    with pytest.raises(KernelUnavailable, match="none is built"):
        library._choose.__wrapped__("avx2")


def test_a_library_that_is_no_library_is_replaced_by_numpy(monkeypatch, tmp_path):
    (tmp_path / "kernel.so").write_bytes(b"not a library")
    monkeypatch.setattr(library, "library_path", lambda: tmp_path / "kernel.so")
    assert library._choose.__wrapped__(None).library is None


def test_the_environment_chooses_the_kernel(monkeypatch):
    monkeypatch.setenv(VARIABLE, "numpy")
    assert kernel().library is None
    assert Ranker(student(Shape())[0]).kernel == "numpy, as RECSYS_KD_KERNEL asks"
    monkeypatch.setenv(VARIABLE, "mmx")
    with pytest.raises(KernelUnavailable, match="mmx: no such kernel; give one of vnni, avx512"):
        kernel()


def test_doctor_says_which_kernel_scores(monkeypatch, tmp_path):
    from recsys_kd.flow.doctor import examine

    for value, level, words in (("numpy", "warning", "numpy, as"), ("mmx", "error", "no such kernel")):
        monkeypatch.setenv(VARIABLE, value)
        (finding,) = [f for f in examine(tmp_path) if f.check == "scorer"]
        assert finding.level == level and words in finding.detail


@built
def test_tables_that_are_not_coded_are_scored_by_numpy_which_is_said():
    import dataclasses

    from recsys_kd.tables import Float32Table

    model, keys = student(Shape())
    plain = {n: Float32Table(t.lookup(np.arange(t.rows))) for n, t in model.tables.items()}
    ranker = Ranker(dataclasses.replace(model, tables=plain))
    assert ranker.kernel.startswith("numpy: the model holds")
    want = Ranker(model).score({"user_id": 1}, keys["item"][:9])
    assert np.abs(ranker.score({"user_id": 1}, keys["item"][:9]) - want).max() < 1e-5


def test_a_fresh_interpreter_that_scores_loads_neither_training_nor_build_tools():
    code = (
        "import sys; import recsys_kd.runtime.ranker; "
        "heavy = ('torch', 'pandas', 'pyarrow', 'pydantic', 'cryptography', 'subprocess'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
