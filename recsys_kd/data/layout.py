"""Which log column feeds what, checked against every file before any row is read."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from recsys_kd.data.convert import is_text, key_kind
from recsys_kd.errors import InputError
from recsys_kd.settings import DataConfig, FieldConfig, SplitConfig

OPTIONAL = ("request_id", "position", "propensity", "weight")
_OWN = ("user", "item", "request", "row_id", "split")


class MissingColumn(InputError):
    """A column that the recipe names is not in the log or the catalogue."""


class WrongColumnType(InputError):
    """A column's type can't hold what the recipe says it holds."""


class UnknownVocabulary(InputError):
    """A field names a vocabulary that no field has."""


class ReservedName(InputError):
    """A field is called what the encoded log calls one of its own columns."""


class RepeatedColumn(InputError):
    """A file has two columns of the name that is wanted."""


class SchemaDrift(InputError):
    """Two files of one log disagree about a column."""


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


def column_of(field: FieldConfig) -> str:
    """Return the name of a field's column."""
    return field.column or field.name


def plan_layout(
    config: DataConfig, split: SplitConfig, schema: pa.Schema, catalogue: pa.Schema | None, extra: dict[str, str]
) -> Layout:
    """Resolve every column. Raises: MissingColumn, RepeatedColumn, ReservedName, UnknownVocabulary, WrongColumnType."""
    for field in config.fields:
        if field.name in {*_OWN, *extra}:
            raise ReservedName(
                f"field '{field.name}': the name is taken by the encoded log; give it another name and "
                f"`column: {column_of(field)}`"
            )
    item_fields = tuple(
        f for f in config.fields if f.side == "item" and catalogue is not None and column_of(f) in catalogue.names
    )
    log_fields = tuple(f for f in config.fields if f not in item_fields)
    wanted = {name: getattr(config.columns, name) for name in ("user_id", "item_id", "timestamp", "label")}
    wanted |= {name: getattr(config.columns, name) for name in OPTIONAL if getattr(config.columns, name)}
    wanted |= {f.name: column_of(f) for f in log_fields} | extra
    if split.column:
        wanted["split"] = split.column
    for name, column in wanted.items():
        if column not in schema.names:
            raise _missing(name, column, schema, config)
        _once(column, schema, config.path)
    types = {name: schema.field(column).type for name, column in wanted.items()}
    for name, kind in types.items():
        _check_type(name, wanted[name], kind, {f.name: f for f in log_fields})
    for field in item_fields:
        assert catalogue is not None  # only a catalogue gives item fields
        types[field.name] = catalogue.field(column_of(field)).type
        _check_type(field.name, column_of(field), types[field.name], {field.name: field})
    if catalogue is not None:
        _check_catalogue_key(config, types["item_id"], catalogue)
    _check_vocabularies(config, types)
    return Layout(wanted, log_fields, item_fields, types)


def _once(column: str, schema: pa.Schema, path: Path) -> None:
    if schema.names.count(column) > 1:
        raise RepeatedColumn(f"{path}: has {schema.names.count(column)} columns called '{column}'; rename all but one")


def _check_catalogue_key(config: DataConfig, log: pa.DataType, catalogue: pa.Schema) -> None:
    column = config.columns.item_id
    if column not in catalogue.names:
        raise MissingColumn(
            f"data.columns.item_id: no column '{column}' in {config.catalogue}, which is keyed by it; the columns are: "
            f"{', '.join(catalogue.names)}"
        )
    _once(column, catalogue, config.catalogue or config.path)
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
                f"field '{field.name}': vocabulary '{owner}' is none of: {', '.join(owners)}; "
                "name one of these, or leave `vocabulary` out"
            )
        mine, theirs = (key_kind(_value_type(types[n]) or types[n]) for n in (field.name, owner))
        if mine != theirs:
            raise WrongColumnType(
                f"field '{field.name}': holds {types[field.name]}, but its vocabulary '{owner}' is of {types[owner]}, "
                "so no value would be found; write both as integers or both as strings"
            )


def _missing(name: str, column: str, schema: pa.Schema, config: DataConfig) -> MissingColumn:
    key = f"data.columns.{name}" if name in {*OPTIONAL, "user_id", "item_id", "timestamp", "label"} else f"field {name}"
    where = f"{config.path}" + (f" or {config.catalogue}" if config.catalogue else "")
    return MissingColumn(f"{key}: no column '{column}' in {where}; the columns are: {', '.join(schema.names)}")


def _value_type(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return kind.value_type
    return None


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def _check_type(name: str, column: str, kind: pa.DataType, fields: dict[str, FieldConfig]) -> None:
    wants = fields[name].kind if name in fields else ""
    inner = _value_type(kind)
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
    good, expected = checks[wants]
    if not good:
        raise WrongColumnType(f"'{name}': column '{column}' is {kind}; it must hold {expected}")


def widest(kind: pa.DataType) -> pa.DataType:
    """Return the type that holds every value of `kind`'s family."""
    inner = _value_type(kind)
    if inner is not None:
        return pa.list_(widest(inner))
    if is_text(kind):
        return pa.large_string()
    if pa.types.is_dictionary(kind):
        return widest(kind.value_type)
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return pa.int64()
    return pa.float64() if pa.types.is_floating(kind) else kind


def _family(kind: pa.DataType) -> str:
    """Return what files must agree on. uint64 stands alone: beyond 2^63 its ids would be taken for negative int64."""
    inner = _value_type(kind)
    if inner is not None:
        return f"list of {_family(inner)}"
    if is_text(kind):
        return "text"
    if pa.types.is_dictionary(kind):
        return _family(kind.value_type)
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return "integer"
    if pa.types.is_floating(kind):
        return "float"
    return str(kind)


def check_drift(path: Path, schema: pa.Schema, first: Path, layout: Layout) -> None:
    """Raise SchemaDrift if a later file's columns differ in kind from the first file's; widths may differ."""
    for name, column in layout.columns.items():
        if column not in schema.names:
            raise SchemaDrift(f"{path}: no column '{column}', which {first} has; rewrite the file or leave it out")
        _once(column, schema, path)
        got, want = schema.field(column).type, layout.types[name]
        if _family(got) != _family(want):
            raise SchemaDrift(
                f"{path}: column '{column}' is {got}, in {first} it is {want}; rewrite one of them so that they agree"
            )
