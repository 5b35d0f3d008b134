"""The key index: exact for every set of keys, small, and refused when its parts do not belong together."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_kd.index import _ODD, BadIndex, KeyIndex, index_bytes, layout, span_bits, spread

INT64 = st.integers(-(2**63), 2**63 - 1)
KEYS = st.one_of(
    st.lists(INT64, unique=True, max_size=60),
    st.lists(st.integers(-5, 60), unique=True, max_size=60),
    st.builds(lambda base, n: list(range(base, base + n)), st.integers(-(2**40), 2**40), st.integers(0, 500)),
)


@given(KEYS, st.lists(INT64, max_size=20))
def test_every_key_finds_its_row_and_no_other_key_finds_any(keys, others):
    """Wide keys are known by 32 bits beside their bucket's, so a stranger is mistaken once in 270 million."""
    index, order = KeyIndex.build(np.array(keys, dtype=np.int64))
    index.check()
    placed = np.array(keys, dtype=np.int64)[order]
    assert index.rows(placed).tolist() == list(range(len(keys)))
    strangers = [k for k in others if k not in keys]
    assert index.rows(np.array(strangers, dtype=np.int64)).tolist() == [len(keys)] * len(strangers)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 100, 5000])
@pytest.mark.parametrize("space", [2**20, 2**62])
def test_bytes_are_known_beforehand(count, space):
    keys = np.unique(np.random.default_rng(count).integers(0, space, count))
    index, _ = KeyIndex.build(keys)
    assert index_bytes(np.array([len(keys)]), span_bits(keys)).tolist() == [index.nbytes]


@pytest.mark.parametrize("bits", [1, 2, 3, 7, 12])
def test_spreading_is_a_bijection(bits):
    image, inside = spread(np.arange(2**bits) + 1000, 1000, bits)
    assert sorted(image.tolist()) == list(range(2**bits)) and inside.all()
    assert not spread(np.array([999, 1000 + 2**bits]), 1000, bits)[1].any()


def test_dense_keys_take_one_byte_and_hashed_keys_four():
    dense, _ = KeyIndex.build(np.arange(100_000))
    assert dense.nbytes / 100_000 < 1.4 and index_bytes(np.array([100_000]), 17).tolist() == [dense.nbytes]
    hashed = np.unique(np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 100_000))
    assert KeyIndex.build(hashed)[0].nbytes / len(hashed) < 4.4


def test_the_layout_by_hand():
    # 100 keys: 100 // 16 = 6 takes 3 bits, so 8 buckets; 20 - 3 = 17 other bits fill 3 bytes.
    assert layout(100, 20) == (3, 3)


def test_keys_that_share_their_kept_bits_get_more_of_them():
    keys = np.arange(5)
    wide = np.concatenate([keys, [2**62]])  # spans 63 bits, of which 32 are kept at first
    index, order = KeyIndex.build(wide)
    assert index.bits == 63 and index.kept == 32
    # Two keys whose images differ in the last bit alone can't be told apart by 32 bits.
    image = spread(wide, 0, 63)[0]
    twin = _unspread(int(image[0]) ^ 1, 63)
    index, order = KeyIndex.build(np.array([*wide, twin]))
    assert index.kept == 63 and index.rows(np.array([*wide, twin])[order]).tolist() == list(range(7))


def _unspread(image, bits):
    """Return the number whose image this is: the inverse of the bijection, step by step."""
    mask, shift = 2**bits - 1, (bits + 1) // 2
    for odd in reversed(_ODD):
        image ^= image >> shift
        image = image * pow(odd, -1, 2**bits) & mask
    return image


def _change(array, at, value):
    copy = array.copy()
    copy[at] = value
    return copy


@pytest.mark.parametrize(
    "wrong",
    [
        lambda i: {"starts": _change(i.starts, 0, 1)},
        lambda i: {"starts": _change(i.starts, -1, len(i) + 1)},
        lambda i: {"starts": _change(i.starts, 3, i.starts[4] + 1)},
        lambda i: {"starts": i.starts[:-1]},
        lambda i: {"rests": i.rests[:-1]},
        lambda i: {"rests": _change(i.rests, 1, i.rests[0])},
        lambda i: {"rests": _change(i.rests, -1, 255)},
        lambda i: {"rests": np.concatenate([i.rests, i.rests], axis=1)},
        lambda i: {"bits": 0},
        lambda i: {"bits": 65},
        lambda i: {"bits": True},
        lambda i: {"bits": "12"},
        lambda i: {"bits": i.bits + 9, "kept": i.kept + 9},
        lambda i: {"kept": i.bits + 1},
        lambda i: {"kept": None},
        lambda i: {"base": 2**63},
        lambda i: {"base": 1.5},
    ],
)
def test_parts_that_do_not_belong_together_are_refused(wrong):
    index, _ = KeyIndex.build(np.arange(0, 1500, 3))
    index.check()
    with pytest.raises(BadIndex):
        dataclasses.replace(index, **wrong(index)).check()
