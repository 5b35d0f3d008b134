"""The reconciler as a service: `python -m jobs.reconciler`."""

from jobs import reconcile
from jobs.config import from_environment
from jobs.logs import configure_logging
from jobs.tasks import send

if __name__ == "__main__":
    configure_logging("INFO")
    reconcile.forever(from_environment(), send)
