"""The Celery application.

Settings follow what Celery 5.7 on Redis really does under faults: late acknowledgement and rejection on a lost
worker, so a killed night runs again; one task at a time per heavy worker; JSON only; the visibility timeout above the
longest night, since a task that outlives it is started a second time while it still runs.
"""

import os

from celery import Celery

NIGHT_LIMIT_SECONDS = 6 * 3600
VISIBILITY_SECONDS = NIGHT_LIMIT_SECONDS + 3600


def broker_url() -> str:
    """Return the broker's URL from RECSYS_KD_BROKER; Redis on this machine otherwise."""
    return os.environ.get("RECSYS_KD_BROKER", "redis://127.0.0.1:6379/0")


app = Celery("recsys_kd_jobs", broker=broker_url(), backend=broker_url(), include=["jobs.tasks"])
app.conf.update(
    accept_content=["json"],
    task_serializer="json",
    result_serializer="json",
    result_accept_content=["json"],
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_time_limit=NIGHT_LIMIT_SECONDS,
    broker_transport_options={"visibility_timeout": VISIBILITY_SECONDS},
    broker_connection_retry_on_startup=True,
    task_default_queue="nights",
)
