"""What every configuration of this project is: frozen, strict, and explained when it is wrong."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recsys_kd.errors import InputError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Fraction = Annotated[float, Field(gt=0, le=1)]
Units = Annotated[int, Field(ge=1)]


class BadRecipe(InputError):
    """The recipe can't be used as it is."""


class StrictConfig(BaseModel):
    """Frozen; unknown keys are errors; documentation sits beside each value."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def explain(error: ValidationError, where: str) -> str:
    """Return pydantic's complaints as lines of `key: value: what to do`."""
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(recipe)"
        value = "" if isinstance(item.get("input"), dict | BaseModel) else f" (got {item['input']!r})"
        what = (
            "unknown key; remove it or check its spelling"
            if item["type"] == "extra_forbidden"
            else item["msg"].removeprefix("Value error, ")
        )
        lines.append(f"{where}: {key}: {what}{value}")
    return "\n".join(lines)
