"""The sample-ratio check of a log from a live experiment: has each group the share of users that it was promised?"""

from dataclasses import dataclass

import numpy as np

from recsys_kd.evaluate.inference import BROKEN_SPLIT, BadShares, sample_ratio
from recsys_kd.flow.ab_log import ScoredLog
from recsys_kd.settings import GroupsConfig


@dataclass(frozen=True)
class GroupShares:
    """Users per group, how many stand in several, and the p-value of the promised shares (chi-square)."""

    counts: dict[str, int]
    p: float
    in_several: int

    @property
    def broken(self) -> bool:
        """Whether differences between the groups can't be trusted."""
        return self.p < BROKEN_SPLIT or self.in_several > 0

    def headline(self, said: str) -> str:
        """Return a comparison's headline, which a broken split takes its decision from."""
        if not self.broken:
            return said
        return f"No decision: the sample ratio is broken, look at assignment and logging first. Without that: {said}"

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        told = ", ".join(f"{name} {users:,}" for name, users in self.counts.items())
        if not self.broken:
            return f"sample ratio holds: {told} users, p {self.p:.2g}"
        several = f", {self.in_several:,} users stand in several groups" if self.in_several else ""
        return (
            f"sample ratio is broken: {told} users, p {self.p:.2g}{several}; groups differ in more than what they were "
            "shown, look at assignment and logging before any result"
        )


def group_shares(log: ScoredLog, groups: GroupsConfig) -> GroupShares:
    """Return how users fall into the groups of a column. Raises: BadShares where names differ."""
    keys, called = log.categories[groups.column], log.names[groups.column].called
    pair = np.unique(np.stack([log.user.astype(np.int64), keys]), axis=1)
    values, users = np.unique(pair[1], return_counts=True)
    counts = {called.get(int(v), "(none)"): int(n) for v, n in zip(values, users, strict=True)}
    if set(counts) != set(groups.shares):
        raise BadShares(
            f"ab.groups.shares: column '{groups.column}' has the groups {sorted(counts)}, shares are given for "
            f"{sorted(groups.shares)}; give one share for every group"
        )
    several = pair.shape[1] - len(np.unique(pair[0]))
    return GroupShares(counts, sample_ratio(counts, groups.shares), several)
