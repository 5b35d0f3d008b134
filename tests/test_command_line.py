"""Exit codes and single commands, as a shell sees them."""

import importlib
import json
import os
import subprocess
import sys

import pytest
import yaml

from recsys_kd.cli.plan import predicted_line
from recsys_kd.flow import checks
from recsys_kd.registry.sqlite import SqliteRegistry
from tests.attacks.small import small_artifact

cli = importlib.import_module("recsys_kd.cli.main")  # the package's `main` is the function


def shell(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "recsys_kd", *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


def test_a_defect_is_not_taken_for_a_model_that_was_held_back(monkeypatch, capsys):
    def broken(**_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(cli, "app", broken)
    monkeypatch.setattr(cli, "extensions", lambda group: [])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 3
    shown = capsys.readouterr().err
    assert "ZeroDivisionError" in shown and "this is a defect of recsys-kd" in shown.splitlines()[-1]


def test_with_json_a_failure_is_one_document_too(tmp_path):
    failed = shell("run", str(tmp_path / "none.yaml"), "--json")
    assert failed.returncode == 2
    found = json.loads(failed.stdout)
    assert found["exit_code"] == 2 and found["kind"] == "BadRecipe" and found["error"] in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (["ab", "--control", "a", "--json"], "MissingParameter", "Missing option '--treatment'"),
        (["gate", "--json"], "MissingParameter", "See `recsys-kd gate --help`"),
        (["run", "--jsno", "--json"], "NoSuchOption", "No such option: --jsno"),
        (["simulate", "--control", "random", "--treatment", "random", "--rows", "5", "--json"], "BadParameter", "1000"),
    ],
)
def test_with_json_a_wrong_command_line_is_one_document_too(monkeypatch, capsys, arguments, kind, words):
    monkeypatch.setattr(sys, "argv", ["recsys-kd", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert left.value.code == 2 and found["exit_code"] == 2 and found["kind"] == kind and words in found["error"]
    assert "Usage: " in shown.err


def test_an_interrupted_command_says_so_and_ends_as_shells_expect(monkeypatch, capsys):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupted)
    monkeypatch.setattr(sys, "argv", ["recsys-kd", "synth"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 130 and "interrupted" in capsys.readouterr().err


def test_synth_writes_a_shop_and_its_recipe_can_be_planned(tmp_path):
    made = shell("synth", str(tmp_path), "--rows", "2000", "--days", "4", "--users", "20", "--items", "50", "--json")
    found = json.loads(made.stdout)
    plan = shell("run", found["recipe"], "--dry-run", "--json")
    assert made.returncode == 0 and json.loads(plan.stdout)["rows"] == found["rows"]


def test_a_serving_host_can_use_the_registry_without_any_training_library(tmp_path):
    SqliteRegistry(tmp_path / "registry.sqlite")
    blocked = ["torch", "torchrec", "pandas", "pyarrow", "safetensors", "jinja2", "sklearn", "scipy", "redis", "celery"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); from recsys_kd.cli.main import main; "
        f"sys.argv = ['recsys-kd', 'registry', *{{}}, '--store', {str(tmp_path)!r}]; main()"
    )
    listed = subprocess.run([sys.executable, "-c", code.format(["list", "--json"])], capture_output=True, text=True)
    assert (listed.returncode, listed.stdout.strip()) == (0, "[]"), listed.stderr
    back = [sys.executable, "-c", code.format(["rollback", "shop", "--why", "x"])]
    refused = subprocess.run(back, capture_output=True, text=True)
    assert refused.returncode == 2 and "no model 'shop' is registered here" in refused.stderr


def test_a_part_whose_packages_are_not_installed_is_left_out_and_named_in_the_help(tmp_path):
    code = (
        "import sys; sys.modules['redis'] = None; from recsys_kd.cli.main import main; "
        "sys.argv = ['recsys-kd', '--help']; main()"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}
    )
    assert shown.returncode == 0, shown.stderr
    assert "Without `jobs`:" in shown.stdout and "its extra `jobs`" in shown.stdout and "registry" in shown.stdout


READING = [
    ("list",), ("show", "shop", "1"), ("diff", "shop", "1", "2"), ("nights", "shop"), ("audit", "shop"), ("gc", "shop"),
    ("verify", "shop", "1"), ("rollback", "shop", "--why", "x"), ("challenge", "shop", "1", "--why", "x"),
]  # fmt: skip


@pytest.mark.parametrize("command", READING, ids=[c[0] for c in READING])
def test_reading_a_registry_that_is_not_there_says_so_and_creates_nothing(tmp_path, monkeypatch, capsys, command):
    monkeypatch.delenv("RECSYS_KD_REGISTRY", raising=False)
    monkeypatch.setattr(sys, "argv", ["recsys-kd", "registry", *command, "--store", str(tmp_path / "store")])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2 and f"{tmp_path}/store/registry.sqlite: there is no registry" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_version_whose_folder_holds_another_sound_artifact_is_not_verified(tmp_path, monkeypatch, capsys):
    one, two = (small_artifact(tmp_path, seed) for seed in (0, 1))
    registry = SqliteRegistry(tmp_path / "registry.sqlite")
    registry.register("shop", one.digest, two.path, {}, "ann")
    registry.register("shop", two.digest, two.path, {}, "ann")
    for number, code in ((1, 2), (2, 0)):
        monkeypatch.setattr(
            sys, "argv", ["recsys-kd", "registry", "verify", "shop", str(number), "--store", str(tmp_path)]
        )
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == code
    assert "refused by check 'digest'" in capsys.readouterr().err


BAD = [
    ({"seeds": 3}, "seeds: unknown key"),
    ({"compress": {"bytes": "lots"}}, "compress.bytes: 'lots' is not a size"),
    ({"data": {"path": "absent"}}, "absent does not exist"),
    ({"data": {"path": "log", "columns": {"label": "bought"}}}, "data.columns.label: no column 'bought'"),
    ({"teacher": {"kind": "absent"}}, "teacher.kind: 'absent' is none of"),
    ({"teacher": {"kind": "precomputed"}}, "teacher.column: kind `precomputed` needs"),
    ({"store": "log/store"}, "lies in the log's folder"),
]


WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = None  # importing it is an error
from recsys_kd.cli.main import main
for recipe in sys.argv[1:]:
    for command in ("run", "plan"):
        sys.argv = ["recsys-kd", command, recipe]
        try:
            main()
        except SystemExit as left:
            print(left.code)
"""


def test_a_mistake_in_a_recipe_is_told_before_torch_is_imported(shop):
    recipe = yaml.safe_load(shop.recipe.read_text())
    paths = [shop.folder / f"bad-{i}.yaml" for i in range(len(BAD))]
    for path, (change, _) in zip(paths, BAD, strict=True):
        path.write_text(yaml.safe_dump({**recipe, **change}))
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *map(str, paths)], capture_output=True, text=True)
    assert done.stdout.split() == ["2"] * 2 * len(BAD), done.stderr
    said = done.stderr.splitlines()
    assert len(said) == 2 * len(BAD)
    for i, (_, words) in enumerate(BAD):
        assert words in said[2 * i] and said[2 * i] == said[2 * i + 1]


def test_commands_of_ours_do_without_what_others_add_to_the_command_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cli, "extensions", lambda group: pytest.fail("loaded an extension"))
    monkeypatch.setattr(sys, "argv", ["recsys-kd", "run", str(tmp_path / "none.yaml")])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    known = {"run", "demo", "synth", "import", "score", "doctor", "ab", "gate", "plan", "simulate", "registry", "study"}
    assert known == cli.OURS


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [("--bytes", "-5", "--bytes: '-5' is not a size"),
     ("--bytes", "abc", "--bytes: 'abc' is not a size"),
     ("--picture", "nope/x.png", "--picture: nope/x.png does not end with .svg")],
)  # fmt: skip
def test_an_option_of_a_plan_that_can_not_be_is_named_before_any_work(shop, monkeypatch, capsys, option, value, words):
    monkeypatch.setattr(checks, "check", lambda recipe: pytest.fail("began to work"))
    monkeypatch.setattr(sys, "argv", ["recsys-kd", "plan", str(shop.recipe), option, value])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2 and words in capsys.readouterr().err


def test_a_plans_prediction_stands_beside_what_came_of_it():
    line = predicted_line(
        {"predicted_bytes": 12_000, "predicted_loss": 0.0015}, 11_990,
        {"student": 0.4, "pruned": 0.4021, "served": 0.3995},
    )  # fmt: skip
    assert line.startswith("plan      12,000 bytes predicted, 11,990 on disk; +0.00150 nats predicted, +0.00210 after")
    assert "-0.00050 as served" in line
