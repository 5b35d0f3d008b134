"""`compress`: the byte budget, and the fit after pruning."""

from typing import Literal

from pydantic import Field, model_validator

from recsys_kd.settings.base import Fraction, StrictConfig


class RecoveryConfig(StrictConfig):
    """The short fit after pruning; see `recsys_kd.distil.recovery`."""

    epochs: int = Field(2, ge=0)
    """Passes over the training rows; 0 leaves the student as it was pruned."""
    batch_size: int = Field(4096, ge=1)
    row_lr: float = Field(0.04, gt=0)
    """Learning rate of table rows, as a share of the standard deviation of their table's numbers."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate of bases, first layer and head."""
    steps: int = Field(1, ge=1, le=16)
    """Rows go in so many steps, a fit after each, most of them early (a cubic schedule: arXiv 1710.01878)."""
    aware: bool = True
    """Rows are looked up as their codes will read them, so that the fit allows for rounding."""

    @model_validator(mode="after")
    def _steps_are_fitted(self) -> "RecoveryConfig":
        if self.steps > 1 and self.epochs == 0:
            raise ValueError(
                f"steps: got {self.steps} with `epochs: 0`, and no fit between them; give epochs: 1 or more"
            )
        return self


class CompressConfig(StrictConfig):
    """The byte budget, or what is kept whatever it weighs: given one of four ways."""

    ratio: float | None = Field(None, gt=1)
    """Artifact at most 1/ratio of the teacher's bytes."""
    bytes: str | int | None = None
    """Artifact at most this large: a number, or text such as `20MB`."""
    keep_rows: Fraction | None = None
    """Keep this fraction of all rows, those whose loss would cost most."""
    threshold: float | None = Field(None, gt=0)
    """Magnitude pruning as articles have it: keep rows whose largest number is at least this, whoever looks them up."""
    keep_by: Literal["loss", "lookups"] = "loss"
    """`keep_rows`: what makes rows worth keeping, the loss that they save or how often they are looked up alone."""
    half_life_days: float | None = Field(None, gt=0)
    """A lookup counts half as much for every so many days before the last training row; absent, all count alike."""
    bits: tuple[Literal[4, 8], ...] = Field((4, 8), min_length=1)
    """Bits per stored number that the plan may choose from, table by table."""
    hot_rows: float = Field(0.0, ge=0, le=1)
    """Without a budget: a second code refines this fraction of the kept rows, those that gain most by it."""
    tiers: bool = True
    """Within a budget, rows that are looked up most may be refined by a second code: more numbers, more bits."""
    units: Fraction = 1.0
    """Keep this fraction of every hidden layer's units, those whose loss would cost most."""
    fold: Literal["item", "field"] = "item"
    """One row per item for all item-side fields, or one per value of each field."""
    activations: Literal["auto", "int16", "float32"] = "auto"
    """How hidden layers read their inputs; by default what is faster of what costs nothing on the validation days."""
    recovery: RecoveryConfig = RecoveryConfig()

    @model_validator(mode="after")
    def _one_budget(self) -> "CompressConfig":
        given = {name: getattr(self, name) for name in ("ratio", "bytes", "keep_rows", "threshold")}
        given = {name: value for name, value in given.items() if value is not None}
        if len(given) > 1:
            told = ", ".join(f"`{name}: {value}`" for name, value in given.items())
            raise ValueError(f"got {told}; give one of `ratio`, `bytes`, `keep_rows` and `threshold`, not several")
        if self.keep_by != "loss" and self.keep_rows is None:
            raise ValueError(f"keep_by: got `{self.keep_by}` without `keep_rows`; give that, or leave keep_by out")
        if self.hot_rows and (self.bytes is not None or self.ratio is not None):
            raise ValueError("hot_rows: within a budget the plan finds the hot rows; leave it out, or give keep_rows")
        return self
