"""The gate's policy file: what an artifact must show before it may go live.

```yaml
name: nightly
against: {teacher: 0.005, champion: 0.002, control: 0.002}   # models, and what of each metric may be lost to them
metrics: [auc, ndcg@10]
slices: {margin: 0.02, against: champion}
max_ece: 0.02
max_bytes: 20MB
latency: {p50_us: 300, p99_us: 1000}
teacher_max_age_days: 14
valid_days: 7
```
"""

import hashlib
import json
from pathlib import Path

from pydantic import Field, PrivateAttr, ValidationError

from recsys_kd.errors import InputError
from recsys_kd.evaluate.verdict import MOST_DAYS
from recsys_kd.settings import StrictConfig, explain, load_yaml
from recsys_kd.settings.gate import idle_margin

NOT_JUDGED = 0.002
"""Margin of a model that the policy names nowhere in `against`: a comparison needs one, and no check reads it."""


class BadPolicy(InputError):
    """The policy file can't be used as it is."""


class Latency(StrictConfig):
    """Microseconds to score 1,000 candidates of one request on one thread, through the artifact."""

    p50_us: float | None = Field(None, gt=0)
    p99_us: float | None = Field(None, gt=0)


class SlicePolicy(StrictConfig):
    """Parts of the log that must not regress; their intervals hold for all of them at once."""

    margin: float = Field(0.02, gt=0)
    against: str = "champion"
    names: tuple[str, ...] = ()
    """Slices whose names start so; all of them where none is given."""
    strict: bool = False
    """Hold back where a slice may lose more, too; else only where it is shown to: small slices rarely show anything."""

    def takes(self, name: str) -> bool:
        """Return whether a slice is one of these."""
        return not self.names or name.startswith(self.names)


class Policy(StrictConfig):
    """What the gate asks for; whatever is left out is not asked."""

    name: str
    against: dict[str, dict[str, float] | float] = Field(min_length=1)
    """Model -> margin of every metric, or metric -> margin. Better and worse are the metric's own."""
    metrics: tuple[str, ...] = Field(("auc",), min_length=1)
    slices: SlicePolicy | None = None
    max_ece: float | None = Field(None, gt=0)
    max_bytes: int | str | None = None
    latency: Latency = Latency()
    teacher_max_age_days: float | None = Field(None, gt=0)
    """Days from the last row that the model's teacher learned from to the last row of the log."""
    valid_days: float = Field(7.0, gt=0, le=MOST_DAYS)

    def margins(self, model: str) -> dict[str, float]:
        """Return metric -> margin against one model; where none is said, what is measured of it and not judged."""
        margin = self.against.get(model, NOT_JUDGED)
        return margin if isinstance(margin, dict) else dict.fromkeys(self.metrics, margin)

    _file: str = PrivateAttr("the policy")

    @property
    def file(self) -> str:
        """Where it was read from, for messages."""
        return self._file

    @property
    def digest(self) -> str:
        """SHA-256 of what it asks for."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    @property
    def slice_metric(self) -> str:
        """The metric that slices are judged by: the first of `metrics` that is measured against their model."""
        measured = self.margins(self.slices.against) if self.slices else {}
        return next((m for m in self.metrics if m in measured), next(iter(measured), self.metrics[0]))


def load_policy(path: Path) -> Policy:
    """Read a policy file. Raises: BadPolicy naming every bad key with its value."""
    try:
        policy = Policy.model_validate(load_yaml(path, "a policy file", BadPolicy))
    except ValidationError as error:
        raise BadPolicy(explain(error, str(path), Policy)) from None
    policy._file = str(path)
    for model in policy.against:
        for metric, margin in policy.margins(model).items():
            if not margin > 0:
                raise BadPolicy(f"{path}: against.{model}.{metric}: margin {margin:g}; margins are above 0")
            if why := idle_margin(metric, margin):
                raise BadPolicy(f"{path}: against.{model}.{metric}: {why}; give a smaller margin")
    return policy
