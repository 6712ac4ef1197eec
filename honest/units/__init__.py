"""Units that are checked while JAX traces and are gone after compilation.

unit.py       `Unit`: powers of nat, bit, token, example, disagreement and θ.<kind>; `UnitError`; `term`
quantity.py   `Quantity`, an array with a static unit; `assert_unit`
functions.py  log, exp, logsumexp, mean, total of Quantities; log densities
gradients.py  gradients in value.unit/θ_g

`Quantity(array, unit)` is the only way in and `.to(unit)` the only way out that is checked: jnp, numpy, float() and
jax.grad refuse a Quantity. (It is a pytree: jax.tree.leaves and jax.tree.map see the bare array.)
"""

from honest.units.functions import (
    assert_log_density,
    density,
    exp,
    log,
    logsumexp,
    mean,
    stop_gradient,
    total,
)
from honest.units.gradients import strip_grad, value_and_grad
from honest.units.quantity import Quantity, assert_unit, parse_quantity
from honest.units.unit import (
    Unit,
    UnitError,
    bit,
    disagreement,
    displacement,
    example,
    nat,
    one,
    parse_unit,
    term,
    token,
)

__all__ = [
    "Quantity",
    "Unit",
    "UnitError",
    "assert_log_density",
    "assert_unit",
    "bit",
    "density",
    "disagreement",
    "displacement",
    "example",
    "exp",
    "log",
    "logsumexp",
    "mean",
    "nat",
    "one",
    "parse_quantity",
    "parse_unit",
    "stop_gradient",
    "strip_grad",
    "term",
    "token",
    "total",
    "value_and_grad",
]
