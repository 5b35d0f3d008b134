"""The demo: a synthetic shop, its night, and how near the models come to what is possible."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from recsys_kd.data.dataset import Dataset
from recsys_kd.data.synth import Shop, synthesize
from recsys_kd.data.synth_config import ShopConfig
from recsys_kd.evaluate.metrics import auc
from recsys_kd.flow.evaluation import test_sample
from recsys_kd.flow.filling import Unfinished
from recsys_kd.flow.folders import check_writable, require_empty
from recsys_kd.flow.night import Night, run
from recsys_kd.ids import mix
from recsys_kd.progress import Progress
from recsys_kd.settings import load_recipe


def oracle_auc(shop: Shop, dataset: Dataset) -> float:
    """Return the AUC of the true relevance on the test rows: the ceiling for models that do not see positions."""
    truth = pq.read_table(shop.truth).to_pandas()
    columns = ("user_id", "item_id", "timestamp", "request_id")
    row_id = mix(*(truth[c].to_numpy().astype(np.int64) for c in columns))
    order = np.argsort(row_id)
    rows = dataset.splits["test"]
    wanted = dataset.column("row_id")[rows.start : rows.stop]
    relevance = truth["relevance"].to_numpy()[order[np.searchsorted(row_id[order], wanted)]]
    return auc(relevance.astype(np.float32), test_sample(dataset)).value


def demo(config: ShopConfig, folder: Path, progress: Progress) -> Night:
    """Make the shop under `folder` unless it is there, and run its night.

    Raises FolderInUse where the folder holds files that no demo has made, FolderUnwritable or Unfinished where the disk
    refuses.
    """
    check_writable("OUT", folder)
    marker = folder / "shop.json"
    wanted = config.model_dump_json()
    if not marker.exists():
        require_empty(folder)
        folder.mkdir(parents=True, exist_ok=True)
        marker.write_text("")  # from here on the folder is the demo's, also where the shop is not whole
    if marker.read_text() != wanted:
        for old in ("log", "truth", "work"):
            shutil.rmtree(folder / old, ignore_errors=True)
        try:
            shop = synthesize(config, folder, progress)
            marker.write_text(wanted)
        except OSError as error:
            raise Unfinished("OUT", folder, error) from None
    else:
        shop = Shop(folder, config.rows)
    recipe = load_recipe(shop.recipe)
    return run(
        recipe, progress, ceiling=lambda dataset: oracle_auc(shop, dataset), command=f"recsys-kd run {shop.recipe}"
    )
