"""What a night reads is frozen when it begins."""

import os
import shutil

import pytest
import yaml

from jobs.desk import Desk, DeskUnwritable, LogAway, NoDataForNight, OtherModel, Wanted, day_of
from recsys_kd.data.files import content_key, list_files
from recsys_kd.settings import load_recipe


@pytest.fixture
def recipe(shop, tmp_path):
    for name in ("log", "items.parquet", "recipe.yaml"):
        source = shop.folder / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"name": "shop"}))
    return path


def test_a_night_reads_the_days_up_to_it_and_data_that_comes_later_is_the_next_nights(recipe, tmp_path):
    desk = Desk(tmp_path / "desk")
    frozen = load_recipe(desk.prepare("shop", "2026-01-08", recipe))
    before = list_files(frozen.data.path)
    assert sorted(day_of(f, frozen.data.path) for f in before) == [f"2026-01-0{n}" for n in (5, 6, 7, 8)]
    key = content_key(before, frozen.data.path)
    day = tmp_path / "log" / "day=2026-01-06"
    (old,) = day.iterdir()
    shutil.copy(old, day / "late.parquet")
    (tmp_path / "new").write_bytes(b"replaced")
    (tmp_path / "new").replace(old)
    again = load_recipe(desk.prepare("shop", "2026-01-08", recipe))
    assert content_key(list_files(again.data.path), again.data.path) == key
    following = load_recipe(desk.prepare("shop", "2026-01-09", recipe))
    assert len(list_files(following.data.path)) == 6


def test_a_log_of_one_file_is_read_whole_whatever_its_name(recipe, tmp_path):
    (tmp_path / "clicks.data").write_bytes(next((tmp_path / "log").rglob("*.parquet")).read_bytes())
    recipe.write_text(recipe.read_text().replace("path: log", "path: clicks.data"))
    frozen = load_recipe(Desk(tmp_path / "desk").prepare("shop", "2026-01-08", recipe))
    assert [f.name for f in list_files(frozen.data.path)] == ["clicks.data"]


def test_a_night_before_the_log_begins_says_so(recipe, tmp_path):
    with pytest.raises(NoDataForNight, match="no file up to 2025-12-31"):
        Desk(tmp_path / "desk").prepare("shop", "2025-12-31", recipe)
    assert not (tmp_path / "desk" / "nights" / "shop" / "2025-12-31").exists()


def test_a_log_that_is_not_there_yet_is_away_which_is_no_bad_input(recipe, tmp_path):
    desk, log = Desk(tmp_path / "desk"), tmp_path / "log"
    with pytest.raises(LogAway, match=r"has nothing of 2026-02-01, its last day is 2026-01-1\d; has that day"):
        desk.prepare("shop", "2026-02-01", recipe)
    for path in (log, tmp_path / "items.parquet"):
        away = path.rename(tmp_path / "away")
        with pytest.raises(LogAway, match=rf"{path.name}.*; is its share mounted, has it arrived\?"):
            desk.prepare("shop", "2026-01-08", recipe)
        away.rename(path)
    log.rename(tmp_path / "away")
    log.mkdir()  # where a share is mounted
    with pytest.raises(LogAway, match="holds no"):
        desk.prepare("shop", "2026-01-08", recipe)
    assert LogAway.exit_code == 3 and not list((tmp_path / "desk").rglob("*-*"))
    log.rmdir()
    (tmp_path / "away").rename(log)
    assert desk.prepare("shop", "2026-01-08", recipe).exists()


def test_a_log_on_another_disk_that_goes_while_the_night_runs_is_away(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError))  # as across disks: links are symbolic
    desk = Desk(tmp_path / "desk")
    desk.prepare("shop", "2026-01-08", recipe)
    desk.check_there("shop", "2026-01-08")
    (tmp_path / "log").rename(tmp_path / "away")
    with pytest.raises(LogAway, match="is no longer there; is its share mounted"):
        desk.check_there("shop", "2026-01-08")


def test_a_log_that_goes_while_it_is_linked_leaves_no_link_to_nothing(recipe, tmp_path, monkeypatch):
    """One such link came whole again with the share, and hung for good when the shop deleted that old day."""
    desk, log, link, calls = Desk(tmp_path / "desk"), tmp_path / "log", os.link, []

    def going(source, target):
        calls.append(source)
        if len(calls) == 3:
            log.rename(tmp_path / "away")
        link(source, target)

    monkeypatch.setattr("os.link", going)
    with pytest.raises(LogAway, match=r"part-0.parquet is no longer there; is its share mounted"):
        desk.prepare("shop", "2026-01-08", recipe)
    assert len(calls) == 3 and not list((tmp_path / "desk").rglob("*.parquet"))
    (tmp_path / "away").rename(log)
    linked = list((desk.prepare("shop", "2026-01-08", recipe).parent / "log").rglob("*.parquet"))
    assert linked and not any(path.is_symlink() for path in linked)
    shutil.rmtree(log)
    desk.check_there("shop", "2026-01-08")  # what was linked is the night's own


def test_what_killed_workers_left_half_made_is_swept_up_when_it_is_old(tmp_path):
    desk = Desk(tmp_path)
    half = (tmp_path / "nights" / "shop" / ".2026-01-05-0123abcd" / "log", tmp_path / "wanted" / "shop" / ".a.json-1")
    half[0].mkdir(parents=True)
    half[1].parent.mkdir(parents=True)
    half[1].write_text("{")
    desk.want(Wanted("shop", "2026-01-05", "a.yaml"))
    desk.sweep("shop", 60)
    assert half[0].exists() and half[1].exists()
    desk.sweep("shop", 0)
    assert not half[0].parent.exists() and not half[1].exists() and len(list(desk.wanted())) == 1


def test_the_first_record_of_a_wanted_night_stays(tmp_path):
    desk = Desk(tmp_path)
    for recipe in ("a.yaml", "b.yaml"):
        desk.want(Wanted("shop", "2026-01-05", recipe))
    assert list(desk.wanted()) == [Wanted("shop", "2026-01-05", "a.yaml")]


def test_what_is_no_record_of_a_wanted_night_is_told_and_holds_up_no_other(tmp_path, caplog):
    desk = Desk(tmp_path)
    for model in ("a", "z"):
        desk.want(Wanted(model, "2026-01-05", f"{model}.yaml"))
    bad = {
        "2026-01-06": "",
        "notadate": '{"recipe": "a.yaml"}',
        "20260107": '{"recipe": "a.yaml"}',
        "2026-01-08": "[1]",
    }
    for name, text in bad.items():
        (tmp_path / "wanted" / "a" / f"{name}.json").write_text(text)
    assert [w.model for w in desk.wanted()] == ["a", "z"]
    assert sorted(r.getMessage().partition(" (")[0] for r in caplog.records) == sorted(
        f"{tmp_path}/wanted/a/{name}.json is no record of a wanted night" for name in bad
    )
    assert "remove it, then submit that night" in caplog.text


def test_a_recipe_that_was_given_another_name_is_not_the_nights(recipe, tmp_path):
    recipe.write_text(recipe.read_text().replace("name: shop", "name: other"))
    with pytest.raises(OtherModel, match=r"recipe.yaml: name: 'other', though shop@2026-01-08 is a night of 'shop'"):
        Desk(tmp_path / "desk").prepare("shop", "2026-01-08", recipe)
    assert not (tmp_path / "desk").exists()


def test_a_desk_that_can_not_be_written_is_told_when_a_night_is_thawed(tmp_path):
    path = tmp_path / "nights" / "shop" / "2026-01-05" / "dead.json"
    path.mkdir(parents=True)  # can't be unlinked, by root either
    with pytest.raises(DeskUnwritable, match=rf"^{path}: .*; make it writable, then retry again"):
        Desk(tmp_path).thaw("shop", "2026-01-05")


def test_what_a_killed_worker_left_half_written_goes_when_the_night_is_tidied(tmp_path):
    folder = tmp_path / "nights" / "shop" / "2026-01-05"
    folder.mkdir(parents=True)
    for name in (".result.json-123", "result.json"):
        (folder / name).write_text("")
    Desk(tmp_path).tidy("shop", "2026-01-05")
    assert [path.name for path in folder.iterdir()] == ["result.json"]


def test_a_tidied_night_keeps_its_recipe_and_result(recipe, tmp_path):
    desk = Desk(tmp_path / "desk")
    path = desk.prepare("shop", "2026-01-08", recipe)
    (path.parent / "result.json").write_text("{}")
    desk.tidy("shop", "2026-01-08")
    assert sorted(p.name for p in path.parent.iterdir()) == ["recipe.yaml", "result.json"]
    desk.prepare("shop", "2026-01-08", recipe)
    assert not (path.parent / "log").exists()
    (path.parent / "result.json").unlink()  # to be judged again: it reads anew
    assert (desk.prepare("shop", "2026-01-08", recipe).parent / "log").exists()


def test_a_night_whose_links_were_removed_is_linked_anew(recipe, tmp_path):
    desk = Desk(tmp_path / "desk")
    desk.prepare("shop", "2026-01-08", recipe)
    desk.tidy("shop", "2026-01-08")
    with pytest.raises(LogAway, match="2026-01-08/log is no longer there; the next attempt links it anew"):
        desk.check_there("shop", "2026-01-08")
    desk.prepare("shop", "2026-01-08", recipe)
    desk.check_there("shop", "2026-01-08")


def test_a_day_that_is_missing_between_others_is_told_as_a_gap(recipe, tmp_path):
    shutil.rmtree(tmp_path / "log" / "day=2026-01-08")
    with pytest.raises(LogAway) as error:
        Desk(tmp_path / "desk").prepare("shop", "2026-01-08", recipe)
    log = tmp_path / "log"
    assert str(error.value) == (
        f"data.path: {log} has nothing of 2026-01-08 though it has later days, up to 2026-01-10; add that day, or "
        "cancel this night"
    )
