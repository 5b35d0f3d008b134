"""What every configuration of this project is: frozen, strict, and explained when it is wrong."""

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from recsys_kd.errors import InputError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Fraction = Annotated[float, Field(gt=0, le=1)]
Units = Annotated[int, Field(ge=1)]


class BadRecipe(InputError):
    """The recipe can't be used as it is."""


class StrictConfig(BaseModel):
    """Frozen; unknown keys are errors; documentation sits beside each value; numbers are finite, and never a bool."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Python counts True as 1, so pydantic would take `seed: true` for 1.
        if _holds_bool(value) and not _takes_bool(cls.model_fields[info.field_name or ""].annotation):
            raise PydanticCustomError("no_bool", "true and false are not taken here")
        return value


def _holds_bool(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_bool, value.values()))
    return any(map(_holds_bool, value)) if isinstance(value, list | tuple) else isinstance(value, bool)


def _takes_bool(kind: Any) -> bool:
    """Return whether a type has a place for a bool, or for a configuration, which looks after its own values."""
    if kind in (bool, Any, object) or (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return True
    return any(_takes_bool(part) for part in get_args(kind))
