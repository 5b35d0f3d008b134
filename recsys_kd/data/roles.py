"""One column, one role: what reads the label's column knows the answer, and two roles of one column say nothing apart.

Left is one pair: a shop without sessions may call a visit both the user and the request.
"""

from collections.abc import Mapping
from itertools import combinations

from recsys_kd.errors import InputError
from recsys_kd.settings import DataConfig, FieldConfig

_ROLES = ("user_id", "item_id", "timestamp", "label", "request_id", "position", "propensity", "weight", "split")
_ALIKE = {("user_id", "request_id")}


class LabelLeaks(InputError):
    """The answer is read as an input, or as the teacher's score."""


class SharedColumn(InputError):
    """One column is given two roles that must differ."""


def check_roles(config: DataConfig, wanted: Mapping[str, str], fields: tuple[FieldConfig, ...]) -> None:
    """Raise where a log column is read twice as what can't be the same.

    wanted: canonical name or field name -> log column; fields: those that the log holds.
    Raises: LabelLeaks, SharedColumn.
    """
    label = wanted["label"]
    for name in [*(f.name for f in fields), *(n for n in wanted if n == "teacher")]:
        if wanted[name] == label:
            what = "the teacher's scores" if name == "teacher" else f"field '{name}'"
            advice = "name the column that holds them" if name == "teacher" else "remove the field"
            raise LabelLeaks(
                f"{key_of(name, config)}: {what} would be column '{label}', which is the label (data.columns.label): "
                f"models would be told what they are to predict; {advice}, or name another column as the label"
            )
    for one, other in combinations([name for name in _ROLES if name in wanted], 2):
        if wanted[one] == wanted[other] and (one, other) not in _ALIKE:
            raise SharedColumn(
                f"{key_of(other, config)}: column '{wanted[other]}' is {key_of(one, config)} too, and one column can't "
                "be both; name another column for one of them"
            )


def key_of(name: str, config: DataConfig) -> str:
    """Return what in a recipe names a column: a key, or a field's place in its list."""
    if name in ("split", "teacher"):
        return f"{name}.column"
    names = [f.name for f in config.fields]
    return f"data.fields[{names.index(name)}]" if name in names else f"data.columns.{name}"
