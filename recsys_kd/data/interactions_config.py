"""What an import's YAML may say."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from recsys_kd.data.interactions_read import DropRule, SourceColumns
from recsys_kd.errors import InputError
from recsys_kd.settings import StrictConfig, explain, load_yaml


class BadImport(InputError):
    """The import can't be done as it is configured."""


class SideTable(StrictConfig):
    """A table joined by user or item: its key and the columns to take, with their kind."""

    path: Path
    key: str
    columns: dict[str, Literal["categorical", "dense"]]


class TestLists(StrictConfig):
    """Given test requests: one row per user with the held-out item and a list of negatives."""

    path: Path
    negatives: str = "negatives"


class ImportConfig(StrictConfig):
    """What the source is and how it becomes a log."""

    name: str
    source: Path
    columns: SourceColumns
    drop: tuple[DropRule, ...] = ()
    drop_duplicates: bool = True
    min_user: int = Field(1, ge=1)
    min_item: int = Field(1, ge=1)
    items: SideTable | None = None
    users: SideTable | None = None
    negatives: int = Field(4, ge=1)
    test_negatives: int = Field(99, ge=1)
    """Negatives of each user's held-back events; a split by time holds none back, and gives all `negatives`."""
    popular: float = Field(0.5, ge=0, le=1)
    """Share of negatives drawn by popularity; the others are uniform."""
    catalogue_known: bool = False
    """All items may be shown from the start (sets without global time), not only those that have appeared."""
    past_items: Literal["auto", "exclude", "allow"] = "auto"
    """Whether items that the user had before may be negatives; `auto`: with `split: time`, where any user has an item
    again. The protocols of the other splits leave them out."""
    history: int = Field(20, ge=1)
    split: Literal["time", "leave_one_out", "lists"] = "time"
    test_days: float = Field(7, gt=0)
    validation_days: float = Field(7, gt=0)
    test_lists: TestLists | None = None
    seed: int = Field(7, ge=0)
    recipe: dict[str, Any] = Field(default_factory=dict)
    """Sections of the recipe to write, over the defaults."""

    @model_validator(mode="after")
    def _split_fits(self) -> "ImportConfig":
        if (self.split == "lists") != (self.test_lists is not None):
            raise ValueError("`split: lists` and `test_lists` need each other; give both or neither")
        if self.split == "time" and self.columns.order is not None:
            raise ValueError("`order` has no days to split by; give `columns.time`, or `split: leave_one_out`")
        if self.split == "time" and "test_negatives" in self.model_fields_set:
            raise ValueError(
                f"`test_negatives: {self.test_negatives}` would have no effect: with `split: time` the events of the "
                "test days get as many `negatives` as all others; remove it, or give `split: leave_one_out`"
            )
        return self


@dataclass(frozen=True)
class ImportResult:
    """read = events + dropped; rows are those of the log."""

    folder: Path
    read: int
    events: int
    dropped: dict[str, int]
    rows: int
    unmatched: dict[str, int]
    """Users and items of the log without a row in the table joined to them."""

    repeated: int
    """Events of an item that their user had before."""

    @property
    def recipe(self) -> Path:
        """A recipe that runs as it is."""
        return self.folder / "recipe.yaml"


def load_import(path: Path, base: Path | None = None) -> ImportConfig:
    """Read an import's YAML; sources lie under `base` (the file's folder where absent). Raises: BadImport."""
    try:
        config = ImportConfig.model_validate(load_yaml(path, "an import's YAML", BadImport))
    except ValidationError as error:
        raise BadImport(explain(error, str(path), ImportConfig)) from None
    root = base or path.resolve().parent

    def under(side: Any) -> Any:
        return side and side.model_copy(update={"path": root / side.path})

    return config.model_copy(
        update={
            "source": root / config.source,
            "items": under(config.items),
            "users": under(config.users),
            "test_lists": under(config.test_lists),
        }
    )
