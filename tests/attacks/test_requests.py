"""Hostile requests: each is answered, or refused in few words that name the field, by the kernel and by its twin."""

import math

import numpy as np
import pytest

from recsys_kd.runtime.library import Kernel, kernel
from recsys_kd.runtime.ranker import Ranker
from recsys_kd.runtime.service import Service
from recsys_kd.runtime.values import BadRequest, shown
from recsys_kd.runtime.watcher import Watcher
from recsys_kd.schema import ITEM
from tests.runtime.world import CANDIDATES, FEATURES, REQUEST, World
from tests.students import Shape, student

TWIN = Kernel(None, "numpy")
KERNELS = [kernel(), TWIN] if kernel().library is not None else [TWIN]
kernels = pytest.mark.parametrize("use", KERNELS, ids=[k.detail for k in KERNELS])
GOOD = {"user_id": 3, "device": "phone", "history": [1, 2], "age": 30.0, "mood": [0.1, 0.2, 0.3, 0.4]}
HUGE = 10**5000
"""Python refuses to print it."""


class Odd:
    """Claims to be an integer, and can't be printed."""

    def __index__(self):
        return 3

    def __repr__(self):
        raise RuntimeError("no")


ITSELF: list = []
ITSELF.append(ITSELF)
VALUES = [None, True, 1.5, math.nan, math.inf, 2**70, -(2**70), HUGE, "a", b"a", "\ud800", "", Odd(), object, 1j]
VALUES += [[], {}, set(), range(3), [[1]], ITSELF, [HUGE], [1, "a"], [1, None], [math.nan], [True], [Odd()], [{}]]
VALUES += [np.array(1), np.zeros((2, 2)), np.array(["a"]), np.array([1.5]), np.array([True]), np.uint64(2**63)]
VALUES += [np.array([None, 1]), np.array("2026-01-01", "M8[D]"), list(range(10**5)), "x" * 10**6]


@pytest.fixture(scope="module", params=KERNELS, ids=[k.detail for k in KERNELS])
def ranker(request):
    return Ranker(student(Shape(dense=True))[0], use=request.param)


def judged(field, call):
    """Return what a call gives, or None where it is refused in few words that name the field."""
    try:
        return call()
    except BadRequest as error:
        text = str(error)
        assert field in text and 20 < len(text) < 400, text
        return None


@pytest.mark.parametrize("name", GOOD)
def test_whatever_a_field_holds_it_is_answered_or_refused_by_name(ranker, name):
    want = ranker.score(GOOD, [1, 2, 3])
    for value in VALUES:
        found = judged(f"'{name}'", lambda value=value: ranker.score(GOOD | {name: value}, [1, 2, 3]))
        many = judged(f"'{name}'", lambda value=value: ranker.score_many([(GOOD | {name: value}, [1, 2, 3])])[0])
        assert (found is None) == (many is None), f"{name}={shown(value)} is judged in two ways"
        assert found is None or (found.shape == (3,) and np.isfinite(found).all())
        assert np.array_equal(ranker.score(GOOD, [1, 2, 3]), want)


def test_whatever_the_candidates_are_they_are_scored_or_refused_by_name(ranker):
    for value in VALUES:
        found = judged(f"'{ITEM}'", lambda value=value: ranker.score(GOOD, value))
        many = judged(f"'{ITEM}'", lambda value=value: ranker.score_many([(GOOD, value)])[0])
        assert (found is None) == (many is None), f"candidates {shown(value)} are judged in two ways"
        assert found is None or (len(found) == len(value) and np.isfinite(found).all())


@pytest.mark.parametrize("bad", [True, 1.5, "a", HUGE, 2**63], ids=["true", "a float", "a text", "huge", "2^63"])
@pytest.mark.parametrize("count", [1, 33, 5000])
def test_one_bad_id_among_many_is_found_wherever_it_stands(ranker, bad, count):
    for at in {0, count // 2, count - 1}:
        ids = list(range(count))
        ids[at] = bad
        with pytest.raises(BadRequest, match="'item_id'"):
            ranker.score_many([(GOOD, ids)])
        with pytest.raises(BadRequest, match="'history'"):
            ranker.score_many([(GOOD | {"history": ids}, [1])])


@pytest.mark.parametrize("given", [None, 5, "user_id", [("user_id", 3)], {3: 4}, {None: 1}, {"x" * 10**6: 1}])
def test_what_is_no_request_is_refused(ranker, given):
    with pytest.raises(BadRequest, match=r"request: (a mapping of field to value is expected|unknown field)") as error:
        ranker.score(given, [1])
    assert len(str(error.value)) < 400


@kernels
def test_texts_dates_and_the_like_are_no_numbers(use):
    ranker = Ranker(student(Shape(dense=True))[0], use=use)
    for value in ("1.5", b"1.5", "nan", 1j, np.datetime64("2026-01-01"), ["1"], {"a": 1}):
        with pytest.raises(BadRequest, match="field 'age': a number per row expected for 1 row"):
            ranker.score(GOOD | {"age": value}, [1])
    for value in (None, math.nan, -math.inf, 1e300):
        with pytest.raises(BadRequest, match=r"'age': missing, NaN or infinite .*; give finite numbers, or train with"):
            ranker.score(GOOD | {"age": value}, [1])
    del (lacking := dict(GOOD))["age"]
    with pytest.raises(BadRequest, match="'age': missing, NaN or infinite"):
        ranker.score(lacking, [1])


@kernels
def test_candidate_side_values_are_checked_row_by_row(use):
    ranker = Ranker(student(Shape(dense=True, candidate=True))[0], use=use)
    good = {"position": [0, 1], "seller": [5, 6], "affinity": [0.5, 0.6], "image": [[0.1, 0.2, 0.3]] * 2}
    assert ranker.score(GOOD, [1, 2], good).shape == (2,)
    for name in good:
        for value in (*VALUES, [1], [1, 2, 3], np.zeros((3, 3))):
            judged(f"'{name}'", lambda name=name, value=value: ranker.score(GOOD, [1, 2], good | {name: value}))
    with pytest.raises(BadRequest, match="'position': 3 values for 2 candidates; give one for each"):
        ranker.score(GOOD, [1, 2], good | {"position": [1, 2, 3]})
    with pytest.raises(BadRequest, match="'affinity': missing, NaN or infinite"):
        ranker.score(GOOD, [1, 2], good | {"affinity": [0.5, math.nan]})
    with pytest.raises(BadRequest, match=r"candidate_features: a mapping of field to value is expected, got \[1, 2\]"):
        ranker.score(GOOD, [1, 2], [1, 2])


@kernels
def test_a_finite_number_is_scored_finitely_or_refused_by_name_and_never_becomes_nan(use):
    ranker = Ranker(student(Shape(dense=True, candidate=True))[0], use=use)
    good = {"position": [0, 1], "seller": [5, 6], "affinity": [0.5, 0.6], "image": [[0.1, 0.2, 0.3]] * 2}
    for power in range(-40, 39):
        for number in (10.0**power, -(10.0**power)):
            age = judged("'age'", lambda n=number: ranker.score(GOOD | {"age": n}, [1, 2], good))
            mood = judged("'mood'", lambda n=number: ranker.score(GOOD | {"mood": [n] * 4}, [1, 2], good))
            own = {"affinity": [0.5, number]}
            affinity = judged("'affinity'", lambda own=own: ranker.score(GOOD, [1, 2], good | own))
            own = {"image": [[number] * 3, [0.1, 0.2, 0.3]]}
            image = judged("'image'", lambda own=own: ranker.score(GOOD, [1, 2], good | own))
            assert [s is not None for s in (age, mood, affinity, image)] == [power <= 9] * 4, number
            assert all(np.isfinite(s).all() for s in (age, mood, affinity, image) if s is not None), number


def masked(values, hide):
    made = np.ma.array(values)
    if hide:
        made[..., 1] = np.ma.masked
    return made


@kernels
@pytest.mark.parametrize("strings", [False, True])
def test_what_a_masked_array_hides_is_refused_and_never_scored_as_if_it_were_there(use, strings):
    ids = ["a", "b", "c"] if strings else [1, 2, 3]
    request = GOOD | {"history": ids[:2]}
    ranker = Ranker(student(Shape(dense=True, strings=strings))[0], use=use)
    want = ranker.score(request, ids)
    assert np.array_equal(ranker.score(request | {"history": masked(ids[:2], False)}, masked(ids, False)), want)
    assert np.array_equal(ranker.score(request | {"mood": masked(GOOD["mood"], False)}, ids), want)
    for given, candidates, field in (
        (request, masked(ids, True), "item_id"),
        (request | {"history": masked(ids, True)}, np.array(ids), "history"),
        (request | {"mood": masked(GOOD["mood"], True)}, ids, "mood"),
        (request | {"age": np.ma.array(30.0, mask=True)}, ids, "age"),
    ):
        with pytest.raises(BadRequest, match=f"'{field}': a masked array that hides values is given; give `compressed"):
            ranker.score(given, candidates)


@kernels
def test_a_masked_array_among_candidates_features_is_refused_where_it_hides(use):
    ranker = Ranker(student(Shape(dense=True, candidate=True))[0], use=use)
    good = {"position": [0, 1], "seller": [5, 6], "affinity": [0.5, 0.6], "image": [[0.1, 0.2, 0.3]] * 2}
    for name, value in (
        ("position", masked([0, 1], True)),
        ("affinity", masked([0.5, 0.6], True)),
        ("image", masked(good["image"], True)),
        ("image", [masked(row, True) for row in good["image"]]),
    ):
        with pytest.raises(BadRequest, match=f"'{name}': a masked array that hides values is given"):
            ranker.score(GOOD, [1, 2], good | {name: value})


@kernels
def test_how_many_are_ranked_is_a_whole_number_or_refused(use):
    ranker = Ranker(student(Shape(dense=True))[0], use=use)
    assert len(ranker.rank(GOOD, [1, 2, 3], np.int8(2))[0]) == 2 and ranker.rank(GOOD, [1, 2, 3], -1)[0] == []
    for wrong in ("a", None, 1.5, [1], Odd):
        with pytest.raises(BadRequest, match="k: a whole number is expected, got "):
            ranker.rank(GOOD, [1, 2, 3], wrong)


@kernels
def test_true_and_false_are_the_numbers_that_a_log_has_of_them(use):
    ranker = Ranker(student(Shape(dense=True))[0], use=use)
    for truth in (True, False, np.True_, np.array([True])):
        want = ranker.score(GOOD | {"age": float(np.ravel(truth)[0])}, [1, 2])
        assert np.array_equal(ranker.score(GOOD | {"age": truth}, [1, 2]), want)


@kernels
def test_a_candidate_that_is_there_twice_gets_its_score_twice(use):
    ranker = Ranker(student(Shape(dense=True))[0], use=use)
    one, two = ranker.score(GOOD, [7]), ranker.score(GOOD, [7] * 100)
    assert np.abs(two - one).max() <= (1e-6 if use is TWIN else 0.0)
    assert ranker.rank(GOOD, [7, 8, 7], 2)[0] in ([7, 7], [8, 7])


@kernels
def test_a_million_candidates_are_scored_and_no_candidates_give_no_scores(use):
    ranker = Ranker(student(Shape(dense=True))[0], use=use)
    ids = np.arange(1_000_000) % 400
    found = ranker.score(GOOD, ids)
    assert found.shape == (1_000_000,) and np.abs(found[:400] - found[-400:]).max() <= (1e-6 if use is TWIN else 0.0)
    assert np.array_equal(ranker.score(GOOD, ids[:2000].tolist()), ranker.score(GOOD, ids[:2000]))
    assert ranker.score(GOOD, []).shape == ranker.score(GOOD, np.zeros(0, np.int64)).shape == (0,)
    assert ranker.rank(GOOD, [], 5) == ([], pytest.approx([]))


def test_an_odd_user_is_refused_by_the_champion_and_never_by_the_canary(tmp_path):
    world = World(tmp_path)
    world.publish(1)
    service = Service(Watcher("shop", world.registry, None, challenger=True), canary=0.5)
    service.start()
    try:
        other = world.register(world.artifact(2))
        world.registry.name("shop", "challenger", other, "ann", "")
        service.watcher.poll()
        assert service.watcher.serving.challenger is not None
        for odd in VALUES:
            judged("'user_id'", lambda odd=odd: service.score(REQUEST | {"user_id": odd}, CANDIDATES, FEATURES))
        for given in (None, 5, "x"):
            judged("request: a mapping", lambda given=given: service.score(given, [1]))
    finally:
        service.stop()


def test_whatever_a_value_is_it_is_shown_in_few_characters():
    assert shown("a") == "'a'" and shown([1, 2, 3]) == "[1, 2, 3]" and shown(None) == "None"
    assert shown(HUGE) == "a value of type int" and shown(Odd()).startswith("<Odd instance at ")
    assert all(len(shown(value)) <= 83 for value in VALUES)
