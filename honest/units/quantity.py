"""An array with a unit, checked while tracing. As a pytree it has one leaf; compiled programs have no units.

A log density carries its *reference*: the variables whose product measure ∏ dθ_i / u_g it is relative to.
Operations keep the tag; only the difference of two densities of the same variables loses it (a log ratio).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.hijax import register_hitype

from honest.units.unit import Unit, UnitError, nat, one, parse_unit

_SIGNS = {
    operator.add: "+",
    operator.sub: "-",
    operator.eq: "==",
    operator.ne: "!=",
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
}


def _refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
    raise UnitError(
        "a Quantity is not a bare array or number; leave by .to(unit), compute by the functions of honest.units, "
        "and differentiate by honest.units.value_and_grad"
    )


class _NoMethod(UnitError, AttributeError):
    """An array's method asked of a Quantity: also an AttributeError, so that hasattr is False."""


# What a person writes first; other names are plain AttributeErrors.
_ARRAY_METHODS = {
    "sum": "honest.units.total(q)",
    "mean": "honest.units.mean(q, per=…)",
    **dict.fromkeys(
        ("T", "astype", "cumsum", "dot", "flatten", "item", "max", "min", "prod", "ravel", "reshape", "std", "var"),
        "q.to(unit), which is bare",
    ),
}


class _NotAnArray:
    """What JAX gets for a Quantity: `jax_array * quantity` falls to __rmul__, other uses raise UnitError."""

    __format__ = __getattr__ = _refuse


def _method(function: Callable, operation: Callable) -> Callable[[Any, Any], Any]:
    return lambda self, other: function(self, other, operation)


def _reflected(function: Callable, operation: Callable) -> Callable[[Any, Any], Any]:
    return lambda self, other: function(other, self, operation)


def _add(left: Any, right: Any, operation: Callable) -> Quantity:
    a, b, b_array = _align(left, right, operation)
    log_ratio = operation is operator.sub and a.reference and b.reference
    if log_ratio:
        assert_same_reference("a difference", a, b)
    reference = frozenset() if log_ratio else joint_reference(a.reference, b.reference)
    return Quantity(operation(a._array, b_array), a.unit, reference=reference)


def _multiply(left: Any, right: Any, operation: Callable) -> Quantity:
    a, b = lift(left), lift(right)
    if a.reference or operation is operator.truediv:
        refuse_density(b, "a product with or quotient by")
    for density, factor in ((a, b), (b, a)):
        if density.reference and factor.unit.dimension == one:
            raise UnitError(
                f"a multiple of a log density over {names(density.reference)} is no log density of them: a power of a "
                "density is not normalised; leave by .to(nat), or change the density's scale"
            )
    return Quantity(operation(a._array, b._array), operation(a.unit, b.unit), reference=a.reference | b.reference)


def _compare(left: Quantity, right: Any, operation: Callable) -> Any:
    if not (is_array(right) or isinstance(right, (Quantity, Unit))):
        return NotImplemented
    a, b, b_array = _align(left, right, operation)
    assert_same_reference("a comparison", a, b)
    return operation(a._array, b_array)


class Quantity:
    """An array of any shape, its unit, and for a log density the variables that it is a density of.

    Python and numpy scalars are held as python numbers and stay weakly typed. A bare number or array counts
    as having unit 1. `+`, `-` and comparisons need one dimension; sums are in the left operand's unit,
    comparisons are bare arrays. Raises UnitError where units or references do not fit.

    Not refused, as JAX gives no occasion to: jax.vjp, jax.jvp and jacobians of a Quantity, and jax.grad of a
    bare scalar with respect to a Quantity argument, put the primal's label on the derivative (θ, not nat/θ).
    Parameters are therefore bare, and `strip_grad` refuses every gradient that is not in nat/θ.
    """

    __slots__ = ("_array", "_reference", "_unit")
    __hash__ = None  # type: ignore[assignment]
    __array_ufunc__ = None  # numpy leaves `numpy_array * quantity` to __rmul__; its own ufuncs raise TypeError
    __array__ = __array_function__ = __float__ = __int__ = __complex__ = __bool__ = _refuse
    __iter__ = __rpow__ = __matmul__ = __rmatmul__ = __len__ = __abs__ = __round__ = _refuse
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __divmod__ = __rdivmod__ = _refuse
    __add__, __radd__ = _method(_add, operator.add), _reflected(_add, operator.add)
    __sub__, __rsub__ = _method(_add, operator.sub), _reflected(_add, operator.sub)
    __mul__, __rmul__ = _method(_multiply, operator.mul), _reflected(_multiply, operator.mul)
    __truediv__, __rtruediv__ = _method(_multiply, operator.truediv), _reflected(_multiply, operator.truediv)
    __eq__, __ne__ = _method(_compare, operator.eq), _method(_compare, operator.ne)
    __lt__, __le__ = _method(_compare, operator.lt), _method(_compare, operator.le)
    __gt__, __ge__ = _method(_compare, operator.gt), _method(_compare, operator.ge)

    def __init__(self, array: Any, unit: Unit, *, reference: Iterable[str] = frozenset()):
        if isinstance(array, Unit):
            raise UnitError(f"{array} is a unit, not a value; write Quantity(1.0, unit) for one of it")
        if not is_array(array):
            raise UnitError(f"a Quantity holds one bare array or number, not a {type(array).__name__}")
        if not isinstance(unit, Unit):
            raise UnitError(f"{unit!r} is not a Unit; use those of honest.units or parse_unit(text)")
        self._array = array.item() if isinstance(array, np.generic) else array
        self._unit = unit
        self._reference = frozenset(reference)

    @property
    def unit(self) -> Unit:
        return self._unit

    @property
    def reference(self) -> frozenset[str]:
        return self._reference

    @property
    def shape(self) -> tuple[int, ...]:
        return jnp.shape(self._array)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        return jnp.result_type(self._array)

    def to(self, unit: Unit) -> Any:
        """The bare array in `unit`, bits and nats converted. Raises UnitError, naming the missing factor."""
        return assert_unit(self, unit)._array

    def __jax_array__(self) -> _NotAnArray:
        return _NotAnArray()

    def __repr__(self) -> str:
        tag = f", reference={names(self.reference)}" if self.reference else ""
        return f"Quantity({self._array}, {self.unit}{tag})"

    def __getattr__(self, name: str) -> NoReturn:
        if name in _ARRAY_METHODS:
            raise _NoMethod(f"a Quantity has no .{name}: use {_ARRAY_METHODS[name]}")
        raise AttributeError(f"a Quantity has no attribute {name!r}")

    def __format__(self, spec: str) -> str:
        return _refuse() if spec else repr(self)

    def __getitem__(self, index: Any) -> Quantity:
        return Quantity(self._array[index], self.unit, reference=self.reference)

    def __neg__(self) -> Quantity:
        return Quantity(-self._array, self.unit, reference=self.reference)

    def __pow__(self, exponent: int | Fraction) -> Quantity:
        refuse_density(self, "a power of")
        unit = self.unit**exponent
        return Quantity(self._array ** (exponent if isinstance(exponent, int) else float(exponent)), unit)


def _unflatten(static: tuple[Unit, frozenset[str]], leaves: Sequence[Any]) -> Quantity:
    quantity = object.__new__(Quantity)  # unchecked: JAX unflattens with None, object() and the like
    (quantity._array,), (quantity._unit, quantity._reference) = leaves, static
    return quantity


jax.tree_util.register_pytree_node(Quantity, lambda q: ((q._array,), (q._unit, q._reference)), _unflatten)
register_hitype(Quantity, _refuse)  # jax.grad and lax ask here for the JAX type of a Quantity


def parse_quantity(text: str) -> Quantity:
    """A number, a blank and a unit, such as "0.02 θ.trunk"; its value is a python float. Or UnitError."""
    expected = f"cannot read {text!r}; expected a number and a unit, such as '0.02 θ.trunk' or '0.5 1'"
    parts = text.split(maxsplit=1)
    if len(parts) != 2:
        raise UnitError(expected)
    try:
        value = float(parts[0])
    except ValueError as error:
        raise UnitError(expected) from error
    if math.isnan(value):
        raise UnitError(expected)
    return Quantity(value, parse_unit(parts[1]))


def is_array(value: Any) -> bool:
    """Whether `value` is a bare array or number."""
    bare = hasattr(value, "dtype") or isinstance(value, (int, float, complex))
    return bare and not isinstance(value, Quantity)


def lift(value: Any) -> Quantity:
    """A Quantity as it is, a bare array or number with unit 1."""
    return value if isinstance(value, Quantity) else Quantity(value, one)


def _align(left: Any, right: Any, operation: Callable) -> tuple[Quantity, Quantity, Any]:
    """Both as Quantities, the right array in the left unit. Blames a bare operand, or what is not nat."""
    a, b = lift(left), lift(right)
    if a.unit.dimension == b.unit.dimension:
        return a, b, b.to(a.unit)
    blame_left = not isinstance(left, Quantity) or (isinstance(right, Quantity) and b.unit.dimension == nat)
    side, blamed, wrong, expected = ("left", left, a, b) if blame_left else ("right", right, b, a)
    bare = "" if isinstance(blamed, Quantity) else " (a bare number)"
    if isinstance(left, int) and left == 0:
        bare = " (a bare 0: sum() starts from it unless given start=Quantity(0.0, unit))"
    raise _mismatch(f"the {side} operand of {_SIGNS[operation]}{bare}", wrong.unit, expected.unit)


def _mismatch(what: str, unit: Unit, expected: Unit) -> UnitError:
    ratio = expected / unit
    missing = expected.dimension / unit.dimension if {"nat", "bit"} <= {symbol for symbol, _ in ratio.powers} else ratio
    advice = "multiply by a quantity in that unit"
    if len(ratio.powers) > 1 and all(symbol.startswith("θ.") for symbol, _ in ratio.powers):
        advice = "lengths of different groups do not convert: use a scale of the same group"
    return UnitError(f"{what} has unit {unit}, expected {expected}; missing factor: {missing}; {advice}")


def assert_unit(q: Any, unit: Unit, what: str = "value") -> Quantity:
    """`q` in `unit`, bits and nats converted. Raises UnitError if it is bare or of another dimension."""
    if not isinstance(q, Quantity):
        raise UnitError(f"{what} is a bare {type(q).__name__}, expected {unit}; wrap it in Quantity(array, unit)")
    if not isinstance(unit, Unit):
        raise UnitError(f"{unit!r} is not a Unit; use those of honest.units or parse_unit(text)")
    if unit == q.unit:
        return q
    if unit.dimension != q.unit.dimension:
        raise _mismatch(what, q.unit, unit)
    scale = math.log(2) ** float(q.unit.bits - unit.bits)  # a bit is ln 2 nat
    return Quantity(q._array * scale, unit, reference=q.reference)


# --- references of log densities ----------------------------------------------------------------------------


def names(reference: Iterable[str]) -> str:
    return "{" + ", ".join(sorted(reference)) + "}"


def assert_same_reference(what: str, *terms: Quantity) -> None:
    """Raises UnitError unless all terms are log densities of the same variables (or none is a density)."""
    for each in terms[1:]:
        if each.reference != terms[0].reference:
            raise UnitError(
                f"{what} of log densities over {names(terms[0].reference)} and {names(each.reference)} "
                "depends on their reference measures; use densities of the same variables"
            )


def joint_reference(a: frozenset[str], b: frozenset[str]) -> frozenset[str]:
    """The variables of a sum of log densities (a product measure). Raises UnitError if one is there twice."""
    if a & b:
        raise UnitError(f"a sum of log densities has {names(a & b)} twice; add each once, or subtract for a log ratio")
    return a | b


def refuse_density(q: Quantity, what: str) -> None:
    """Raises UnitError if `q` is a log density."""
    if q.reference:
        raise UnitError(
            f"{what} a log density over {names(q.reference)} depends on its reference measure; subtract a "
            "density of the same variables (a log ratio), or leave by .to(nat)"
        )
