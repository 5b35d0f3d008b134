"""The Celery application.

Settings follow what Celery 5.7 on Redis really does under faults: late acknowledgement and rejection on a lost worker,
so a killed stage runs again; one task at a time per heavy worker; JSON only; the visibility timeout above the longest
stage, since a task that outlives it is started a second time while it still runs. Results are not kept: what a night
came to is on the board and in the registry.
"""

import logging
import sys
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from celery import Celery
from celery.signals import celeryd_init, setup_logging, worker_init, worker_ready

from jobs.config import JobsConfig, from_environment
from jobs.watchdog import EndAfterError, watch

log = logging.getLogger("recsys_kd.jobs")
HEAVY, LIGHT = "heavy", "light"


def verifying(url: str) -> str:
    """Return a broker's address; of a TLS one the server's certificate is checked, which Celery does only if told."""
    parts = urlsplit(url)
    if parts.scheme != "rediss" or "ssl_cert_reqs" in parts.query:
        return url
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, "ssl_cert_reqs=required")))))


def configure(app: Celery, config: JobsConfig) -> None:
    """Give the application its settings."""
    app.conf.update(
        broker_url=verifying(config.broker),
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        result_accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_pool_start_method="spawn",
        # A spawned process imports everything anew; at Celery's 4 s a busy machine kills each one before it is up.
        worker_proc_alive_timeout=120,
        result_expires=None,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_soft_shutdown_timeout=5,
        task_time_limit=config.limits.stage + config.limits.grace,
        broker_transport_options={
            "visibility_timeout": config.limits.visibility,
            "socket_timeout": 10,
            "socket_connect_timeout": 10,
            "retry_on_timeout": True,
            "health_check_interval": 10,
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_default_queue=LIGHT,
        task_routes={"recsys_kd.train": {"queue": HEAVY}},
        worker_send_task_events=True,
        beat_schedule={"reconcile": {"task": "recsys_kd.reconcile", "schedule": config.limits.reconcile}},
    )


app = Celery("recsys_kd_jobs", include=["jobs.tasks"])
configure(app, from_environment())
app.steps["worker"].add(EndAfterError)


@celeryd_init.connect  # type: ignore[untyped-decorator]
def refuse_what_loses_work(**_: Any) -> None:
    """Stop a worker at its start where the configuration would lose work; say what `doctor` says."""
    from jobs import checks

    log_as_json()  # Celery sets up logging later, and warns of root before that
    findings = checks.examine(from_environment())
    for finding in checks.wrong(findings):
        log.log(logging.getLevelNamesMapping()[finding.level.upper()], checks.line(finding))
    if checks.refuses(findings):
        sys.exit(2)


@setup_logging.connect  # type: ignore[untyped-decorator]
def log_as_json(**_: Any) -> None:
    """Write one JSON object per line."""
    from jobs.logs import configure_logging

    configure_logging("INFO")


@worker_init.connect  # type: ignore[untyped-decorator]
def end_where_it_hangs(**_: Any) -> None:
    """Let a worker end that a killed pool process has left waiting for ever."""
    watch()


@worker_ready.connect  # type: ignore[untyped-decorator]
def serve_metrics(**_: Any) -> None:
    """Serve Prometheus metrics where a port is configured."""
    from jobs.metrics import serve

    serve(from_environment())
