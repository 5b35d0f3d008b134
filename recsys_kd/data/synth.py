"""A synthetic shop whose truth is known: the best AUC anyone can reach on its log can be printed beside a model's.

P(click) = examination(position) * sigmoid(relevance): relevance adds a low-rank user x item taste, the item's quality,
the user's sensitivity to price, and effects of device x category, hour x category and device x daypart x category.
Items are Zipf-popular and are shown by a logging policy of known propensities: slots are drawn one after the other
without replacement (Plackett-Luce) from a mixture of popularity and the uniform distribution. Tastes drift from day to
day; users and items keep arriving.
"""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys_kd.data.synth_config import ShopConfig
from recsys_kd.progress import SILENT, Progress

DEVICES = ("phone", "desktop", "tablet")
DAYPARTS = 6
HISTORY = 20
RECIPE = """\
name: synthetic-shop
seed: 7
data:
  path: log
  catalogue: items.parquet
  columns: {request_id: request_id, position: position, propensity: propensity}
  timestamp_unit: ms
  fields:
    - {name: device, side: request, kind: categorical}
    - {name: hour, side: request, kind: categorical}
    - {name: history, side: request, kind: bag, vocabulary: item_id, max_length: 20}
    - {name: category, side: item, kind: categorical}
    - {name: brand, side: item, kind: categorical}
    - {name: price, side: item, kind: dense}
split: {validation_days: 1, test_days: 2}
teacher: {kind: dcnv2, width: 64, hidden: [128, 64], cross_rank: 32, epochs: 3, bag: true}
soft_labels: {protocol: cross_fitted, blocks: 3}
student: {epochs: 5}
compress: {ratio: 40}
gate: {metric: auc, teacher_margin: 0.01}
"""


@dataclass(frozen=True)
class Shop:
    """Where everything lies."""

    folder: Path
    rows: int

    @property
    def recipe(self) -> Path:
        """A recipe that runs as it is."""
        return self.folder / "recipe.yaml"

    @property
    def truth(self) -> Path:
        """Folder of (user_id, item_id, timestamp, request_id, probability, relevance), in the log's row order."""
        return self.folder / "truth"


class World:
    """Users, items and what draws them together."""

    def __init__(self, config: ShopConfig, rng: np.random.Generator) -> None:
        c, n = config, config.items
        self.config, self.rng = c, rng
        categories, brands = max(4, n // 60), max(8, n // 25)
        self.category = rng.integers(categories, size=n)
        self.brand = rng.integers(brands, size=n)
        centers, styles = rng.normal(size=(categories, c.rank)), rng.normal(size=(brands, c.rank))
        own = rng.normal(size=(n, c.rank))
        taste = 0.6 * centers[self.category] + 0.35 * styles[self.brand] + 0.72 * own
        self.item_taste = taste / np.sqrt(c.rank)
        level = rng.normal(size=categories)[self.category]
        self.price = np.exp(3 + 0.5 * level + 0.5 * rng.normal(size=n)).round(2)
        self.price_z = (np.log(self.price) - np.log(self.price).mean()) / np.log(self.price).std()
        self.quality = 0.6 * rng.normal(size=n)
        self.popularity = 1.0 / (1 + rng.permutation(n)) ** 0.95
        self.item_ids = 10_007 + 13 * rng.permutation(n * 3)[:n].astype(np.int64)
        self.user_ids = 500_009 + 7 * rng.permutation(c.users * 3)[: c.users].astype(np.int64)
        self.user_taste = rng.normal(size=(c.users, c.rank))
        self.price_sense = 0.4 * rng.normal(size=c.users)
        self.activity = rng.lognormal(sigma=0.7, size=c.users)
        self.by_device = 0.4 * rng.normal(size=(len(DEVICES), categories))
        self.by_hour = 0.4 * rng.normal(size=(24, categories))
        self.by_moment = c.moment * rng.normal(size=(len(DEVICES), DAYPARTS, categories))
        self.user_day = self._arrivals(c.users)
        self.item_day = self._arrivals(n)
        self.hours = np.clip(np.sin((np.arange(24) - 8) / 24 * 2 * np.pi) + 1.2, 0.1, None)
        self.history = np.full((c.users, HISTORY), -1, dtype=np.int64)

    def _arrivals(self, n: int) -> NDArray[np.int64]:
        """Return the day each arrives: nine in ten were there on day 0."""
        late = self.rng.random(n) < 0.1
        return np.where(late, self.rng.integers(1, self.config.days, size=n), 0)

    def drift(self) -> None:
        """Renew a share of every taste, keeping its variance."""
        rho = self.config.drift
        fresh = self.rng.normal(size=self.user_taste.shape)
        self.user_taste = np.sqrt(1 - rho**2) * self.user_taste + rho * fresh

    def relevance(
        self, user: NDArray[np.int64], item: NDArray[np.int64], device: NDArray[np.int64], hour: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the click probability of an examined candidate; all inputs [requests, candidates] or broadcast."""
        taste = np.einsum("rk,rck->rc", self.user_taste[user], self.item_taste[item])
        category = self.category[item]
        logit = (
            -1.6
            + self.config.taste * taste
            + self.quality[item]
            - self.price_sense[user][:, None] * self.price_z[item]
            + self.by_device[device[:, None], category]
            + self.by_hour[hour[:, None], category]
            + self.by_moment[device[:, None], hour[:, None] * DAYPARTS // 24, category]
        )
        probability: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logit))
        return probability


def examination(candidates: int) -> NDArray[np.float64]:
    """Return the chance that a position is looked at [candidates]: falling slowly from 1."""
    chance: NDArray[np.float64] = 1.0 / (1.0 + 0.04 * np.arange(candidates, dtype=np.float64))
    return chance


def draw_slots(
    policy: NDArray[np.float64], requests: int, slots: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return distinct items per request and each slot's propensity given the slots before it, both [requests, slots].

    Drawing with replacement and skipping repeats is drawing without replacement.
    """
    cumulative = np.cumsum(policy)
    chosen = np.full((requests, slots), -1, dtype=np.int64)
    filled = np.zeros(requests, dtype=np.int64)
    while True:
        open_rows = np.flatnonzero(filled < slots)
        if len(open_rows) == 0:
            break
        drawn = np.searchsorted(cumulative, rng.random(len(open_rows)) * cumulative[-1], side="right")
        fresh = ~(chosen[open_rows] == drawn[:, None]).any(axis=1)
        rows = open_rows[fresh]
        chosen[rows, filled[rows]] = drawn[fresh]
        filled[rows] += 1
    share = policy[chosen] / policy.sum()
    before = np.cumsum(share, axis=1) - share
    return chosen, share / (1.0 - before)


def world_after(config: ShopConfig) -> World:
    """Return the shop as its last logged day leaves it: the same that `synthesize` with this seed ends with."""
    world = World(config, np.random.default_rng(config.seed))
    for day in range(config.days):
        make_day(world, day)
        world.drift()
    return world


def synthesize(config: ShopConfig, out: Path, progress: Progress = SILENT) -> Shop:
    """Write log/day=.../part-0.parquet, truth/day=.../part-0.parquet, items.parquet and recipe.yaml under `out`."""
    rng = np.random.default_rng(config.seed)
    world = World(config, rng)
    out.mkdir(parents=True, exist_ok=True)
    categories = pa.array([f"category-{c:02d}" for c in world.category])
    brands = pa.array([f"brand-{b:03d}" for b in world.brand])
    catalogue = {"item_id": world.item_ids, "category": categories, "brand": brands, "price": world.price}
    pq.write_table(pa.table(catalogue), out / "items.parquet", write_page_checksum=True)
    rows = 0
    with progress.task("synthesize", config.rows) as task:
        for day in range(config.days):
            log, truth = make_day(world, day)
            for name, table in (("log", log), ("truth", truth)):
                folder = out / name / f"day={config.start + dt.timedelta(days=day)}"
                folder.mkdir(parents=True, exist_ok=True)
                pq.write_table(table, folder / "part-0.parquet", write_page_checksum=True)
            rows += log.num_rows
            task.advance(log.num_rows)
            world.drift()
    (out / "recipe.yaml").write_text(RECIPE)
    return Shop(out, rows)


def make_day(world: World, day: int) -> tuple[pa.Table, pa.Table]:
    """Return a day's log and truth; what is clicked enters the users' histories. Days are made in order, once."""
    c, rng = world.config, world.rng
    requests = round(c.rows / c.days / c.candidates)
    present = np.where(world.user_day <= day, world.activity, 0.0)
    user = rng.choice(c.users, size=requests, p=present / present.sum())
    hour = rng.choice(24, size=requests, p=world.hours / world.hours.sum())
    device = rng.choice(len(DEVICES), size=requests, p=[0.6, 0.3, 0.1])
    second = hour * 3600 + rng.integers(3600, size=requests)
    order = np.argsort(second, kind="stable")
    user, hour, device, second = user[order], hour[order], device[order], second[order]
    there = np.flatnonzero(world.item_day <= day)
    popular = world.popularity[there] / world.popularity[there].sum()
    policy = (1 - c.exploration) * popular + c.exploration / len(there)
    slots, propensity = draw_slots(policy, requests, c.candidates, rng)
    item = there[slots]
    relevance = world.relevance(user, item, device, hour)
    probability = relevance * examination(c.candidates)
    click = rng.random(probability.shape) < probability
    midnight = dt.datetime.combine(c.start, dt.time(), dt.UTC) + dt.timedelta(days=day)
    stamp = int(midnight.timestamp() * 1000) + second * 1000 + rng.integers(1000, size=requests)
    request = day * 1_000_000_000 + np.arange(requests)
    flat = _flatten(c.candidates, user_id=world.user_ids[user], timestamp=stamp, request_id=request)
    shared = {"user_id": flat["user_id"], "item_id": world.item_ids[item].ravel(), "timestamp": flat["timestamp"]}
    log = {
        **shared,
        "label": click.ravel().astype(np.int8),
        "request_id": flat["request_id"],
        "position": np.tile(np.arange(c.candidates, dtype=np.int16), requests),
        "propensity": propensity.ravel(),
        "device": pa.array(np.array(DEVICES)[np.repeat(device, c.candidates)]),
        "hour": np.repeat(hour, c.candidates).astype(np.int8),
        "history": _history_column(world, user),
    }
    average = float(examination(c.candidates).mean())
    truth = {
        **shared,
        "request_id": flat["request_id"],
        "probability": probability.ravel(),
        "relevance": (relevance * average).ravel(),
    }
    _remember(world, user, item, click)
    return pa.table(log), pa.table(truth)


def _flatten(candidates: int, **columns: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    return {name: np.repeat(values, candidates) for name, values in columns.items()}


def _history_column(world: World, user: NDArray[np.int64]) -> pa.Array:
    """Return each row's last clicked items before today, as lists."""
    per_row = np.repeat(user, world.config.candidates)
    past = world.history[per_row]
    known = past >= 0
    offsets = np.concatenate([[0], np.cumsum(known.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(world.item_ids[past[known]]))


def _remember(world: World, user: NDArray[np.int64], item: NDArray[np.int64], click: NDArray[np.bool_]) -> None:
    """Append today's clicks to their users' histories, oldest first, keeping the last ones."""
    clicked = np.repeat(user, click.sum(axis=1))
    items = item[click]
    order = np.argsort(clicked, kind="stable")
    who, counts = np.unique(clicked, return_counts=True)
    start = 0
    for u, count in zip(who, counts, strict=True):
        new = items[order[start : start + count]]
        world.history[u] = np.concatenate([world.history[u], new])[-HISTORY:]
        start += count
