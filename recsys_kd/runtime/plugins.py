"""The contract between this package and a host: who serves a model, in a server or inside another program.

A host is a distribution with an entry point in the group `recsys_kd.serving` that names a class like `Backend`. What it
promises, `python -m recsys_kd.flow.conformance NAME` checks on the installed plugin, with a registry and models of its
own:

- Importing the entry point is cheap: no torch, no pandas, no server, no work.
- `api_version` is the version of this contract; another one is refused before anything is opened.
- `open` returns when requests are answered, or raises: `NoModel` where nothing sound is to be had.
- `answer` goes through the host's own front door, and gives a score for each candidate, in their order and as often as
  they are given, their features heeded, all by the one version that it names.
- A request that the model can't take raises `BadRequest` with the field's name, and disturbs no other.
- What the registry promotes is answered by within two polls, or after `refresh`; a rollback likewise. What does not
  verify is never answered by, nor is anything lost while the registry is away: also across a restart.
- `store`, where it is given, is where artifacts are read, whatever the registry's paths say.
- With `canary`, that share of the users is answered by the challenger, always the same ones; the others, and who has no
  id, by the champion.
- With `shadow` and `shadow_log`, what challenger and champion gave lies in Parquet files in `<shadow_log>/<model>` once
  it was closed; the answer is the champion's all the same.
- `close` answers what has begun, then frees threads and ports; `open` works again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar, Protocol

from recsys_kd.errors import InputError
from recsys_kd.runtime.ranker import Candidates
from recsys_kd.runtime.service import Answer
from recsys_kd.runtime.watcher import POLL_SECONDS

GROUP = "recsys_kd.serving"
API_VERSION = 1


class PluginMissing(InputError):
    """No installed distribution offers a host of that name."""


class PluginUnsupported(InputError):
    """A host speaks another version of the contract, or can't be imported."""


@dataclass(frozen=True)
class ServingConfig:
    """What every host is told.

    registry: Redis URL or SQLite path; the SQLite file in `store` where None. store: where this host sees the
    artifacts; None where the registry's own paths are right. pointers: folder for the last known good version; None
    remembers it for as long as the process lives. canary, shadow: shares of users and of requests, 0 to 1. shadow_log:
    folder for the shadow's Parquet files.
    """

    model: str
    registry: str | None = None
    store: Path | None = None
    pointers: Path | None = None
    poll_seconds: float = POLL_SECONDS
    canary: float = 0.0
    shadow: float = 0.0
    shadow_log: Path | None = None


class Backend(Protocol):
    """A host that serves one model; see the module's text."""

    api_version: ClassVar[int]

    @classmethod
    def open(cls, config: ServingConfig) -> "Backend":
        """Load the champion, watch the registry, take requests. Raises: NoModel."""
        ...

    def answer(
        self, request: Mapping[str, Any], candidates: Candidates, features: Mapping[str, Any] | None = None
    ) -> Answer:
        """Score candidates as a caller of this host would. Raises: BadRequest."""
        ...

    def refresh(self) -> object:
        """Look at the registry now; what it then names is answered by, if it verifies."""
        ...

    def close(self) -> None:
        """Answer what has begun, then end."""
        ...


def installed() -> dict[str, EntryPoint]:
    """Return the hosts that installed distributions offer, by name; none is imported."""
    return {found.name: found for found in entry_points(group=GROUP)}


def find(name: str) -> type[Backend]:
    """Return the host of that name. Raises: PluginMissing, PluginUnsupported."""
    found = installed().get(name)
    if found is None:
        known = ", ".join(sorted(installed())) or "none"
        raise PluginMissing(
            f"no serving plugin '{name}' is installed (installed: {known}); pip install recsys-kd-{name}"
        )
    try:
        backend = found.load()
    except (ImportError, AttributeError) as error:
        raise PluginUnsupported(f"serving plugin '{name}' ({found.value}) can't be imported: {error}") from None
    speaks = getattr(backend, "api_version", None)
    if speaks != API_VERSION:
        raise PluginUnsupported(
            f"serving plugin '{name}' speaks version {speaks} of the contract, this recsys-kd version {API_VERSION}; "
            "install versions of both that agree"
        )
    checked: type[Backend] = backend
    return checked
