"""Damage that nobody meant, and forgeries at random."""

from recsys_kd.artifact.read import open_artifact
from tests.attacks import flips, fuzz_artifact
from tests.attacks.small import small_artifact


def test_no_flipped_bit_is_accepted(tmp_path):
    """A seeded 4,000 of them; `python -m tests.attacks.flips` (and `make bench`) flips 100,000."""
    path = small_artifact(tmp_path).path
    assert flips.flip(path, 4_000, seed=1) == []


def test_no_truncation_is_accepted(tmp_path):
    path = small_artifact(tmp_path).path
    assert flips.truncate(path) == []
    open_artifact(path)


def test_the_flips_visit_every_bit_once_before_any_comes_again(tmp_path):
    path = small_artifact(tmp_path).path
    bits = 8 * sum(file.stat().st_size for file in path.iterdir())
    assert len(set(flips.positions(path, bits, 0))) == bits


def test_random_forgeries_are_refused_or_score_but_never_crash(tmp_path):
    outcomes = fuzz_artifact.run(300, tmp_path)
    assert sum(outcomes.values()) == 300
    assert {"refused: golden", "refused: manifest", "refused: tensor-names", "refused: index"} <= set(outcomes)
