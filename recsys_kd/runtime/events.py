"""What happens to a model that serves, apart from requests: swaps and refusals, one structured log line each."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass

log = logging.getLogger("recsys_kd.serving")


@dataclass(frozen=True)
class Swap:
    """Another version answers from now on; `before` is None at the start."""

    model: str
    number: int
    digest: str
    before: int | None
    epoch: int
    source: str
    """`loaded`, `resident` (it was in memory already) or `last-known-good` (the registry had nothing to give)."""
    seconds: float
    """From looking at the registry to serving: verifying and warming included."""
    schema_changed: bool


@dataclass(frozen=True)
class Refusal:
    """Something was not taken over; the version that serves stays."""

    model: str
    reason: str
    detail: str
    number: int | None = None
    digest: str | None = None


Event = Swap | Refusal
Tell = Callable[[Event], None]


def log_event(event: Event) -> None:
    """Write an event as one line of JSON: swaps as information, refusals as warnings."""
    what = "swap" if isinstance(event, Swap) else "refusal"
    level = logging.INFO if isinstance(event, Swap) else logging.WARNING
    log.log(level, json.dumps({"event": what, **asdict(event)}, ensure_ascii=False))
