"""`evaluate`, `ab` and `gate`: what is measured, and what decides."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from recsys_kd.settings.base import StrictConfig


class EvaluateConfig(StrictConfig):
    """Metrics and intervals."""

    k: tuple[Annotated[int, Field(ge=1)], ...] = Field((10,), min_length=1)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    ece_bins: int = Field(20, ge=2)

    @field_validator("k")
    @classmethod
    def _once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"got {list(value)}; give every k once")
        return value


class Margin(StrictConfig):
    """What one metric must show, in the metric's own units."""

    not_worse: float = Field(0.002, gt=0)
    """A treatment may lose this much and still count as no worse (non-inferiority)."""
    better_by: float = Field(0.0, ge=0)
    """A treatment must gain more than this to count as better (superiority)."""


UNBOUNDED = ("logloss", "normalized_entropy", "corrected_dcg", "popularity")


def idle_margin(metric: str, margin: float) -> str:
    """Return why a margin asks for nothing, "" where it does ask: most metrics lie between 0 and 1."""
    if margin < 1 or metric.startswith(UNBOUNDED):
        return ""
    return f"a loss of {margin:g} {metric} is allowed, and it lies between 0 and 1: nothing would be asked for"


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

    @field_validator("decide")
    @classmethod
    def _asks(cls, value: dict[str, Margin]) -> dict[str, Margin]:
        for metric, margin in value.items():
            if why := idle_margin(metric, margin.not_worse):
                raise ValueError(f"{why}; give a smaller not_worse")
        return value

    power: float = Field(0.8, gt=0.5, lt=1)
    replicates: int = Field(1000, ge=100, le=10_000)
    """Of the bootstrap; every processor holds 8 KB for each."""
    seed: int = Field(7, ge=0, le=2**32 - 1)
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
