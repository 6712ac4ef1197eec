"""What all families share: a group's tensors as Quantities, and sums over them."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax

from honest.config import GROUP_UNITS
from honest.params import Params, Tree, dimension
from honest.units import Quantity, assert_unit, log, nat, one, total

# A family is a frozen dataclass whose scales are traced; what is named in `static` chooses the program instead.
family = jax.tree_util.register_dataclass
LOG_2PI = math.log(2 * math.pi)


def over_tensors(function: Callable[..., Quantity], group: str, *trees: Tree) -> Quantity:
    """Σ over the tensors of a group of Σ function(tensor of each tree), in nat; tensors enter as Quantities in θ_g."""
    unit = GROUP_UNITS[group]
    leaves = zip(*(jax.tree.leaves(tree) for tree in trees), strict=True)
    terms = [total(function(*(Quantity(leaf, unit) for leaf in each))) for each in leaves]
    return assert_unit(sum(terms, start=Quantity(0.0, nat)), nat, "the prior's cost")


def moved(params: Params, anchor: Params, group: str, function: Callable[[Quantity], Quantity]) -> Quantity:
    """Σ function(θ − θ0) over the group's tensors, in nat."""
    return over_tensors(lambda theta, at: function(theta - at), group, params[group], anchor[group])


def ratio(displacement: Quantity, scale: Quantity) -> jax.Array:
    """displacement/scale, bare; UnitError unless the scale is in the displacement's θ_g."""
    return assert_unit(displacement / scale, one, "displacement/scale").to(one)


def gaussian_constant(coordinates: int | float, stddev: Quantity, measure: Quantity) -> Quantity:
    """− (D/2) log(2π σ²/u²) in nat, relative to the reference measure ∏ dθ_i/u."""
    return -coordinates * (Quantity(0.5 * LOG_2PI, nat) + log(stddev, ref=measure))


def scale_constant(anchor: Params, group: str, scale: Quantity, measure: Quantity) -> Quantity:
    """− D log(scale/u) in nat."""
    return -dimension(anchor[group]) * log(scale, ref=measure)
