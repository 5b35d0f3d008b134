"""What the stages of a night do: prepare, train, publish (`cleanup` has tidy). Each can be run again to the same end.

`Work` is what a worker holds while it does one.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jobs import desk as desks
from jobs import machine, supervise
from jobs.board import Board, BoardUnreachable
from jobs.config import JobsConfig
from jobs.desk import Desk
from jobs.machine import Night
from jobs.places import recipe_of, whole_registry
from recsys_kd.artifact.errors import ArtifactRefused
from recsys_kd.artifact.read import open_artifact
from recsys_kd.errors import InputError, OutsideError
from recsys_kd.evaluate.verdict import Verdict
from recsys_kd.flow.folders import FolderUnwritable
from recsys_kd.registry import where
from recsys_kd.registry.protocol import Claim, Registry, StaleEpoch
from recsys_kd.registry.store import write_copy
from recsys_kd.settings import Recipe, load_recipe

HELD_BACK, BAD_INPUT, AWAY = 1, 2, 3


class StageFailed(OutsideError):
    """A stage's subprocess did not come to a result."""


class RecipeAway(OutsideError):
    """The recipe's file is not there: its share is not mounted."""


class OutsideAway(OutsideError):
    """A stage found something outside away: the store, the registry, the disk."""


class NightRefused(InputError):
    """The night itself is at fault: trying again would come to the same."""


class ResultBroken(InputError):
    """What a night's process wrote down is not whole."""


@dataclass(frozen=True)
class _Found:
    """What a night's process came to, as far as it is published."""

    artifact: str
    path: Path
    verdict: Verdict
    seen: int
    """The champion's epoch when it was judged."""


@dataclass
class Work:
    """What a stage needs."""

    config: JobsConfig
    board: Board
    desk: Desk
    night: Night
    owner: str
    claim: Claim | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def folder(self) -> Path:
        """The night's folder."""
        return self.desk.night_folder(self.night.model, self.night.night)

    def recipe(self) -> Recipe:
        """Return the frozen recipe. Raises: BadRecipe."""
        return load_recipe(self.folder / desks.RECIPE)

    def registry(self) -> Registry:
        """Return where the night publishes. Raises: RecipeAway, BadRecipe, StoreAway, RegistryLost."""
        frozen, given = self.folder / desks.RECIPE, Path(self.night.recipe)
        if not frozen.exists() and not given.exists():
            raise RecipeAway(f"recipe {given} is not there; is its share mounted on {socket.gethostname()}?")
        recipe = recipe_of(self.config, self.night.model, self.night.night, self.night.recipe)
        return whole_registry(self.config, recipe, self.night.model)

    def renew(self, lines: list[str]) -> None:
        """Stay the owner and pass the subprocess's lines on. Raises: NotYours.

        A Redis that does not answer stops nothing: if somebody takes over meanwhile, the registry refuses our claim.
        """
        try:
            self.board.change(
                self.night.run, lambda n, now: machine.renew(n, now, self.owner, self.config.limits.lease)
            )
            for line in lines:
                self.board.say(self.night.run, stage=self.night.stage, line=line)
        except BoardUnreachable:
            return

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Stay the owner while a stage works in this process; who loses the night all the same hands nothing over."""
        done = threading.Event()
        thread = threading.Thread(target=self._keep, args=(done,), name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _keep(self, done: threading.Event) -> None:
        while not done.wait(self.config.limits.lease / 4):
            try:
                self.renew([])
            except machine.NotYours:
                return


def prepare(work: Work) -> None:
    """Freeze what the night reads."""
    with work.kept():
        work.desk.prepare(work.night.model, work.night.night, Path(work.night.recipe))


def train(work: Work) -> None:
    """Run the night up to its verdict, as a subprocess whose stages continue where an earlier attempt was stopped."""
    result = work.folder / desks.RESULT
    if result.exists():
        return
    work.desk.check_there(work.night.model, work.night.night)
    limits = work.config.limits
    part = result.with_name(f".{result.name}-{work.owner.rpartition(':')[2]}")
    watch = supervise.Watch(limits.stage, limits.memory_bytes, limits.lease / 4, work.renew)
    environment = dict(os.environ)
    if work.config.registry:
        environment[where.VARIABLE] = work.config.registry
    arguments = ["run", str(work.folder / desks.RECIPE), "--no-publish", "--json"]
    try:
        ended = supervise.run(
            arguments, work.folder / "work", part, work.folder / desks.ERRORS, watch, environment
        )  # fmt: skip
        said = ended.last.removeprefix("recsys-kd: ")
        if ended.code == BAD_INPUT and _kind(part) == FolderUnwritable.__name__:
            raise OutsideAway(said)  # told at a prompt it is a wrong name; at night, more often a share that is away
        if ended.code == BAD_INPUT:
            work.desk.check_there(work.night.model, work.night.night)  # else it may have gone while it was read
            raise NightRefused(said)
        if ended.code == AWAY:
            raise OutsideAway(said)
        if ended.code not in (0, HELD_BACK):
            raise StageFailed(_how(ended))
        desks.write_whole(result, json.dumps(_said(part, ended)))
    except OSError as error:
        raise desks.DeskUnwritable(f"{work.folder}: {error.strerror}; free space, or make it writable") from None
    finally:
        part.unlink(missing_ok=True)


def _said(part: Path, ended: supervise.Ended) -> Any:
    """Return what the night's process printed; one that could not begin ends with a held-back model's code."""
    try:
        return json.loads(part.read_text())
    except ValueError:
        raise StageFailed(_how(ended)) from None


def _kind(part: Path) -> str | None:
    """Return the name of the error that the night's process printed, None where it printed none."""
    try:
        kind: str | None = json.loads(part.read_text()).get("kind")
    except ValueError:
        return None
    return kind


def _how(ended: supervise.Ended) -> str:
    how = f"killed by signal {-ended.code}" if ended.code < 0 else f"ended with exit code {ended.code}"
    return f"the night's process was {how}; its last words: {ended.last}".replace("was ended", "ended")


def publish(work: Work) -> str:
    """Record the night in the registry, once, and promote its artifact if the gate let it through."""
    with work.kept():
        return _publish(work)


def _publish(work: Work) -> str:
    from recsys_kd.runtime.ranker import Ranker

    recipe, registry = work.recipe(), work.registry()
    known = registry.state(work.night.model).nights.get(work.night.night)
    if known is not None:
        write_copy(registry, recipe.store, work.night.model)
        return known.outcome
    result = work.folder / desks.RESULT
    try:
        found = _found(result)
        Ranker.open(found.path)
        lineage = asdict(open_artifact(found.path)[0].manifest.lineage)
        assert work.claim is not None  # perform claims before any stage
        version = registry.register(work.night.model, found.artifact, found.path, lineage, work.owner, work.claim)
        record = registry.publish(work.night.model, version.number, found.verdict, found.seen, work.claim, work.owner)
    except (InputError, ArtifactRefused, StaleEpoch, OSError) as error:
        if not os.access(recipe.store / work.night.model, os.F_OK):
            what = f"store: {recipe.store / work.night.model} is no longer there; is its share mounted?"
            raise OutsideAway(what) from None  # the result is good when it is back
        # A champion that is no longer live, an old verdict, lost files: the next attempt judges (and makes) it again.
        result.unlink(missing_ok=True)
        raise StageFailed(f"{error} (the night is judged again)") from None
    write_copy(registry, recipe.store, work.night.model)
    return record.outcome


def _found(result: Path) -> _Found:
    """Return what a night came to. Raises: ResultBroken, OSError."""
    try:
        found = json.loads(result.read_text())
        return _Found(found["artifact"], Path(found["path"]), Verdict.from_json(found["verdict"]), int(found["seen"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultBroken(f"{result} can't be read: {type(error).__name__}: {error}") from None


STEPS: dict[str, Callable[[Work], Any]] = {"prepare": prepare, "train": train, "publish": publish}
