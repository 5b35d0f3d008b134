import numpy as np
import pytest

from recsys_kd.distil.projection import projected


def tables(seed=0):
    rng = np.random.default_rng(seed)
    return {"user": rng.normal(size=(6, 5)).astype(np.float32), "item": rng.normal(size=(9, 5)).astype(np.float32)}


def ones(of):
    return {name: np.ones(len(table)) for name, table in of.items()}


def test_at_the_teachers_own_width_all_products_are_kept():
    given = tables()
    found = projected(given, ones(given), width=8, scale=1.5)
    assert found["user"].shape == (6, 5)
    assert found["user"] @ found["item"].T == pytest.approx(1.5**2 * given["user"] @ given["item"].T, abs=1e-4)


def test_the_directions_that_weigh_most_by_traffic_come_first():
    # Axis 0 is long in rows that nobody looks up; axis 1 in those that everybody does.
    given = {"item": np.array([[9, 0, 0], [0, 2, 0], [0, 0, 1]], dtype=np.float32)}
    found = projected(given, {"item": np.array([0.0, 5.0, 1.0])}, width=1)
    assert np.abs(found["item"][:, 0]).tolist() == pytest.approx([0, 2, 0], abs=1e-6)


def test_no_other_directions_of_that_number_lose_less():
    given = tables(1)
    rows = np.concatenate(list(given.values()))
    kept = np.square(np.concatenate(list(projected(given, ones(given), width=2).values()))).sum()
    values = np.linalg.svd(rows, compute_uv=False)
    assert kept == pytest.approx(np.square(values[:2]).sum(), rel=1e-5)
