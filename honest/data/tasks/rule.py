"""What rules over the columns of a table mean; `rule_parser` reads them from text.

A column by itself is read as yes or no. A cell compared with a number is read as a number; two columns
compare as numbers where both cells are numbers or the comparison is one of order, else as text. A comparison
on an empty cell is false. `truth` and `human` stand for the answers of those rules where the caller allows
it (the `trusted` rule).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from operator import eq, ge, gt, le, lt, ne

from honest.data.vocabulary import DataError

OPERATORS = dict(zip(("==", "!=", "<=", ">=", "<", ">"), (eq, ne, le, ge, lt, gt), strict=True))
TRUE_CELLS, FALSE_CELLS = ("true", "yes", "1"), ("false", "no", "0")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Row:
    """One row's cells by column; `answers` by the names that a rule may use; `place` names file and line."""

    cells: Mapping[str, str]
    answers: Mapping[str, bool]
    place: str


@dataclass(frozen=True)
class Column:
    name: str

    def is_empty(self, row: Row) -> bool:
        return not row.cells[self.name].strip()

    def text(self, row: Row) -> str:
        return row.cells[self.name]

    def is_number(self, row: Row) -> bool:
        return NUMBER.fullmatch(self.text(row).strip()) is not None

    def number(self, row: Row) -> float:
        if not self.is_number(row):
            raise DataError(f"{row.place}, column {self.name!r}: {self.text(row)!r} is not a number")
        return float(self.text(row))

    def holds(self, row: Row) -> bool:
        """The cell read as yes or no; an empty cell is no."""
        word = self.text(row).strip().lower()
        if word and word not in TRUE_CELLS + FALSE_CELLS:
            allowed = ", ".join(TRUE_CELLS + FALSE_CELLS)
            raise DataError(f"{row.place}, column {self.name!r}: {self.text(row)!r} is not one of {allowed}")
        return word in TRUE_CELLS


@dataclass(frozen=True)
class Answer:
    name: str

    def is_empty(self, row: Row) -> bool:
        return False

    def holds(self, row: Row) -> bool:
        return row.answers[self.name]


@dataclass(frozen=True)
class Literal:
    value: float | str


def _read(side: Value, numeric: bool, row: Row) -> float | str:
    if isinstance(side, Column):
        return side.number(row) if numeric else side.text(row)
    assert isinstance(side, Literal)
    return side.value


@dataclass(frozen=True)
class Compare:
    symbol: str
    left: Value
    right: Value

    def holds(self, row: Row) -> bool:
        sides = (self.left, self.right)
        if any(not isinstance(side, Literal) and side.is_empty(row) for side in sides):
            return False
        return OPERATORS[self.symbol](*self._values(sides, row))

    def _values(self, sides: tuple[Value, Value], row: Row) -> list:
        """Both sides as answers, as numbers or as text."""
        if any(isinstance(side, Answer) for side in sides):
            return [side.holds(row) for side in sides if not isinstance(side, Literal)]
        literals = [side.value for side in sides if isinstance(side, Literal)]
        if literals:
            numeric = isinstance(literals[0], float)
        else:
            both = all(side.is_number(row) for side in sides if isinstance(side, Column))
            numeric = both or self.symbol not in ("==", "!=")
        return [_read(side, numeric, row) for side in sides]


@dataclass(frozen=True)
class Membership:
    column: Column
    values: tuple[float | str, ...]
    negated: bool

    def holds(self, row: Row) -> bool:
        if self.column.is_empty(row):
            return False
        value = _read(self.column, isinstance(self.values[0], float), row)
        return (value in self.values) != self.negated


@dataclass(frozen=True)
class Not:
    inner: Node

    def holds(self, row: Row) -> bool:
        return not self.inner.holds(row)


@dataclass(frozen=True)
class Junction:
    """`and` (every) or `or` (some) of its parts; all are read, so that no bad cell hides behind another."""

    every: bool
    parts: tuple[Node, ...]

    def holds(self, row: Row) -> bool:
        held = [part.holds(row) for part in self.parts]
        return all(held) if self.every else any(held)


Value = Column | Answer | Literal
Node = Column | Answer | Compare | Membership | Not | Junction


@dataclass(frozen=True)
class Rule:
    """A parsed rule; `columns` are the columns that it reads, in order of appearance."""

    root: Node
    columns: tuple[str, ...]

    def holds(self, row: Row) -> bool:
        """Whether the row satisfies the rule; DataError names place and column of an unreadable cell."""
        return self.root.holds(row)
