"""The reconciler as a service: `python -m jobs.reconciler`."""

import logging
import sys

from jobs import reconcile
from jobs.config import from_environment
from jobs.logs import configure_logging
from recsys_kd.errors import InputError


def main() -> None:
    """Reconcile until this process is ended; a configuration that can't be used ends it with 2."""
    configure_logging("INFO")
    try:
        config = from_environment()
    except InputError as error:
        logging.getLogger("recsys_kd.jobs").critical("%s", error)
        sys.exit(error.exit_code)
    from jobs.tasks import send  # reads the configuration when it is imported

    reconcile.forever(config, send)


if __name__ == "__main__":
    main()
