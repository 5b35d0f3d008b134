"""The picture of size, quality and latency holds what it is given."""

import re
from xml.etree import ElementTree

import pytest

from recsys_kd.evaluate.pareto import Point, draw, told_bytes
from recsys_kd.evaluate.writing import ReportUnwritable, write_whole

POINTS = [
    Point("ours", "1/20", 467_000, 0.7521, 61.7),
    Point("ours", "1/100", 93_000, 0.7300, 48.0),
    Point("fp16 <b>", "unpruned", 4_600_000, 0.7530),
]


@pytest.mark.parametrize(
    ("size", "told"), [(999, "999 B"), (1000, "1 KB"), (467_428, "467 KB"), (2.5e6, "2.5 MB"), (999_600, "1 MB")]
)
def test_bytes_are_told_in_the_unit_that_fits(size, told):
    assert told_bytes(size) == told


def test_every_point_stands_where_its_bytes_and_auc_are_and_tells_its_time():
    svg = draw(POINTS, POINTS[0])
    ElementTree.fromstring(svg)  # whole and escaped
    dots = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="2.6"', svg)]
    assert len(dots) == 3 and "62 us" in svg and "48 us" in svg and svg.count(" us<") == 2
    small, chosen, half = dots  # ways in order, each by bytes
    assert small[0] < chosen[0] < half[0] and small[1] > chosen[1] > half[1]
    # a power of ten is as wide everywhere
    assert (half[0] - chosen[0]) / (chosen[0] - small[0]) == pytest.approx(0.9934 / 0.7008, rel=0.01)
    (ring,) = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="7"', svg)
    assert (float(ring[0]), float(ring[1])) == chosen and "ring: 467 KB, 0.7521" in svg
    assert "fp16 &lt;b&gt; unpruned: 4,600,000 bytes, 0.7530" in svg


def test_without_a_choice_there_is_no_ring():
    assert 'r="7"' not in draw(POINTS)


def test_a_text_is_written_whole_or_not_at_all(tmp_path):
    write_whole(tmp_path / "new" / "a.svg", "one")
    assert (tmp_path / "new" / "a.svg").read_text() == "one"
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportUnwritable, match=r"file/a.svg: .*; free space, or choose another file"):
        write_whole(tmp_path / "file" / "a.svg", "one")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.svg"]
