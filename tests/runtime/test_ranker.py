import subprocess
import sys

import numpy as np
import pytest

from recsys_kd.runtime.offline import OfflineModel
from recsys_kd.runtime.ranker import BadRequest, Ranker
from tests.served import artifact, compressed, head, random_student


@pytest.fixture(scope="module")
def ranker(dataset, tmp_path_factory):
    return Ranker.open(artifact(dataset, tmp_path_factory.mktemp("store")).path)


REQUEST = {"device": "phone", "hour": 12, "history": []}


def known(dataset, name, n):
    return dataset.keys(name)[:n].tolist()


def test_serving_and_offline_evaluation_give_the_same_scores(dataset):
    student = compressed(dataset, random_student(dataset), keep_rows=0.5).served
    ranker = Ranker(student)
    index, items = head(dataset, 40)
    offline = OfflineModel(student, dataset).score_rows(dataset.batch(index), items)
    batch = dataset.batch(index)
    devices = {}
    from recsys_kd.ids import hash_string

    for name in ("phone", "desktop", "tablet"):
        devices[int(np.searchsorted(dataset.keys("device"), hash_string(name)))] = name
    users, hours, catalogue = dataset.keys("user_id"), dataset.keys("hour"), dataset.keys("item")
    item_keys = dataset.keys("item_id")
    for i in range(40):
        u, start, end = batch.ids["user_id"][i], *batch.bags["history"].offsets[i : i + 2]
        request = {
            "user_id": int(users[u]) if u < len(users) else -1,
            "device": devices[int(batch.ids["device"][i])],
            "hour": int(hours[batch.ids["hour"][i]]) if batch.ids["hour"][i] < len(hours) else None,
            "history": [
                int(item_keys[v]) if v < len(item_keys) else -1 for v in batch.bags["history"].values[start:end]
            ],
        }
        item = int(catalogue[items[i]]) if items[i] < len(catalogue) else -1
        assert ranker.score(request, [item], logits=True)[0] == pytest.approx(offline[i], abs=1e-4)


def test_a_candidates_score_does_not_depend_on_the_others(dataset, ranker):
    items = known(dataset, "item", 50)
    request = {"user_id": known(dataset, "user_id", 1)[0], **REQUEST}
    together = ranker.score(request, items)
    alone = np.array([ranker.score(request, [i])[0] for i in items])
    assert np.abs(together - alone).max() < 1e-6
    assert ranker.score_many([(request, items[:2]), (request, items[2:4])])[1].tolist() == pytest.approx(together[2:4])


def test_unknown_ids_use_the_fallback_row_and_are_counted(dataset, ranker):
    ranker.fallback_counts.clear()
    scores = ranker.score({"user_id": -5, **REQUEST}, [-1, -2, known(dataset, "item", 1)[0]])
    assert scores[0] == scores[1] != scores[2]
    assert dict(ranker.fallback_counts) == {"user_id": 1, "item_id": 2}


def test_a_pruned_user_gets_nobody_elses_row(dataset):
    made = compressed(dataset, random_student(dataset), keep_rows=0.1)
    ranker = Ranker(made.served)
    kept = set(made.plan.tables["user_id.folded"].keep.tolist())
    pruned = [int(k) for i, k in enumerate(dataset.keys("user_id")) if i not in kept][:20]
    items = known(dataset, "item", 3)
    stranger = ranker.score({"user_id": -1, **REQUEST}, items)
    for user in pruned:
        assert np.array_equal(ranker.score({"user_id": user, **REQUEST}, items), stranger)


def test_rank_returns_the_best_first(dataset, ranker):
    items = known(dataset, "item", 30)
    request = {"user_id": known(dataset, "user_id", 1)[0], **REQUEST}
    best, scores = ranker.rank(request, items, 5)
    all_scores = ranker.score(request, items)
    assert best == [items[i] for i in np.argsort(-all_scores)[:5]] and (np.diff(scores) <= 0).all()


@pytest.mark.parametrize(
    ("request_", "candidates", "words"),
    [
        ({"user_id": 1, "devise": "phone"}, [1], "unknown field 'devise'"),
        ({"user_id": "ann"}, [1], "'user_id': ids are integers"),
        ({"user_id": 1, "device": 5}, [1], "'device': ids are strings"),
        ({"user_id": 1}, ["a"], "'item_id': ids are integers"),
        ({"user_id": 1, "history": 5}, [1], "'history': a list of ids"),
        ({"user_id": 2**70}, [1], "does not fit in 64 bits"),
        ({"user_id": 1.5}, [1], "ids are integers"),
    ],
)
def test_a_bad_request_is_explained(ranker, request_, candidates, words):
    with pytest.raises(BadRequest, match=words):
        ranker.score(request_, candidates)


def test_no_candidates_give_no_scores(ranker):
    assert ranker.score({"user_id": 1}, []).shape == (0,)


def test_serving_imports_no_training_library(dataset, tmp_path):
    path = artifact(dataset, tmp_path).path
    code = (
        "import sys; from recsys_kd.runtime.ranker import Ranker; "
        f"Ranker.open({str(path)!r}).score({{'user_id': 1}}, [1, 2]); "
        "print([m for m in ('torch', 'torchrec', 'pandas', 'pyarrow', 'pydantic', 'scipy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
