"""Conformance checks of what a host is told and asked: candidates' own features, its store, shares of users."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recsys_kd.flow.conformance_models import MODEL, request, shelf
from recsys_kd.flow.conformance_world import CANDIDATES, TOLERANCE, ContractBroken, World, must, same
from recsys_kd.runtime.ranker import BadRequest, Ranker
from recsys_kd.runtime.service import Answer

_USERS = range(64)
_SHARE, _LEAST = 0.5, 12
"""Half of 64 users by any fair hash: fewer than 12 on either side happen to one in 5 million."""


def a_bad_request_is_refused_in_words_and_disturbs_no_other(world: World) -> None:
    """Each names the field."""
    path = world.publish(1)
    bad: list[tuple[str, Mapping[str, Any], list[Any]]] = [
        ("nobody", request(3) | {"nobody": 1}, CANDIDATES),
        ("item_id", request(3), ["a", "b"]),
        ("user_id", request(3) | {"user_id": "ann"}, CANDIDATES),
        ("device", request(3) | {"device": 5}, CANDIDATES),
        ("user_id", request(3) | {"user_id": 2**70}, CANDIDATES),
        ("user_id", request(3) | {"user_id": 1.5}, CANDIDATES),
        ("history", request(3) | {"history": ["a"]}, CANDIDATES),
        ("item_id", request(3), [1, "a"]),
        ("item_id", request(3), [1, 2**70]),
        ("item_id", request(3), [1.5, 2.5]),
    ]
    with world.open() as backend:
        for field, given, candidates in bad:
            try:
                backend.answer(given, candidates)
            except BadRequest as error:
                must(field in str(error), f"the refusal of {given} does not name '{field}': {error}")
            else:
                raise ContractBroken(f"{given} with {candidates[:2]} is answered, although it is wrong")
            must(
                same(backend.answer(request(3), CANDIDATES), path), f"after {given} a good request is answered wrongly"
            )


def every_candidate_has_the_score_of_its_own_features(world: World) -> None:
    """Values that belong to a candidate reach the model, each beside its candidate."""
    path, own = world.publish(1, shelves=True), shelf(len(CANDIDATES))
    want = Ranker.open(path).score(request(3), CANDIDATES, own)
    with world.open() as backend:
        answer = backend.answer(request(3), CANDIDATES, own)
        fits = answer.scores.shape == want.shape and bool(np.abs(answer.scores - want).max() <= TOLERANCE)
        must(fits, f"with candidates' features it gives {answer.scores}, not {want}")
        arrays = {name: np.array(values) for name, values in own.items()}
        found = backend.answer(request(3), np.array(CANDIDATES), arrays).scores
        must(np.array_equal(found, answer.scores), "features in arrays give other scores than in lists")


def artifacts_are_read_from_the_store_that_the_host_sees(world: World) -> None:
    """Its `store`, where the registry's paths are another machine's."""
    path, here = world.publish(1), world.store.parent / "here"
    here.mkdir()
    moved = (world.store / MODEL).rename(here / MODEL) / path.name
    with world.open(replace(world.config(), store=here)) as backend:
        must(same(backend.answer(request(3), CANDIDATES), moved), f"with its store at {here} another artifact answers")


def a_canary_answers_its_share_of_users_and_always_the_same_ones(world: World) -> None:
    """By the challenger, which the answer names; who has no id is the champion's."""
    paths = {1: world.publish(1)}
    challenger, number = world.challenge(2)
    paths[number] = challenger
    with world.open(replace(world.config(), canary=_SHARE)) as backend:
        first = [_version(backend.answer(request(user), CANDIDATES), paths, user) for user in _USERS]
        again = [_version(backend.answer(request(user), CANDIDATES), paths, user) for user in _USERS]
        nobody = backend.answer({"device": "phone"}, CANDIDATES).version
    must(first == again, "a user is answered by the champion once, and by the challenger another time")
    taken = first.count(number)
    must(
        _LEAST <= taken <= len(_USERS) - _LEAST,
        f"of {len(_USERS)} users the challenger answers {taken}; its share is {_SHARE}",
    )
    must(nobody == 1, "a request without a user is not the champion's")


def _version(answer: Answer, paths: Mapping[int, Path], user: int) -> int:
    """Return the version that an answer names, whose scores and digest it must hold."""
    known = answer.version in paths and same(answer, paths[answer.version], user)
    must(known, f"user {user}: it names version {answer.version}, and gives neither its digest nor its scores")
    return answer.version
