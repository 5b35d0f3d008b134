"""The market of rows: nothing better is passed over, and what was worked out for one plan serves the next."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_kd.compress.pricing import Market
from recsys_kd.tables import RowCode
from tests.compress.test_compress import coded


def tables(seed, counts=(60, 25), dim=6):
    rng = np.random.default_rng(seed)
    made = []
    for i, count in enumerate(counts):
        z = rng.normal(size=(count + 1, dim)) * np.exp(-np.arange(dim) / 2)
        made.append(coded(z, rng.exponential(size=count + 1) ** 3, name=f"t{i}"))
    return made


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.integers(700, 2000), st.booleans())
def test_codes_that_are_not_tried_would_not_have_been_better(seed, budget, tiers):
    class Thorough(Market):
        def _promising(self, sample, code, best, budget, bits, tiers):
            return list(sample.near(code, bits, tiers))

    made = tables(seed)
    (codes, found), (others, thorough) = (m(made).searched(budget, (4, 8), tiers) for m in (Market, Thorough))
    assert found.bytes <= budget and codes == others and found.saved == thorough.saved


def test_a_market_that_was_asked_before_gives_the_same_plan():
    made = tables(1)
    used = Market(made)
    for budget in (900, 1500, 1200):
        for tiers in (True, False):
            (codes, found), fresh = used.searched(budget, (4, 8), tiers), Market(made).searched(budget, (4, 8), tiers)
            assert codes == fresh[0] and found.saved == fresh[1].saved and found.bytes == fresh[1].bytes


def test_at_a_price_a_code_costs_its_bytes_less_what_its_rows_save():
    # Half of lookups times square: the rows are worth 8 and 0.5 nats.
    table = coded([[4.0], [1.0], [0.0]], [1.0, 1.0, 1.0])
    table = dataclasses.replace(table, cost=np.array([1.0]))
    market, code = Market([table]), RowCode(1, 8)
    sample = market.samples["t"]
    row, fixed = table.row_bytes(code), table.fixed_bytes(code)
    loss, weight = sample.at_price(1 / row, code)  # a row costs one nat: the second is not worth it
    assert weight == pytest.approx(fixed + row) and loss == pytest.approx(fixed / row + 1 - 8, abs=1e-3)
    assert sample.at_price(0.0, code)[1] == pytest.approx(fixed + 2 * row)
