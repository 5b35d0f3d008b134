"""The night on real sets beside the project: teacher, control, student and served artifact, and what they weigh.

BENCH_SETS names some of them, e.g. `BENCH_SETS=beauty`.
"""

import sys
import tempfile
from pathlib import Path

from recsys_kd.cli.display import PlainProgress
from recsys_kd.data.interactions import import_interactions
from recsys_kd.data.interactions_config import load_import
from recsys_kd.flow.night import run as run_night
from recsys_kd.settings import load_recipe
from tests.benchmarks.sets import REAL, RECIPES, SHARED, asked
from tests.benchmarks.table import show

METRICS = ("auc", "gauc", "hit_rate@10", "ndcg@10", "ece")


def one(name: str) -> list[dict[str, object]]:
    """Return a row per model of one set."""
    with tempfile.TemporaryDirectory() as folder:
        found = import_interactions(load_import(RECIPES / f"{name}.import.yaml", SHARED), Path(folder), PlainProgress())
        print(f"{name}: {found.read:,} read = {found.events:,} events + dropped {found.dropped}", file=sys.stderr)
        night = run_night(load_recipe(found.recipe), PlainProgress())
        metrics, deltas = night.evaluation.metrics, night.evaluation.deltas
        teacher = next(p for p in (Path(folder) / "work").glob("teacher-*/teacher"))
        weight = sum(p.stat().st_size for p in teacher.iterdir())
        size = {"teacher": weight, "served": night.artifact.bytes_on_disk}
        rows = []
        for model, values in metrics.items():
            row: dict[str, object] = {"set": name, "model": model}
            row |= {m: f"{values[m].value:.4f}" for m in METRICS}
            against = deltas.get(f"{model} - teacher", {}).get("auc")
            row["AUC - teacher"] = (
                "" if against is None else f"{against.value:+.4f} ({against.low:+.4f}, {against.high:+.4f})"
            )
            row["bytes"] = f"{size[model]:,}" if model in size else ""
            row["ratio"] = f"{weight / size[model]:.1f}" if model in size else ""
            rows.append(row)
        return rows


def main() -> None:
    """Print the table, set by set."""
    for name in asked(",".join(REAL)):
        show(f"real-{name}", one(name))


if __name__ == "__main__":
    main()
