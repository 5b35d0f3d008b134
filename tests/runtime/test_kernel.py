"""The native kernel against its NumPy twin: same scores, same counts, the same bits in any company."""

import dataclasses
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_kd.flow import conformance_models
from recsys_kd.ids import hash_string
from recsys_kd.index import KeyIndex
from recsys_kd.runtime.encode import Features
from recsys_kd.runtime.library import Kernel, load_library, supported
from recsys_kd.runtime.ranker import Ranker
from recsys_kd.runtime.sources import library_path
from tests.students import Shape, student

NUMPY = Kernel(None, "numpy")
NATIVE = [Kernel(load_library(library_path(), name), name) for name in supported()]
native = pytest.mark.parametrize("kernel", NATIVE, ids=[k.detail for k in NATIVE])
SHAPES = {
    "8 bits": Shape(),
    "4 bits, odd rank": Shape(bits=4, rank=7),
    "4 bits, spread ids": Shape(bits=4, rank=12, sparse=True),
    "string ids": Shape(strings=True, rank=3),
    "more numbers than sums": Shape(rank=20, width=6, first=9),
    "no hidden layer after the first": Shape(hidden=()),
    "deep and wide": Shape(width=32, first=64, hidden=(32, 17, 3), rank=16),
    "deep and wide, float32 weights": Shape(width=32, first=64, hidden=(32, 17, 3), rank=16, plain=True),
    "deep and wide, float32 activations": Shape(width=32, first=64, hidden=(32, 17, 3), rank=16, activations="float32"),
    "a layer too wide for whole sums": Shape(width=4, first=520, hidden=(5, 4), rank=5),
    "rows too wide for whole sums": Shape(rank=260, width=4, first=5, candidate=True),
    "every kind of field": Shape(candidate=True, dense=True),
    "every kind of field, spread ids, 4 bits": Shape(candidate=True, dense=True, sparse=True, bits=4),
    "two tiers": Shape(bits=4, tiers=8),
    "two tiers, every kind of field": Shape(bits=4, tiers=4, candidate=True, dense=True, sparse=True),
    "two tiers, one width, few hot": Shape(items=900, tiers=4, rank=16, width=8, first=40, hidden=(20,)),
    "two tiers, rows too wide for whole sums": Shape(rank=255, width=4, first=5, candidate=True, tiers=8),
    "one item": Shape(items=1, users=1),
    "no items": Shape(items=0, users=0),
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))


def requests(shape, keys, count, seed=0):
    """Return requests with known, unknown and missing ids, and up to 150 candidates each."""
    rng = np.random.default_rng(seed)
    known = [int(k) for k in keys["item"]]

    def items(n):
        if shape.strings:
            return [f"item {i}" for i in rng.integers(0, 999, n)]
        return [known[i] if i < len(known) else int(i) for i in rng.integers(0, len(known) + 50, n)]

    made = []
    for number in range(count):
        request = {"user_id": int(rng.integers(0, shape.users + 5)), "history": items(rng.integers(0, 40))}
        if number % 2:
            request["device"] = "phone"
        if shape.dense:
            request |= {"age": float(rng.normal()), "mood": rng.normal(size=4).tolist()}
        candidates = items(rng.integers(0, 150))
        n, features = len(candidates), None
        if shape.candidate:
            features = {"position": rng.integers(0, 25, n), "seller": rng.integers(0, 25, n).tolist()}
            features |= {"affinity": rng.normal(size=n), "image": rng.normal(size=(n, 3))}
        made.append((request, candidates, features))
    return made


@native
@shapes
def test_the_kernel_scores_and_counts_like_its_twin(shape, kernel):
    model, keys = student(shape)
    one, two = Ranker(model, use=kernel), Ranker(model, use=NUMPY)
    for request, candidates, features in requests(shape, keys, 12):
        got = one.score(request, candidates, features, logits=True)
        want = two.score(request, candidates, features, logits=True)
        assert np.abs(got - want).max(initial=0.0) < 1e-5
    assert one.fallback_counts == two.fallback_counts and one.fallback_counts


@native
def test_a_history_of_folded_rows_scores_like_its_twin(kernel):
    model, asked = conformance_models.student(seed=0), conformance_models.request(user=3)
    want = Ranker(model, use=NUMPY).score(asked, np.arange(120), logits=True)
    assert np.abs(Ranker(model, use=kernel).score(asked, np.arange(120), logits=True) - want).max() < 1e-5
    other = Ranker(model, use=NUMPY).score(asked | {"history": [4, 5]}, np.arange(120), logits=True)
    assert np.abs(other - want).min() > 1e-3


@native
@shapes
def test_a_candidate_scores_the_same_bits_alone_or_in_any_company(shape, kernel):
    model, keys = student(shape)
    ranker = Ranker(model, use=kernel)
    for request, candidates, features in requests(shape, keys, 3, seed=1):
        together = ranker.score(request, candidates, features, logits=True)
        for i in range(0, len(candidates), 7):
            own = features and {name: values[i : i + 1] for name, values in features.items()}
            assert ranker.score(request, candidates[i : i + 1], own, logits=True)[0] == together[i]


@native
@shapes
def test_many_requests_at_once_score_the_same_bits_as_one_by_one(shape, kernel):
    model, keys = student(shape)
    ranker = Ranker(model, use=kernel)
    made = requests(shape, keys, 9, seed=2)
    for got, (request, candidates, features) in zip(ranker.score_many(made), made, strict=True):
        assert got.tolist() == ranker.score(request, candidates, features).tolist()


@native
def test_threads_score_the_same_bits(kernel):
    shape = Shape(width=32, first=64, hidden=(32,), rank=16)
    model, keys = student(shape)
    ranker, made = Ranker(model, use=kernel), requests(shape, keys, 60, seed=3)
    want = [s.tolist() for s in ranker.score_many(made)]
    found: dict[int, list[list[float]]] = {}

    def work(number):
        found[number] = [ranker.score(*parts).tolist() for parts in made]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[i] == want for i in range(4))


@native
@settings(max_examples=25, deadline=None)
@given(
    keys=st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=300),
    base=st.integers(-(2**40), 2**40),
    dense=st.integers(0, 400),
    others=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=50),
)
def test_rows_are_found_as_the_index_finds_them(kernel, keys, base, dense, others):
    """Of every layout: one bucket of 64 bits, dense ids, 1 to 8 bytes a key."""
    for known in (keys, list(range(base, base + dense)), [k >> 34 for k in keys], [k >> 20 for k in keys]):
        index, _ = KeyIndex.build(np.unique(np.array(known, dtype=np.int64)))
        asked = np.array([*known, *others, -(2**63), 2**63 - 1, 0], dtype=np.int64)
        assert found_rows(kernel, index, asked).tolist() == index.rows(asked).tolist()


def found_rows(kernel, index, asked):
    """Return the kernel's rows, read off the scores of a student whose item row is its logit."""
    from tests.runtime.tell_rows import row_teller

    return row_teller(index, kernel).rows(asked)


@native
def test_a_request_of_the_wrong_size_is_refused_before_the_kernel_reads_it(kernel):
    ranker = Ranker(student(Shape(dense=True))[0], use=kernel)
    request = ranker._encoder.request({"user_id": 1, "age": 1.0, "mood": [0.0] * 4})
    items, none = np.arange(3), Features((), ())
    assert ranker.score_encoded(request, items, none).shape == (3,)
    for part in ({"keys": [1]}, {"bags": []}, {"numbers": request.numbers[:-1]}):
        with pytest.raises(ValueError, match="this model takes 2, 1 and 5 each"):
            ranker.score_encoded(dataclasses.replace(request, **part), items, none)


def test_strings_are_hashed_as_blake2b_whatever_their_length():
    texts = [
        "",
        "a",
        "é",
        "日本",
        "x" * 127,
        "y" * 128,
        "z" * 129,
        "w" * 300,
        "nul\0inside",
        *(f"sku-{i}" for i in range(70)),
    ]
    texts += [c * n for n in range(120, 140) for c in "ab"]
    want = [hash_string(t) for t in texts]
    for kernel in NATIVE:
        assert kernel.library.keys(texts, strings=True).tolist() == want
        assert kernel.library.keys(texts[5:6], strings=True).tolist() == want[5:6]


def test_lists_with_anything_unusual_are_left_to_python():
    for kernel in NATIVE:
        keys = kernel.library.keys
        assert keys([1, -(2**63), 2**63 - 1, np.int32(1)], strings=False).tolist() == [1, -(2**63), 2**63 - 1, 1]
        for odd in (True, False, 1.5, "1", None, 2**63, [1]):
            assert keys([1, odd], strings=False) is None
        for odd in (1, None, b"a", "\ud800"):
            assert keys(["a", odd], strings=True) is None
