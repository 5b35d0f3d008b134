"""One call from raw values to scores: the same bits as by way of Python, and nothing unusual is taken for usual."""

import sys
import threading
import time

import numpy as np
import pytest

from recsys_kd.runtime import abi
from recsys_kd.runtime.ranker import BadRequest, Ranker
from recsys_kd.runtime.values import LARGEST
from tests.runtime.test_kernel import NATIVE, SHAPES, native, requests, shapes
from tests.students import Shape, student


def both(shape, kernel):
    """Return a ranker, and its twin that goes by way of Python."""
    model, keys = student(shape)
    one, two = Ranker(model, use=kernel), Ranker(model, use=kernel)
    two._direct = None
    return one, two, keys


@native
@shapes
def test_one_call_scores_and_counts_the_same_bits_as_by_way_of_python(shape, kernel):
    one, two, keys = both(shape, kernel)
    for request, candidates, features in requests(shape, keys, 8, seed=4):
        for logits in (True, False):
            got = one.score(request, candidates, features, logits=logits)
            assert got.tolist() == two.score(request, candidates, features, logits=logits).tolist()
    assert one.fallback_counts == two.fallback_counts and one.fallback_counts


USUAL = [
    ({"user_id": 7, "device": "phone", "history": [1, 2, 3], "age": 1.5, "mood": [0.1, 0.2, 0.3, 0.4]}, [1, 2]),
    ({"user_id": None, "history": None, "age": 2, "mood": [1, 0.0, -1.0, 1e-3]}, np.arange(40)),
    ({"user_id": -(2**63), "device": None, "history": np.arange(30), "age": True, "mood": [0.0] * 4}, []),
    ({"user_id": 1, "history": [], "age": np.float64(0.5), "mood": [0.0] * 4}, np.arange(5, dtype=np.longlong)),
]


@pytest.mark.parametrize(("request_", "candidates"), USUAL)
def test_usual_values_are_read_in_one_call(request_, candidates):
    for kernel in NATIVE:
        one, two, _ = both(Shape(dense=True), kernel)
        got, _ = one._direct.score(request_, candidates, logits=True)
        assert got.tolist() == two.score(request_, candidates, logits=True).tolist()


FULL = {"user_id": 7, "age": 1.0, "mood": [0.0] * 4}
UNUSUAL = [
    ({**FULL, "devise": "phone"}, [1], "unknown field 'devise'"),
    ({**FULL, "user_id": "ann"}, [1], "'user_id': ids are integers"),
    ({**FULL, "user_id": 1.5}, [1], "'user_id': ids are integers"),
    ({**FULL, "user_id": True}, [1], "'user_id': ids are integers in this model, got True"),
    ({**FULL, "history": [1, False]}, [1], "'history': ids are integers in this model, got False"),
    (FULL, [1, True], "'item_id': ids are integers in this model, got True"),
    ({**FULL, "user_id": 2**70}, [1], "does not fit in 64 bits"),
    ({**FULL, "device": 5}, [1], "'device': ids are strings"),
    ({**FULL, "device": "\ud800"}, [1], "not valid Unicode"),
    ({**FULL, "history": 5}, [1], "'history': a list of ids"),
    ({**FULL, "history": ["a"]}, [1], "'history': ids are integers"),
    ({**FULL, "age": "old"}, [1], "'age'"),
    ({**FULL, "age": float("nan")}, [1], "'age': missing, NaN or infinite"),
    ({**FULL, "age": 1e39}, [1], "'age': missing, NaN or infinite"),
    ({**FULL, "age": None}, [1], "'age'"),
    ({**FULL, "age": 3e9}, [1], r"'age': 3e\+09 is over 1e\+09 standard deviations \(2\) from the log's mean \(0.5\)"),
    ({**FULL, "age": -(10**20)}, [1], r"'age': -1e\+20 is over 1e\+09 standard"),
    ({**FULL, "mood": [0.0, 0.0, 1e30, 0.0]}, [1], r"'mood': 1e\+30 is too large, a number of a vector may be 1e\+09"),
    ({**FULL, "mood": [0.0] * 3}, [1], "'mood'"),
    ({"user_id": 7, "mood": [0.0] * 4}, [1], "'age'"),
    (FULL, ["a"], "'item_id': ids are integers"),
    (FULL, [2**63], "does not fit in 64 bits"),
    (FULL, np.array([2**63], dtype=np.uint64), "does not fit in 64 bits"),
    (FULL, np.array([1.5]), "'item_id': ids are integers"),
]


@native
def test_the_largest_number_that_is_scored_is_the_same_in_one_call_as_by_way_of_python(kernel):
    one, two, _ = both(Shape(dense=True), kernel)
    most = {**FULL, "mood": [LARGEST, -LARGEST, 0.0, 1.0]}
    got, _ = one._direct.score(most, [1, 2], logits=True)
    assert got.tolist() == two.score(most, [1, 2], logits=True).tolist() and np.isfinite(got).all()
    beyond = {**FULL, "mood": [float(np.nextafter(np.float32(LARGEST), np.float32(np.inf))), 0.0, 0.0, 1.0]}
    assert one._direct.score(beyond, [1, 2], logits=True) is None
    with pytest.raises(BadRequest, match="'mood': 1e\\+09 is too large"):
        two.score(beyond, [1, 2])


@native
def test_the_kernels_function_leaves_what_does_not_fit_alone(kernel):
    direct = Ranker(student(Shape())[0], use=kernel)._direct
    out, misses = np.empty(2, np.float32), direct._misses()
    right = {"user_id": 7}, [1, 2], out, True, misses
    assert direct._call(*right) in (abi.DONE, abi.MISSED)
    short = (*right[:2], out[:1], *right[3:])
    for wrong in (right[:4], (*right, 1), short, (*right[:4], misses[:1]), (*right[:4], b"")):
        assert direct._call(*wrong) == abi.UNUSUAL


@native
@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize(("request_", "candidates", "words"), UNUSUAL)
def test_what_is_wrong_is_left_to_python_which_explains_it(kernel, request_, candidates, words):
    ranker = Ranker(student(Shape(dense=True))[0], use=kernel)
    assert ranker._direct.score(request_, candidates, logits=True) is None
    with pytest.raises(BadRequest, match=words):
        ranker.score(request_, candidates)


@native
def test_what_is_odd_but_right_scores_the_same(kernel):
    ranker = Ranker(student(Shape(dense=True))[0], use=kernel)
    want = ranker.score({"user_id": 7, "history": [1, 2], "age": 1.0, "mood": [0.0] * 4}, [3, 4, 3]).tolist()
    for request in (
        {"user_id": np.int64(7), "history": (1, 2), "age": np.float32(1.0), "mood": np.zeros(4)},
        {"user_id": np.uint8(7), "history": np.array([1, 2], dtype=np.int16), "age": [1.0], "mood": np.zeros((1, 4))},
    ):
        assert ranker.score(request, [3, 4, 3]).tolist() == want
    for items in ((3, 4, 3), np.array([3, 4, 3], dtype=np.int32), np.array([3, 0, 4, 0, 3])[::2], range(3, 4)):
        assert ranker.score({"user_id": 7, "history": [1, 2], "age": 1.0, "mood": [0.0] * 4}, items)[0] == want[0]


@native
def test_string_ids_are_not_taken_for_numbers(kernel):
    ranker = Ranker(student(Shape(strings=True))[0], use=kernel)
    for wrong in ([1], ["a", None], np.arange(3)):
        assert ranker._direct.score({"user_id": 1}, wrong, logits=True) is None


@native
def test_an_id_whose_own_code_changes_the_request_reads_nothing_that_is_gone(kernel):
    """Its history is freed while it is read; sanitizers aside, what is scored is what was there."""
    ranker = Ranker(student(Shape())[0], use=kernel)
    request = {"user_id": 1}

    class Vandal:
        def __index__(self):
            request["history"] = None
            return 3

    request["history"] = [Vandal(), *range(2_000, 2_100)]
    want = ranker.score({"user_id": 1, "history": [3, *range(2_000, 2_100)]}, [5])
    assert ranker.score(request, [5]).tolist() == want.tolist()


@native
def test_a_call_leaves_no_references_behind(kernel):
    ranker = Ranker(student(Shape(dense=True))[0], use=kernel)
    history, name, items = list(range(1_000, 1_040)), "".join(["ph", "one"]), np.arange(50)
    request = {"user_id": 7, "device": name, "history": history, "age": 1.0, "mood": [0.0] * 4}
    before = [sys.getrefcount(x) for x in (history, name, items, request)]
    for _ in range(50):
        ranker.score(request, items)
        with pytest.raises(BadRequest):
            ranker.score({**request, "devise": 1}, items)
    assert [sys.getrefcount(x) for x in (history, name, items, request)] == before


@native
def test_the_interpreters_lock_is_let_go_while_the_kernel_scores(kernel):
    """A thread that only counts gets on while another scores: with the lock held it would stand still."""
    model, keys = student(Shape(items=300, width=32, first=64, hidden=(32,), rank=16))
    ranker = Ranker(model, use=kernel)
    items = np.tile(keys["item"], 10_000)
    counted, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            counted[0] += 1
            time.sleep(0)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        before = counted[0]
        assert ranker._direct.score({"user_id": 1}, items, logits=False) is not None
        during = counted[0] - before
    finally:
        stop.set()
        thread.join()
    assert during > 100


def test_probabilities_are_those_of_the_logits():
    x = np.array([0.0, 1.0, -1.0, 20.0, -20.0, 80.0, -80.0, 500.0, -500.0, np.inf, -np.inf, np.nan], dtype=np.float32)
    x = np.concatenate([x, np.linspace(-90, 90, 4_001, dtype=np.float32)])
    want = 1 / (1 + np.exp(-np.clip(x.astype(np.float64), -80, 80)))
    for kernel in NATIVE:
        got = kernel.library.probabilities(x)
        assert np.isnan(got[11]) and np.array_equal(np.isnan(got), np.isnan(want))
        assert (np.abs(got / want - 1)[~np.isnan(want)] < 3e-7).all()


def test_every_shape_but_those_with_candidate_features_is_scored_in_one_call():
    for kernel in NATIVE:
        for shape in SHAPES.values():
            assert Ranker(student(shape)[0], use=kernel)._direct._takes_features is shape.candidate
