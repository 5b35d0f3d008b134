"""Rows as their codes will read them: the values are those of the stored table, gradients pass through."""

import numpy as np
import pytest
import torch

from recsys_kd.compress.export import coded_rows
from recsys_kd.compress.quantize import quantize_rows
from recsys_kd.models.rounding import as_coded
from recsys_kd.tables import Float32Table, RowCode


@pytest.mark.parametrize(
    "code", [RowCode(7, 8), RowCode(7, 4), RowCode(4, 4, RowCode(7, 8)), RowCode(3, 8, RowCode(6, 4))]
)
def test_a_row_reads_as_its_codes_will(code):
    rng = np.random.default_rng(0)
    values, hot = rng.normal(size=(200, code.widest)).astype(np.float32), np.arange(200) % 3 == 0
    values[~hot, code.rank :] = 0.0
    table = Float32Table(values, hot if code.more else None, code)
    stored = coded_rows(table).lookup(np.arange(200))
    got = as_coded(torch.from_numpy(values), code, torch.from_numpy(hot)).numpy()
    # What refines nothing reads as 3e-8; sums of two tiers are rounded once more or less.
    assert np.abs(got - stored).max() < 1e-6
    assert np.array_equal(got[~hot, code.rank :], np.zeros_like(got[~hot, code.rank :]))


def test_gradients_pass_as_if_nothing_were_rounded():
    rows = torch.tensor([[1.0, -0.3, 0.21]], requires_grad=True)
    got = as_coded(rows, RowCode(3, 4), None)
    (got * torch.tensor([[1.0, 2.0, 3.0]])).sum().backward()
    assert got.tolist()[0] == pytest.approx(quantize_rows(rows.detach().numpy(), 4).lookup(np.array([0]))[0], abs=1e-3)
    assert not torch.equal(got, rows) and rows.grad.tolist() == [[1.0, 2.0, 3.0]]


def test_a_row_of_zeros_stays_near_zero():
    assert as_coded(torch.zeros(2, 3), RowCode(3, 8), None).abs().max() < 1e-4
