"""Size and character of a synthetic shop, and the options of commands that make one."""

import datetime as dt

from pydantic import Field, ValidationError, model_validator

from recsys_kd.errors import InputError
from recsys_kd.settings import StrictConfig, explain


class BadShop(InputError):
    """No shop can be made with these options."""


class ShopConfig(StrictConfig):
    """Size and character of the shop."""

    days: int = Field(14, ge=4)
    rows: int = Field(1_000_000, ge=1000)
    """About this many log rows over all days."""
    users: int = Field(1000, ge=10)
    items: int = Field(800, ge=50)
    candidates: int = Field(10, ge=2, le=40)
    """Items shown per request."""
    rank: int = Field(6, ge=1)
    """Dimensions of taste."""
    taste: float = Field(2.0, ge=0)
    """Standard deviation of the taste term, in logits."""
    moment: float = Field(0.7, ge=0)
    """Standard deviation of the device x daypart x category effects, in logits: no sum of pairs holds them."""
    drift: float = Field(0.01, ge=0, le=1)
    """Share of a taste that is renewed each day."""
    exploration: float = Field(0.2, gt=0, le=1)
    """Share of the uniform distribution in the logging policy."""
    start: dt.date = dt.date(2026, 1, 5)
    seed: int = Field(7, ge=0)

    @model_validator(mode="after")
    def _a_request_a_day(self) -> "ShopConfig":
        least = self.days * self.candidates
        if self.rows < least:
            raise ValueError(f"rows: got {self.rows}; {self.days} days need a request each: give {least:,} at least")
        return self


def shop_config(**options: int) -> ShopConfig:
    """Return the shop that options of the command line ask for. Raises: BadShop naming each that is at fault."""
    try:
        return ShopConfig.model_validate(options)
    except ValidationError as error:
        told = explain(error, "", ShopConfig).replace("(the whole file): ", "")
        raise BadShop("\n".join(f"--{line.removeprefix(': ')}" for line in told.splitlines())) from None
