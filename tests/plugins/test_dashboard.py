"""Every panel of the Grafana dashboard asks for metrics and labels that a server which has seen everything exports."""

import dataclasses
import json
import re

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from recsys_kd.runtime.watcher import REASONS
from recsys_kd_kserve.client import GrpcClient, ServerRefused
from recsys_kd_kserve.server import Server
from tests.paths import PLUGINS
from tests.plugins.kserve_host import configured
from tests.runtime.world import CANDIDATES, FEATURES, REQUEST, World

DASHBOARD = json.loads((PLUGINS / "kserve" / "recsys_kd_kserve" / "dashboard.json").read_text())
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
TARGETS = {f"{title}: {t['refId']}": t for title, panel in PANELS.items() for t in panel["targets"]}
SCRAPED = {"instance", "job"}
"""Labels that Prometheus adds to whatever it scrapes."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return label names by metric, and refusals by reason, after answers, refusals, swaps, a shadow and a canary."""
    world = World(tmp_path_factory.mktemp("world"))
    world.publish(1)
    world.registry.name("shop", "challenger", world.register(world.artifact(2)), "ann", "")
    made = configured(world)
    made = dataclasses.replace(made, serving=dataclasses.replace(made.serving, shadow=1.0, canary=0.5))
    server = Server(made)
    server.start()
    try:
        with GrpcClient(f"127.0.0.1:{server.grpc_port}", "shop", 30) as client:
            for user in range(20):
                client.score(REQUEST | {"user_id": user}, CANDIDATES, FEATURES)
        with GrpcClient(f"127.0.0.1:{server.grpc_port}", "nobody", 30) as client, pytest.raises(ServerRefused):
            client.score(REQUEST, CANDIDATES, FEATURES)
        world.promote(world.register(world.store / "shop" / "nowhere", "2" * 64))
        server.refresh()
        text = httpx.get(f"http://127.0.0.1:{server.port}/metrics").text
    finally:
        server.stop()
    found = {"refusals": {}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
            if sample.name == "recsys_kd_refusals_total":
                found["refusals"][sample.labels["reason"]] = sample.value
    return found


def selectors(query):
    """Return (metric, labels that are matched) of a query."""
    return [
        (name, set(re.findall(r"(\w+)\s*(?:=~|!~|=|!=)", inside or "")))
        for name, inside in re.findall(r"(recsys_kd_\w+)(?:\{([^}]*)\})?", query)
    ]


@pytest.mark.parametrize("name", TARGETS)
def test_a_panel_asks_for_what_is_exported(exported, name):
    query = TARGETS[name]["expr"]
    asked = selectors(query)
    assert asked, query
    grouped = set(re.split(r"[\s,]+", found[1])) if (found := re.search(r"by \(([^)]*)\)", query)) else None
    for metric, matched in asked:
        assert metric in exported, f"{metric} is not exported"
        has = exported[metric] | SCRAPED
        assert matched <= has and (grouped or set()) <= has, f"{metric} has {sorted(has)}"
        assert metric.endswith(("_total", "_bucket")) == ("rate(" in query or "increase(" in query)
        assert metric.endswith("_bucket") == ("le" in (grouped or set()))
        left = has if grouped is None else grouped
        assert set(re.findall(r"{{(\w+)}}", TARGETS[name]["legendFormat"])) <= left


def test_every_kind_of_metric_is_shown(exported):
    shown = {name for target in TARGETS.values() for name, _ in selectors(target["expr"])}
    wanted = {"request_seconds_bucket", "score_seconds_bucket", "candidates_total", "fallback_share", "swaps_total"}
    wanted |= {"refusals_total", "active_version", "probability_bucket", "shadow_difference_bucket"}
    assert {f"recsys_kd_{name}" for name in wanted} <= shown
    assert "label_values(recsys_kd_active_version, model)" in json.dumps(DASHBOARD["templating"])
    assert "model" in exported["recsys_kd_active_version"]


def test_every_reason_to_refuse_is_counted_from_nought_on_since_prometheus_sees_no_counter_being_born(exported):
    counted = {reason: value for reason, value in exported["refusals"].items() if value}
    assert set(exported["refusals"]) == set(REASONS) and counted == {"digest": 1.0}


def test_panels_do_not_lie_upon_each_other():
    cells = [
        (p["gridPos"]["x"] + dx, p["gridPos"]["y"] + dy)
        for p in DASHBOARD["panels"]
        for dx in range(p["gridPos"]["w"])
        for dy in range(p["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24
    ids = [p["id"] for p in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids) == len(PANELS)
