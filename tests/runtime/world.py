"""A real registry on disk with small artifacts, and every broken one that the attacks know."""

import shutil
from pathlib import Path

from recsys_kd.registry.sqlite import SqliteRegistry
from tests.attacks.small import LINEAGE, Original, golden, small_artifact, small_student
from tests.attacks.test_rules import ATTACKS, FOLDERS, write_original
from tests.registry.test_registry import verdict

REQUEST = {"user_id": 3, "device": "phone", "history": [1, 2], "age": 30.0, "mood": [0.1, 0.2, 0.3, 0.4]}
CANDIDATES = [0, 7, 19, 400]
FEATURES = {
    "position": [0, 1, 2, 3], "seller": [5, 6, 7, 8], "affinity": [0.5] * 4, "image": [[0.1, 0.2, 0.3]] * 4,
}  # fmt: skip


class World:
    """A store with a registry in it; `publish` makes a version champion as a night would."""

    def __init__(self, folder: Path) -> None:
        self.store, self.pointers = folder / "store", folder / "pointers"
        self.registry = SqliteRegistry(self.store / "registry.sqlite")

    def artifact(self, seed: int) -> Path:
        return small_artifact(self.store, seed).path

    def register(self, path: Path, digest: str | None = None) -> int:
        return self.registry.register("shop", digest or path.name, path, {}, "ann").number

    def promote(self, number: int) -> None:
        digest = self.registry.version("shop", number).digest
        self.registry.promote("shop", number, verdict(digest), self.registry.epoch("shop"), "ann", "")

    def publish(self, seed: int) -> Path:
        path = self.artifact(seed)
        self.promote(self.register(path))
        return path


def broken(folder: Path, original: Original) -> list[Path]:
    """Return an artifact per rule of the verifier, and then some; none of them may serve."""
    found = []
    for i, (*_, change) in enumerate(ATTACKS):
        made = folder / f"attack-{i}"
        made.mkdir(parents=True)
        found.append(original.forge(made, change))
    for i, (_, tamper) in enumerate(FOLDERS):
        made = folder / f"folder-{i}"
        made.mkdir(parents=True)
        own = Original(small_artifact(folder / "originals", 100 + i).path)  # of a digest that nobody else has
        found.append(tamper(write_original(own, made)))
    return found


def another_models(store: Path, seed: int = 90) -> Path:
    """Return a sound artifact of another model, put where this model's lie."""
    import dataclasses

    from recsys_kd.artifact.write import write_artifact

    model = small_student(seed)
    made = write_artifact(store, "other", model, dataclasses.replace(LINEAGE, name="other"), (golden(model),))
    path = store / "shop" / made.digest
    shutil.copytree(made.path, path)
    return path
