"""The teacher on two real processes under torchrun."""

import json
import subprocess
import sys

import pytest

from recsys_kd.distil.loop import validation_metrics
from recsys_kd.distil.teacher_training import fit_teacher
from recsys_kd.models.teacher import Teacher
from recsys_kd.settings import TeacherConfig

CONFIG = TeacherConfig(width=16, hidden=(32,), cross_rank=8, epochs=3, batch_size=256)


def torchrun(dataset, out, config):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "recsys_kd.distil.distributed",
        f"recsys_kd.data.dataset:Dataset.open:{dataset.path}", str(out), config.model_dump_json(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_two_ranks_learn_what_one_process_learns_and_save_the_same_format(dataset, tmp_path):
    done = torchrun(dataset, tmp_path / "teacher", CONFIG)
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = Teacher.load(tmp_path / "teacher")
    _, two = validation_metrics(loaded, dataset, dataset.splits["validation"])
    assert two == pytest.approx(json.loads(done.stdout.splitlines()[-1])["validation_auc"], abs=1e-6)
    # Two ranks see twice the rows per step; half the batch makes the steps alike.
    alone = CONFIG.model_copy(update={"batch_size": 512})
    one = fit_teacher(dataset, alone, dataset.splits["train"], dataset.splits["validation"], 7)
    _, single = validation_metrics(one.model, dataset, dataset.splits["validation"])
    assert two == pytest.approx(single, abs=0.03) and two > 0.6


@pytest.mark.timeout(900)
def test_twenty_of_twenty_runs_shut_down_cleanly(dataset, tmp_path):
    config = CONFIG.model_copy(update={"epochs": 1, "batch_size": 4096})
    for i in range(20):
        done = torchrun(dataset, tmp_path / f"teacher-{i}", config)
        assert done.returncode == 0, f"run {i}: {done.stderr[-2000:]}"
        for word in ("SIGABRT", "terminate called", "Aborted", "core dumped", "leaked"):
            assert word not in done.stderr, f"run {i}: {done.stderr[-2000:]}"
