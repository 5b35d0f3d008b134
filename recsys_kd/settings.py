"""The recipe: everything a night needs to know, as frozen values that forbid unknown keys.

`load_recipe` reads YAML and turns every mistake into one `BadRecipe` that names key, value and what to do.
"""

import datetime as dt
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from recsys_kd.errors import InputError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Fraction = Annotated[float, Field(gt=0, le=1)]
Units = Annotated[int, Field(ge=1)]


class BadRecipe(InputError):
    """The recipe can't be used as it is."""


class StrictConfig(BaseModel):
    """Frozen; unknown keys are errors; documentation sits beside each value."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Columns(StrictConfig):
    """Names of the canonical columns in the log; optional ones are absent unless named."""

    user_id: str = "user_id"
    item_id: str = "item_id"
    timestamp: str = "timestamp"
    label: str = "label"
    request_id: str | None = None
    """One list of candidates shown together; without it, a user's rows at one timestamp are a request."""
    position: str | None = None
    propensity: str | None = None
    weight: str | None = None
    """Sample weight, finite and not negative; 1 where absent."""


class FieldConfig(StrictConfig):
    """One more input column."""

    name: Name
    side: Literal["request", "item", "candidate"]
    kind: Literal["categorical", "bag", "dense", "vector"]
    column: str | None = None
    """Column in the log (or catalogue); the field's name where absent."""
    vocabulary: str | None = None
    """Share rows with this vocabulary, e.g. `item_id` for a history of items; the field's own where absent."""
    dim: int = Field(1, ge=1, le=4096)
    """Length of a vector field."""
    max_length: int = Field(50, ge=1, le=1000)
    """A bag keeps this many of its last values."""
    missing: Literal["quarantine", "accept"] = "quarantine"
    """A null dense or vector value quarantines its row (in a catalogue it counts against `max_quarantine`), or is taken
    as the mean, or zeros for a vector. A vector of another length is never accepted. Null categories are "unknown"."""

    @model_validator(mode="after")
    def _consistent(self) -> "FieldConfig":
        if self.kind in ("dense", "vector") and self.vocabulary is not None:
            raise ValueError(f"field '{self.name}' is {self.kind} and has no vocabulary; remove `vocabulary`")
        if self.kind == "vector" and self.dim < 2:
            raise ValueError(f"field '{self.name}' is a vector; give its length as `dim`")
        if self.kind == "bag" and self.side == "candidate":
            raise ValueError(f"field '{self.name}' is a bag on the candidate side; make its side `request` or `item`")
        return self


class Window(StrictConfig):
    """Timestamps outside are quarantined; ISO 8601 in UTC, start included, end not."""

    start: str | None = None
    end: str | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "Window":
        # Text of one precision compares as the dates do; others are compared where they are parsed.
        if self.start and self.end and len(self.start) == len(self.end) and self.start >= self.end:
            raise ValueError(f"`start` {self.start} is not before `end` {self.end}; every row would be outside")
        return self


class DataConfig(StrictConfig):
    """Where the logs are and what their columns mean."""

    path: Path
    """A Parquet file, a folder of them, or a folder hive-partitioned by day."""
    catalogue: Path | None = None
    """Parquet table with one row per item: the item-side fields."""
    columns: Columns = Columns()
    fields: tuple[FieldConfig, ...] = ()
    timestamp_unit: Literal["s", "ms", "us", "ns"] = "s"
    """Unit of an integer timestamp column; timestamp-typed columns carry their own."""
    window: Window = Window()
    label_max: float = Field(1.0, gt=0)
    """Labels lie in [0, label_max]; training and metrics use label / label_max."""
    min_count: int = Field(2, ge=1)
    """Ids rarer than this in the training days share the fallback row."""
    max_quarantine: float = Field(0.001, ge=0, le=1)
    """The run stops above this quarantined fraction of the rows read, or of a catalogue's items."""
    require_checksums: bool = False
    """Refuse Parquet files without page checksums (flipped bytes in such files can't be seen)."""
    on_bad_file: Literal["stop", "exclude"] = "stop"
    """A file that can't be read whole stops the run, or is excluded and counted."""

    @model_validator(mode="after")
    def _unique_names(self) -> "DataConfig":
        names = [f.name for f in self.fields]
        reserved = {"user_id", "item_id", "timestamp", "label", "request_id", "position", "propensity", "weight"}
        for name in names:
            if names.count(name) > 1 or name in reserved:
                raise ValueError(f"field name '{name}' is used twice or reserved; choose another")
        return self


class SplitConfig(StrictConfig):
    """Time split: the last rows are the test set, those before them validation, the rest training."""

    validation_days: float = Field(1.0, gt=0)
    test_days: float = Field(1.0, gt=0)
    column: str | None = None
    """Instead of days: a log column holding `train`, `validation` or `test`."""


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
    members: int = Field(1, ge=1, le=16)
    """Teachers per block or fold, each of another seed; the mean of their logits is the label."""
    slices: tuple[Name, ...] = ()
    """Categorical fields; soft labels are calibrated for each of their values, one field after the other."""

    @property
    def teachers(self) -> int:
        """How many teachers are trained for the soft labels alone."""
        parts = {"cross_fitted": self.blocks, "out_of_time": self.blocks - 1, "in_sample": 1}[self.protocol]
        return self.members * parts


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
    init: Literal["random", "teacher_pca"] = "random"
    """Tables start by chance, or as the principal components of the teacher's; the control's always by chance."""


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

    losses: dict[LossName, Annotated[float, Field(gt=0)]] = {"soft_bce": 1.0}
    """Terms and their weights; none at all trains the student as the control."""
    temperature: float = Field(1.0, gt=0)
    """Of the terms on logits; their gradients keep their size, T^2 is inside."""
    top: int = Field(5, ge=1, le=100)
    """`relaxed_ranking`: places of a request that are learned one by one."""
    rounds: int = Field(1, ge=1, le=4)
    """Above 1, students label the rows for the next round's; see `recsys_kd.flow.assistants`."""
    assistant_width: int | None = Field(None, ge=1, le=1024)
    """Width of those students; the student's own where absent."""
    head: Literal["auxiliary", "single"] = "auxiliary"
    """Soft labels train a head of their own (the served probability stays calibrated), or the serving head."""

    @property
    def over_requests(self) -> bool:
        """Whether a term compares the rows of a request."""
        return not OVER_REQUESTS.isdisjoint(self.losses)

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


class RecoveryConfig(StrictConfig):
    """The short fit after pruning; see `recsys_kd.distil.recovery`."""

    epochs: int = Field(2, ge=0)
    """Passes over the training rows; 0 leaves the student as it was pruned."""
    batch_size: int = Field(4096, ge=1)
    row_lr: float = Field(0.04, gt=0)
    """Learning rate of table rows, as a share of the standard deviation of their table's numbers."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate of bases, first layer and head."""


class CompressConfig(StrictConfig):
    """The byte budget, given one of three ways."""

    ratio: float | None = Field(None, gt=1)
    """Artifact at most 1/ratio of the teacher's bytes."""
    bytes: str | int | None = None
    """Artifact at most this large: a number, or text such as `20MB`."""
    keep_rows: Fraction | None = None
    """Keep this fraction of every table's rows."""
    bits: tuple[Literal[4, 8], ...] = Field((4, 8), min_length=1)
    """Bits per stored number that the plan may choose from, table by table."""
    fold: Literal["item", "field"] = "item"
    """One row per item for all item-side fields, or one per value of each field."""
    recovery: RecoveryConfig = RecoveryConfig()

    @model_validator(mode="after")
    def _one_budget(self) -> "CompressConfig":
        if sum(x is not None for x in (self.ratio, self.bytes, self.keep_rows)) > 1:
            raise ValueError("give one of `ratio`, `bytes` and `keep_rows`, not several")
        return self


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


class AbConfig(StrictConfig):
    """Offline A/B: what decides, by how much, how sure; see `recsys-kd ab`."""

    decide: dict[str, Margin] = Field(
        default={"auc": Margin(), "ndcg@10": Margin(not_worse=0.003), "logloss": Margin()}, min_length=1
    )
    """Metrics that decide; Holm keeps the error of all of them, over all treatments, at 1 - confidence."""
    power: float = Field(0.8, gt=0.5, lt=1)
    replicates: int = Field(1000, ge=100)
    seed: int = 7
    price: str | None = None
    """Log or catalogue column of prices: adds NDCG weighted by revenue."""
    slices: tuple[str, ...] = ()
    """Log or catalogue columns by whose values results are told, beside items' and users' traffic and the day."""


class GateConfig(StrictConfig):
    """What an artifact must show before it is registered as champion; margins are absolute."""

    metric: Literal["auc", "gauc", "ndcg", "hit_rate"] = "auc"
    teacher_margin: float = Field(0.01, gt=0)
    """The served artifact's interval must end above teacher - margin."""
    champion_margin: float = Field(0.002, gt=0)
    max_ece: float = Field(0.02, gt=0)
    min_ratio: float = Field(1.0, ge=1)
    """Teacher bytes / artifact bytes."""


class Recipe(StrictConfig):
    """One model's night."""

    name: Name
    seed: int = Field(7, ge=0)
    threads: int | None = Field(None, ge=1)
    store: Path = Path("store")
    """Artifacts, and the embedded registry beside them."""
    registry: str | None = None
    """Instead of the embedded one: `redis://host:port/db` or the path of an SQLite file; RECSYS_KD_REGISTRY wins."""
    work: Path = Path("work")
    """Stages' results, kept to continue an interrupted run."""
    data: DataConfig
    split: SplitConfig = SplitConfig()
    teacher: TeacherConfig = TeacherConfig()
    soft_labels: SoftLabelConfig = SoftLabelConfig()
    student: StudentConfig = StudentConfig()
    distil: DistilConfig = DistilConfig()
    compress: CompressConfig = CompressConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    ab: AbConfig = AbConfig()
    gate: GateConfig = GateConfig()

    @model_validator(mode="after")
    def _slices_are_categories(self) -> "Recipe":
        known = [f.name for f in self.data.fields if f.kind == "categorical"]
        for name in self.soft_labels.slices:
            if name not in known:
                raise ValueError(f"soft_labels.slices: '{name}' is no categorical field; give any of {known}")
        return self

    @field_validator("registry")
    @classmethod
    def _no_password(cls, value: str | None) -> str | None:
        if value is not None and "@" in value and urlsplit(value).password:
            raise ValueError("holds a password, and recipes are printed in reports; put the URL in RECSYS_KD_REGISTRY")
        return value


def explain(error: ValidationError, where: str) -> str:
    """Return pydantic's complaints as lines of `key: value: what to do`."""
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(recipe)"
        value = "" if isinstance(item.get("input"), dict | BaseModel) else f" (got {item['input']!r})"
        what = "unknown key; remove it or check its spelling" if item["type"] == "extra_forbidden" else item["msg"]
        lines.append(f"{where}: {key}: {what}{value}")
    return "\n".join(lines)


def parse_recipe(data: Any, where: str, base: Path) -> Recipe:
    """Validate a recipe's dict; relative paths are taken from `base`.

    Raises: BadRecipe naming every bad key with its value.
    """
    if not isinstance(data, dict):
        raise BadRecipe(
            f"{where}: a recipe is a mapping with keys such as `name` and `data`, got {type(data).__name__}"
        )
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise BadRecipe(explain(error, where)) from None
    anchored = {
        "data": recipe.data.model_copy(
            update={
                "path": base / recipe.data.path,
                "catalogue": recipe.data.catalogue and base / recipe.data.catalogue,
            }
        ),
        "store": base / recipe.store,
        "work": base / recipe.work,
    }
    return recipe.model_copy(update=anchored)


def load_recipe(path: Path) -> Recipe:
    """Read a YAML recipe. Raises: BadRecipe."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadRecipe(f"{path}: can't be read ({error.strerror}); give the path of a recipe file") from None
    except UnicodeDecodeError as error:
        raise BadRecipe(f"{path}: byte {error.start} is not UTF-8; save the recipe as UTF-8") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadRecipe(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return parse_recipe(data, str(path), path.resolve().parent)
