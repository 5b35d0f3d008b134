import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_kd.distil.soft_labels import (
    SoftLabelsStale,
    load_soft_labels,
    make_soft_labels,
    parts,
    save_soft_labels,
)
from recsys_kd.settings import SoftLabelConfig


@settings(max_examples=40, deadline=None)
@given(st.integers(10, 200), st.integers(2, 6))
def test_out_of_time_never_scores_a_row_by_its_own_or_a_later_day(rows, blocks):
    config = SoftLabelConfig(protocol="out_of_time", blocks=blocks)
    scored = np.concatenate([p.score for p in parts(config, range(5, 5 + rows), 0)])
    for part in parts(config, range(5, 5 + rows), 0):
        assert part.train.max() < part.score.min()
    assert len(np.unique(scored)) == len(scored)


@settings(max_examples=40, deadline=None)
@given(st.integers(10, 200), st.integers(2, 6))
def test_cross_fitting_scores_every_row_once_by_a_teacher_of_others(rows, folds):
    config = SoftLabelConfig(protocol="cross_fitted", blocks=folds)
    found = list(parts(config, range(rows), 3))
    for part in found:
        assert not set(part.train) & set(part.score)
    assert sorted(np.concatenate([p.score for p in found])) == list(range(rows))


def test_labels_are_stored_once_and_refused_for_other_rows(tmp_path):
    config = SoftLabelConfig(protocol="out_of_time", blocks=2)
    logits, digests = make_soft_labels(None, config, range(4), 0, lambda train, score, name: (score * 1.0, "abc"))
    assert np.isnan(logits[:2]).all() and logits[2:].tolist() == [2.0, 3.0] and digests == ["abc"]
    row_id = np.arange(4) * 7
    save_soft_labels(tmp_path / "s.parquet", row_id, logits, digests, "print")
    again = load_soft_labels(tmp_path / "s.parquet", row_id, "print")
    assert np.array_equal(again, logits, equal_nan=True)
    with pytest.raises(SoftLabelsStale, match="other rows"):
        load_soft_labels(tmp_path / "s.parquet", row_id + 1, "print")
    with pytest.raises(SoftLabelsStale, match="another schema"):
        load_soft_labels(tmp_path / "s.parquet", row_id, "other")
