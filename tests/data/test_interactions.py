"""Import: nothing of the future, everything counted."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from recsys_kd.data.interactions import import_interactions
from recsys_kd.data.interactions_config import BadImport, ImportConfig, load_import
from recsys_kd.data.interactions_read import MissingSourceColumn, UnreadableTable, read_table
from recsys_kd.data.negatives import Events, draw_negatives, histories
from recsys_kd.progress import SILENT
from recsys_kd.settings import load_recipe

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
RECIPES = Path(__file__).resolve().parents[1] / "benchmarks" / "recipes"


def events(n=400, users=9, items=30, seed=0):
    rng = np.random.default_rng(seed)
    time = np.sort(rng.integers(0, 120, n))
    user, item = rng.integers(0, users, n), rng.integers(0, items, n)
    return Events(user, np.unique(item, return_inverse=True)[1], time, len(np.unique(item)))


@pytest.mark.parametrize("popular", [0.0, 1.0])
def test_negatives_have_appeared_are_distinct_and_are_not_the_users_own_so_far(popular):
    e = events()
    index = np.arange(100, 400)
    drawn = draw_negatives(e, index, 5, popular, False, np.random.default_rng(1))
    for i, row in zip(index, drawn, strict=True):
        by_then = set(e.item[e.time <= e.time[i]].tolist())
        mine = set(e.item[(e.user == e.user[i]) & (e.time <= e.time[i])].tolist())
        real = [x for x in row.tolist() if x >= 0]
        assert len(real) == len(set(real)) and set(real) <= by_then - mine


def test_a_users_later_items_may_be_negatives_since_excluding_them_would_leak():
    e = events()
    drawn = draw_negatives(e, np.arange(100, 400), 5, 0.0, False, np.random.default_rng(1))
    later = [
        x in set(e.item[(e.user == e.user[i]) & (e.time > e.time[i])].tolist())
        for i, row in zip(range(100, 400), drawn, strict=True) for x in row
    ]  # fmt: skip
    assert any(later)


def once_each(n=60):
    """Events of users who never have an item again."""
    rng = np.random.default_rng(3)
    pairs = rng.permutation(6 * 20)[:n]
    item = np.unique(pairs % 20, return_inverse=True)[1]
    return Events(pairs // 20, item, np.sort(rng.integers(0, 30, n)), len(np.unique(item)))


def test_negatives_of_users_who_never_have_an_item_again_are_those_that_a_seed_always_gave():
    e = once_each()
    assert e.repeated == 0
    drawn = draw_negatives(e, np.arange(50, 54), 4, 0.5, False, np.random.default_rng(1))
    assert drawn.tolist() == [[1, 11, 10, 5], [1, 14, 16, 13], [9, 3, 7, 8], [8, 0, 3, 14]]


def test_events_of_an_item_that_the_user_had_at_an_earlier_time_are_counted():
    user, item, time = [0, 0, 0, 1, 1, 0], [0, 1, 0, 0, 1, 1], [1, 1, 2, 2, 3, 3]
    assert Events(*(np.array(x, dtype=np.int64) for x in (user, item, time)), items=2).repeated == 2
    same = Events(*(np.array(x, dtype=np.int64) for x in ([0, 0], [1, 1], [5, 5])), items=2)
    assert same.repeated == 0  # bought twice in one moment, not again


def test_past_items_may_be_negatives_but_none_of_the_same_moment():
    e = events()
    index = np.arange(100, 400)
    drawn = draw_negatives(e, index, 5, 0.5, False, np.random.default_rng(1), past=True)
    past = 0
    for i, row in zip(index, drawn, strict=True):
        mine = e.user == e.user[i]
        now, before = (set(e.item[mine & when].tolist()) for when in (e.time == e.time[i], e.time < e.time[i]))
        real = [x for x in row.tolist() if x >= 0]
        assert len(real) == 5 == len(set(real)) and not set(real) & now
        assert set(real) <= set(e.item[e.time <= e.time[i]].tolist())
        past += len(set(real) & before)
    assert past > 500  # of 1,500; a user has had most of the 30 items by then


def again(tmp_path, **more):
    """Import purchases at random, so that nothing tells a label, and return the log with what was said."""
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"who": rng.integers(0, 40, 4000), "what": rng.integers(0, 60, 4000)})
    frame["when"] = 1_767_225_600 + 600 * np.arange(4000)
    frame.to_csv(tmp_path / "s.csv", index=False)
    columns = {"user": "who", "item": "what", "time": "when"}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({"name": "s", "source": "s.csv", "columns": columns, **more}))
    told = Told()
    found = import_interactions(load_import(tmp_path / "s.yaml"), tmp_path / "out", told)
    assert json.loads((tmp_path / "out" / "import.json").read_text())["repeated"] == found.repeated
    return pq.read_table(tmp_path / "out" / "log.parquet").to_pandas(), found.repeated, told.said


class Told(type(SILENT)):
    """Keeps what it is told."""

    def __init__(self):
        self.said = []

    def note(self, message):
        self.said.append(message)


def in_history(log):
    """Return the share of positives and of negatives that the history holds."""
    known = pd.Series([item in past for item, past in zip(log.item_id, log.history, strict=True)])
    return [known[log.label == label].mean() for label in (1, 0)]


def test_where_users_buy_again_a_history_that_holds_a_candidate_does_not_tell_its_label(tmp_path):
    log, repeated, said = again(tmp_path)
    bought, shown = in_history(log)
    assert 0.2 < bought < 0.3 and abs(bought - shown) < 0.02
    assert (log.groupby("request_id")["label"].agg(["sum", "size"]) == [1, 5]).to_numpy().mean() > 0.999
    assert said == [
        f"{repeated:,} of 4,000 events are of an item that their user had before: negatives may be such items too "
        "(`past_items: exclude` leaves them out)"
    ]


@pytest.mark.parametrize("more", [{"past_items": "exclude"}, {"split": "leave_one_out", "test_negatives": 4}])
def test_a_protocol_without_past_items_warns_where_users_buy_again(tmp_path, more):
    log, repeated, said = again(tmp_path, **more)
    bought, shown = in_history(log)
    assert bought > 0.2 and shown == 0
    assert said == [
        f"warning: {repeated:,} of 4,000 events are of an item that their user had before, and no negative is: a "
        "candidate in the history is always a positive, which a model learns; `past_items: allow` lets such items be "
        "negatives"
    ]


def test_histories_hold_the_last_strictly_earlier_items():
    e = events()
    sequence, starts, ends = histories(e, 3)
    for i in range(len(e.user)):
        before = [e.item[j] for j in range(len(e.user)) if e.user[j] == e.user[i] and e.time[j] < e.time[i]]
        assert sequence[starts[i] : ends[i]].tolist() == before[-3:]


def source(tmp_path, **more):
    frame = pd.DataFrame(
        {
            "who": [f"u{i % 7}" if i != 3 else None for i in range(200)],
            "what": [f"p{(i * i * i + i) % 61}" for i in range(200)],
            "when": [f"2026-01-{1 + i // 10:02d}" for i in range(200)],
            "count": [-1 if i == 5 else 1 for i in range(200)],
        }
    )
    frame.to_csv(tmp_path / "s.csv", index=False)
    data = {
        "name": "s", "source": "s.csv", "columns": {"user": "who", "item": "what", "time": "when"},
        "drop": [{"reason": "nobody", "column": "who", "missing": True},
                 {"reason": "returned", "column": "count", "at_most": 0}],
        "negatives": 2, **({"test_negatives": 4} if more.get("split") == "leave_one_out" else {}), **more,
    }  # fmt: skip
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(data))
    return load_import(tmp_path / "s.yaml")


def test_everything_read_is_an_event_or_dropped_with_its_reason(tmp_path):
    found = import_interactions(source(tmp_path), tmp_path / "out")
    assert found.read == 200 == found.events + sum(found.dropped.values())
    assert (found.dropped["nobody"], found.dropped["returned"]) == (1, 1)
    assert json.loads((tmp_path / "out" / "import.json").read_text())["rows"] == found.rows
    log = pq.read_table(tmp_path / "out" / "log.parquet").to_pandas()
    assert (log.groupby("request_id")["label"].sum() == 1).all()
    assert load_recipe(found.recipe).data.path.name == "log.parquet"


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    config = source(tmp_path)
    for name in "ab":
        import_interactions(config, tmp_path / name)
    assert (tmp_path / "a" / "log.parquet").read_bytes() == (tmp_path / "b" / "log.parquet").read_bytes()


def test_leave_one_out_holds_back_the_last_and_the_one_before(tmp_path):
    import_interactions(source(tmp_path, split="leave_one_out"), tmp_path / "out")
    log = pq.read_table(tmp_path / "out" / "log.parquet").to_pandas()
    positives = log[log.label == 1]
    assert (positives.groupby("user_id")["split"].value_counts().unstack()[["test", "validation"]] == 1).all().all()
    assert (log[log.split == "test"].groupby("request_id").size() == 5).all()


def test_negatives_for_the_test_alone_are_refused_where_a_split_by_time_would_not_draw_them(tmp_path):
    with pytest.raises(BadImport, match=r"`test_negatives: 20` would have no effect: with `split: time` .*; remove it"):
        source(tmp_path, test_negatives=20)
    assert source(tmp_path, split="leave_one_out", test_negatives=20).test_negatives == 20


def test_libsvm_becomes_columns(tmp_path):
    (tmp_path / "a.libsvm").write_text("1 1:5 2:0.5 # note\n0 1:6\n")
    frame = read_table(tmp_path / "a.libsvm")
    assert frame["f1"].tolist() == [5, 6] and np.isnan(frame["f2"][1]) and frame["label"].tolist() == [1.0, 0.0]
    (tmp_path / "b.libsvm").write_text("1 x\n")
    with pytest.raises(UnreadableTable, match="line 1: '1 x' is not libsvm"):
        read_table(tmp_path / "b.libsvm")


def test_mistakes_are_named(tmp_path):
    with pytest.raises(MissingSourceColumn, match=r"columns\.user: no column 'whom' in .*s\.csv \(perhaps 'who'\)"):
        import_interactions(source(tmp_path, columns={"user": "whom", "item": "what", "time": "when"}), tmp_path / "o")
    with pytest.raises(BadImport, match="give one of `time` and `order`"):
        source(tmp_path, columns={"user": "who", "item": "what"})
    with pytest.raises(BadImport, match="no rows are left of 200"):
        import_interactions(source(tmp_path, min_user=1000), tmp_path / "o")
    with pytest.raises(UnreadableTable, match=r"unknown kind '\.xls'"):
        read_table(tmp_path / "a.xls")


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("columns.user", {"columns": {"user": "absent", "item": "what", "time": "when"}}),
        ("columns.item", {"columns": {"user": "who", "item": "absent", "time": "when"}}),
        ("columns.time", {"columns": {"user": "who", "item": "what", "time": "absent"}}),
        ("columns.order", {"columns": {"user": "who", "item": "what", "order": "absent"}, "split": "leave_one_out"}),
        ("columns.label", {"columns": {"user": "who", "item": "what", "time": "when", "label": "absent"}}),
        ("drop[1].column", {"drop": [{"reason": "a", "column": "who", "missing": True},
                                     {"reason": "b", "column": "absent", "missing": True}]}),
        ("items.key", {"items": {"path": "s.csv", "key": "absent", "columns": {"count": "dense"}}}),
        ("users.columns", {"users": {"path": "s.csv", "key": "row", "columns": {"absent": "dense"}}}),
    ],
)  # fmt: skip
def test_a_missing_column_is_told_by_its_key_its_value_its_file_and_the_columns_there_are(tmp_path, key, change):
    config = source(tmp_path, **change)
    if key == "users.columns":  # a table of one row per user
        frame = pd.DataFrame({"row": [f"u{i}" for i in range(7)], "what": 1, "when": 1, "count": 1, "who": 1})
        frame.to_csv(tmp_path / "u.csv", index=False)
        config = config.model_copy(update={"users": config.users.model_copy(update={"path": tmp_path / "u.csv"})})
    file, held = (
        ("u.csv", "row, what, when, count, who") if key == "users.columns" else ("s.csv", "who, what, when, count")
    )
    with pytest.raises(MissingSourceColumn) as found:
        import_interactions(config, tmp_path / "o")
    said = f"{key}: no column 'absent' in {tmp_path}/{file}; its columns are: {held}; name one of these"
    assert str(found.value) == said and found.value.exit_code == 2
    assert not (tmp_path / "o").exists()


@pytest.mark.skipif(not SHARED.exists(), reason="the folder of real data is not beside the project")
@pytest.mark.parametrize(
    ("name", "dropped"), [("online_retail", {"no customer": 107_927}), ("ml1m", {}), ("beauty", {})]
)
def test_real_sets_can_be_imported(name, dropped, tmp_path):
    config = load_import(RECIPES / f"{name}.import.yaml", SHARED)
    assert isinstance(config, ImportConfig)
    found = import_interactions(config, tmp_path)
    for reason, rows in dropped.items():
        assert found.dropped[reason] == rows
    assert found.read == found.events + sum(found.dropped.values())
    assert pq.read_schema(tmp_path / "log.parquet").field("user_id").type == "int64"
    if name == "ml1m":
        test = pq.read_table(tmp_path / "log.parquet", filters=[("split", "=", "test")]).to_pandas()
        assert len(test) == 6040 * 100 and test.label.sum() == 6040
