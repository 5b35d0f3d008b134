"""A log with a field of every kind on every side, string ids and awkward names, through encode, fold and serve."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_kd.artifact.read import open_artifact
from recsys_kd.data.encode import encode
from recsys_kd.flow.models import teacher_bytes
from recsys_kd.flow.proof import NothingScored, score_one
from recsys_kd.models.teacher import Teacher
from recsys_kd.runtime.offline import OfflineModel
from recsys_kd.runtime.ranker import BadRequest, Ranker
from recsys_kd.settings import parse_recipe
from tests.served import artifact, random_student

ROWS, SHOWN = 3000, 3
FIELDS = [
    {"name": "type", "side": "request", "kind": "categorical"},
    {"name": "basket", "side": "request", "kind": "dense", "missing": "accept"},
    {"name": "query", "side": "request", "kind": "vector", "dim": 3, "missing": "accept"},
    {"name": "items", "side": "request", "kind": "bag"},
    {"name": "a.b", "side": "candidate", "kind": "categorical"},
    {"name": "affinity", "side": "candidate", "kind": "dense", "missing": "accept"},
    {"name": "match", "side": "candidate", "kind": "vector", "dim": 2},
    {"name": "keys", "side": "item", "kind": "categorical"},
    {"name": "image", "side": "item", "kind": "vector", "dim": 2},
]


def table():
    rng = np.random.default_rng(5)
    request = np.repeat(np.arange(ROWS // SHOWN), SHOWN)
    item = (request * 7 + np.tile(np.arange(SHOWN), ROWS // SHOWN)) % 20  # none twice in a request
    each = {
        "user_id": np.char.add("u", (request % 40).astype(str)).tolist(),
        "item_id": np.char.add("i", item.astype(str)).tolist(),
        "timestamp": (1_700_000_000 + request * 400).tolist(),
        "label": rng.integers(0, 2, ROWS).astype(float).tolist(),
        "request_id": request.tolist(),
        "type": np.array(["app", "web", "tv"])[request % 3].tolist(),
        "basket": [None if r % 7 == 0 else float(r % 11) for r in request],
        "query": [None if r % 5 == 0 else [float(r % 3), 1.0, -1.0] for r in request],
        "items": [[f"t{r % 4}", f"t{r % 6}"][: r % 3] for r in request],
        "a.b": np.char.add("c", rng.integers(0, 5, ROWS).astype(str)).tolist(),
        "affinity": [None if i % 13 == 0 else float(x) for i, x in enumerate(rng.normal(3, 2, ROWS))],
        "match": rng.normal(size=(ROWS, 2)).tolist(),
        "keys": np.char.add("k", (item % 3).astype(str)).tolist(),
        "image": np.stack([item % 5, item % 2], axis=1).astype(float).tolist(),
    }
    return pa.table(each)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("every")
    pq.write_table(table(), out / "log.parquet", write_page_checksum=True)
    return out


@pytest.fixture(scope="module")
def recipe(folder):
    data = {"path": "log.parquet", "columns": {"request_id": "request_id"}, "fields": FIELDS}
    return parse_recipe({"name": "every", "data": data}, "r.yaml", folder)


@pytest.fixture(scope="module")
def log(folder, recipe):
    return encode(recipe.data, recipe.split, folder / "encoded")


@pytest.fixture(scope="module")
def path(log, folder):
    return artifact(log, folder / "store", keep_rows=0.9).path


def test_raw_rows_are_served_with_the_scores_that_evaluation_gave_them(log, path):
    """Every kind on every side, missing numbers among them: the log's raw values score as their encoded rows do."""
    rows, test = table().to_pylist(), log.splits["test"]
    index = np.arange(test.start, test.start + 60)
    offline = OfflineModel(open_artifact(path)[1], log).score_rows(log.batch(index), log.item_rows[index])
    ranker = Ranker.open(path)
    sides = {side: [f["name"] for f in FIELDS if f["side"] == side] for side in ("request", "candidate")}
    scored = {}
    for row in rows:  # the encoded log is in time order, and requests are told apart by their time
        if row["timestamp"] * 1000 in log.column("timestamp")[index]:
            request = {"user_id": row["user_id"], **{n: row[n] for n in sides["request"]}}
            features = {n: [row[n]] for n in sides["candidate"]}
            score = ranker.score(request, [row["item_id"]], features, logits=True)[0]
            scored.setdefault(row["timestamp"] * 1000, []).append(score)
    for stamp in np.unique(log.column("timestamp")[index]):
        mine = offline[log.column("timestamp")[index] == stamp]
        assert sorted(scored[stamp]) == pytest.approx(sorted(mine), abs=2e-4)


def test_a_missing_number_is_the_mean_where_the_recipe_accepts_it_and_refused_where_not(log, path):
    ranker, field = Ranker.open(path), log.schema.field("basket")
    request = {"user_id": "u1", "type": "app", "basket": None, "query": None, "items": None}
    features = {"a.b": ["c1"], "affinity": [None], "match": [[0.1, 0.2]]}
    got = ranker.score(request, ["i1"], features, logits=True)
    mean = {**request, "basket": field.mean, "query": [0.0, 0.0, 0.0]}
    same = ranker.score(mean, ["i1"], {**features, "affinity": [log.schema.field("affinity").mean]}, logits=True)
    assert got == pytest.approx(same, abs=1e-5)
    assert ranker.score(request, ["i1"], {**features, "affinity": None}, logits=True) == pytest.approx(same, abs=1e-5)
    with pytest.raises(BadRequest, match="'match'"):
        ranker.score(request, ["i1"], {**features, "match": [None]})
    with pytest.raises(BadRequest, match="'basket'"):
        ranker.score({**request, "basket": "much"}, ["i1"], features)


def test_the_proof_scores_a_request_by_what_the_log_calls_it(recipe, path):
    found = score_one(path, recipe)
    assert found["user"] == "u0" and len(found["candidates"]) == SHOWN
    assert all(item.startswith("i") for item in found["candidates"])
    assert all(0 < p < 1 for p in found["probability"])


def test_a_log_that_can_not_be_scored_is_told_before_anything_goes_live(recipe, path, tmp_path):
    broken = table().set_column(0, "user_id", pa.array([None] * ROWS, pa.string()))
    pq.write_table(broken, tmp_path / "log.parquet")
    data = recipe.data.model_copy(update={"path": tmp_path / "log.parquet"})
    with pytest.raises(NothingScored, match="no user"):
        score_one(path, recipe.model_copy(update={"data": data}))


def test_names_of_torchs_own_methods_train_save_and_load(log, recipe, tmp_path):
    config = recipe.teacher.model_copy(update={"width": 8, "hidden": (8,)})
    model = Teacher(log.schema, config)
    batch = log.batch(np.arange(50))
    assert "tables.a.b" in model.state() and "tables.items" in model.state()
    before = model.state()["tables.type"]
    model.train()
    model(model.lookup_input(batch), model.numbers(batch)).sum().backward()
    assert (model.state()["tables.type"] != before).any()
    model.save(tmp_path / "t")
    assert np.array_equal(Teacher.load(tmp_path / "t").score(batch), model.score(batch))
    assert np.isfinite(random_student(log).score(batch)).all()


def test_a_teachers_bytes_are_known_without_making_its_tables(log, recipe):
    assert teacher_bytes(recipe, log.schema) == Teacher(log.schema, recipe.teacher).bytes_in_memory()
