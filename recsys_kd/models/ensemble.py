"""Several models as one: the mean of their logits."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys_kd.batch import Batch, RankingModel


class Ensemble:
    """A `RankingModel` that scores with the mean of its members' logits; they share one schema."""

    def __init__(self, members: Sequence[RankingModel]) -> None:
        self.members = tuple(members)
        self.schema = self.members[0].schema

    def score(self, batch: Batch) -> NDArray[np.float32]:
        """Return logits [B]."""
        mean: NDArray[np.float32] = np.mean([model.score(batch) for model in self.members], axis=0, dtype=np.float32)
        return mean
