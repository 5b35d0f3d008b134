"""Which log column feeds what, checked against every file before any row is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import pyarrow as pa

from recsys_kd.data.convert import is_text, key_kind
from recsys_kd.data.drift import DOUBLE, LogFile, once, settle, value_type
from recsys_kd.data.roles import check_roles
from recsys_kd.data.roles import key_of as _key_of
from recsys_kd.errors import InputError
from recsys_kd.settings import DataConfig, FieldConfig, SplitConfig

OPTIONAL = ("request_id", "position", "propensity", "weight")
CHANCE = "chance:"
"""Before the name of an extra column of probabilities: rows where it is not in 0..1 are bad."""
SCORE = "score:"
"""Before the name of an extra column of a model's scores: read as float64, since scores may differ in their last digits
alone."""
_OWN = ("user", "item", "request", "row_id", "split")


class MissingColumn(InputError):
    """A column that the recipe names is not in the log or the catalogue."""


class WrongColumnType(InputError):
    """A column's type can't hold what the recipe says it holds."""


class UnknownVocabulary(InputError):
    """A field names a vocabulary that no field has."""


class ReservedName(InputError):
    """A field is called what the encoded log calls one of its own columns."""


@dataclass(frozen=True)
class Layout:
    """The columns to read: canonical name or field name -> log column; fields by where they live."""

    columns: dict[str, str]
    log_fields: tuple[FieldConfig, ...]
    item_fields: tuple[FieldConfig, ...]
    """Item-side fields that the catalogue holds."""
    types: dict[str, pa.DataType]

    @property
    def read(self) -> list[str]:
        """Log columns to read, each once."""
        return list(dict.fromkeys(self.columns.values()))

    @property
    def read_types(self) -> dict[str, pa.DataType]:
        """The type of every log column, as the files say together."""
        return {column: self.types[name] for name, column in self.columns.items()}


def score_of(column: str) -> str:
    """Return what an extra column of scores is called."""
    return f"{SCORE}{column}"


def chance_of(column: str) -> str:
    """Return what an extra column of probabilities is called."""
    return f"{CHANCE}{column}"


def column_of(field: FieldConfig) -> str:
    """Return the name of a field's column."""
    return field.column or field.name


def plan_layout(
    config: DataConfig,
    split: SplitConfig,
    files: list[LogFile],
    catalogue: pa.Schema | None,
    extra: Mapping[str, str],
) -> Layout:
    """Resolve every column of a log's `files`, those with rows.

    Raises: MissingColumn, RepeatedColumn, ReservedName, SchemaDrift, UnknownVocabulary, WrongColumnType, BadFile,
    LabelLeaks, SharedColumn.
    """
    for field in config.fields:
        if field.name in {*_OWN, *extra}:
            raise ReservedName(
                f"{key_of(field.name, config)}.name: '{field.name}': the name is taken by the encoded log; "
                f"give it another name and `column: {column_of(field)}`"
            )
    item_fields = tuple(
        f for f in config.fields if f.side == "item" and catalogue is not None and column_of(f) in catalogue.names
    )
    log_fields = tuple(f for f in config.fields if f not in item_fields)
    wanted = {name: getattr(config.columns, name) for name in ("user_id", "item_id", "timestamp", "label")}
    wanted |= {name: getattr(config.columns, name) for name in OPTIONAL if getattr(config.columns, name)}
    wanted |= {f.name: column_of(f) for f in log_fields} | dict(extra)
    if split.column:
        wanted["split"] = split.column
    check_roles(config, wanted, log_fields)
    settled = settle(files, wanted.values())
    check_present(config, wanted, files[0], catalogue)
    types = {name: settled[column] for name, column in wanted.items()}
    for name, kind in types.items():
        _check_type(name, wanted[name], kind, config, {f.name: f for f in log_fields})
    for field in item_fields:
        assert catalogue is not None  # only a catalogue gives item fields
        once(column_of(field), catalogue, config.catalogue or config.path)
        types[field.name] = catalogue.field(column_of(field)).type
        _check_type(field.name, column_of(field), types[field.name], config, {field.name: field})
    if catalogue is not None:
        _check_catalogue_key(config, types["item_id"], catalogue)
    _check_vocabularies(config, types)
    return Layout(wanted, log_fields, item_fields, types)


def check_present(config: DataConfig, wanted: Mapping[str, str], log: LogFile, catalogue: pa.Schema | None) -> None:
    """Raise MissingColumn naming every column of log and catalogue that is not there, and those that are."""
    missing, places = [], {f"the log ({log.path})": log.schema.names}
    if catalogue is not None:
        places[f"the catalogue ({config.catalogue})"] = catalogue.names
    for name, column in wanted.items():
        if column not in log.schema.names:
            item_side = catalogue is not None and any(f.name == name and f.side == "item" for f in config.fields)
            held = [*log.schema.names, *(catalogue.names if item_side and catalogue else ())]
            where = "in catalogue or log" if item_side else "in the log"
            missing.append(f"{key_of(name, config)}: no column '{column}' {where}{_near(column, held)}")
    if catalogue is not None and config.columns.item_id not in catalogue.names:
        column = config.columns.item_id
        missing.append(f"{key_of('item_id', config)}: no column '{column}' in the catalogue, which is keyed by it")
    if missing:
        told = [f"{place} has the columns {', '.join(names)}" for place, names in places.items()]
        raise MissingColumn("; ".join([*missing, *told, "name a column that is there, or write the missing one"]))


def _near(column: str, held: list[str]) -> str:
    near = get_close_matches(column, held, 1)
    return f" (perhaps '{near[0]}')" if near else ""


def key_of(name: str, config: DataConfig) -> str:
    """Return what in a recipe or a command names a column."""
    # A comparison's own columns are called so: it names scores, prices and slices on its command line.
    return "named on the command line" if name.startswith(("column:", CHANCE, SCORE)) else _key_of(name, config)


def _check_catalogue_key(config: DataConfig, log: pa.DataType, catalogue: pa.Schema) -> None:
    column = config.columns.item_id
    once(column, catalogue, config.catalogue or config.path)
    kind = catalogue.field(column).type
    if key_kind(kind) != key_kind(log):
        raise WrongColumnType(
            f"data.catalogue: column '{column}' is {kind} in {config.catalogue} and {log} in the log, so no item would "
            "be found; write both as integers or both as strings"
        )


def _check_vocabularies(config: DataConfig, types: dict[str, pa.DataType]) -> None:
    """Check that fields share rows only with fields whose keys are of the same kind."""
    lookups = [f for f in config.fields if f.kind in ("categorical", "bag")]
    owners = ["user_id", "item_id", *(f.name for f in lookups if f.vocabulary in (None, f.name))]
    for field in lookups:
        owner = field.vocabulary or field.name
        if owner not in owners:
            raise UnknownVocabulary(
                f"{key_of(field.name, config)}.vocabulary: '{owner}' is none of: {', '.join(owners)}; "
                "name one of these, or leave `vocabulary` out"
            )
        mine, theirs = (key_kind(value_type(types[n]) or types[n]) for n in (field.name, owner))
        if mine != theirs:
            raise WrongColumnType(
                f"{key_of(field.name, config)}: '{field.name}' holds {types[field.name]}, but its vocabulary '{owner}' "
                f"is of {types[owner]}, so no value would be found; write both as integers or both as strings"
            )


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def _check_type(name: str, column: str, kind: pa.DataType, config: DataConfig, fields: dict[str, FieldConfig]) -> None:
    wants = fields[name].kind if name in fields else ""
    inner = value_type(kind)
    checks = {
        "categorical": (key_kind(kind) is not None, "integers, booleans or strings"),
        "bag": (inner is not None and key_kind(inner) is not None, "lists of integers or strings"),
        "dense": (_is_number(kind), "numbers"),
        "vector": (inner is not None and _is_number(inner), "lists of numbers"),
    }
    if name in ("user_id", "item_id", "request_id"):
        checks[""] = (key_kind(kind) is not None, "integers or strings")
    elif name == "timestamp":
        is_time = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
        checks[""] = (is_time or _is_number(kind) or is_text(kind), "timestamps, numbers or ISO 8601 text")
    elif name == "split":
        checks[""] = (is_text(kind), "the texts train, validation and test")
    elif wants == "":
        checks[""] = (_is_number(kind) or is_text(kind), "numbers")
    if wants == "vector" and pa.types.is_fixed_size_list(kind) and kind.list_size != fields[name].dim:
        checks[wants] = (False, f"lists of {fields[name].dim}, as `dim` says: set `dim: {kind.list_size}`, if meant")
    good, expected = checks[wants]
    if not good:
        raise WrongColumnType(
            f"{key_of(name, config)}: column '{column}' is {kind}; it must hold {expected}{_hint(kind)}"
        )


def _hint(kind: pa.DataType) -> str:
    """Return what often is behind a type that fits no use."""
    if pa.types.is_floating(kind):
        return f" ({DOUBLE})"
    return " (it is null in every row of every file)" if pa.types.is_null(kind) else ""
