"""Both plugins keep the contract, and the checks do find those that do not."""

import contextlib
import dataclasses
import importlib.metadata
import random
from typing import ClassVar

import numpy as np
import pytest

import recsys_kd_inprocess
from recsys_kd.flow import conformance, conformance_world
from recsys_kd.flow.conformance import CHECKS, ContractBroken, World
from recsys_kd.runtime import plugins
from recsys_kd.runtime.plugins import PluginMissing, PluginUnsupported
from recsys_kd.runtime.service import Answer
from recsys_kd.runtime.versions import NoModel


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


class Sorting(recsys_kd_inprocess.Backend):
    """Gives the scores of its candidates in the order of their ids."""

    def answer(self, request, candidates, features=None):
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            candidates = np.sort(np.array(candidates, np.int64))
        return super().answer(request, candidates, features)


class Once(recsys_kd_inprocess.Backend):
    """Answers a candidate that is there twice once."""

    def answer(self, request, candidates, features=None):
        return super().answer(request, list(dict.fromkeys(candidates)), features)


class Featureless(recsys_kd_inprocess.Backend):
    """Loses what belongs to candidates; the model takes what it lacks for unknown."""

    def answer(self, request, candidates, features=None):
        known = features and {"discount": features["discount"]}
        return super().answer(request, candidates, known)


class Shuffled(recsys_kd_inprocess.Backend):
    """Gives every candidate another one's features."""

    def answer(self, request, candidates, features=None):
        other = features and {name: list(values)[::-1] for name, values in features.items()}
        return super().answer(request, candidates, other)


class Told(recsys_kd_inprocess.Backend):
    """Is told less than it was."""

    lost: ClassVar[dict] = {}

    @classmethod
    def open(cls, config):
        return super().open(dataclasses.replace(config, **cls.lost))


class NoCanary(Told):
    lost: ClassVar[dict] = {"canary": 0.0}


class OnlyCanary(Told):
    lost: ClassVar[dict] = {"canary": 1.0}


class NoStore(Told):
    lost: ClassVar[dict] = {"store": None}


class Fickle(Told):
    """Rolls dice for every request."""

    def answer(self, request, candidates, features=None):
        self.service.canary = random.random()
        return super().answer(request, candidates, features)


class Misnamed(recsys_kd_inprocess.Backend):
    """Names the champion, whoever answered."""

    def answer(self, request, candidates, features=None):
        return dataclasses.replace(super().answer(request, candidates, features), version=self.version)


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
    (Sorting, conformance.it_gives_the_artifacts_probabilities_and_names_the_version, "user 3: "),
    (Once, conformance.it_gives_the_artifacts_probabilities_and_names_the_version, "user 3: "),
    (Featureless, conformance.every_candidate_has_the_score_of_its_own_features, "with candidates' features it gives"),
    (Shuffled, conformance.every_candidate_has_the_score_of_its_own_features, "with candidates' features it gives"),
    (NoCanary, conformance.a_canary_answers_its_share_of_users_and_always_the_same_ones, "the challenger answers 0"),
    (OnlyCanary, conformance.a_canary_answers_its_share_of_users_and_always_the_same_ones, "challenger answers 64"),
    (
        Fickle,
        conformance.a_canary_answers_its_share_of_users_and_always_the_same_ones,
        "by the challenger another time",
    ),
    (
        Misnamed,
        conformance.a_canary_answers_its_share_of_users_and_always_the_same_ones,
        "it names version 1, and gives",
    ),
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


def test_a_plugin_that_reads_the_registrys_paths_instead_of_its_store_does_not_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(conformance_world, "find", lambda name: NoStore)
    with pytest.raises(NoModel, match="refused by check 'exists'"):
        conformance.artifacts_are_read_from_the_store_that_the_host_sees(World(tmp_path, "broken"))


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
