"""The last steps of a night: register the artifact, prove that it scores what the log holds, let it go live."""

import getpass
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recsys_kd.artifact.errors import ArtifactRefused
from recsys_kd.artifact.manifest import MANIFEST, Manifest
from recsys_kd.artifact.read import open_artifact
from recsys_kd.artifact.write import Artifact
from recsys_kd.evaluate.gate import Verdict
from recsys_kd.registry.protocol import Pointer, Registry, Version


def user_name() -> str:
    """Return who runs this; the number where the system knows no name for it, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def same_artifact(store: Path, manifest: Manifest) -> Artifact | None:
    """Return the artifact in the store that differs from `manifest` in nothing but times and after whom it was made.

    So a night over unchanged input ends in the artifact, and the version, that it ended in before.
    """
    wanted = _content(manifest.to_json())
    for path in sorted((store / manifest.lineage.name).glob(f"*/{MANIFEST}")):
        try:
            if _content(json.loads(path.read_text())) == wanted:
                return open_artifact(path.parent)[0]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ArtifactRefused):
            continue  # not for us to judge: whoever serves it will refuse it, and this night writes its own
    return None


def _content(manifest: dict[str, Any]) -> dict[str, Any]:
    lineage = {k: v for k, v in manifest["lineage"].items() if k not in ("created", "parents", "plan")}
    plan = dict(manifest["lineage"]["plan"])
    activations = {k: v for k, v in plan.pop("activations", {}).items() if k != "gain"}
    return {**manifest, "lineage": lineage | {"plan": plan | {"activations": activations}}}


def register(registry: Registry, model: str, artifact: Artifact) -> Version:
    """Register an artifact; one that is registered keeps its version."""
    lineage = asdict(artifact.manifest.lineage)
    return registry.register(model, artifact.digest, artifact.path, lineage, user_name())


def promote(registry: Registry, version: Version, verdict: Verdict, seen: int) -> Pointer | None:
    """Return the champion after a verdict: this version if it passed, else the one there is.

    seen: the registry's epoch before the champion that the verdict compares with was read. Raises: StaleEpoch where
    the champion has changed since.
    """
    champion = registry.pointer(version.model, "champion")
    if not verdict.passed or (champion is not None and champion.digest == version.digest):
        return champion
    return registry.promote(version.model, version.number, verdict, seen, user_name(), "the gate passed it")
