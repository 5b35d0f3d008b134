"""Celery's tasks: each names a stage of a run and does nothing else; arguments and results are JSON, data goes by path.

A night is the chain prepare -> train -> publish -> tidy, keyed by its run id. A link that finds nothing to do (the
night is over, or another worker is at it) ends its chain.
"""

import logging
import time
from typing import Any

from celery import chain
from celery.exceptions import Ignore

from jobs import cleanup, logs, reconcile, stages
from jobs.app import app
from jobs.board import Board
from jobs.config import from_environment
from jobs.machine import Night, NotYours
from recsys_kd.errors import RecsysKdError

log = logging.getLogger("recsys_kd.jobs")


def _stage(run: str, stage: str) -> dict[str, Any]:
    """Perform a stage; a failure is written on the board, so it only ends this chain."""
    with logs.about(run, stage):
        log.info("started")
        try:
            night = stages.perform(from_environment(), run, stage)
        except NotYours as error:
            log.info("nothing to do: %s", error)
            raise Ignore from None
        except RecsysKdError as error:
            log.error("failed: %s", error)
            raise Ignore from None
        log.info("done")
    return {"run": run, "stage": stage, "phase": night.phase, "seconds": night.seconds.get(stage)}


@app.task(name="recsys_kd.prepare")  # type: ignore[untyped-decorator]
def prepare(run: str) -> dict[str, Any]:
    """Freeze what the night reads."""
    return _stage(run, "prepare")


@app.task(name="recsys_kd.train")  # type: ignore[untyped-decorator]
def train(run: str) -> dict[str, Any]:
    """Run the night up to its verdict."""
    return _stage(run, "train")


@app.task(name="recsys_kd.publish")  # type: ignore[untyped-decorator]
def publish(run: str) -> dict[str, Any]:
    """Record the night, promote what passed."""
    return _stage(run, "publish")


@app.task(name="recsys_kd.tidy")  # type: ignore[untyped-decorator]
def tidy(run: str) -> dict[str, Any]:
    """Clean up after a published night, and start the model's next one."""
    with logs.about(run, "tidy"):
        config, began = from_environment(), time.monotonic()
        board = Board(config.state)
        night = board.get(run)
        if night is None or night.phase != "published":
            raise Ignore
        cleanup.tidy(config, night)
        board.count(tidy_done=1, tidy_seconds=time.monotonic() - began)
        following = reconcile.start_next(config, night.model, send)
        log.info("done")
    return {"run": run, "stage": "tidy", "next": following}


@app.task(name="recsys_kd.reconcile")  # type: ignore[untyped-decorator]
def reconcile_once() -> dict[str, Any]:
    """Compare wanted with published nights; start what is missing."""
    return {"started": reconcile.reconcile(from_environment(), send).started}


def send(night: Night) -> None:
    """Put a night's chain on the queue."""
    steps = (task.si(night.run) for task in (prepare, train, publish, tidy))
    chain(*steps).apply_async(retry=False)
