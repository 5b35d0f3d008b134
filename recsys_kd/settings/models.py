"""`teacher`, `soft_labels`, `student` and `distil`: the models and how they are trained."""

from typing import Literal

from pydantic import Field

from recsys_kd.settings.base import StrictConfig, Units


class TeacherConfig(StrictConfig):
    """The large model. The defaults need no tuning; see README, "Teacher"."""

    kind: str = "dcnv2"
    """`dcnv2`, `precomputed`, or the name of an entry point in the group `recsys_kd.teachers`."""
    column: str | None = None
    """`precomputed`: the log column that holds the teacher's scores."""
    scores: Literal["logit", "probability"] = "logit"
    """`precomputed`: what the column holds."""
    width: int = Field(64, ge=4, le=1024, multiple_of=4)
    cross_layers: int = Field(2, ge=0, le=8)
    cross_rank: int = Field(64, ge=1)
    """Rank of the cross layers' matrices."""
    hidden: tuple[Units, ...] = Field((256, 128), min_length=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    epochs: int = Field(10, ge=1)
    patience: int = Field(1, ge=1)
    batch_size: int = Field(4096, ge=1)
    embedding_lr: float = Field(0.05, gt=0)
    dense_lr: float = Field(1e-3, gt=0)
    embedding_l2: float = Field(1e-5, ge=0)
    id_dropout: float = Field(0.02, ge=0, lt=1)
    """Share of ids that train the fallback row instead of their own."""
    bag: bool = False
    """The teacher is the mean, as logits, of the one trained on all rows and of those that gave the soft labels."""


class SoftLabelConfig(StrictConfig):
    """How the training rows get the teacher's scores."""

    protocol: Literal["out_of_time", "cross_fitted", "in_sample"] = "cross_fitted"
    blocks: int = Field(3, ge=2, le=32)
    """Time blocks (out of time: each is scored by a teacher of the blocks before it) or folds."""

    @property
    def teachers(self) -> int:
        """How many teachers are trained for the soft labels alone."""
        return {"cross_fitted": self.blocks, "out_of_time": self.blocks - 1, "in_sample": 1}[self.protocol]


class StudentConfig(StrictConfig):
    """The compact model."""

    width: int = Field(64, ge=1, le=256)
    """Numbers per id in training; compression decides how many of them are worth their bytes."""
    hidden: tuple[Units, ...] = Field((64, 32), min_length=1)
    """Hidden units; the first layer is the one folded into table rows."""
    epochs: int = Field(15, ge=1)
    patience: int = Field(1, ge=1)
    batch_size: int = Field(4096, ge=1)
    lr: float = Field(3e-3, gt=0)
    embedding_l2: float = Field(1e-3, ge=0)
    id_dropout: float = Field(0.02, ge=0, lt=1)


class DistilConfig(StrictConfig):
    """L = L_hard + weight * L_teacher."""

    weight: float = Field(1.0, ge=0)
    temperature: float = Field(1.0, gt=0)
    head: Literal["auxiliary", "single"] = "auxiliary"
    """Soft labels train a head of their own (the served probability stays calibrated), or the serving head."""
