"""The kernel under the address and undefined-behaviour sanitizers: no value leads it outside a table."""

import random
import subprocess
from pathlib import Path

import pytest

from recsys_kd.runtime.build import BuildFailed, compile_objects, compiler, run
from recsys_kd.runtime.sources import FLAGS, NATIVE

SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")
INPUTS = 400


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory):
    """Return the fuzz target, or skip by name of what is missing."""
    folder = tmp_path_factory.mktemp("sanitized")
    probe = folder / "probe.cpp"
    probe.write_text("int main() { return 0; }")
    try:
        run([compiler(), *SANITIZERS, str(probe), "-o", str(folder / "probe")])
        subprocess.run([folder / "probe"], check=True)
    except (BuildFailed, OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no compiler with address and undefined-behaviour sanitizers here: {error}")
    objects = compile_objects(folder, SANITIZERS)
    source = Path(__file__).with_name("fuzz_kernel.cpp")
    run([compiler(), *FLAGS, *SANITIZERS, f"-I{NATIVE}", str(source), *objects, "-o", str(folder / "fuzz")])
    return folder / "fuzz"


def corpus(folder, count):
    """Write inputs: random bytes, bytes of few values (keys that meet), all ones, none."""
    rng = random.Random(0)
    paths = []
    for i in range(count):
        values = range(256) if i % 3 else [0, 1, 2, 255]
        data = bytes(rng.choices(values, k=rng.choice([0, 200, 3_000, 12_000])))
        paths.append(folder / f"{i}")
        paths[-1].write_bytes(b"\xff" * 5_000 if i == 0 else data)
    return paths


def test_no_value_leads_the_kernel_outside_a_table(fuzzer, tmp_path):
    done = subprocess.run([fuzzer, *corpus(tmp_path, INPUTS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == f"{INPUTS} inputs"


def test_the_sanitizers_see_a_read_outside_a_table(fuzzer, tmp_path):
    """So that the test above could fail: the same build, with a kernel that does not check the rows behind codes."""
    source = (NATIVE / "rows.h").read_text()
    check = "(asked & right) | (~right & (count - 1))"
    assert check in source
    broken = tmp_path / "native"
    broken.mkdir()
    for file in NATIVE.iterdir():
        if file.suffix in (".h", ".cpp"):
            (broken / file.name).write_text(file.read_text().replace(check, "asked | (right & 0)"))
    parts = [str(broken / "dispatch.cpp"), str(broken / "score.cpp"), str(Path(__file__).with_name("fuzz_kernel.cpp"))]
    only = ["-DRK_NAME=baseline", "-DRK_BASELINE_ONLY", f"-I{broken}", "-o", str(tmp_path / "fuzz")]
    run([compiler(), *FLAGS, *SANITIZERS, *parts, *only])
    files = corpus(tmp_path, 60)
    done = subprocess.run([tmp_path / "fuzz", *files], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "AddressSanitizer" in done.stderr
