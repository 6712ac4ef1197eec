"""A finite world: a trunk of Boolean functions and heads that read it, small enough for exact answers.

    trunk    z = one table a slot, independent, π(z) ∝ ∏ 2^−bits(table)
    heads    r₊ (intended), r₋ (instrumental): readers, Boolean functions of the slots' values at an input
    prior    p(r₊, r₋) = ρ(r₊) [(1 − τ) ρ(r₋) + τ 1(r₊ = r₋)],   ρ ∝ 2^−bits,   τ = 2^−tied_bits
    agree    e^{−m d(z)}, d = trusted inputs on which the two heads differ;   Z(r₊, r₋) = Σ_z π(z) e^{−m d(z)}
    labels   each of probability 1 − ε if it is the answer of the head that explains it, else ε

The model of this file is the description-length form of the objective (design §2): slots are what the trunk may know,
bits are what its parameters may cost.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from honest.config_fields import NonNegative, Strict, Text, require

MOST_INPUT_BITS = 16
Table = Annotated[str, Field(pattern=r"^[01]+$")]  # character i is the value at input i
Bit = Annotated[int, Field(ge=0, le=1)]
Nats = Annotated[float, Field(ge=0, allow_inf_nan=True)]  # .inf is hard agreement


class Slot(Strict):
    tables: Annotated[list[Table], Field(min_length=1)]
    bits: list[NonNegative]


class Reader(Strict):
    name: Text
    table: Table  # of the slots' values at an input, the first slot the high bit
    bits: NonNegative


class FiniteWorld(Strict):
    """A world as it is written in YAML."""

    kind: Literal["finite"] = "finite"
    inputs: Annotated[int, Field(ge=1, le=MOST_INPUT_BITS)]  # bits
    trusted: list[Annotated[int, Field(ge=0)]]
    slots: Annotated[dict[str, Slot], Field(min_length=1)]
    readers: Annotated[list[Reader], Field(min_length=1)]
    tied_bits: NonNegative | None
    labels: dict[str, Bit]  # input -> label, explained by the intended head
    person_labels: dict[str, Bit] = Field(default_factory=dict)  # explained by the instrumental head
    label_noise: Annotated[float, Field(ge=0, le=1)]
    multiplier: Nats  # nat per trusted input on which the heads differ

    @model_validator(mode="after")
    def consistent(self):
        size = 2**self.inputs
        checks = [*self._trusted_checks(size), *self._slot_checks(size), *self._reader_checks()]
        trusted = set(self.trusted)
        for key, given, wanted, whose in (
            ("labels", self.labels, True, "a trusted input: labels exist where people are right"),
            ("person_labels", self.person_labels, False, "an untrusted input: a trusted one has its label"),
        ):
            seen: set[int] = set()
            for text in given:
                number = int(text) if text.isdecimal() else -1
                checks.append((0 <= number < size, f"{key}.{text}", f"is not one of the inputs 0 … {size - 1}"))
                if 0 <= number < size:
                    checks.append(((number in trusted) == wanted, f"{key}.{text}", f"input {number} is not {whose}"))
                    checks.append((number not in seen, f"{key}.{text}", f"input {number} has two labels"))
                    seen.add(number)
        require(*checks)
        return self

    def _trusted_checks(self, size: int) -> list[tuple[bool, str, str]]:
        checks = []
        for index, number in enumerate(self.trusted):
            checks.append((number < size, f"trusted.{index}", f"{number} is not one of the inputs 0 … {size - 1}"))
            checks.append((number not in self.trusted[:index], f"trusted.{index}", f"{number} is there twice"))
        return checks

    def _slot_checks(self, size: int) -> list[tuple[bool, str, str]]:
        checks = []
        for name, slot in self.slots.items():
            for index, table in enumerate(slot.tables):
                what = f"has {len(table)} characters, not {size}, one for each of the inputs"
                checks.append((len(table) == size, f"slots.{name}.tables.{index}", what))
                checks.append((table not in slot.tables[:index], f"slots.{name}.tables.{index}", "is there twice"))
            what = f"has {len(slot.bits)} numbers for {len(slot.tables)} tables"
            checks.append((len(slot.bits) == len(slot.tables), f"slots.{name}.bits", what))
        return checks

    def _reader_checks(self) -> list[tuple[bool, str, str]]:
        size, names, checks = 2 ** len(self.slots), [reader.name for reader in self.readers], []
        for index, reader in enumerate(self.readers):
            of_what = f"one for each combination of {len(self.slots)} slots"
            what = f"has {len(reader.table)} characters, not {size}, {of_what}"
            checks.append((len(reader.table) == size, f"readers.{index}.table", what))
            twice = reader.name in names[:index]
            checks.append((not twice, f"readers.{index}.name", f"{reader.name!r} is the name of another reader"))
        return checks
