"""`teacher`, `soft_labels`, `student` and `distil`: the models and how they are trained."""

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from recsys_kd.settings.base import Name, StrictConfig, Units

BatchSize = Annotated[int, Field(ge=1)] | Literal["auto"]


class TeacherConfig(StrictConfig):
    """The large model. The defaults need no tuning; see README, "Teacher"."""

    kind: str = "dcnv2"
    """`dcnv2`, `precomputed`, or the name of an entry point in the group `recsys_kd.teachers`."""
    column: str | None = None
    """`precomputed`: the log column that holds the teacher's scores."""
    scores: Literal["logit", "probability"] = "logit"
    """`precomputed`: what the column holds."""
    trained_until: dt.date | None = None
    """`precomputed`: the day, 0:00 UTC, before which the rows lie that taught the teacher; it does not label those."""
    max_age_days: float | None = Field(None, gt=0)
    """`precomputed`: a teacher older than this when validation begins is not believed; needs `trained_until`."""
    width: int = Field(64, ge=4, le=1024, multiple_of=4)
    cross_layers: int = Field(2, ge=0, le=8)
    cross_rank: int = Field(64, ge=1)
    """Rank of the cross layers' matrices."""
    hidden: tuple[Units, ...] = Field((256, 128), min_length=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    epochs: int = Field(10, ge=1)
    patience: int = Field(1, ge=1)
    batch_size: BatchSize = "auto"
    """Rows per step; `auto`: a hundredth of the log, at least 256 and at most 4096."""
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
    members: int = Field(1, ge=1, le=16)
    """Teachers per block or fold, each of another seed."""
    mix: Literal["mean", "gated"] = "mean"
    """Their label: the mean of their logits, or one whose weights are chosen per sample by a gate fitted to labels."""
    slices: tuple[Name, ...] = ()
    """Categorical fields; soft labels are calibrated for each of their values, one field after the other."""

    @property
    def teachers(self) -> int:
        """How many teachers are trained for the soft labels alone."""
        parts = {"cross_fitted": self.blocks, "out_of_time": self.blocks - 1, "in_sample": 1}[self.protocol]
        return self.members * parts

    @model_validator(mode="after")
    def _can_be_gated(self) -> "SoftLabelConfig":
        if self.mix == "gated" and self.members == 1:
            raise ValueError("mix: `gated` chooses among teachers, and members is 1; give members: 2 or more")
        if self.mix == "gated" and self.protocol == "in_sample":
            raise ValueError("mix: `gated` is fitted to rows that no teacher has learned; in_sample leaves none")
        return self


class StudentConfig(StrictConfig):
    """The compact model."""

    width: int = Field(64, ge=1, le=256)
    """Numbers per id in training; compression decides how many of them are worth their bytes."""
    hidden: tuple[Units, ...] = Field((64, 32), min_length=1)
    """Hidden units; the first layer is the one folded into table rows."""
    epochs: int = Field(15, ge=1)
    patience: int = Field(1, ge=1)
    batch_size: BatchSize = "auto"
    """As the teacher's; the control's too."""
    lr: float = Field(3e-3, gt=0)
    embedding_l2: float = Field(1e-3, ge=0)
    id_dropout: float = Field(0.02, ge=0, lt=1)
    init: Literal["auto", "random", "teacher_pca"] = "random"
    """Tables start by chance, or as the principal components of the teacher's (auto: if the night trains its tables).

    The control's always start by chance."""
    warm_start: bool = False
    """Go on from the champion's float student with the rows since its last, where the store holds it."""


LossName = Literal[
    "soft_bce",
    "logit_mse",
    "listwise",
    "pairwise",
    "relaxed_ranking",
    "hidden_hint",
    "embedding_hint",
    "contrastive",
]
OVER_REQUESTS: frozenset[LossName] = frozenset({"listwise", "pairwise", "relaxed_ranking"})
"""Losses that compare the rows of a request: batches then hold whole requests."""
OVER_FEATURES: frozenset[LossName] = frozenset({"hidden_hint", "embedding_hint", "contrastive"})
"""Losses that look behind the teacher's logits: the teacher itself scores every batch, once more per epoch."""


class DistilConfig(StrictConfig):
    """L = L_hard + the sum of weight * term; see `recsys_kd.distil.objective`."""

    losses: dict[LossName, Annotated[float, Field(gt=0)]] = Field(default={"soft_bce": 1.0})
    """Terms and their weights; none at all trains the student on labels alone."""
    temperature: float = Field(1.0, gt=0)
    """Of the terms on logits; their gradients keep their size, T^2 is inside."""
    top: int = Field(5, ge=1, le=100)
    """`relaxed_ranking`: places of a request that are learned one by one."""
    rounds: int = Field(1, ge=1, le=4)
    """Above 1, students label the rows for the next round's; see `recsys_kd.flow.assistants`."""
    assistant_width: int | None = Field(None, ge=1, le=1024)
    """Width of those students; the student's own where absent."""
    head: Literal["auxiliary", "single"] = "auxiliary"
    """Soft labels train a head of their own, or the serving head.

    Of two heads the mix is served that fits the validation days; its probability stays calibrated."""

    @property
    def over_requests(self) -> bool:
        """Whether a term compares the rows of a request."""
        return not OVER_REQUESTS.isdisjoint(self.losses)

    @property
    def teaches_auxiliary(self) -> bool:
        """Whether soft labels train the auxiliary head."""
        return self.head == "auxiliary" and not OVER_FEATURES.issuperset(self.losses)

    @property
    def over_features(self) -> bool:
        """Whether a term needs the teacher itself while the student trains."""
        return not OVER_FEATURES.isdisjoint(self.losses)

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, data: Any) -> Any:
        if isinstance(data, dict) and "weight" in data:
            raise ValueError(f"`weight` is gone; write `losses: {{soft_bce: {data['weight']}}}`")
        return data

    @model_validator(mode="after")
    def _rounds_teach(self) -> "DistilConfig":
        if self.rounds > 1 and not self.losses:
            raise ValueError(f"rounds: got {self.rounds} with `losses: {{}}`, which learn nothing of them; give a loss")
        if self.assistant_width is not None and self.rounds == 1:
            raise ValueError(
                f"assistant_width: got {self.assistant_width} with one round, which has no assistants; "
                "give rounds: 2 or more, or leave it out"
            )
        return self
