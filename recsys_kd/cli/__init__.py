"""The command line: parse, call `flow`, print.

Exit codes: 0 done, 1 held back by the gate, 2 bad input, 3 outside failure.
"""

from recsys_kd.cli.main import main

__all__ = ["main"]
