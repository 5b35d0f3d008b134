"""Which champion a rollback makes live again, on either store."""

import pytest

from recsys_kd.registry.protocol import NothingToRollBackTo, UnknownModel
from recsys_kd.registry.where import open_registry
from tests.registry.test_registry import add, night, verdict


def champions(registry, digests="abc"):
    for number, digest in enumerate(digests, start=1):
        add(registry, digest)
        registry.promote("shop", number, verdict(digest), number - 1, "ann", "")


def back(registry, to=None):
    return registry.rollback("shop", lambda path: None, "ann", "", to).number


def test_a_second_rollback_goes_further_back_and_not_to_what_was_just_rolled_back(registry):
    champions(registry)
    assert [back(registry), back(registry)] == [2, 1]
    words = "before version 1 there is no champion that was not rolled back from; --to VERSION makes one of 2, 3 live"
    with pytest.raises(NothingToRollBackTo, match=words):
        back(registry)
    assert registry.pointer("shop", "champion").number == 1


def test_a_promotion_after_a_rollback_goes_back_to_what_was_live_in_between(registry):
    champions(registry)
    back(registry)
    add(registry, "d")
    registry.promote("shop", 4, verdict("d"), 4, "ann", "")
    assert [back(registry), back(registry)] == [2, 1]  # 3 was found bad
    registry.promote("shop", 3, verdict("c"), 7, "ann", "judged again")
    registry.promote("shop", 1, verdict("a"), 8, "ann", "judged again")
    assert [back(registry), back(registry)] == [3, 1]


def test_a_rollback_may_name_any_version_that_was_champion_and_no_other(registry):
    champions(registry)
    add(registry, "d")
    back(registry)
    assert back(registry, to=3) == 3 and registry.pointer("shop", "previous").number == 2
    assert back(registry) == 2  # it was put above 2 again
    for to, words in ((4, "version 4 never was champion, so no gate let it"), (2, "version 2 is live already")):
        with pytest.raises(NothingToRollBackTo, match=words):
            back(registry, to)
    with pytest.raises(UnknownModel, match="no version 9 of model 'shop'"):
        back(registry, 9)


def test_a_rollback_passes_over_versions_whose_files_were_collected(registry):
    champions(registry, "abcd")
    registry.collect("shop", 2, "ann", "gc")
    assert [back(registry), back(registry)] == [3, 1]


def test_where_nothing_was_champion_before_it_is_said_what_makes_another_version_live(registry):
    add(registry, "a")
    with pytest.raises(
        NothingToRollBackTo, match=r"it has no champion yet; one goes live by its night, or by `recsys-kd "
    ):
        back(registry)
    champions(registry, "a")
    with pytest.raises(
        NothingToRollBackTo, match=r"another version goes live by its night, or by `recsys-kd gate POLIC"
    ):
        back(registry)


def test_a_restored_registry_knows_from_its_nights_what_was_rolled_back(registry, tmp_path):
    for day, digest in enumerate("abc", start=5):
        night(registry, f"2026-01-0{day}", digest)
    assert back(registry) == 2
    other = open_registry(None, tmp_path / "other")
    other.restore("shop", registry.state("shop"), "ann")
    assert back(other) == 1
