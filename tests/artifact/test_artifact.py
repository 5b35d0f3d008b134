"""The artifact: what is written is what is read, and nothing else is."""

import dataclasses
import json
import random
import shutil

import numpy as np
import pytest

from recsys_kd.artifact.errors import ArtifactRefused, StoreUnwritable
from recsys_kd.artifact.manifest import MANIFEST, WEIGHTS, Golden, canonical, digest_of
from recsys_kd.artifact.read import open_artifact
from recsys_kd.artifact.tensors import BadTensors, dump, load
from recsys_kd.artifact.write import describe, write_artifact
from recsys_kd.runtime.ranker import Ranker
from tests.served import LINEAGE, artifact, compressed, random_student
from tests.students import Shape, student


@pytest.fixture(scope="module")
def made(dataset, tmp_path_factory):
    return artifact(dataset, tmp_path_factory.mktemp("store"), keep_rows=0.3)


def forge(made, folder, change):
    """Return a folder like the artifact, changed, with every digest put right: only the rule itself can object."""
    data = json.loads((made.path / MANIFEST).read_text())
    tensors = {k: v.copy() for k, v in load(memoryview((made.path / WEIGHTS).read_bytes())).items()}
    change(data, tensors)
    weights = dump(tensors)
    data["files"][WEIGHTS] = {"bytes": len(weights), "sha256": digest_of(weights)}
    text = canonical(data)
    path = folder / digest_of(text)
    path.mkdir()
    (path / MANIFEST).write_bytes(text)
    (path / WEIGHTS).write_bytes(weights)
    return path


def test_an_unchanged_forgery_is_accepted(made, tmp_path):
    Ranker.open(forge(made, tmp_path, lambda data, tensors: None))


def _set(name, index, value):
    def change(data, tensors):
        tensors[name][index] = value

    return change


def _drop(name):
    return lambda data, tensors: tensors.pop(name)


def _extra(data, tensors):
    tensors["array.more"] = np.zeros(1, dtype=np.float32)


def _nan_scale(data, tensors):
    tensors["table.item"][0, -2:] = np.array([np.nan], dtype=np.float16).view(np.uint8)


def _zero_scale(data, tensors):
    tensors["table.item"][0, -2:] = 0


def _fewer_rows(data, tensors):
    tensors["table.item"] = tensors["table.item"][:-1]


def _lost_bucket(data, tensors):
    tensors["index.item.starts"][-1] -= 1


def _other_bits(data, tensors):
    data["tables"]["item"]["key_bits"] = 65


def _no_basis(data, tensors):
    tensors["table.item"] = tensors["table.item"][:, -4:]


def _odd_bits(data, tensors):
    data["tables"]["item"]["bits"] = 5


def _no_view(data, tensors):
    data["terms"][0]["view"] = None


def _view_of_two_tables(data, tensors):
    data["terms"][0]["view"] = next(t["view"] for t in data["terms"] if t["table"] not in (None, "item"))


def _narrower(data, tensors):
    tensors["array.out.weight"] = tensors["array.out.weight"][:-1]


def _no_item_term(data, tensors):
    data["terms"] = data["terms"][1:]


def _two_item_terms(data, tensors):
    data["terms"].append(data["terms"][0])


def _float_bits(data, tensors):
    data["tables"]["item"]["bits"] = float(data["tables"]["item"]["bits"])


def _term_field(data, tensors):
    data["terms"][0]["field"] = "nobody"


def _term_side(data, tensors):
    data["terms"][1]["side"] = "candidate"


def _fingerprint(data, tensors):
    data["fingerprint"] = "0" * 64


def _golden(data, tensors):
    data["golden"][0]["logits"][0] += 0.5


def _golden_shape(data, tensors):
    data["golden"][0]["ids"] = {}


def _format(data, tensors):
    data["format"] = 1


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (_drop("array.bias"), "tensor-names"),
        (_extra, "tensor-names"),
        (_set("array.bias", 0, np.inf), "finite"),
        (_nan_scale, "scales"),
        (_zero_scale, "scales"),
        (_fewer_rows, "index-rows"),
        (_lost_bucket, "index"),
        (_other_bits, "index"),
        (_no_basis, "shapes"),
        (_odd_bits, "shapes"),
        (_no_view, "terms"),
        (_view_of_two_tables, "terms"),
        (_set("array.mean.item", 0, np.nan), "finite"),
        (_set("scale.basis.item", 0, np.nan), "scales"),
        (_set("scale.basis.item", 0, -1.0), "scales"),
        (_narrower, "shapes"),
        (_term_field, "terms"),
        (_no_item_term, "terms"),
        (_two_item_terms, "terms"),
        (_float_bits, "manifest"),
        (_term_side, "terms"),
        (_fingerprint, "fingerprint"),
        (_golden, "golden"),
        (_golden_shape, "golden"),
        (_format, "manifest"),
        (lambda d, t: d.pop("width"), "manifest"),
        (lambda d, t: d.update(width=0), "shapes"),
    ],
)
def test_each_rule_refuses_by_its_name(made, tmp_path, change, check):
    path = forge(made, tmp_path, change)
    with pytest.raises(ArtifactRefused) as error:
        Ranker.open(path)
    assert error.value.check == check and str(path) in str(error.value)


def test_codes_that_point_outside_their_table_are_refused(dataset, tmp_path):
    made = artifact(dataset, tmp_path / "store", fold="field")
    with pytest.raises(ArtifactRefused) as error:
        Ranker.open(forge(made, tmp_path, _set("codes.category", 0, 255)))
    assert error.value.check == "index-bounds"


def copy(made, folder):
    return shutil.copytree(made.path, folder / made.digest)


def test_files_that_do_not_belong_are_refused(made, tmp_path):
    path = copy(made, tmp_path)
    (path / "more").write_text("x")
    with pytest.raises(ArtifactRefused, match="'files'"):
        open_artifact(path)


def test_a_link_in_place_of_a_file_is_refused(made, tmp_path):
    path = copy(made, tmp_path)
    (path / WEIGHTS).unlink()
    (path / WEIGHTS).symlink_to(made.path / WEIGHTS)
    with pytest.raises(ArtifactRefused, match="regular-file"):
        open_artifact(path)


def test_no_flipped_bit_is_accepted(made, tmp_path):
    path, rng = copy(made, tmp_path), random.Random(1)
    for name, tries in ((MANIFEST, 300), (WEIGHTS, 500)):
        clean = (path / name).read_bytes()
        for _ in range(tries):
            data = bytearray(clean)
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            (path / name).write_bytes(data)
            with pytest.raises(ArtifactRefused):
                open_artifact(path)
        (path / name).write_bytes(clean)
    open_artifact(path)


def test_no_truncation_is_accepted(made, tmp_path):
    path = copy(made, tmp_path)
    for name in (MANIFEST, WEIGHTS):
        clean = (path / name).read_bytes()
        for length in (*range(0, 80, 7), len(clean) // 2, len(clean) - 1):
            (path / name).write_bytes(clean[:length])
            with pytest.raises(ArtifactRefused):
                open_artifact(path)
        (path / name).write_bytes(clean)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}',
        b'{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}',
        b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"U8","shape":[1099511627775,1099511627775],"data_offsets":[0,8]}}',
    ],
)
def test_hostile_headers_are_refused(header):
    with pytest.raises(BadTensors):
        load(memoryview(len(header).to_bytes(8, "little") + header + bytes(8)))


def test_the_same_model_is_written_once_under_the_hash_of_its_manifest(dataset, tmp_path):
    model = compressed(dataset, random_student(dataset), keep_rows=0.5).served
    one, two = (write_artifact(tmp_path, "shop", model, LINEAGE, ()) for _ in range(2))
    assert one.path == two.path and one.digest == digest_of((one.path / MANIFEST).read_bytes())
    assert [p.name for p in (tmp_path / "shop").iterdir()] == [one.digest]
    other = write_artifact(tmp_path, "shop", model, dataclasses.replace(LINEAGE, data_digest="e"), ())
    assert other.digest != one.digest


def test_a_store_that_is_a_file_is_named(dataset, tmp_path):
    (tmp_path / "store").write_text("")
    model = compressed(dataset, random_student(dataset), keep_rows=0.5).served
    with pytest.raises(StoreUnwritable, match="store"):
        write_artifact(tmp_path / "store", "shop", model, LINEAGE, ())
    assert StoreUnwritable.exit_code == 3  # in the midst of a night; one that can't begin is told apart by the recipe


@pytest.mark.parametrize(("shape", "digest"), [
    (Shape(items=20, users=5, candidate=True, dense=True),
     "9bb338999ab358edbf9b10eaaee8356e589844464898188b6811d73c2286d1a1"),
    (Shape(bits=4, strings=True), "44f7f9e0dbf0735a8917a7fe700b5f7a67e1b32c5510c318d69c6cc1813272b2"),
])  # fmt: skip
def test_an_artifact_of_rows_in_one_tier_has_the_bytes_it_had_before_there_were_two(shape, digest):
    query = Golden({}, {}, {}, [], {}, [])
    manifest, weights = describe(student(shape)[0], LINEAGE, (query,))
    assert digest_of(weights) == manifest.weights_sha256
    assert digest_of(canonical(manifest.to_json())) == digest
