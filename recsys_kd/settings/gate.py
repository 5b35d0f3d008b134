"""`evaluate`, `ab` and `gate`: what is measured, and what decides."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from recsys_kd.settings.base import StrictConfig


class EvaluateConfig(StrictConfig):
    """Metrics and intervals."""

    k: tuple[Annotated[int, Field(ge=1)], ...] = Field((10,), min_length=1)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    ece_bins: int = Field(20, ge=2)


class Margin(StrictConfig):
    """What one metric must show, in the metric's own units."""

    not_worse: float = Field(0.002, gt=0)
    """A treatment may lose this much and still count as no worse (non-inferiority)."""
    better_by: float = Field(0.0, ge=0)
    """A treatment must gain more than this to count as better (superiority)."""


class GroupsConfig(StrictConfig):
    """Groups of a live experiment that the log comes from, for the sample-ratio check."""

    column: str
    """Log column that names each user's group."""
    shares: dict[str, Annotated[float, Field(gt=0)]] = Field(min_length=2)
    """Group -> share of users promised, in any unit."""

    @field_validator("shares", mode="before")
    @classmethod
    def _numbered_groups(cls, value: Any) -> Any:
        """Take groups that are numbers, as YAML reads `{0: 1, 1: 1}`, by their text."""
        if not isinstance(value, dict):
            return value
        return {str(k) if isinstance(k, int) and not isinstance(k, bool) else k: v for k, v in value.items()}


class AbConfig(StrictConfig):
    """Offline A/B: what decides, by how much, how sure; see `recsys-kd ab`."""

    decide: dict[str, Margin] = Field(
        default={"auc": Margin(), "ndcg@10": Margin(not_worse=0.003), "logloss": Margin()}, min_length=1
    )
    """Metrics that decide; Holm keeps the error of all of them, over all treatments, at 1 - confidence."""
    power: float = Field(0.8, gt=0.5, lt=1)
    replicates: int = Field(1000, ge=100, le=10_000)
    """Of the bootstrap; every processor holds 8 KB for each."""
    seed: int = 7
    cluster: Literal["user", "request"] = "user"
    """What is independent of what. Where users come back, their requests are not: by user is the safe choice."""
    price: str | None = None
    """Log or catalogue column of prices: adds NDCG weighted by revenue."""
    slices: tuple[str, ...] = ()
    """Log or catalogue columns by whose values results are told, beside items' and users' traffic and the day."""
    groups: GroupsConfig | None = None


class GateConfig(StrictConfig):
    """What an artifact must show before it is registered as champion; margins are absolute."""

    metric: Literal["auc", "gauc", "ndcg", "hit_rate"] = "auc"
    teacher_margin: float = Field(0.01, gt=0)
    """The served artifact's interval must end above teacher - margin."""
    champion_margin: float = Field(0.002, gt=0)
    max_ece: float = Field(0.02, gt=0)
    """Held back where the lower end of ECE's interval lies above: chance alone lifts ECE on small logs."""
    min_ratio: float = Field(1.0, ge=1)
    """Teacher bytes / artifact bytes."""
