"""`recsys-kd ab` over logs as they come: columns, artifacts, the registry, history, off-policy, and what it refuses."""

import dataclasses
import json
import re
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.metrics import log_loss, roc_auc_score
from typer.testing import CliRunner

from recsys_kd.artifact.write import write_artifact
from recsys_kd.cli.main import app
from recsys_kd.data.counts import ContradictingDuplicates, TooManyBadRows, TooManyDuplicates
from recsys_kd.errors import InputError
from recsys_kd.evaluate.inspect import IdleMetric, OneClass, RepeatedCandidate
from recsys_kd.flow.ab import SameModel, compare_log
from recsys_kd.flow.ab_log import NothingLeft
from recsys_kd.flow.ab_policy import FractionalPosition
from recsys_kd.flow.ab_refs import UnknownRef, resolve
from recsys_kd.flow.ab_scores import BadScores, NotProbabilities, NotScores, UnclearScores, parse_scores
from recsys_kd.flow.evaluation import score_compiled
from recsys_kd.flow.goldens import golden_queries
from recsys_kd.flow.lineage import SeenInTraining
from recsys_kd.flow.weighing import seen_days
from recsys_kd.registry.sqlite import SqliteRegistry
from recsys_kd.settings import utc
from tests.served import LINEAGE, compressed, random_student


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """Bad rows of logs that are compared stay in the test's own folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def columns(requests=400, size=6, seed=0):
    rng = np.random.default_rng(seed)
    request = np.repeat(np.arange(requests), size)
    logit = rng.normal(size=len(request)) - 1
    return {
        "user_id": np.repeat(rng.integers(0, 90, requests), size),
        "item_id": np.concatenate([rng.permutation(50)[:size] for _ in range(requests)]),
        "timestamp": 1_767_600_000_000 + request * 400_000,
        "label": (rng.random(len(request)) < 1 / (1 + np.exp(-logit))).astype(np.int8),
        "request_id": request,
        "position": np.tile(np.arange(size), requests),
        "propensity": np.full(len(request), 0.25),
        "new_propensity": np.tile([0.5, 0.25, 0.25, 0.125, 0.25, 0.125], requests),
        "shelf": pa.array(np.array(["top", "low"])[np.concatenate([rng.permutation(50)[:size] % 2] * requests)]),
        "old": (logit + rng.normal(size=len(request))).astype(np.float32),
        "new": (logit + 0.2 * rng.normal(size=len(request))).astype(np.float32),
    }


def write(folder, **changes):
    path = folder / "log.parquet"
    kept = {k: v for k, v in {**columns(), **changes}.items() if v is not None}
    pq.write_table(pa.table(kept), path, write_page_checksum=True)
    return path


def recipe(folder, **ab):
    path = folder / "recipe.yaml"
    names = {"request_id": "request_id", "position": "position", "propensity": "propensity"}
    data = {"path": "log.parquet", "timestamp_unit": "ms", "columns": names}
    path.write_text(yaml.safe_dump({"name": "shop", "data": data, "ab": {"replicates": 100, **ab}}))
    return path


def test_a_recipe_may_cluster_by_request_and_every_place_says_so(tmp_path):
    log, page = write(tmp_path), tmp_path / "ab.html"
    given = ["ab", "--control", "old", "--treatment", "new", "--log", str(log), "--html", str(page)]
    given += ["--recipe", str(recipe(tmp_path, cluster="request", slices=["shelf"]))]
    shown = CliRunner().invoke(app, given).stdout
    assert "intervals, paired, clustered by request" in shown and " users\n" not in shown
    assert "paired and clustered by request" in page.read_text() and "shelf low · 400 requests" in page.read_text()
    found = compare_log(log, "old", ["new"], tmp_path / "recipe.yaml")
    by_user = compare_log(log, "old", ["new"], recipe(tmp_path))
    mine, other = (f.policies["new"].estimates["IPS"] for f in (found, by_user))
    assert mine.value == other.value and mine.low != other.low


def test_the_command_prints_one_json_document_with_everything_and_writes_the_page(tmp_path):
    log, page = write(tmp_path), tmp_path / "ab.html"
    given = ["ab", "--control", "old", "--treatment", "new", "--log", str(log), "--json", "--html", str(page)]
    done = CliRunner().invoke(app, [*given, "--recipe", str(recipe(tmp_path, slices=["shelf"]))])
    found = json.loads(done.stdout)
    assert done.exit_code == 0 and found["outcomes"] == {"new": "better"}
    metrics = {e["metric"] for e in found["effects"]}
    assert {"auc", "gauc", "logloss", "normalized_entropy", "ece", "ndcg@10", "hit_rate@10", "mrr"} <= metrics
    assert {"coverage@10", "popularity@10", "corrected_dcg@10"} <= metrics
    assert {"shelf top", "shelf low", "day 2026-01-05"} <= {s["slice"] for s in found["slices"]}
    assert {"IPS", "clipped IPS", "SNIPS"} == set(found["off_policy"]["new"]["estimates"])
    assert "SNIPS, cascade" in found["off_policy"]["new, whole lists"]["estimates"]
    assert page.read_text().startswith("<!doctype html>") and found["headline"].split(":")[0] in page.read_text()


def test_the_terminal_shows_the_sentence_first_and_a_table(tmp_path):
    log = write(tmp_path)
    done = CliRunner().invoke(app, ["ab", "--control", "old", "--treatment", "new", "--log", str(log)])
    assert done.exit_code == 0 and done.stdout.startswith("Use new: it is better than old on this log")
    auc = next(line for line in done.stdout.splitlines() if line[2:].startswith("auc "))
    assert "<1e-06*" in auc and "p*: Holm's, over all metrics that decide and all treatments" in done.stdout
    assert "new - old" in done.stdout and "off-policy value of new: the log earned 0." in done.stdout


def test_no_number_is_cut_however_long_the_names_are(tmp_path):
    name = "a_model_whose_name_is_as_long_as_the_path_of_an_artifact_in_a_deep_folder_of_a_store"
    log = write(tmp_path, **{name: columns()["new"]})
    given = ["ab", "--control", "old", "--treatment", name, "--log", str(log)]
    shown, found = (CliRunner().invoke(app, [*given, *more]).stdout for more in ([], ["--json"]))
    assert "\u2026" not in shown and f"{name} - old" in shown
    for effect in json.loads(found)["effects"]:
        row = next(line for line in shown.splitlines() if line[2:].startswith(f"{effect['metric']} "))
        assert f"{effect['delta']['value']:+.5f}" in row and f"{effect['control_value']:.5f}" in row


def test_metrics_that_say_nothing_are_marked_and_can_not_decide(tmp_path):
    log, page = write(tmp_path), tmp_path / "ab.html"
    given = ["ab", "--control", "old", "--treatment", "new", "--log", str(log), "--html", str(page)]
    shown = CliRunner().invoke(app, given).stdout
    row = next(line for line in shown.splitlines() if " hit_rate@10 " in line)
    assert "says nothing" in row and "hit_rate@10 says nothing: no request has more than 10 candidates" in shown
    assert "hit_rate@10 says nothing: no request has more than 10 candidates" in page.read_text()
    found = compare_log(log, "old", ["new"]).comparison
    assert np.isnan(found.effect("new", "hit_rate@10").detectable) and "ndcg@10" not in found.uninformative
    with pytest.raises(IdleMetric, match=r"hit_rate@10 can't decide: .* take a smaller k \(evaluate.k\)"):
        compare_log(log, "old", ["new"], recipe(tmp_path, decide={"hit_rate@10": {}}))


def test_duplicates_that_were_scored_otherwise_stop_the_comparison(tmp_path):
    base = {name: np.asarray(column) for name, column in columns().items()}
    twice = {n: np.concatenate([np.full(100, 0.5, v.dtype) if n == "new" else v[:100], v]) for n, v in base.items()}
    log = tmp_path / "log.parquet"
    pq.write_table(pa.table({n: pa.array(v) for n, v in twice.items()}), log, write_page_checksum=True)
    with pytest.raises(ContradictingDuplicates, match="100 of 100 duplicates have another score, position"):
        compare_log(log, "old", ["new"], recipe(tmp_path))
    same = {n: np.concatenate([v[:100], v]) for n, v in base.items()}
    pq.write_table(pa.table({n: pa.array(v) for n, v in same.items()}), log, write_page_checksum=True)
    assert compare_log(log, "old", ["new"], recipe(tmp_path)).comparison.rows == 2400


@pytest.mark.parametrize(
    ("ab", "words"),
    [
        ({"price": "label"}, "ab.price: 'label' is the log's label"),
        ({"slices": ["label"]}, "ab.slices: 'label' is the log's label"),
        ({"slices": ["old"]}, "ab.slices: column 'old' is float; a slice is a whole number or text"),
        ({"price": "nosuch"}, "ab.price: no column 'nosuch' in the log"),
        ({"decide": {"auc": {"not_worse": 5}}}, "a loss of 5 auc is allowed, and it lies between 0 and 1"),
        ({"seed": -1}, "ab.seed: got -1"),
    ],
)
def test_what_asks_for_nothing_or_knows_the_answer_is_refused(tmp_path, ab, words):
    with pytest.raises(InputError, match=words):
        compare_log(write(tmp_path), "old", ["new"], recipe(tmp_path, **ab))


def test_every_k_is_given_once(tmp_path):
    path = recipe(tmp_path)
    path.write_text(path.read_text() + "evaluate: {k: [10, 10]}\n")
    with pytest.raises(InputError, match=r"evaluate\.k.*give every k once"):
        compare_log(write(tmp_path), "old", ["new"], path)


def test_where_the_recipe_measures_other_lists_the_default_metrics_follow(tmp_path):
    path = recipe(tmp_path)
    path.write_text(path.read_text() + "evaluate: {k: [3, 5]}\n")
    found = compare_log(write(tmp_path), "old", ["new"], path).comparison
    assert [e.metric for e in found.effects if e.margin is not None] == ["auc", "logloss", "ndcg@3"]


def test_positions_and_probabilities_are_understood(tmp_path):
    p = {name: 1 / (1 + np.exp(-columns()[name])) for name in ("old", "new")}
    log = write(tmp_path, **p)
    right = compare_log(log, "old", ["new"], scores="probability").comparison
    assert right.metrics["old"]["logloss"].value < 0.8
    with pytest.raises(UnclearScores, match=r"column 'old' runs from 0.* Give --scores old=probability, or"):
        compare_log(log, "old", ["new"])
    with pytest.raises(NotProbabilities, match=r"column 'old' runs from -.* give --scores old=logit"):
        compare_log(write(tmp_path), "old", ["new"], scores="probability")


def test_each_column_may_hold_its_own_kind_of_scores(tmp_path):
    log = write(tmp_path, old=1 / (1 + np.exp(-columns()["old"].astype(np.float64))))
    apart = compare_log(log, "old", ["new"], scores=parse_scores(["old=probability"])).comparison
    alike = compare_log(write(tmp_path), "old", ["new"]).comparison
    assert apart.metrics["old"]["logloss"].value == pytest.approx(alike.metrics["old"]["logloss"].value, abs=1e-6)
    with pytest.raises(BadScores, match="--scores: 'percent'; give logit, probability, or COLUMN=logit"):
        parse_scores(["percent"])
    with pytest.raises(BadScores, match="--scores: 'odl' is no column that is compared; these are old, new"):
        compare_log(log, "old", ["new"], scores=parse_scores(["odl=probability"]))


def test_probabilities_of_nothing_and_certainty_cost_what_scikit_learn_charges_and_keep_their_order(tmp_path):
    label, rng = columns()["label"], np.random.default_rng(5)
    p = np.where(rng.random(2400) < 0.3, rng.random(2400) * 1e-200, rng.random(2400))
    p[:9], p[9:20] = 0.0, 1.0
    log = write(tmp_path, old=p, new=1 - 1e-8 * rng.random(2400))
    found = compare_log(log, "old", ["new"], scores="probability")
    for name in ("old", "new"):
        values = pq.read_table(log)[name].to_numpy()
        metrics = found.comparison.metrics[name]
        assert metrics["logloss"].value == pytest.approx(log_loss(label, values), abs=1e-9)
        assert metrics["auc"].value == pytest.approx(roc_auc_score(label, values), abs=1e-9)
    assert not any("are all" in w for w in found.comparison.warnings)


def test_a_score_beyond_float32_is_a_row_out_of_range(tmp_path):
    log = write(tmp_path, old=np.where(ROW == 9, 3.2e300, columns()["old"].astype(float)))
    words = "column 'old', out_of_range, 1 rows, the first is 3.2e[+]300 in row 9"
    assert re.search(words, compare_log(log, "old", ["new"]).comparison.warnings[1])


def test_columns_that_are_no_scores_are_refused_by_what_they_are(tmp_path):
    prices = 20.0 + np.arange(2400) % 50
    log = write(tmp_path, price=prices, clicks=np.arange(2400))
    given = recipe(tmp_path, price="price")
    for column, words in [
        ("item_id", "'item_id' is the log's item_id, not a model's scores"),
        ("propensity", "'propensity' is the log's propensity"),
        ("clicks", "column 'clicks' is int64: keys, counts and labels are"),
    ]:
        with pytest.raises(NotScores, match=words):
            compare_log(log, column, ["new"])
    with pytest.raises(NotScores, match=r"'price' is the price \(ab.price\)"):
        compare_log(log, "old", ["price"], given)
    with pytest.raises(NotScores, match=r"column 'price' runs from 20 to 69: as logits .* 100.0% of rows .* where 3"):
        compare_log(log, "old", ["price"])
    assert compare_log(log, "old", ["price"], scores={"price": "logit"}).comparison.outcomes == {"price": "worse"}


def test_a_model_beside_itself_is_refused(tmp_path):
    with pytest.raises(SameModel, match="--control and --treatment are both 'old'"):
        compare_log(write(tmp_path), "old", ["old"])


def test_a_time_beyond_the_log_is_told_with_the_logs_own(tmp_path):
    words = (
        r"as --since 2027-01-01T00:00:00\+00:00: its rows are from 2026-01-05T08:00:00\+00:00 to 2026-01-07T04:20:00"
    )
    with pytest.raises(NothingLeft, match=words):
        compare_log(write(tmp_path), "old", ["new"], since="2027-01-01")


def test_rows_before_since_tell_who_and_what_is_new(tmp_path):
    found = compare_log(write(tmp_path), "old", ["new"], since="2026-01-06T12:00").comparison
    assert found.requests < 400 and {s.slice for s in found.slices} >= {"known items", "known users"}


ROW = np.arange(2400)
HOSTILE = [
    ({"old": np.where(ROW % 100 == 9, np.nan, columns()["old"])}, TooManyBadRows, "column 'old', nan, 24 rows"),
    ({"item_id": ROW % 2, "timestamp": 1_767_600_000_000 + ROW},
     RepeatedCandidate, "a request logged twice counts twice"),
    ({"new_propensity": np.where(ROW % 100 == 3, 1.5, 0.25)},
     TooManyBadRows, "'new_propensity', out_of_range, 24 rows, the first is 1.5 in row 3"),
    ({"propensity": np.where(ROW % 100 == 3, 0.0, 0.25)}, TooManyBadRows,
     "'propensity', tiny_propensity, 24 rows, the first is 0.0 in row 3.* weighs 1 / propensity, .* or clip it"),
    ({"propensity": np.where(ROW % 100 == 3, 1e-9, 0.25)}, TooManyBadRows,
     "'propensity', tiny_propensity, 24 rows, the first is 1e-09 in row 3.* weighs 1 / propensity, .* or clip it"),
    ({"propensity": np.where(ROW % 100 == 3, 1.5, 0.25)}, TooManyBadRows, "'propensity', out_of_range, 24 rows"),
    ({"position": ROW % 6 + 0.5}, FractionalPosition, "position: 0.5 in row 0 is no whole number"),
    ({"label": ROW * 0}, OneClass, "all 2,400 rows are not clicked"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "error", "words"), HOSTILE)
def test_hostile_logs_are_refused_with_the_column_and_the_reason(tmp_path, changes, error, words):
    with pytest.raises(error, match=words):
        compare_log(write(tmp_path, **changes), "old", ["new"])


def test_rows_that_are_left_out_are_told_with_column_value_file_and_where_they_are(tmp_path):
    log, kept = write(tmp_path, old=np.where(ROW == 9, np.nan, columns()["old"])), tmp_path / "bad" / "rows.parquet"
    found = compare_log(log, "old", ["new"], quarantine=kept).comparison
    assert found.rows == 2399 and found.warnings[0].startswith("2,400 read = 2,399 used + 1 quarantined + 0 dedup")
    told = f"1 nan; most from {log}, column 'old', nan, 1 rows, the first is nan in row 9; all in {kept}"
    assert told in found.warnings[1] and pq.read_table(kept)["row"].to_pylist() == [9]


@pytest.mark.parametrize(("tiny", "told"), [(0.0, "0"), (1e-9, "1e-09")])
def test_a_propensity_of_nothing_leaves_out_its_row_and_says_what_is_left(tmp_path, tiny, told):
    found = compare_log(write(tmp_path, propensity=np.where(ROW == 3, tiny, 0.25)), "old", ["new"])
    assert found.comparison.rows == 2399 and found.policies["new"].overlap.largest == 2.0
    effective = f"{found.policies['new'].overlap.effective:,.0f}"
    words = (
        f"off-policy, new: 1 rows are left out, for their propensity is below 1e-08 (the smallest is {told}): each "
        f"would outweigh all others. The 2,399 others count as {effective} (effective sample)"
    )
    assert any(w.startswith(words) and "clip it at a floor" in w for w in found.comparison.warnings)


def test_bad_rows_stay_in_a_temporary_folder_where_no_file_is_named(tmp_path):
    log = write(tmp_path, old=np.where(ROW == 9, np.nan, columns()["old"]))
    told = compare_log(log, "old", ["new"]).comparison.warnings[1]
    assert pq.read_table(told.rsplit(" all in ", 1)[1])["reason"].to_pylist() == ["nan"]


def test_duplicates_are_told_with_what_they_are(tmp_path):
    given = {k: np.concatenate([v, v[:6]]) for k, v in columns().items() if k != "shelf"}
    found = compare_log(write(tmp_path, **given, shelf=None), "old", ["new"]).comparison
    assert found.rows == 2400
    assert (
        "deduplicated 6: rows alike in user_id, item_id, timestamp and request_id are one event, of"
        in found.warnings[1]
    )


def test_a_log_that_is_there_twice_is_refused_and_so_are_events_logged_at_each_of_their_steps(tmp_path):
    twice = {k: np.concatenate([v, v]) for k, v in columns().items() if k != "shelf"}
    words = r"2,400 of 4,800 rows \(50.00%\) are duplicates.* Is a file there twice"
    with pytest.raises(TooManyDuplicates, match=words):
        compare_log(write(tmp_path, **twice, shelf=None), "old", ["new"])
    # Every candidate is logged as shown, and those that were clicked a second time.
    clicked = columns()["label"] == 1
    steps = {k: np.concatenate([v, v[clicked]]) for k, v in columns().items() if k != "shelf"}
    steps["label"][:2400] = 0
    words = r"(\d+) of \1 duplicates have another label .* \(shown, then clicked\)\? Write each event once, with its la"
    with pytest.raises(ContradictingDuplicates, match=words):
        compare_log(write(tmp_path, **steps, shelf=None), "old", ["new"])


def test_a_lists_lost_row_leaves_out_that_list_alone_and_says_so(tmp_path):
    log = write(tmp_path, old=np.where(ROW == 9, np.nan, columns()["old"]))
    found = compare_log(log, "old", ["new"])
    assert found.policies["new, whole lists"].overlap.rows == 399
    assert any("1 of 400 lists are left out, they have not all of 6 places" in w for w in found.comparison.warnings)


def test_lists_of_many_lengths_have_no_value_and_the_reason_is_told(tmp_path):
    keep = (ROW // 6 % 2 == 0) | (ROW % 6 < 3)
    given = {k: v[keep] for k, v in columns().items() if k != "shelf"}
    found = compare_log(write(tmp_path, **given, shelf=None), "old", ["new"])
    assert "new, whole lists" not in found.policies
    words = "each place from the first on once; 200 of 400 lists have all of 3 places"
    assert any(words in w for w in found.comparison.warnings)


def test_without_propensities_the_rest_is_compared_and_the_off_policy_part_says_why_it_is_not_there(tmp_path):
    found = compare_log(write(tmp_path, propensity=None), "old", ["new"])
    assert found.comparison.outcomes == {"new": "better"} and not found.policies
    words = "off-policy value is left out: the log has 'new_propensity', and no propensity of its own"
    assert any(w.startswith(words) for w in found.comparison.warnings)


def test_what_is_left_out_of_a_long_log_and_of_one_with_propensities_alone_is_told(tmp_path):
    stamp = 1_767_600_000_000 + ROW // 6 * 3_600_000
    told = compare_log(write(tmp_path, timestamp=stamp, new_propensity=None), "old", ["new"]).comparison.warnings
    assert any(w.startswith("slices by day are left out: the log has 17 days, and at most 12 are told") for w in told)
    assert any("has propensities, and no model's own chances" in w and "_propensity behind it" in w for w in told)


def test_the_page_holds_the_command_that_makes_it_again(tmp_path):
    log, page = write(tmp_path), tmp_path / "ab.html"
    given = ["ab", "--control", "old", "--treatment", "new", "--log", str(log), "--scores", "new=logit"]
    CliRunner().invoke(app, [*given, "--html", str(page)])
    command = re.search("<pre>recsys-kd (.*?)</pre>", page.read_text())[1]
    assert command == " ".join([*given[:7], "--store", "store", *given[7:]])


def test_a_name_that_is_nothing_lists_what_there_is(tmp_path):
    with pytest.raises(UnknownRef, match="'newer' is no column of the log, no artifact folder"):
        compare_log(write(tmp_path), "old", ["newer"])
    with pytest.raises(UnknownRef, match="holds no registry; give the store's folder"):
        resolve("shop@champion", [], tmp_path)


@pytest.fixture(scope="module")
def models(dataset, shop, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    registry = SqliteRegistry(store / "registry.sqlite")
    made = []
    for seed in (0, 1):
        student = compressed(dataset, random_student(dataset, seed)).served
        lineage = dataclasses.replace(LINEAGE, name="synthetic-shop", seen=seen_days(dataset))
        artifact = write_artifact(store, "synthetic-shop", student, lineage, golden_queries(student, dataset))
        registry.register("synthetic-shop", artifact.digest, artifact.path, {}, "ann")
        made.append((artifact, student))
    return store, made


def test_versions_and_artifacts_are_scored_as_a_night_would_score_them(models, dataset, shop):
    store, ((artifact, student), _) = models
    since = utc(int(dataset.column("timestamp")[dataset.splits["test"].start]))
    found = compare_log(shop.folder / "log", str(artifact.path), ["synthetic-shop@2"], shop.recipe, store, since=since)
    expected, got = score_compiled(student, dataset)[0], found.log.scores[str(artifact.path)].logit
    ranks = [0.1, 0.5, 0.9]
    assert abs(len(got) - len(expected)) < 100
    assert np.quantile(got, ranks) == pytest.approx(np.quantile(expected, ranks), abs=1e-2)
    assert set(found.digests) == {"log", str(artifact.path), "synthetic-shop@2"}


def test_a_log_that_shares_days_with_training_is_refused_by_lineage(models, shop):
    store, ((artifact, _), _) = models
    with pytest.raises(SeenInTraining, match=r"rows of this log lie within: .* --since 2026-01-08T23:38:25"):
        compare_log(shop.folder / "log", str(artifact.path), ["synthetic-shop@2"], shop.recipe, store)
