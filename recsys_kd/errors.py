"""The roots of every error: what the command line exits with is decided here and nowhere else.

Each room defines one subclass per cause beside the code that raises it.
"""


class RecsysKdError(Exception):
    """Anything this package refuses to do; the message says what, where, and what to do next."""

    exit_code = 2


class InputError(RecsysKdError):
    """Bad input or configuration: nothing outside is at fault (exit code 2)."""

    exit_code = 2


class OutsideError(RecsysKdError):
    """A disk, registry, store or other system failed (exit code 3)."""

    exit_code = 3
