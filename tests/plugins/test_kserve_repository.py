"""What a server tells of its models, and who may load and unload them."""

import grpc
import httpx
import numpy as np
import pytest

from recsys_kd_kserve.server import Server
from tests.plugins.kserve_host import LISTED, TOKEN, call, configured, expected
from tests.runtime.world import CANDIDATES, FEATURES, REQUEST


def test_metadata_ready_and_live_are_told_over_both_protocols(http, rpc):
    assert http.get("/v2").json()["name"] == "kserve" and http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/shop/ready", "/v2/models/shop/versions/2/ready"):
        found = http.get(path)
        assert found.json() == {"name": "shop", "ready": True} and found.headers["x-model-version"] == "2"
    assert http.get("/v2/models").json() == {"models": ["shop"]}
    described = http.get("/v2/models/shop").json()
    assert {"name": "item_id", "datatype": "INT64", "shape": [-1]} in described["inputs"]
    assert described["versions"] == ["2", "1"] and described["platform"] == "recsys_kd"
    assert call(rpc, "ServerLive", {}).live and call(rpc, "ServerReady", {}).ready
    assert call(rpc, "ModelReady", {"name": "shop", "version": "1"}).ready
    told = call(rpc, "ModelMetadata", {"name": "shop"})
    assert [i.name for i in told.inputs] == [i["name"] for i in described["inputs"]] and told.versions == ["2", "1"]


def test_the_repository_lists_every_version_in_memory(http):
    rows = [
        {"name": "shop", "version": "2", "state": "READY", "reason": "champion"},
        {"name": "shop", "version": "1", "state": "READY", "reason": "previous"},
    ]
    assert http.post("/v2/repository/index").json() == http.get("/v2/repository/index").json() == rows
    assert http.post("/v2/repository/index", json={"ready": True}).json() == rows


def test_the_metrics_name_every_version_in_memory(http, world):
    lines = [line for line in http.get("/metrics").text.splitlines() if line.startswith("recsys_kd_resident_version{")]
    assert sorted(lines) == sorted(
        f'recsys_kd_resident_version{{digest="{path.name[:12]}",model="shop",version="{number}"}} 1.0'
        for number, path in world.paths.items()
    )


def test_load_and_unload_need_the_token(http, rpc, world):
    path = "/v2/repository/models/shop/unload"
    assert http.post(path).status_code == 401
    assert http.post(path, headers={"authorization": "Bearer wrong"}).status_code == 401
    with pytest.raises(grpc.RpcError) as error:
        call(rpc, "RepositoryModelUnload", {"model_name": "shop"}, authorization="Bearer wrong")
    assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED and "RECSYS_KD_TOKEN" in error.value.details()
    right = {"authorization": f"Bearer {TOKEN}"}
    assert http.post(path, headers=right).json() == {"name": "shop", "unload": True}
    assert http.post("/v2/models/shop/infer", json=LISTED).status_code == 404
    assert http.get("/v2/health/ready").status_code == 503
    loaded = http.post("/v2/repository/models/shop/load", headers=right)
    assert loaded.json() == {"name": "shop", "load": True, "version": "2"}
    assert call(rpc, "RepositoryModelLoad", {"model_name": "shop"}, **right).isLoaded
    missing = http.post("/v2/repository/models/nobody/load", headers=right)
    assert missing.status_code == 404 and "names no champion of 'nobody'" in missing.json()["error"]
    assert np.array_equal(rpc.score(REQUEST, CANDIDATES, FEATURES).scores, expected(world, 2))


def test_without_a_token_load_and_unload_are_off(world):
    import dataclasses

    made = Server(dataclasses.replace(configured(world), token=None))
    made.start()
    refused = httpx.post(
        f"http://127.0.0.1:{made.port}/v2/repository/models/shop/unload", headers={"authorization": "Bearer x"}
    )
    made.stop()
    assert refused.status_code == 403 and "started without RECSYS_KD_TOKEN" in refused.json()["error"]
