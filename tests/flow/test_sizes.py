"""A ceiling of bytes holds smaller artifacts too: they are tried where what fills it is too slow, and only there."""

from dataclasses import replace

import pytest

from recsys_kd.compress.plan import BudgetTooSmall
from recsys_kd.flow.options import Option, Wanted
from recsys_kd.flow.sizes import keeping, within

LEAST = 7_747


class Shop:
    """One form, 1 us per 500 bytes, which loses more the smaller it is; keeps the sizes it was asked for."""

    def __init__(self, wanted):
        self.wanted, self.sizes = wanted, []

    def tried(self, size):
        self.sizes.append(size)
        if size < LEAST:
            raise BudgetTooSmall(LEAST, size)
        shape = {"item": 1}, {"item": 1}, {"item": 4}, {}
        option = Option("item", 1.0, True, size, size, *shape, 0.1, p50_us=size / 500, auc=0.7, loss=100 / size)
        over = self.wanted.loss is not None and option.loss > self.wanted.loss
        return [replace(option, why=option.too_slow(self.wanted) or "loses too much" * over)]


@pytest.mark.parametrize("p50_us", [16, 22, 30, 39])
def test_smaller_artifacts_are_tried_where_the_largest_is_too_slow(p50_us):
    shop = Shop(Wanted(20_000, p50_us))
    best = max(keeping(within(20_000, shop.tried, shop.wanted)), key=lambda option: option.bytes)
    assert p50_us * 500 / 1.2 <= best.bytes <= p50_us * 500 and len(shop.sizes) <= 6


def test_the_smallest_artifact_of_all_is_tried_before_a_limit_is_out_of_reach():
    shop = Shop(Wanted(1_000_000, 15.5))
    assert [option.bytes for option in keeping(within(1_000_000, shop.tried, shop.wanted))] == [LEAST]
    shop = Shop(Wanted(1_000_000, 15.4))
    assert not keeping(within(1_000_000, shop.tried, shop.wanted)) and shop.sizes[-2:] == [LEAST, LEAST // 2]


@pytest.mark.parametrize(
    "wanted", [Wanted(20_000), Wanted(20_000, 40), Wanted(20_000, 40, 0.001), Wanted(20_000, None, 0.001)]
)
def test_one_size_is_tried_where_nothing_is_too_slow(wanted):
    shop = Shop(wanted)
    within(20_000, shop.tried, wanted)
    assert shop.sizes == [20_000]


def test_a_size_that_is_fast_enough_and_loses_too_much_ends_the_search():
    shop = Shop(Wanted(40_000, 60, 0.004))
    found = within(40_000, shop.tried, shop.wanted)
    assert not keeping(found) and shop.sizes == [40_000, 20_000]
