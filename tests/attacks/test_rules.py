"""One crafted artifact for every rule of the verifier, and then some; each must be refused by the rule it breaks."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

import recsys_kd.artifact.read
import recsys_kd.runtime.ranker
from recsys_kd.artifact.errors import CHECKS, ArtifactRefused
from recsys_kd.artifact.manifest import FORMAT, MANIFEST, WEIGHTS, canonical, digest_of
from recsys_kd.runtime.ranker import Ranker
from tests.attacks.small import Original, small_artifact

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return Original(small_artifact(tmp_path_factory.mktemp("store")).path)


def put(*path, value):
    """Set a value deep in the manifest."""

    def change(data, tensors):
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


def drop(*path):
    def change(data, tensors):
        for key in path[:-1]:
            data = data[key]
        del data[path[-1]]

    return change


def tensor(name, make):
    """Replace a tensor by `make` of it."""

    def change(data, tensors):
        tensors[name] = make(tensors[name].copy())

    return change


def at(index, value):
    def make(array):
        array[index] = value
        return array

    return make


def scale(value):
    return lambda rows: np.concatenate([rows[:, :-2], np.tile(np.float16([value]).view(np.uint8), (len(rows), 1))], 1)


def field(data, name):
    return next(f for f in data["schema"]["fields"] if f["name"] == name)


def term(data, name):
    return next(t for t in data["terms"] if t["name"] == name)


def set_field(name, /, **values):
    """Change a field, and the schema's fingerprint with it."""

    def change(data, tensors):
        from recsys_kd.schema import Schema

        field(data, name).update(values)
        if field(data, values.get("name", name))["vocabulary"] != "devices":
            data["fingerprint"] = Schema.from_json(data["schema"]).fingerprint

    return change


def set_term(name, /, **values):
    return lambda data, tensors: term(data, name).update(values)


def swap_keys(rests):
    rests[0], rests[1] = rests[1].copy(), rests[0].copy()
    return rests


def no_candidates(data, tensors):
    for query in data["golden"]:
        query.update(candidates=[], logits=[], features={name: [] for name in query["features"]})


def nan_in_floats(codes):
    return at((0, 0), np.nan)(codes.astype(np.float32))


def narrow_more(data, tensors):
    """Let the refining rows have one number fewer than the rows."""
    data["tables"]["item"].update(more_dim=data["tables"]["item"]["dim"] - 1)
    width = (data["tables"]["item"]["more_dim"] * 4 + 7) // 8 + 2
    tensors["more.item"] = tensors["more.item"][:, -width:]


def refine_position(data, tensors):
    """Refine a table that a candidate-side field looks up."""
    entry, rows = data["tables"]["position.folded"], len(tensors["table.position.folded"])
    entry.update(more_bits=entry["bits"], more_dim=entry["dim"])
    tensors["more.position.folded"] = tensors["table.position.folded"][:1].copy()
    tensors["hot.position.folded"] = np.zeros((rows + 7) // 8, np.uint8)


ATTACKS = [
    # The manifest: its form, and the types of what it holds.
    ("manifest", "another format", put("format", value=FORMAT + 1)),
    ("manifest", "a key too few", drop("width")),
    ("manifest", "a key too many", put("more", value=1)),
    ("manifest", "a term that lacks a key", drop("terms", 0, "view")),
    ("manifest", "a term's name that is a list", put("terms", 0, "name", value=[])),
    ("manifest", "a field's mean that is text", put("schema", "fields", 0, "mean", value="0")),
    ("manifest", "a standard deviation beyond float32", put("schema", "fields", 0, "std", value=1e300)),
    ("manifest", "bits that are not an integer", put("tables", "item", "bits", value=8.0)),
    ("manifest", "candidates that are text", put("golden", 0, "candidates", value=["1"])),
    ("manifest", "terms that are no list", put("terms", value={"a": 1})),
    ("manifest", "activations that no kernel knows", put("activations", value="int8")),
    ("manifest", "activations that are a list", put("activations", value=["int16"])),
    # The schema: what requests are encoded by.
    ("fingerprint", "another fingerprint", put("fingerprint", value="0" * 64)),
    ("schema", "two fields of one name", set_field("device", name="user_id")),
    ("schema", "no item field", set_field("item_id", name="thing")),
    ("schema", "a kind that nothing knows", set_field("device", kind="colour")),
    ("schema", "numbers that are looked up", set_field("age", vocabulary="user_id")),
    ("schema", "a vocabulary that is not there", set_field("device", vocabulary="devices")),
    ("schema", "a standard deviation of nought", set_field("age", std=0.0)),
    ("schema", "a standard deviation that float32 holds as nought", set_field("age", std=1e-300)),
    ("schema", "a standard deviation that makes every number infinite", set_field("age", std=1e-37)),
    ("schema", "a standard deviation below nought", set_field("age", std=-1.0)),
    ("schema", "minus one number", set_field("mood", dim=-1)),
    ("schema", "keys of an unknown kind", put("schema", "vocabularies", 0, "keys", value="float")),
    # The terms: what is looked up where.
    ("terms", "a field that the schema lacks", set_term("device", field="nobody")),
    ("terms", "another side than its field's", set_term("device", side="candidate")),
    ("terms", "another kind than its field's", set_term("user_id", kind="bag")),
    ("terms", "a layout that nothing knows", set_term("user_id", layout="woven")),
    ("terms", "no item term", lambda data, tensors: data["terms"].pop(0)),
    ("terms", "a term twice", lambda data, tensors: data["terms"].append(data["terms"][1])),
    ("terms", "one view of two tables", set_term("user_id", view="item.folded")),
    ("terms", "no view", set_term("user_id", view=None)),
    # The tensors: names, types, shapes, values.
    ("tensor-names", "an array too few", lambda data, tensors: tensors.pop("array.bias")),
    ("tensor-names", "an array too many", lambda data, tensors: tensors.update(more=np.zeros(1, np.uint8))),
    ("tensor-names", "a table that no term uses", lambda data, _: data["tables"].update(x=data["tables"]["item"])),
    ("shapes", "width nought", put("width", value=0)),
    ("shapes", "bits that rows are not coded in", put("tables", "item", "bits", value=5)),
    ("shapes", "minus one number per row", put("tables", "item", "dim", value=-1)),
    ("shapes", "rows that are too short", tensor("table.item", lambda rows: rows[:, :-1])),
    ("shapes", "a layer that is too narrow", tensor("array.out.weight", lambda w: w[:-1])),
    ("shapes", "codes of another type", tensor("codes.category", lambda c: c.astype(np.float32))),
    ("finite", "an infinite bias", tensor("array.bias", at(0, np.inf))),
    ("finite", "a basis with NaN", tensor("array.basis.item.folded", nan_in_floats)),
    ("scales", "a matrix's scale that is negative", tensor("scale.basis.item.folded", at(0, -1.0))),
    ("scales", "a matrix's scale that is NaN", tensor("scale.basis.item.folded", at(0, np.nan))),
    ("scales", "a scale of nought", tensor("table.item", scale(0))),
    ("scales", "a negative scale", tensor("table.item", scale(-1))),
    ("scales", "a scale that is NaN", tensor("table.item", scale(np.nan))),
    ("scales", "an infinite scale", tensor("table.item", scale(np.inf))),
    ("shapes", "refining bits without numbers", put("tables", "item", "more_bits", value=0)),
    ("shapes", "a tier of another length", tensor("hot.item", lambda hot: np.append(hot, np.uint8(0)))),
    ("scales", "a refining row's scale of nought", tensor("more.item", scale(0))),
    ("tiers", "a row too few that refines", tensor("more.item", lambda rows: rows[1:])),
    ("tiers", "one row refined more than there are rows for", tensor("hot.item", lambda hot: hot ^ np.uint8(1))),
    ("tiers", "a refined row beyond the last", tensor("hot.item", at(-1, 255))),
    ("tiers", "refining rows narrower than the rows", narrow_more),
    ("tiers", "rows in two tiers that candidates look up", refine_position),
    # The indexes: no key leads outside its table.
    ("index", "buckets that end too early", tensor("index.item.starts", at(-1, 1))),
    ("index", "buckets that fall", tensor("index.item.starts", at(1, 2**32 - 1))),
    ("index", "more bits than a key has", put("tables", "item", "key_bits", value=65)),
    ("index", "more bits kept than there are", put("tables", "item", "key_kept", value=64)),
    ("index", "a base beyond 64 bits", put("tables", "item", "key_base", value=2**63)),
    ("index", "keys out of order", tensor("index.item.rests", swap_keys)),
    ("index-rows", "a row too few", tensor("table.item", lambda rows: rows[:-1])),
    ("index-rows", "a row too many", tensor("table.item", lambda rows: np.concatenate([rows, rows[:1]]))),
    ("index-bounds", "a code beyond its table", tensor("codes.category", at(0, 255))),
    # The golden queries: the whole of it must score as it did where it was made.
    ("no-golden", "no golden query", put("golden", value=[])),
    ("no-golden", "golden queries without candidates", no_candidates),
    ("golden", "other logits", put("golden", 0, "logits", 0, value=9.0)),
    ("golden", "a logit too few", lambda data, tensors: data["golden"][0]["logits"].pop()),
    ("golden", "a missing field", drop("golden", 0, "ids", "user_id")),
    ("golden", "a key beyond 64 bits", put("golden", 0, "candidates", 0, value=2**70)),
    ("golden", "other weights", tensor("array.hidden.1.weight", lambda w: w + np.ones_like(w))),
    ("golden", "other codes", tensor("table.item", at((slice(None), 0), 255))),
]  # fmt: skip


def test_an_unchanged_forgery_is_accepted(original, tmp_path):
    ranker = Ranker.open(original.forge(tmp_path, lambda data, tensors: None))
    assert ranker.manifest is not None and len(ranker.manifest.golden) == 1


@pytest.mark.parametrize(("rule", "what", "change"), ATTACKS, ids=[f"{rule}: {what}" for rule, what, _ in ATTACKS])
def test_a_crafted_artifact_is_refused_by_the_rule_it_breaks(original, tmp_path, rule, what, change):
    path = original.forge(tmp_path, change)
    with pytest.raises(ArtifactRefused) as error:
        Ranker.open(path)
    assert error.value.check == rule and str(path) in str(error.value) and "{" not in str(error.value).split("needs")[0]


def write_original(original, folder):
    path = folder / digest_of(original.manifest)
    path.mkdir()
    (path / MANIFEST).write_bytes(original.manifest)
    (path / WEIGHTS).write_bytes(original.weights)
    return path


def rename(path):
    return path.rename(path.with_name("0" * 64))


def file_too_many(path):
    (path / "more").write_text("x")
    return path


def file_too_few(path):
    (path / WEIGHTS).unlink()
    return path


def link(path):
    target = path.parent / "elsewhere"
    (path / WEIGHTS).rename(target)
    (path / WEIGHTS).symlink_to(target)
    return path


def pipe(path):
    (path / WEIGHTS).unlink()
    os.mkfifo(path / WEIGHTS)
    return path


def empty_manifest(path):
    (path / MANIFEST).write_bytes(b"")
    return path


def longer(path):
    with (path / WEIGHTS).open("ab") as file:
        file.write(b"\0")
    return path


def other_weights(path):
    data = bytearray((path / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (path / WEIGHTS).write_bytes(data)
    return path


def renamed_to_its_hash(path, text):
    (path / MANIFEST).write_bytes(text)
    return path.rename(path.with_name(digest_of(text)))


def spaced_manifest(path):
    return renamed_to_its_hash(path, (path / MANIFEST).read_bytes().replace(b",", b", ", 1))


def nested_manifest(path):
    return renamed_to_its_hash(path, b"[" * 100_000)


def garbage_weights(path):
    import json

    from tests.attacks.small import write_files

    data = json.loads((path / MANIFEST).read_bytes())
    return write_files(path.parent, data, b"\xff" * 64)


FOLDERS = [
    ("exists", lambda path: path / "nowhere"),
    ("files", file_too_many),
    ("files", file_too_few),
    ("regular-file", link),
    ("regular-file", pipe),
    ("size", empty_manifest),
    ("size", longer),
    ("manifest-digest", rename),
    ("manifest", spaced_manifest),
    ("manifest", nested_manifest),
    ("sha256", other_weights),
    ("tensors", garbage_weights),
]


@pytest.mark.parametrize(("rule", "change"), FOLDERS, ids=[f"{rule}: {c.__name__}" for rule, c in FOLDERS])
def test_a_tampered_folder_is_refused_by_the_rule_it_breaks(original, tmp_path, rule, change):
    path = change(write_original(original, tmp_path))
    with pytest.raises(ArtifactRefused) as error:
        Ranker.open(path)
    assert error.value.check == rule


def test_every_rule_of_the_verifier_has_an_attack():
    source = "".join(Path(m.__file__).read_text() for m in (recsys_kd.artifact.read, recsys_kd.runtime.ranker))
    rules = set(re.findall(r'(?:refuse\(|ArtifactRefused\(\s*\w+,)\s*"([\w-]+)"', source))
    assert len(rules) >= 18
    assert rules - {"signature"} == {rule for rule, *_ in (*ATTACKS, *FOLDERS)}


def test_the_manifest_that_was_read_is_the_one_that_is_hashed(original, tmp_path):
    path = write_original(original, tmp_path)
    assert canonical(Ranker.open(path).manifest.to_json()) == original.manifest


def test_every_rule_is_listed_by_its_name_and_has_an_attack():
    """Signatures have tests of their own; what a registry may not name, the watcher's."""
    code = "".join(
        path.read_text() for room in ("artifact", "runtime") for path in (ROOT / "recsys_kd" / room).glob("*.py")
    )
    named = set(re.findall(r"(?:ArtifactRefused\(|take\.refuse\(|self\.refuse\()[^\"]*?\"([a-z0-9-]+)\"", code))
    assert named == set(CHECKS) and len(named) == len(CHECKS)
    assert named - {rule for rule, *_ in (*ATTACKS, *FOLDERS)} == {"signature", "digest", "model"}
