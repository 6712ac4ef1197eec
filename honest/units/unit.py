"""The algebra of units: products of powers of base symbols. A bit is ln 2 nat: one dimension, two scales."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NoReturn

_SYMBOLS = ("nat", "bit", "disagreement", "token", "example")  # printed in this order, displacements last
_KIND = r"[A-Za-z]\w*"  # of parameter group, in θ.<kind>
_FACTOR = re.compile(
    rf"(?P<sign>[·*/])(?P<symbol>1|{'|'.join(_SYMBOLS)}|θ\.{_KIND})"
    r"(?:\^(?P<power>-?\d+|\(-?\d+/0*[1-9]\d*\)))?(?=[·*/]|$)",
    re.ASCII,
)
_PLAIN, _RAISED = "-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"
_TERM: contextvars.ContextVar[str] = contextvars.ContextVar("term", default="")


class UnitError(ValueError):
    """Units or references that do not fit. No TypeError: jax.grad replaces those by a message of its own."""

    def __init__(self, message: str):
        super().__init__(f"in term {_TERM.get()!r}: {message}" if _TERM.get() else message)


@contextlib.contextmanager
def term(name: str) -> Iterator[None]:
    """Names a term of the objective in every UnitError raised inside; nested names are joined by '.'."""
    mark = _TERM.set(f"{_TERM.get()}.{name}" if _TERM.get() else name)
    try:
        yield
    finally:
        _TERM.reset(mark)


@dataclass(frozen=True)
class Unit:
    """Powers of symbols, sorted, none zero. Equal units have equal dimension and equal scale, (ln 2)^bits."""

    powers: tuple[tuple[str, Fraction], ...] = ()
    __array_ufunc__ = None  # numpy_array * unit fails, where numpy would make an array of objects

    def __mul__(self, other: Unit) -> Unit:
        return _merge(self, other, 1) if isinstance(other, Unit) else NotImplemented

    def __rmul__(self, other: object) -> NoReturn:
        raise UnitError(f"a number times a unit is no value; write Quantity(number, {self})")

    def __truediv__(self, other: Unit) -> Unit:
        return _merge(self, other, -1) if isinstance(other, Unit) else NotImplemented

    def __pow__(self, exponent: int | Fraction) -> Unit:
        if not isinstance(exponent, (int, Fraction)):
            raise UnitError(f"{exponent!r} is no power of a unit ({self}); use an int or a Fraction, not a float")
        return Unit(tuple((symbol, power * exponent) for symbol, power in self.powers if exponent))

    @functools.cached_property
    def bits(self) -> Fraction:
        """The power of bit."""
        return sum((power for symbol, power in self.powers if symbol == "bit"), Fraction(0))

    @functools.cached_property
    def dimension(self) -> Unit:
        """The unit with nat in place of bit."""
        return self * (nat / bit) ** self.bits if self.bits else self

    def __str__(self) -> str:
        above = "·".join(_spell(symbol, power) for symbol, power in self.powers if power > 0)
        below = ["/" + _spell(symbol, -power) for symbol, power in self.powers if power < 0]
        return (above or "1") + "".join(below)

    __repr__ = __str__


def _merge(left: Unit, right: Unit, sign: int) -> Unit:
    if not right.powers:
        return left
    powers = defaultdict(Fraction, left.powers)
    for symbol, power in right.powers:
        powers[symbol] += sign * power
    return Unit(tuple((symbol, powers[symbol]) for symbol in sorted(powers, key=_print_order) if powers[symbol]))


def _print_order(symbol: str) -> tuple[int, str]:
    return (_SYMBOLS.index(symbol) if symbol in _SYMBOLS else len(_SYMBOLS), symbol)


def _spell(symbol: str, power: Fraction) -> str:
    if power.denominator != 1:
        return f"{symbol}^({power})"
    return symbol if power == 1 else symbol + str(power).translate(str.maketrans(_PLAIN, _RAISED))


one = Unit()
nat, bit, disagreement, token, example = (Unit(((symbol, Fraction(1)),)) for symbol in _SYMBOLS)


def displacement(kind: str) -> Unit:
    """The unit θ.<kind> of a displacement of one kind of parameter group, such as "trunk" or "head"."""
    if not re.fullmatch(_KIND, kind, re.ASCII):
        raise UnitError(f"{kind!r} is no kind of parameter group; use letters, digits and _, such as 'trunk'")
    return Unit(((f"θ.{kind}", Fraction(1)),))


def parse_unit(text: str) -> Unit:
    """Reads what `str` prints: "nat/θ.trunk²", "disagreement/example", "θ.trunk^(1/2)", "1".

    Also reads "theta." for "θ.", "*" for "·" and "^2" for "²". Raises UnitError, saying what was expected.
    """
    rest = "*" + "".join(text.split()).replace("theta.", "θ.")
    lowered = str.maketrans(_RAISED, _PLAIN)
    rest = re.sub(f"[{_RAISED}]+", lambda found: "^" + found[0].translate(lowered), rest)
    unit = one
    while rest:
        found = _FACTOR.match(rest)
        if found is None:
            raise UnitError(
                f"cannot read {rest[1:]!r} in the unit {text!r}; expected products and quotients of "
                f"{', '.join(_SYMBOLS)}, θ.<kind> or 1, such as 'nat/θ.trunk²'"
            )
        factor = one if found["symbol"] == "1" else Unit(((found["symbol"], Fraction(1)),))
        factor **= Fraction(found["power"].strip("()")) if found["power"] else 1
        unit = unit / factor if found["sign"] == "/" else unit * factor
        rest = rest[found.end() :]
    return unit
