"""Plugins are imported from this checkout, whichever one is installed."""

import sys
from pathlib import Path

PLUGINS = Path(__file__).resolve().parents[1] / "plugins"
PATHS = [str(PLUGINS / name) for name in ("inprocess", "kserve")]
sys.path[:0] = [path for path in PATHS if path not in sys.path]
