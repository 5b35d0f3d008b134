"""The shared folder: which nights are wanted, and one folder per night with all that it reads and says.

`wanted/<model>/<night>.json` is written by submit and backfill and outlives Redis. `nights/<model>/<night>/` holds the
frozen recipe and links to the log files that were there when the night began: data that comes later belongs to the
next night. Hard links where the disk allows, so that a file replaced under the night does not change what it reads.
"""

import datetime as dt
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recsys_kd.errors import InputError, OutsideError
from recsys_kd.settings import Recipe, load_recipe

RECIPE, RESULT, ERRORS, DEAD = "recipe.yaml", "result.json", "attempts.log", "dead.json"
CANCELLED = "cancelled.json"
log = logging.getLogger("recsys_kd.jobs")


class DeskUnwritable(OutsideError):
    """The shared folder can't be written."""


class NoDataForNight(InputError):
    """A night lies before the first day of the log."""


class OtherModel(InputError):
    """A night's recipe is no longer of its model."""

    def __init__(self, path: Path, name: str, model: str, night: str) -> None:
        super().__init__(
            f"{path}: name: '{name}', though {model}@{night} is a night of '{model}'; give the recipe that name again, "
            f"then `recsys-kd jobs retry {model}@{night}`, or submit it as '{name}' and cancel this night"
        )


class LogAway(OutsideError):
    """What a night reads is not there: its share is not mounted, or it is still to come."""


@dataclass(frozen=True)
class Wanted:
    """A night that somebody asked for."""

    model: str
    night: str
    recipe: str


class Desk:
    """See the module's text. Raises: DeskUnwritable."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def night_folder(self, model: str, night: str) -> Path:
        """Return where a night keeps everything."""
        return self.folder / "nights" / model / night

    def want(self, wanted: Wanted) -> None:
        """Record that a night is wanted; the first record of a night stays."""
        path = self._record(wanted.model, wanted.night)
        if not path.exists():
            write_whole(path, json.dumps({"recipe": wanted.recipe}))

    def wanted(self) -> Iterator[Wanted]:
        """Yield every recorded night, by model and date; what is no record is told and passed over."""
        for path in sorted((self.folder / "wanted").glob("*/*.json")):
            try:
                yield _read_record(path)
            except FileNotFoundError:
                continue  # forgotten just now
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("%s is no record of a wanted night (%s); remove it, then submit that night", path, error)

    def recipe_of(self, model: str, night: str) -> str | None:
        """Return the recipe that a night is wanted with, None where it is not recorded as wanted."""
        try:
            return _read_record(self._record(model, night)).recipe
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _record(self, model: str, night: str) -> Path:
        return self.folder / "wanted" / model / f"{night}.json"

    def prepare(self, model: str, night: str, recipe_path: Path) -> Path:
        """Freeze what a night reads; return its recipe. Done once: a night that was prepared stays as it was.

        Raises: BadRecipe, OtherModel, NoDataForNight, LogAway.
        """
        final = self.night_folder(model, night)
        if self._is_prepared(final):
            return final / RECIPE
        recipe = recipe_for(model, night, recipe_path)
        files = files_until(recipe, night)
        building = final.with_name(f".{night}-{uuid.uuid4().hex[:8]}")
        try:
            building.mkdir(parents=True)
            _link(files, recipe.data.path, building / "log")
            (final / "work").mkdir(parents=True, exist_ok=True)
            shutil.rmtree(final / "log", ignore_errors=True)
            (building / "log").rename(final / "log")
            write_whole(final / RECIPE, yaml.safe_dump(frozen(recipe, final), sort_keys=False))
        except OSError as error:
            if not self._is_prepared(final):  # else somebody else prepared it just now
                raise DeskUnwritable(f"{final}: {error.strerror}; free space, or make it writable") from None
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return final / RECIPE

    def check_there(self, model: str, night: str) -> None:
        """Raise LogAway where something that a prepared night reads is no longer there: it may be on another disk."""
        folder = self.night_folder(model, night)
        if not (folder / "log").exists():
            raise LogAway(f"{folder / 'log'} is no longer there; the next attempt links it anew")
        links = (path for path in (folder / "log").rglob("*") if path.is_symlink())
        for path in (*links, load_recipe(folder / RECIPE).data.catalogue):
            if path is not None and not path.exists():
                raise LogAway(
                    f"{path.resolve()} is no longer there; is its share mounted? If it was deleted for good, "
                    f"`recsys-kd jobs retry {model}@{night}` reads what is there now"
                )

    def _is_prepared(self, folder: Path) -> bool:
        """Return whether a night knows its recipe, and has what it reads or no longer needs it."""
        return (folder / RECIPE).exists() and ((folder / "log").exists() or (folder / RESULT).exists())

    def cancel(self, model: str, night: str, who: str) -> None:
        """Record that a night is stopped for good: Redis may be lost."""
        write_whole(self.night_folder(model, night) / CANCELLED, json.dumps({"who": who}))

    def is_cancelled(self, model: str, night: str) -> bool:
        """Return whether somebody stopped a night, and nobody has retried it since."""
        return (self.night_folder(model, night) / CANCELLED).exists()

    def thaw(self, model: str, night: str) -> None:
        """Let a night that is retried by hand read its recipe and log anew: somebody may have mended them."""
        for path in (self.night_folder(model, night) / name for name in (RECIPE, RESULT, DEAD, CANCELLED)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise DeskUnwritable(f"{path}: {error.strerror}; make it writable, then retry again") from None

    def found(self, model: str, night: str) -> dict[str, Any]:
        """Return what a night's process came to: its verdict, why, where the report is; {} where it came to nothing."""
        try:
            found = json.loads((self.night_folder(model, night) / RESULT).read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def why_held(self, model: str, night: str) -> list[str]:
        """Return for what the gate held a night back, a sentence each; none where it did not, or that is forgotten."""
        checks = self.found(model, night).get("verdict", {}).get("checks", ())
        return [check["sentence"] for check in checks if check["gates"] and not check["passed"]]

    def why(self, model: str, night: str, outcome: str) -> str:
        """Return the first reason of a night that was held back, "" of every other."""
        return next(iter(self.why_held(model, night)), "") if outcome == "held" else ""

    def tidy(self, model: str, night: str) -> None:
        """Remove what a night that is over no longer needs: links, intermediate results, files left half-written."""
        folder = self.night_folder(model, night)
        for name in ("log", "work"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for path in list(folder.glob(".*-*")):
            path.unlink(missing_ok=True)

    def forget(self, model: str, nights: list[str]) -> None:
        """Remove all that is kept of nights: what they came to is in the registry."""
        for night in nights:
            shutil.rmtree(self.night_folder(model, night), ignore_errors=True)
            self._record(model, night).unlink(missing_ok=True)

    def sweep(self, model: str, min_age_seconds: float) -> None:
        """Remove what killed workers left half-made: folders with links to a log, files without their name."""
        for kind in ("nights", "wanted"):
            for path in list((self.folder / kind / model).glob(".*-*")):
                with suppress(FileNotFoundError):  # somebody else sweeps too
                    if time.time() - path.stat().st_mtime >= min_age_seconds:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()


def frozen(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Return the recipe of one night: its own log and work folder, everything else as it was."""
    log = folder / "log" / recipe.data.path.name if recipe.data.path.is_file() else folder / "log"
    data = recipe.data.model_copy(update={"path": log})
    plain: dict[str, Any] = recipe.model_copy(update={"data": data, "work": folder / "work"}).model_dump(mode="json")
    return plain


def _read_record(path: Path) -> Wanted:
    night, recipe = path.stem, json.loads(path.read_text())["recipe"]
    if dt.date.fromisoformat(night).isoformat() != night or not isinstance(recipe, str):
        raise ValueError("its name is no date, or its recipe no path")
    return Wanted(path.parent.name, night, recipe)


def recipe_for(model: str, night: str, path: Path) -> Recipe:
    """Return the recipe of a night. Raises: BadRecipe; OtherModel where it has been given another name since."""
    recipe = load_recipe(path)
    if recipe.name != model:
        raise OtherModel(path, recipe.name, model, night)
    return recipe


def files_by_day(recipe: Recipe) -> dict[Path, str | None]:
    """Return the files of a log, each with the date that a partition's name gives it. Raises: LogAway."""
    from recsys_kd.data.files import NoParquet, catalogue_files, list_files  # reads Parquet: not for every process

    source = recipe.data.path
    try:
        files = list_files(source)
        catalogue_files(recipe.data.catalogue)
    except NoParquet as error:
        raise LogAway(f"{str(error).partition(';')[0]}; is its share mounted, has it arrived?") from None
    return {file: day_of(file, source) for file in files}


def files_until(recipe: Recipe, night: str) -> list[Path]:
    """Return the files of a log up to a night; files without a date all count.

    Raises: LogAway where there is no log, or nothing of the night's own day; NoDataForNight before its first day.
    """
    source, dated = recipe.data.path, files_by_day(recipe)
    days = sorted(day for day in dated.values() if day is not None)
    if len(days) == len(dated) and night not in days:
        if night < days[0]:
            raise NoDataForNight(f"{source}: no file up to {night}; the log begins on {days[0]}")
        what, last = f"data.path: {source} has nothing of {night}", days[-1]
        if night < last:
            raise LogAway(f"{what} though it has later days, up to {last}; add that day, or cancel this night")
        raise LogAway(f"{what}, its last day is {last}; has that day arrived?")
    return [file for file, day in dated.items() if day is None or day <= night]


def _link(files: list[Path], source: Path, target: Path) -> None:
    for file in files:
        name = target / (file.name if file == source else file.relative_to(source))
        name.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, name)
        except FileNotFoundError:
            # A link to what is not there would hold until the file is back, and break when the shop deletes it.
            raise LogAway(f"{file} is no longer there; is its share mounted?") from None
        except OSError:  # another disk, or one that knows no hard links
            name.symlink_to(file.resolve())


def day_of(file: Path, root: Path) -> str | None:
    """Return the ISO date that a file's partition folder names, e.g. `day=2026-01-05`; None without one."""
    parts = file.relative_to(root).parts[:-1] if file != root else ()
    for part in parts:
        _, _, value = part.partition("=")
        try:
            return dt.date.fromisoformat(value).isoformat()
        except ValueError:
            continue
    return None


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that a reader sees all of it or nothing. Raises: DeskUnwritable."""
    building = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with building.open("x") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        building.replace(path)
    except OSError as error:
        raise DeskUnwritable(f"{path}: {error.strerror}; free space, or make it writable") from None
    finally:
        if building.exists():
            building.unlink()
