"""Does a serving plugin keep the contract of `recsys_kd.runtime.plugins`? `python -m recsys_kd.flow.conformance NAME`.

Each check opens the installed plugin on a store and an embedded registry of its own, with small models made here, and
raises `ContractBroken` where the plugin does otherwise. With pytest: `@pytest.mark.parametrize("check", CHECKS)`, each
called as `check(World(tmp_path, name))`.
"""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from recsys_kd.errors import InputError
from recsys_kd.flow.conformance_asked import (
    a_bad_request_is_refused_in_words_and_disturbs_no_other,
    a_canary_answers_its_share_of_users_and_always_the_same_ones,
    artifacts_are_read_from_the_store_that_the_host_sees,
    every_candidate_has_the_score_of_its_own_features,
)
from recsys_kd.flow.conformance_models import MODEL, promote, request
from recsys_kd.flow.conformance_world import CANDIDATES, TOLERANCE, ContractBroken, World, expected, must, same
from recsys_kd.registry.where import SQLITE
from recsys_kd.runtime.plugins import Backend, find
from recsys_kd.runtime.versions import NoModel

__all__ = ["CHECKS", "Check", "ContractBroken", "World", "main"]
_POLL = 0.2


def importing_it_imports_no_training_library_and_no_model(world: World) -> None:
    """The entry point is cheap to look at."""
    code = (
        f"import sys; from recsys_kd.runtime.plugins import find; find({world.plugin!r}); "
        "print(*[m for m in ('torch', 'torchrec', 'pandas', 'pyarrow', 'kserve', 'fastapi') if m in sys.modules])"
    )
    code = f"import sys; sys.path[:] = {sys.path!r}; {code}"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    must(found.returncode == 0, f"importing it fails: {found.stderr[-500:]}")
    must(not found.stdout.strip(), f"importing it imports {found.stdout.strip()}")


def it_gives_the_artifacts_probabilities_and_names_the_version(world: World) -> None:
    """For known and unknown users and candidates alike."""
    path = world.publish(1)
    with world.open() as backend:
        for user in (3, 4, -1):
            answer = backend.answer(request(user), CANDIDATES)
            must(same(answer, path, user) and answer.version == 1, f"user {user}: {answer}, not {expected(path, user)}")
        must(backend.answer(request(3), []).scores.shape == (0,), "no candidates do not give no scores")
        arrays = backend.answer(request(3), np.array(CANDIDATES))
        must(same(arrays, path), "candidates in an array give other scores than in a list")


def without_a_champion_it_does_not_open(world: World) -> None:
    """There is nothing sound to be had."""
    try:
        with world.open():
            raise ContractBroken("it opens without any version to serve")
    except NoModel:
        return


def a_promoted_version_answers_after_refresh_and_a_rollback_too(world: World) -> None:
    """Both are a change of champion."""
    first = world.publish(1)
    with world.open() as backend:
        second = world.publish(2)
        must(same(backend.answer(request(3), CANDIDATES), first), "a version is taken over without being looked for")
        backend.refresh()
        must(same(backend.answer(request(3), CANDIDATES), second), "after refresh the new champion does not answer")
        world.registry.rollback(MODEL, lambda path: None, "conformance", "")
        backend.refresh()
        must(same(backend.answer(request(3), CANDIDATES), first), "after a rollback the version before does not answer")


def it_follows_the_registry_by_itself(world: World) -> None:
    """Within two polls; a busy machine gets more."""
    world.publish(1)
    with world.open(world.config(_POLL)) as backend:
        second = world.publish(2)
        deadline = time.monotonic() + 2 * _POLL + 30
        while backend.answer(request(3), CANDIDATES).digest != second.name:
            must(time.monotonic() < deadline, "it does not follow the registry")
            time.sleep(0.02)


def a_broken_version_never_answers(world: World) -> None:
    """The one before goes on, and the next sound one is taken."""
    first = world.publish(1)
    with world.open() as backend:
        world.publish(2, broken=True)
        _refreshed(backend)
        must(same(backend.answer(request(3), CANDIDATES), first), "a version that does not verify has an influence")
        third = world.publish(3)
        _refreshed(backend)
        must(same(backend.answer(request(3), CANDIDATES), third), "after a broken version no sound one is taken over")


def without_the_registry_it_goes_on_also_after_a_restart(world: World) -> None:
    """From the last known good version on this host's disk."""
    world.publish(1)
    second = world.publish(2)
    with world.open() as backend:
        for path in world.store.glob(f"{SQLITE}*"):
            path.unlink()
        _refreshed(backend)
        must(same(backend.answer(request(3), CANDIDATES), second), "without the registry another version answers")
    with world.open() as backend:
        must(same(backend.answer(request(3), CANDIDATES), second), "restarted without the registry, another answers")


def every_request_is_answered_by_one_version_while_others_are_swapped_in(world: World) -> None:
    """Four callers, twenty swaps."""
    paths = {p.name: expected(p) for p in (world.publish(seed) for seed in range(4))}
    numbers = {version.digest: version.number for version in world.registry.versions(MODEL)}
    stop, wrong, answered = threading.Event(), list[str](), list[int]()
    with world.open() as backend:

        def call() -> None:
            while not stop.is_set():
                try:
                    answer = backend.answer(request(3), CANDIDATES)
                    far = np.abs(answer.scores - paths[answer.digest]).max() > TOLERANCE
                    if far or answer.version != numbers[answer.digest]:
                        wrong.append(f"version {answer.version} did not give {answer.scores}")
                    answered.append(answer.version)
                except Exception as error:  # noqa: BLE001 - whatever comes out breaks the promise
                    wrong.append(repr(error))

        callers = [threading.Thread(target=call) for _ in range(4)]
        for caller in callers:
            caller.start()
        for step in range(20):
            promote(world.registry, world.store / MODEL / list(paths)[step % len(paths)])
            backend.refresh()
        stop.set()
        for caller in callers:
            caller.join()
    must(not wrong, f"{len(wrong)} requests went wrong, the first: {wrong[:1]}")
    must(len(set(answered)) > 1, f"{len(answered)} requests were answered, by versions {set(answered)} only")


def a_shadow_is_logged_and_never_answers(world: World) -> None:
    """A row per request that both scored, as Parquet."""
    champion, (challenger, number) = world.publish(1), world.challenge(2)
    folder = world.store.parent / "shadow"
    with world.open(replace(world.config(), shadow=1.0, shadow_log=folder)) as backend:
        for user in range(5):
            must(same(backend.answer(request(user), CANDIDATES), champion, user), "with a shadow another answers")
    rows = [row for path in sorted(folder.rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    seen = {(row["model"], row["champion"], row["challenger"], row["candidates"], row["error"]) for row in rows}
    must(seen == {(MODEL, 1, number, len(CANDIDATES), "")}, f"its log under {folder} holds {seen or 'nothing'}")
    must(len(rows) == 5, f"5 requests were scored by both, its log holds {len(rows)}")
    want = float(np.abs(expected(champion, 0) - expected(challenger, 0)).max())
    found = min(abs(row["max_difference"] - want) for row in rows)
    must(found <= TOLERANCE, f"no logged difference is {want}, that of user 0")


def closing_it_ends_its_threads_and_it_opens_again(world: World) -> None:
    """Nothing of it is left."""
    path = world.publish(1)
    with world.open():  # what a first use leaves behind, such as a pool of a library, is not its own
        pass
    before = threading.active_count()
    for _ in range(2):
        with world.open() as backend:
            must(same(backend.answer(request(3), CANDIDATES), path), "opened again, it answers otherwise")
        must(threading.active_count() <= before, f"{threading.active_count() - before} threads are left after closing")


def _refreshed(backend: Backend) -> None:
    """Refresh; a plugin may say what it refused by raising."""
    try:
        backend.refresh()
    except Exception:  # noqa: BLE001 - what counts is who answers afterwards
        return


Check = Callable[[World], None]
CHECKS: tuple[Check, ...] = (
    importing_it_imports_no_training_library_and_no_model,
    it_gives_the_artifacts_probabilities_and_names_the_version,
    a_bad_request_is_refused_in_words_and_disturbs_no_other,
    without_a_champion_it_does_not_open,
    every_candidate_has_the_score_of_its_own_features,
    artifacts_are_read_from_the_store_that_the_host_sees,
    a_promoted_version_answers_after_refresh_and_a_rollback_too,
    it_follows_the_registry_by_itself,
    a_broken_version_never_answers,
    without_the_registry_it_goes_on_also_after_a_restart,
    every_request_is_answered_by_one_version_while_others_are_swapped_in,
    a_canary_answers_its_share_of_users_and_always_the_same_ones,
    a_shadow_is_logged_and_never_answers,
    closing_it_ends_its_threads_and_it_opens_again,
)


def main(plugin: str) -> int:
    """Run every check, print a line for each, and return how many were not kept."""
    find(plugin)
    broken = 0
    for check in CHECKS:
        with tempfile.TemporaryDirectory(prefix="recsys-kd-") as folder:
            try:
                check(World(Path(folder), plugin))
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                broken += 1
                print(f"NO  {check.__name__.replace('_', ' ')}: {type(error).__name__}: {error}")
            else:
                print(f"ok  {check.__name__.replace('_', ' ')}", flush=True)
    return broken


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m recsys_kd.flow.conformance NAME, of an installed serving plugin")
    try:
        sys.exit(bool(main(sys.argv[1])))
    except InputError as error:
        sys.exit(f"conformance: {error}")
