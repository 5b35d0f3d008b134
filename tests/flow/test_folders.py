"""What is written never mixes with what is there."""

from pathlib import Path

import pytest

from recsys_kd.data.synth_config import ShopConfig
from recsys_kd.flow.demo import demo
from recsys_kd.flow.doctor import examine
from recsys_kd.flow.folders import FolderInUse, check_folders, require_empty
from recsys_kd.progress import SILENT
from recsys_kd.settings import load_recipe


def test_an_empty_or_new_folder_may_be_written_to(tmp_path):
    require_empty(tmp_path)
    require_empty(tmp_path / "new")


def test_a_folder_with_a_file_is_refused(tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(FolderInUse, match="there are files already; name a new or an empty folder"):
        require_empty(tmp_path)


def test_a_demo_takes_no_folder_that_it_did_not_make(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "mine").write_text("x")
    with pytest.raises(FolderInUse):
        demo(ShopConfig(rows=1000), tmp_path, SILENT)
    assert (tmp_path / "log" / "mine").read_text() == "x"


@pytest.mark.parametrize("key", ["store", "work"])
def test_folders_inside_the_logs_are_refused(shop, key):
    recipe = load_recipe(shop.recipe)
    inside = recipe.model_copy(update={key: recipe.data.path / "deep" / key})
    with pytest.raises(FolderInUse, match=rf"^{key}: .* lies in the log's folder .* name another `{key}`"):
        check_folders(inside)
    check_folders(recipe)


def of_store(store):
    """Return what the doctor says of a store, as (level, detail)."""
    return [(f.level, f.detail) for f in examine(store) if f.check == "store"]


def test_doctor_tells_a_store_that_can_not_be_made_or_written_with_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    for store in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/store")):
        ((level, detail),) = of_store(store)
        assert level == "error" and detail.startswith(f"{store} can't be written (nothing can be made in ")
        assert detail.endswith("; mount it, change its rights, or name another folder")
    assert of_store(tmp_path / "new" / "below")[0][0] == "ok" and [p.name for p in tmp_path.iterdir()] == ["file"]
