import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys_kd.data.synth import draw_slots, synthesize
from recsys_kd.data.synth_config import BadShop, ShopConfig, shop_config


def test_slots_are_distinct_and_their_propensities_are_conditional():
    policy = np.array([0.5, 0.3, 0.2])
    slots, propensity = draw_slots(policy, 4000, 2, np.random.default_rng(0))
    assert (slots[:, 0] != slots[:, 1]).all()
    first_is_0 = slots[:, 0] == 0
    assert abs(first_is_0.mean() - 0.5) < 0.03
    second = propensity[first_is_0 & (slots[:, 1] == 1), 1]
    assert np.allclose(second, 0.3 / 0.5)
    # P(second = 1 | first = 0) is what the propensity says.
    assert abs((slots[first_is_0, 1] == 1).mean() - 0.6) < 0.04


def test_the_same_seed_gives_the_same_shop(tmp_path):
    config = ShopConfig(rows=2000, days=4, users=30, items=60)
    a, b = (synthesize(config, tmp_path / name) for name in "ab")
    for path in sorted(a.folder.rglob("*.parquet")):
        assert path.read_bytes() == (b.folder / path.relative_to(a.folder)).read_bytes()


def test_history_holds_only_earlier_clicks_and_truth_matches_the_log(shop):
    clicked: dict[int, set[int]] = {}
    for day in sorted((shop.folder / "log").iterdir()):
        log = pq.read_table(day / "part-0.parquet").to_pylist()
        truth = pq.read_table(shop.truth / day.name / "part-0.parquet").to_pylist()
        for row, t in zip(log[:500], truth, strict=False):
            assert (row["user_id"], row["item_id"]) == (t["user_id"], t["item_id"])
            assert set(row["history"]) <= clicked.get(row["user_id"], set())
            assert t["probability"] <= 1 and 0 < row["propensity"] <= 1
        for row in log:
            if row["label"]:
                clicked.setdefault(row["user_id"], set()).add(row["item_id"])


def test_click_rate_follows_the_true_probability(shop):
    labels, truth = [], []
    for day in sorted((shop.folder / "log").iterdir()):
        labels.append(pq.read_table(day / "part-0.parquet")["label"].to_numpy())
        truth.append(pq.read_table(shop.truth / day.name / "part-0.parquet")["probability"].to_numpy())
    p = np.concatenate(truth)
    assert abs(np.concatenate(labels).mean() - p.mean()) < 4 * np.sqrt(p.mean() / len(p))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rows": 0}, "--rows: got 0; give a whole number, at least 1,000"),
        ({"days": 1, "items": 1}, "--days: got 1; give a whole number, at least 4\n--items: got 1; give .* least 50"),
        ({"users": 0}, "--users: got 0; give a whole number, at least 10"),
        ({"seed": -1}, "--seed: got -1; give a whole number, at least 0"),
        ({"rows": 1000, "days": 500}, "--rows: got 1000; 500 days need a request each: give 5,000 at least"),
    ],
)
def test_an_option_that_makes_no_shop_is_named_with_what_it_may_be(options, words):
    with pytest.raises(BadShop, match=f"^{words}$") as caught:
        shop_config(**options)
    assert caught.value.exit_code == 2
