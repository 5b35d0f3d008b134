import numpy as np
import torch

from recsys_kd.flow.calibrating import score_sample
from recsys_kd.models.compiled import CompiledModule
from recsys_kd.runtime.offline import OfflineModel
from tests.served import compressed, head, random_student


def test_the_module_scores_as_the_served_student_does(dataset):
    student = compressed(dataset, random_student(dataset), keep_rows=0.5).pruned
    module = CompiledModule(student, OfflineModel(student, dataset).moves)
    index, items = head(dataset)
    expected = score_sample(student, dataset, index)
    assert np.std(expected) > 0.1
    with torch.no_grad():
        assert np.allclose(module(dataset.batch(index, catalogue=True), items).numpy(), expected, atol=1e-5)
    # and so does what it gives back
    assert np.array_equal(score_sample(module.compiled(), dataset, index), expected)


def test_every_row_and_array_gets_a_gradient(dataset):
    student = compressed(dataset, random_student(dataset)).pruned
    module = CompiledModule(student, OfflineModel(student, dataset).moves)
    rows = np.arange(dataset.splits["train"].start, dataset.splits["train"].stop)
    module(dataset.batch(rows), dataset.item_rows[rows]).square().sum().backward()
    missing = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.to_dense().any()]
    assert missing == []
