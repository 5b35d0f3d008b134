"""Swaps under traffic, in short; `python -m tests.runtime.swaps 1000` is the long form."""

from tests.attacks.test_rules import ATTACKS, FOLDERS
from tests.runtime import swaps


def test_every_request_is_answered_by_one_version_while_sound_and_broken_ones_become_champion(tmp_path):
    found = swaps.run(tmp_path, 88)  # every broken one has its turn
    assert found.wrong == [] and found.answered > 500 and len(found.versions) == swaps.SOUND
    assert [wanted for wanted, _ in found.served] == [got for _, got in found.served] and len(found.served) == 176
    assert set(found.refused) == {rule for rule, *_ in (*ATTACKS, *FOLDERS)} | {"digest", "model"}
    assert found.resident == 2 and found.memory[1] - found.memory[0] < 20e6
