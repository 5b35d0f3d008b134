"""Why an artifact is refused: every rule has a name, and the refusal gives it."""

from pathlib import Path

from recsys_kd.errors import InputError, OutsideError

CHECKS = (
    *("exists", "files", "regular-file", "size", "manifest-digest", "signature", "manifest", "schema", "fingerprint"),
    *("sha256", "tensors", "terms", "tensor-names", "shapes", "finite", "scales", "tiers"),
    *("index", "index-rows", "index-bounds", "no-golden", "golden", "digest", "model"),
)
"""The rules by name, those of a registry's word on an artifact last."""


class ArtifactRefused(InputError):
    """An artifact on disk breaks a rule of the format; whoever serves keeps the model it has."""

    def __init__(self, path: Path, check: str, detail: str) -> None:
        super().__init__(f"{path}: refused by check '{check}': {detail}; rebuild it, or fetch it again from the store")
        self.check = check


class StoreUnwritable(OutsideError):
    """The artifact store can't be written."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: can't be written ({why}); free space, or point `store` at a folder that can")
