"""What commands are told to write never lands on what they read."""

import hashlib
import os

import pytest
from typer.testing import CliRunner

from recsys_kd.artifact.manifest import MANIFEST
from recsys_kd.cli.main import app
from recsys_kd.flow.outputs import BadOutput, check_outputs, inputs_of
from tests.flow.test_ab import recipe, scratch, write  # noqa: F401


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("option", ["--html", "--quarantine"])
def test_a_report_or_bad_rows_never_replace_the_log(tmp_path, option):
    log = write(tmp_path)
    before = digest(log)
    given = ["ab", "--control", "old", "--treatment", "new", "--log", str(log), option, str(log)]
    done = CliRunner().invoke(app, given)
    assert isinstance(done.exception, BadOutput) and done.exception.exit_code == 2 and digest(log) == before
    assert str(done.exception) == f"{option}: {log} is the log itself, which would be lost; name another file"


def test_an_output_is_refused_where_it_is_an_input_lies_in_one_or_is_a_folder(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    log, asked = write(folder), recipe(tmp_path)
    link = tmp_path / "link.parquet"
    os.link(log, link)
    artifact = tmp_path / "store" / "shop" / "abc"
    artifact.mkdir(parents=True)
    (artifact / MANIFEST).write_text("{}")
    inputs = inputs_of(folder, asked, tmp_path / "store", None, policy=tmp_path / "policy.yaml")
    for path, words in [
        (folder / "bad.parquet", f"lies in the log's folder {folder}, and would be read with it"),
        (asked, "is the recipe itself"),
        (tmp_path / "policy.yaml", "is the policy itself"),
        (tmp_path / "store" / "registry.sqlite", "is the registry itself"),
        (artifact / "verdict.json", f"lies in the artifact {artifact}, whose files are fixed"),
        (tmp_path, "is a folder; name another file"),
    ]:
        with pytest.raises(BadOutput, match=words):
            check_outputs({"--out": path}, inputs)
    with pytest.raises(BadOutput, match="is the log itself"):
        check_outputs({"--out": link}, inputs_of(log, None, tmp_path, None))
    with pytest.raises(BadOutput, match=r"--html: .*same is the file of --quarantine too"):
        check_outputs({"--html": tmp_path / "same", "--quarantine": tmp_path / "same"}, inputs)
    check_outputs({"--html": tmp_path / "a.html", "--quarantine": None, "--out": tmp_path / "v.json"}, inputs)


@pytest.mark.parametrize("command", ["ab", "gate"])
def test_a_registry_that_is_named_is_an_input_too(tmp_path, command):
    log, where = write(tmp_path), tmp_path / "mine.sqlite"
    where.write_text("the registry")
    given = ["ab", "--control", "old", "--treatment", "new", "--html", str(where)]
    if command == "gate":
        given = ["gate", str(tmp_path / "policy.yaml"), "--candidate", "a", "--against", "b=old", "--out", str(where)]
    done = CliRunner().invoke(app, [*given, "--log", str(log), "--registry", str(where)])
    assert isinstance(done.exception, BadOutput) and where.read_text() == "the registry"
    assert f"{where} is the registry itself" in str(done.exception)
    assert inputs_of(log, None, tmp_path, "redis://127.0.0.1:1/0")["registry"] is None
