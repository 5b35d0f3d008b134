"""Both plugins keep the contract, and the checks do find those that do not."""

import importlib.metadata
from typing import ClassVar

import numpy as np
import pytest

import recsys_kd_inprocess
from recsys_kd.flow import conformance, conformance_world
from recsys_kd.flow.conformance import CHECKS, ContractBroken, World
from recsys_kd.runtime import plugins
from recsys_kd.runtime.plugins import PluginMissing, PluginUnsupported
from recsys_kd.runtime.service import Answer


@pytest.mark.parametrize("plugin", ["inprocess", "kserve"])
@pytest.mark.parametrize("check", CHECKS, ids=[check.__name__ for check in CHECKS])
def test_a_plugin_of_ours_keeps_the_contract(tmp_path, plugin, check):
    check(World(tmp_path, plugin))


class Deaf(recsys_kd_inprocess.Backend):
    """Never looks at the registry again."""

    def refresh(self):
        return False


class Mixed(recsys_kd_inprocess.Backend):
    """Gives other scores than the artifact's."""

    def answer(self, request, candidates, features=None):
        found = super().answer(request, candidates, features)
        return Answer(found.scores + np.float32(0.01), found.version, found.digest)


class Meek(recsys_kd_inprocess.Backend):
    """Answers whatever it is asked."""

    def answer(self, request, candidates, features=None):
        known = {k: v for k, v in request.items() if k in ("user_id", "device", "history")}
        try:
            return super().answer(known, candidates, features)
        except plugins.InputError:
            return Answer(np.zeros(len(candidates), np.float32), self.version, "")


class Lingering(recsys_kd_inprocess.Backend):
    """Leaves its thread behind."""

    left: ClassVar[list] = []

    def close(self):
        self.left.append(self)


BREAKERS = [
    (Deaf, conformance.a_promoted_version_answers_after_refresh_and_a_rollback_too, "the new champion does not answer"),
    (Mixed, conformance.it_gives_the_artifacts_probabilities_and_names_the_version, "user 3: "),
    (Mixed, conformance.every_request_is_answered_by_one_version_while_others_are_swapped_in, "requests went wrong"),
    (Meek, conformance.a_bad_request_is_refused_in_words_and_disturbs_no_other, "is answered, although it is wrong"),
    (Lingering, conformance.closing_it_ends_its_threads_and_it_opens_again, "threads are left after closing"),
]


@pytest.mark.parametrize(("backend", "check", "words"), BREAKERS, ids=[b.__name__ for b, *_ in BREAKERS])
def test_a_plugin_that_breaks_the_contract_is_found_out(tmp_path, monkeypatch, backend, check, words):
    monkeypatch.setattr(conformance_world, "find", lambda name: backend)
    try:
        with pytest.raises(ContractBroken, match=words):
            check(World(tmp_path, "broken"))
    finally:
        while Lingering.left:
            Lingering.left.pop().service.stop()


def offer(monkeypatch, value):
    entry = importlib.metadata.EntryPoint("other", value, plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])


def test_a_plugin_that_speaks_another_version_is_refused_before_it_is_opened(monkeypatch):
    offer(monkeypatch, "tests.flow.test_conformance:Later")
    with pytest.raises(PluginUnsupported, match="'other' speaks version 2 of the contract, this recsys-kd version 1"):
        plugins.find("other")
    offer(monkeypatch, "tests.flow.test_conformance:nothing")
    with pytest.raises(PluginUnsupported, match="can't be imported"):
        plugins.find("other")
    offer(monkeypatch, "no_such_module:Backend")
    with pytest.raises(PluginUnsupported, match=r"'other' \(no_such_module:Backend\) can't be imported"):
        plugins.find("other")


class Later:
    api_version = 2


def test_a_plugin_that_is_not_installed_is_named_beside_those_that_are(monkeypatch):
    offer(monkeypatch, "x:y")
    with pytest.raises(
        PluginMissing, match=r"'kserve' is installed \(installed: other\); pip install recsys-kd-kserve"
    ):
        plugins.find("kserve")


def test_the_command_prints_a_line_per_check_and_counts_what_is_broken(capsys, monkeypatch):
    monkeypatch.setattr(conformance, "CHECKS", CHECKS[1:4:2])
    assert conformance.main("inprocess") == 0 and capsys.readouterr().out.count("ok  ") == 2
    monkeypatch.setattr(conformance_world, "find", lambda name: Mixed)
    assert conformance.main("inprocess") == 1
    assert "NO  it gives the artifacts probabilities and names the version: ContractBroken" in capsys.readouterr().out
