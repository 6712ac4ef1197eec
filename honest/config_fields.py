"""The types of the config's fields: numbers in a unit, counts of something, and checks across fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from honest.units import Unit, UnitError, bit, disagreement, displacement, example, nat, parse_quantity

SMALLEST, LARGEST = 1e-12, 1e12  # of a number with a unit


@dataclass(frozen=True)
class InUnit:
    """Marks a text field that must be a positive, finite number in `unit`, or in one that converts to it."""

    unit: Unit

    def value(self, text: str) -> float:
        """The number of `unit`s that `text` says. Raises `UnitError`."""
        return float(parse_quantity(text).to(self.unit))

    def check(self, text: str) -> str:
        try:
            given = parse_quantity(text).unit
        except UnitError as error:
            raise ValueError("is not a number with a known unit") from error
        if given.dimension != self.unit.dimension:
            raise ValueError(f"has unit {given}, not {self.unit}")
        if not 0 < self.value(text) < float("inf"):
            raise ValueError("must be positive and finite")
        if not SMALLEST <= self.value(text) <= LARGEST:
            raise ValueError(f"must lie between {SMALLEST:g} and {LARGEST:g}, as float32 has to hold its square")
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))


@dataclass(frozen=True)
class CountOf:
    """Marks a plain integer that counts `unit`."""

    unit: str


def unquoted_false(value: Any) -> Any:
    """YAML reads the word false as a truth value; a field with the choice "false" means the word."""
    return "false" if value is False else value


class Inconsistent(ValueError):
    """Fields that are valid alone but do not fit together: (key in this section, what is wrong) for each."""

    def __init__(self, problems: Sequence[tuple[str, str]]):
        super().__init__("; ".join(f"{key}: {what}" for key, what in problems))
        self.problems = tuple(problems)


def require(*checks: tuple[bool, str, str]) -> None:
    """A check is (holds, key, what is wrong otherwise). Raises `Inconsistent` with all that do not hold."""
    problems = [(key, what) for holds, key, what in checks if not holds]
    if problems:
        raise Inconsistent(problems)


class Strict(BaseModel):
    """A section of the config: no unknown keys, no conversions of type, no infinities, no changes."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Rows = Annotated[int, Field(ge=1), CountOf("example")]
NonNegativeRows = Annotated[int, Field(ge=0), CountOf("example")]
Tokens = Annotated[int, Field(ge=2), CountOf("token")]
Steps = Annotated[int, Field(ge=1), CountOf("step")]
Evaluations = Annotated[int, Field(ge=1), CountOf("evaluation")]
StepsOrNone = Annotated[int, Field(ge=0), CountOf("step")]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
ProperShare = Annotated[float, Field(gt=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]

TrunkStddev = Annotated[str, InUnit(displacement("trunk"))]
HeadStddev = Annotated[str, InUnit(displacement("head"))]
Tolerance = Annotated[str, InUnit(disagreement / example)]
Multiplier = Annotated[str, InUnit(nat / disagreement)]
Bits = Annotated[str, InUnit(bit)]
Nats = Annotated[str, InUnit(nat)]
