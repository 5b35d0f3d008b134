"""What a student can learn from inside its teacher."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from torch import Tensor

from recsys_kd.batch import Batch


class Features(NamedTuple):
    """hidden: the last hidden layer [B, H]. embeddings: the pooled embedding of each lookup or vector field [B, W]."""

    hidden: Tensor
    embeddings: Mapping[str, Tensor]


class FeatureTeacher(Protocol):
    """A teacher that shows its features; `recsys_kd.models.teacher.Teacher` is one."""

    def features(self, batch: Batch) -> Features:
        """Return the features of a batch, in evaluation mode and without gradients."""
        ...
