import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recsys_kd.distil.soft_labels import (
    SoftLabelsStale,
    TooFewToSplit,
    load_soft_labels,
    make_soft_labels,
    parts,
    save_soft_labels,
)
from recsys_kd.settings import SoftLabelConfig

DAY = 86_400_000


def found(protocol, blocks, times, requests=None, start=0):
    config = SoftLabelConfig(protocol=protocol, blocks=blocks)
    times = np.asarray(times)
    requests = np.arange(len(times)) if requests is None else np.asarray(requests)
    return list(parts(config, range(start, start + len(times)), 3, times, requests))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=40, max_size=200), st.integers(2, 4))
def test_out_of_time_never_scores_a_row_by_its_own_or_a_later_day(days, blocks):
    days = np.sort(days)
    assume(len(np.unique(days)) >= blocks)
    made = found("out_of_time", blocks, days * DAY + 1, start=5)
    scored = np.concatenate([p.score for p in made])
    for part in made:
        assert days[part.train - 5].max() < days[part.score - 5].min()
    assert len(made) == blocks - 1 and len(np.unique(scored)) == len(scored)
    assert scored.max() == len(days) + 4


def test_blocks_are_cut_between_days_as_near_to_equal_sizes_as_days_allow():
    # 9 rows on days 0 0 0 0 0 1 1 2 2: equal thirds would end after rows 3 and 6; days end after rows 5 and 7.
    days = np.array([0, 0, 0, 0, 0, 1, 1, 2, 2])
    assert [p.score.tolist() for p in found("out_of_time", 3, days * DAY)] == [[5, 6], [7, 8]]


def test_a_log_of_fewer_days_than_blocks_is_cut_between_moments():
    times = [0, 0, 0, 7, 7, 9]  # ms of one day; a request has one time, so none is cut
    assert [p.score.tolist() for p in found("out_of_time", 3, times)] == [[3, 4], [5]]
    with pytest.raises(TooFewToSplit, match="4 blocks of training rows that have 3 different"):
        found("out_of_time", 4, times)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=30, max_size=200), st.integers(2, 3))
def test_cross_fitting_scores_every_row_once_by_a_teacher_of_other_requests(requests, folds):
    requests = np.array(requests)
    assume(len(np.unique(requests)) >= folds)
    made = found("cross_fitted", folds, np.arange(len(requests)), requests)
    for part in made:
        assert not set(requests[part.train]) & set(requests[part.score])
    assert sorted(np.concatenate([p.score for p in made])) == list(range(len(requests)))


def test_more_folds_than_requests_are_refused():
    with pytest.raises(TooFewToSplit, match="3 folds of 2 request"):
        found("cross_fitted", 3, np.arange(6), [1, 1, 1, 2, 2, 2])


def test_labels_are_stored_once_and_refused_for_other_rows(tmp_path):
    config = SoftLabelConfig(protocol="out_of_time", blocks=2)
    logits, digests = make_soft_labels(
        config, range(4), 0, np.arange(4) * DAY, np.arange(4), lambda train, score, name: (score * 1.0, "abc")
    )
    assert np.isnan(logits[:2]).all() and logits[2:].tolist() == [2.0, 3.0] and digests == ["abc"]
    row_id = np.arange(4) * 7
    save_soft_labels(tmp_path / "s.parquet", row_id, logits, digests, "print")
    again = load_soft_labels(tmp_path / "s.parquet", row_id, "print")
    assert np.array_equal(again, logits, equal_nan=True)
    with pytest.raises(SoftLabelsStale, match="other rows"):
        load_soft_labels(tmp_path / "s.parquet", row_id + 1, "print")
    with pytest.raises(SoftLabelsStale, match="another schema"):
        load_soft_labels(tmp_path / "s.parquet", row_id, "other")
