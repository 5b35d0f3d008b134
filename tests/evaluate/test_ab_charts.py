"""Charts of an offline A/B: what is written in them fits."""

import re

import pytest

from recsys_kd.evaluate.ab_charts import LABEL_EMS, Bar, fitted, forest


def test_a_name_that_fits_is_left_alone_and_a_long_one_keeps_both_its_ends():
    assert fitted("day 2026-01-05 · 168 users") == "day 2026-01-05 · 168 users"
    # 100 letters of 0.63 em: 46 of them and a mark of the same width are as wide as 30 em allow.
    assert fitted("a" * 50 + "b" * 50) == "a" * 23 + "\u2026" + "b" * 23
    assert fitted("W" * 31) == "W" * 15 + "\u2026" + "W" * 14


@pytest.mark.parametrize("name", ["category Outdoor > " * 9 + "Tents", "W" * 90, "\u975e\u5e38\u957f" * 30])
def test_a_long_slice_name_is_cut_in_the_forest_and_whole_in_its_title(name):
    group = f"{name} · 94 users"
    chart = forest([Bar(group, -0.1, 0.0, 0.1, "red", "b"), Bar("short", -0.2, 0.1, 0.3, "red", "b")], "change")
    labels = re.findall(r'<g><title>([^<]*)</title><text class="tick over"[^>]*>([^<]*)</text></g>', chart)
    (full, cut), short = labels
    assert full == group.replace(">", "&gt;") and cut.startswith(name[:5].replace(">", "&gt;"))
    assert cut.endswith(" · 94 users") and "\u2026" in cut and len(cut) <= LABEL_EMS / 0.4
    assert short == ("short", "short")
