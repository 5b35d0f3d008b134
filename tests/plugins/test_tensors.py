"""Tensors -> a request: what is taken, and what every refusal says."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_kd.schema import Field, Schema, Vocabulary
from recsys_kd_kserve.config import Refused
from recsys_kd_kserve.tensors import Decoder, Tensor
from recsys_kd_kserve.wire import parse

SCHEMA = Schema(
    (
        Field("user_id", "id", "request", "user_id"),
        Field("item_id", "id", "item", "item_id"),
        Field("device", "categorical", "request", "device"),
        Field("history", "bag", "request", "item_id"),
        Field("age", "dense", "request"),
        Field("mood", "vector", "request", dim=2),
        Field("brand", "categorical", "item", "device"),
        Field("position", "categorical", "candidate", "user_id"),
        Field("image", "vector", "candidate", dim=2),
    ),
    {n: Vocabulary(n, 9, "string" if n == "device" else "int64") for n in ("user_id", "item_id", "device")},
)
DECODER = Decoder(SCHEMA, max_candidates=1000)
ITEMS = Tensor("item_id", "INT64", (2,), [5, 6])


def decode(*tensors):
    return DECODER.decode(tensors)


def test_every_kind_of_field_is_taken_as_a_list_or_as_raw_bytes():
    listed = decode(
        ITEMS,
        Tensor("user_id", "INT64", (1,), [7]),
        Tensor("device", "BYTES", (1,), ["phone"]),
        Tensor("history", "INT32", (3,), [1, 2, 3]),
        Tensor("age", "FP32", (1,), [30.5]),
        Tensor("mood", "FP64", (2,), [0.5, 1]),
        Tensor("position", "INT64", (2,), [0, 1]),
        Tensor("image", "FP32", (2, 2), [[1, 2], [3, 4]]),
    )
    raw = decode(
        Tensor("item_id", "INT64", (2,), raw=np.array([5, 6]).tobytes()),
        Tensor("user_id", "INT64", (1,), raw=np.array([7]).tobytes()),
        Tensor("device", "BYTES", (1,), raw=b"\x05\0\0\0phone"),
        Tensor("history", "INT32", (3,), raw=np.array([1, 2, 3], np.int32).tobytes()),
        Tensor("age", "FP32", (1,), raw=np.float32([30.5]).tobytes()),
        Tensor("mood", "FP64", (2,), raw=np.float64([0.5, 1]).tobytes()),
        Tensor("position", "INT64", (2,), raw=np.array([0, 1]).tobytes()),
        Tensor("image", "FP32", (2, 2), raw=np.float32([1, 2, 3, 4]).tobytes()),
    )
    for found in (listed, raw):
        assert found.candidates.tolist() == [5, 6]
        assert (found.request["user_id"], found.request["device"], found.request["age"]) == (7, "phone", 30.5)
        assert found.request["history"].tolist() == [1, 2, 3] and found.request["mood"].tolist() == [0.5, 1.0]
        assert found.features["position"].tolist() == [0, 1]
        assert found.features["image"].tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_absent_and_empty_tensors_are_missing_values():
    found = decode(ITEMS, Tensor("user_id", "INT64", (0,), []), Tensor("history", "INT64", (0,), raw=b""))
    assert found.request["user_id"] is None and len(found.request["history"]) == 0 and found.features == {}


def test_strings_may_be_any_unicode_and_empty():
    device = "ü€𝄞".encode()
    raw = len(device).to_bytes(4, "little") + device
    assert decode(ITEMS, Tensor("device", "BYTES", (1,), raw=raw)).request["device"] == "ü€𝄞"
    assert decode(ITEMS, Tensor("device", "BYTES", (1,), raw=b"\0\0\0\0")).request["device"] == ""


def item(shape, data=None, raw=None, datatype="INT64", name="item_id"):
    return Tensor(name, datatype, shape, data, raw)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (
            [ITEMS, item((1,), [1], name="nobody")],
            r"unknown input 'nobody'; this model takes user_id INT64\[1\], item_id",
        ),
        ([ITEMS, item((1,), [1], name="brand")], "unknown input 'brand'"),
        ([ITEMS, ITEMS], "input 'item_id' is there twice"),
        ([], "input 'item_id' with the candidates is missing"),
        ([item((2, 1), [5, 6])], r"'item_id' has shape \[2, 1\], \[N\] is expected"),
        ([item((-1,), [])], r"'item_id' has shape \[-1\]"),
        ([item((10_000_000,), [5])], "has 10000000 candidates, at most 1000 are taken"),
        ([item((2,), [5, 6], datatype="FP32")], "'item_id' is FP32, INT64 or INT32 is expected"),
        ([item((2,), ["a", "b"], datatype="BYTES")], "'item_id' is BYTES, INT64 or INT32"),
        ([item((2,), [5, 6], datatype="UINT8")], "'item_id' is UINT8"),
        ([item((3,), [5, 6])], "'item_id' holds 2 values, its shape says 3"),
        ([item((2,), raw=b"\0" * 15)], "'item_id' holds 15 bytes, 16 for 2 INT64 are expected"),
        ([item((2,), [5, "6"])], "'item_id' is INT64, a value is not"),
        ([item((2,), [5, 6.5])], "'item_id' is INT64, a value is not"),
        ([item((2,), [5, True])], "'item_id' is INT64, a value is true or false"),
        ([ITEMS, item((2,) * 200_000, [1], name="user_id")], r"shape first \[2, .*\(200000 dimensions\), \[1\] is"),
        ([item((2,) * 200_000, [1])], r"'item_id' has shape first .* \[N\] is expected"),
        ([item((2,), [5, None])], "'item_id' is INT64, a value is not"),
        ([item((2,), [5, 2**63])], "'item_id' is INT64, a value is not"),
        ([item((2,), {"a": 1})], "'item_id' has no list of values in 'data'"),
        ([item((2,), "56")], "'item_id' has no list of values"),
        ([item((2,), None)], "'item_id' has no list of values"),
        ([ITEMS, item((2,), [1, 2], name="user_id")], r"'user_id' has shape \[2\], \[1\] is expected"),
        ([ITEMS, item((3,), [1, 2, 3], name="position")], r"'position' has shape \[3\], \[2\] is expected"),
        ([ITEMS, item((4,), [1, 2, 3, 4], datatype="FP32", name="image")], r"'image' has shape \[4\], \[2, 2\] is"),
        ([ITEMS, item((2, 2), [[1, 2], 3], datatype="FP32", name="image")], "holds lists beside values"),
        ([ITEMS, item((1,), [5], datatype="INT64", name="device")], "'device' is INT64, BYTES is expected"),
        ([ITEMS, item((1,), [5], datatype="BYTES", name="device")], "'device' is BYTES, 5 is not a string"),
        (
            [ITEMS, item((1,), raw=b"\xff\0\0\0a", datatype="BYTES", name="device")],
            "a string goes beyond the end of the 5",
        ),
        ([ITEMS, item((1,), raw=b"\x01\0", datatype="BYTES", name="device")], "a string goes beyond the end of the 2"),
        ([ITEMS, item((1,), raw=b"\x01\0\0\0\xff", datatype="BYTES", name="device")], "a string that is not UTF-8"),
        ([ITEMS, item((1,), raw=b"\0" * 8, datatype="BYTES", name="device")], "holds more strings, its shape says 1"),
        ([ITEMS, item((1,), raw=b"\0" * 800, datatype="BYTES", name="device")], "holds more strings, its shape says 1"),
        ([ITEMS, item((0,), raw=b"\0" * 4, datatype="BYTES", name="device")], "holds more strings, its shape says 0"),
        ([ITEMS, item((1,), raw=b"", datatype="BYTES", name="device")], "holds 0 strings, its shape says 1"),
        ([ITEMS, item((1,), ["x"], datatype="FP32", name="age")], "'age' is FP32, a value is not"),
    ],
)
def test_a_refusal_says_what_is_expected(tensors, words):
    with pytest.raises(Refused, match=words) as error:
        decode(*tensors)
    assert error.value.status == 400


def test_metadata_tells_what_the_decoder_takes():
    found = {i["name"]: (i["datatype"], i["shape"]) for i in DECODER.inputs()}
    assert found["item_id"] == ("INT64", [-1]) and found["device"] == ("BYTES", [1]) and "brand" not in found
    assert (
        found["history"] == ("INT64", [-1]) and found["mood"] == ("FP32", [2]) and found["image"] == ("FP32", [-1, 2])
    )


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["name", "data"]), inner, max_size=2),
    max_leaves=8,
)
SHAPES = st.lists(st.integers(-1, 4), max_size=3) | VALUES
INPUTS = st.fixed_dictionaries(
    {"name": st.sampled_from(["item_id", *(i["name"] for i in DECODER.inputs())]) | VALUES},
    optional={
        "datatype": st.sampled_from(["INT64", "INT32", "FP32", "FP64", "BYTES", "BOOL"]) | VALUES,
        "shape": SHAPES,
        "data": st.lists(st.integers() | st.floats() | st.text(max_size=3), max_size=4) | VALUES,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-2, 40)}) | VALUES,
    },
)
BODIES = st.fixed_dictionaries(
    {"inputs": st.lists(INPUTS, max_size=4)}, optional={"outputs": VALUES, "parameters": VALUES}
)


@given(BODIES | VALUES, st.binary(max_size=40))
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_comes_is_decoded_or_refused_and_never_a_defect(body, tail):
    head = json.dumps(body).encode()
    try:
        found = decode(*parse(head + tail, str(len(head))).tensors)
    except Refused as error:
        assert error.status == 400
    else:
        assert len(found.candidates) <= 4
