"""Functions of Quantities: logarithm and exponential, sums over counted rows, log densities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from honest.units.quantity import (
    Quantity,
    assert_same_reference,
    assert_unit,
    is_array,
    joint_reference,
    lift,
    names,
    refuse_density,
)
from honest.units.unit import Unit, UnitError, nat, one


def log(q: Any, ref: Quantity | Unit | None = None) -> Quantity:
    """Natural logarithm, in nats, of a `q` of unit 1, or of q/ref for a reference `ref` of q's dimension."""
    refuse_density(lift(q), "the logarithm of")
    if ref is None:
        ratio = assert_unit(lift(q), one, "the argument of log (without ref=)")
    else:
        ratio = assert_unit(q / (Quantity(1.0, ref) if isinstance(ref, Unit) else ref), one, "q/ref in log")
    return Quantity(jnp.log(ratio.to(one)), nat)


def exp(q: Any) -> Quantity:
    """Exponential, of unit 1, of `q` in nat or bit. Raises UnitError for other units and log densities."""
    refuse_density(lift(q), "the exponential of")
    return Quantity(jnp.exp(assert_unit(lift(q), nat, "the argument of exp").to(nat)), one)


def logsumexp(q: Any, axis: int | tuple[int, ...] | None = None) -> Quantity:
    """log Σ exp, in nats, over `axis` of a Quantity in nat or bit, or of a sequence stacked on axis 0.

    Raises UnitError for other units, and for a sequence of densities of different variables.
    """
    single = isinstance(q, Quantity) or is_array(q)
    terms = [assert_unit(lift(each), nat, "a term of logsumexp") for each in ([q] if single else q)]
    assert_same_reference("a logsumexp", *terms)
    array = terms[0].to(nat) if single else jnp.stack([each.to(nat) for each in terms])
    return Quantity(jax.nn.logsumexp(array, axis=axis), nat, reference=terms[0].reference)


def total(q: Any, *, where: Any = None, axis: Any = None) -> Quantity:
    """Σ q·where over `axis`, in q.unit; `where`, booleans or weights, broadcasts to q's shape.

    What a boolean `where` leaves out may be NaN. A log density keeps its tag: the rows are coordinates of it.
    """
    q = lift(q)
    array = q.to(q.unit)
    if where is not None:
        weights = jnp.broadcast_to(where, q.shape)
        if weights.dtype != bool:
            refuse_density(q, "a weighted sum of")
        array = jnp.where(weights, array, 0) if weights.dtype == bool else array * weights
    return Quantity(jnp.sum(array, axis=axis), q.unit, reference=q.reference)


def mean(q: Any, *, per: Unit, where: Any = None, axis: Any = None) -> Quantity:
    """Σ q·where / Σ where over `axis`, in q.unit/per (nat/token, say); `where` as in `total`.

    per: what is counted; `one` for draws or particles, whose mean is an expectation and still in q.unit.
    """
    q = lift(q)
    if where is None:
        return Quantity(jnp.mean(q.to(q.unit), axis=axis), q.unit / per, reference=q.reference)
    summed = total(q, where=where, axis=axis)
    return summed / Quantity(jnp.sum(jnp.broadcast_to(where, q.shape), axis=axis), per)


def stop_gradient(q: Quantity) -> Quantity:
    """`q` as a constant of differentiation."""
    return jax.tree.map(jax.lax.stop_gradient, q)


def density(q: Quantity, *variables: str) -> Quantity:
    """`q` in nats, any shape, tagged as a log density of `variables` besides those it has. Or UnitError."""
    if not variables or len(set(variables)) != len(variables):
        raise UnitError(f"a density needs variables, each named once, not {variables}")
    q = assert_unit(q, nat, "log density")
    return Quantity(q.to(nat), nat, reference=joint_reference(q.reference, frozenset(variables)))


def assert_log_density(q: Any, variables: Iterable[str] | None = None) -> Quantity:
    """`q` in nats. Raises UnitError unless it is a scalar in nat or bit, and over `variables` where given."""
    q = assert_unit(q, nat, "log density")
    if q.shape != ():
        raise UnitError(f"log density has shape {q.shape}, expected a scalar; sum it by honest.units.total")
    if isinstance(variables, str):
        raise UnitError(f"the variables of a density are names in a list or set, such as [{variables!r}], not one text")
    if variables is not None and q.reference != (expected := frozenset(variables)):
        raise UnitError(f"log density is over {names(q.reference)}, expected {names(expected)}; tag terms by density")
    return q
