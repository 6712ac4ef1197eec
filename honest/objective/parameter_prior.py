"""The two parameter-distance priors: Gaussian log densities in nats (design §2).

    log N(θ | c, σ²) = − ½ · precision · d²(θ, c) − (D/2) log(2π σ²/u²)       precision = (1 nat)/σ²

The precision is the one place where a squared distance becomes information. The reference measure is ∏ dθ_i/u with
u = 1 θ_g for every prior and stage, so the constant is a number of nats; it is kept apart, for its own ledger row.
"""

from __future__ import annotations

import math

from honest.units import Quantity, Unit, assert_unit, nat, term


def precision(stddev: Quantity) -> Quantity:
    """(1 nat)/σ², in nat/θ_g²."""
    return Quantity(1.0, nat) / stddev**2


def gaussian_nats(squared_distance: Quantity, stddev: Quantity, name: str) -> Quantity:
    """− ½ · precision · d² in nat, without its constant; `name` is the term named in errors."""
    with term(name):
        cost = 0.5 * (precision(stddev) * squared_distance)
        return -assert_unit(cost, nat, what="precision·d²")


def gaussian_constant(dimension: int, stddev: Quantity, measure: Unit) -> Quantity:
    """− (D/2) log(2π σ²/u²) in nat, relative to the reference measure ∏ dθ_i/u."""
    return Quantity(-0.5 * dimension * math.log(2 * math.pi * float(stddev.to(measure)) ** 2), nat)
