"""Rows in 8 and 4 bits: in memory, and streamed from file to file."""

import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys_kd.artifact.tensors import load
from recsys_kd.compress.quantize import NonFiniteTable, quantize_rows
from recsys_kd.compress.streaming import BadTable, TableUnwritable, quantize_file


def test_a_row_of_two_values_is_coded_at_both_ends():
    table = quantize_rows(np.array([[-255.0, 255.0]], dtype=np.float32))
    assert table.data[0, :2].tolist() == [0, 255]
    assert table.scales().tolist() == [2.0]
    assert table.lookup(np.array([0])).tolist() == [[-255.0, 255.0]]
    assert table.data.shape == (1, 2 + 2)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, (5, 7), elements=st.floats(-50, 50, width=32)))
def test_error_is_at_most_half_a_step(weight):
    table = quantize_rows(weight)
    scale = table.scales()[:, None].astype(np.float32)
    assert (np.abs(table.lookup(np.arange(5)) - weight) <= 0.5 * scale + 1e-4).all()


def test_four_bits_take_half_the_bytes_and_give_each_value_back_to_its_place():
    table = quantize_rows(np.array([[-15.0, 15.0, 3.0], [-7.5, 7.5, 0.5]], dtype=np.float32), 4)
    assert table.data.shape == (2, 2 + 2) and table.data[0, :2].tolist() == [0xF0, 0x09]
    assert table.lookup(np.array([1, 0])).tolist() == [[-7.5, 7.5, 0.5], [-15.0, 15.0, 3.0]]


@settings(max_examples=30, deadline=None)
@given(arrays(np.float32, (4, 9), elements=st.floats(-50, 50, width=32)))
def test_clipping_never_raises_the_squared_error_at_four_bits(weight):
    largest = np.abs(weight).max(axis=1, keepdims=True)
    scale = (largest / np.float32(7.5)).astype(np.float16)
    up = np.nextafter(scale, np.float16(np.inf))  # unclipped: the codes reach the largest number
    scale = np.maximum(np.where(scale.astype(np.float32) * 7.5 < largest, up, scale), 2.0**-14).astype(np.float32)
    plain = (np.rint(weight / scale + 7.5).clip(0, 15) - 7.5) * scale
    error = np.square(quantize_rows(weight, 4).lookup(np.arange(4)) - weight).sum(axis=1)
    assert (error <= np.square(plain - weight).sum(axis=1) * (1 + 1e-5) + 1e-9).all()


def test_clipping_helps_a_row_with_an_outlier():
    weight = np.append(np.tile([0.0, 1.0], 400), 2.2).astype(np.float32)[None]
    error = np.square(quantize_rows(weight, 4).lookup(np.array([0])) - weight).sum()
    scale = 2.2 / 7.5
    unclipped = 400 * (0.5 * scale) ** 2 + 400 * (1.0 - 3.5 * scale) ** 2
    assert error < unclipped


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e9])
def test_what_half_precision_cannot_hold_is_refused(bad):
    with pytest.raises(NonFiniteTable):
        quantize_rows(np.array([[bad, 0.0]], dtype=np.float32))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(1, 9), st.sampled_from([4, 8]))
def test_blocks_change_nothing(rows, dim, bits):
    weight = np.random.default_rng(rows).normal(size=(rows, dim)).astype(np.float32)
    whole = quantize_rows(weight, bits).data
    one_by_one = [quantize_rows(weight[i : i + 1], bits).data for i in range(rows)]
    assert whole.shape == (rows, -(-dim * bits // 8) + 2) and np.array_equal(
        whole, np.concatenate([whole[:0], *one_by_one])
    )


@pytest.mark.parametrize("bits", [8, 4])
def test_a_file_is_coded_as_its_rows_are_in_memory(tmp_path, monkeypatch, bits):
    monkeypatch.setattr("recsys_kd.compress.streaming.CHUNK", 4 * 7 * 100)
    weight = np.random.default_rng(0).normal(size=(1001, 7)).astype(np.float32)
    np.save(tmp_path / "t.npy", weight)
    found = quantize_file(tmp_path / "t.npy", tmp_path / "t.safetensors", bits)
    stored = load(memoryview((tmp_path / "t.safetensors").read_bytes()))
    assert np.array_equal(stored["table"], quantize_rows(weight, bits).data)
    assert (found.rows, found.dim, found.bytes_before) == (1001, 7, (tmp_path / "t.npy").stat().st_size)
    assert found.bytes_after == (tmp_path / "t.safetensors").stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.npy", "t.safetensors"]


def test_memory_does_not_grow_with_the_file(tmp_path):
    np.save(tmp_path / "t.npy", np.ones((500_000, 64), np.float32))  # 128 MB
    tracemalloc.start()
    quantize_file(tmp_path / "t.npy", tmp_path / "t.safetensors")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"no table", "not a .npy file"), (np.ones((2, 3)), r"holds float64 \(2, 3\); a table is float32"),
     (np.ones(3, np.float32), r"holds float32 \(3,\)"), (None, "can't be read .No such file")],
)  # fmt: skip
def test_what_is_no_table_is_named(tmp_path, content, words):
    path = tmp_path / "t.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(BadTable, match=words):
        quantize_file(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_table_that_was_cut_off_or_holds_nan_leaves_nothing_behind(tmp_path):
    weight = np.ones((50, 4), np.float32)
    weight[31, 2] = np.nan
    np.save(tmp_path / "t.npy", weight)
    with pytest.raises(NonFiniteTable, match=r"t.npy, rows 0 to 49: .* NaN"):
        quantize_file(tmp_path / "t.npy", tmp_path / "out")
    (tmp_path / "t.npy").write_bytes((tmp_path / "t.npy").read_bytes()[:-4])
    with pytest.raises(BadTable, match=r"796 bytes follow the header, .* needs 800"):
        quantize_file(tmp_path / "t.npy", tmp_path / "out")
    np.save(tmp_path / "t.npy", np.ones((2, 2), np.float32))
    with pytest.raises(TableUnwritable, match="free space"):
        quantize_file(tmp_path / "t.npy", tmp_path / "nowhere" / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["t.npy"]


def test_the_benchmark_measures_both_in_one_run(tmp_path):
    code = (
        "import os; os.environ['BENCH_GB'] = '0.02'\n"
        "from tests.benchmarks import bench_quantize\n"
        "import json; print(json.dumps(bench_quantize.run()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout.splitlines()[-1])
    assert [r["how"] for r in rows] == ["copy of the file", "ours, 8 bits", "ours, 4 bits"]
    assert all(float(r["peak MB"]) < 400 for r in rows)
