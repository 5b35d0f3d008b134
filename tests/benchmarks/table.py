"""How benchmarks print and keep what they measured."""

import json
from pathlib import Path
from typing import Any

OUT = Path("build/bench")


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows as a table and write them to build/bench/<title>.json."""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{title}.json").write_text(json.dumps(rows, indent=1))
    columns = list(rows[0])
    text = [[str(row[c]) for c in columns] for row in rows]
    widths = [max(len(c), *(len(r[i]) for r in text)) for i, c in enumerate(columns)]
    print(f"\n{title}")
    for line in (columns, ["-" * w for w in widths], *text):
        print("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip(), flush=True)
