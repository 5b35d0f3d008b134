"""What Celery adds to a night: the same night by `recsys-kd run` and by submit, in turns, on the same machine.

The added time is also told within one night: everything but its own process's seconds.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from recsys_kd.data.synth import ShopConfig, synthesize
from tests.benchmarks.table import show
from tests.chaos.world import ROOT, Limits, World

ROWS, PAIRS, NIGHT = 400_000, 2, "2026-01-18"


def _recipe(shop: Path, name: str) -> Path:
    recipe = yaml.safe_load((shop / "recipe.yaml").read_text())
    path = shop / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe | {"name": name, "store": f"store-{name}", "work": f"work-{name}"}))
    return path


def _plain(recipe: Path, world: World) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "recsys_kd", "run", str(recipe), "--json"]
    done = subprocess.run(command, env=world.environment, cwd=ROOT, capture_output=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stderr.decode()[-500:])
    return time.perf_counter() - began


def _submitted(recipe: Path, world: World) -> tuple[float, float]:
    """Return seconds from submit to published, and of these the night's own process."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "recsys_kd", "submit", str(recipe), "--night", NIGHT]
    subprocess.run(command, env=world.environment, cwd=ROOT, capture_output=True, check=True)
    while (night := world.board.get(f"{recipe.stem}@{NIGHT}")) is None or night.phase != "published":
        if night is not None and night.phase == "dead":
            raise RuntimeError(night.reason)
        time.sleep(0.05)
    return time.perf_counter() - began, night.seconds["train"]


def main() -> None:
    """Print seconds of both, and what Celery adds."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = World(folder, models=1, nights=1, limits=Limits(stage=3000, visibility=3100), heavy=1)
        try:
            shop = synthesize(ShopConfig(rows=ROWS), folder / "bench")
            world.start()
            for n in range(PAIRS):
                plain = _plain(_recipe(shop.folder, f"run-{n}"), world)
                whole, own = _submitted(_recipe(shop.folder, f"submit-{n}"), world)
                rows.append(
                    {
                        "pair": n,
                        "recsys-kd run, s": f"{plain:.1f}",
                        "submit to published, s": f"{whole:.1f}",
                        "ratio": f"{whole / plain:.3f}",
                        "outside the night's stage, s": f"{whole - own:.2f}",
                        "of it": f"{(whole - own) / own:.1%}",
                    }
                )
        finally:
            world.close()
    show("jobs", rows)
    print(f"median ratio {statistics.median(float(str(r['ratio'])) for r in rows):.3f}")


if __name__ == "__main__":
    main()
