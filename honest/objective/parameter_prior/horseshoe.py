"""The horseshoe around the anchor, each weight alone (Carvalho, Polson & Scott 2010), with its pole cut off at a floor.

A Gaussian whose scale s·ℓ has a half-Cauchy ℓ; scales under the floor f are damped by the factor exp(−f²/2(sℓ)²), as
the pole at θ0 would hold every weight there for ever. With x = (θ−θ0)/s, φ = f/s and y = (x² + φ²)/2 the density stays
in closed form,

    p(θ) = e^y E1(y) / (s √(2π) π e^{φ²/2} erfc(φ/√2)),

because ∫_0^∞ e^{−ty}/(1+t) dt = e^y E1(y) and ∫_0^∞ e^{−tφ²/2}/((1+t)√t) dt = π e^{φ²/2} erfc(φ/√2). Tails fall as
1/x², as Cauchy's do; f → 0 is the horseshoe itself, (2π³)^(−½) e^{x²/2} E1(x²/2)/s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr

from honest.objective.parameter_prior.coordinates import family, moved, ratio, scale_constant
from honest.params import Params, dimension
from honest.units import Quantity, nat

SWITCH = 2.0  # y from which the continued fraction is used
SERIES = 26  # terms of E1's power series, below double precision at SWITCH
TERMS = 40  # of the fraction: its error at y is about exp(−4 √(TERMS·y)), below double precision from SWITCH on


def _fraction(y: jax.Array) -> jax.Array:
    """h with e^y E1(y) = 1/(y + h): h = 1 − 1/(y+3 − 4/(y+5 − 9/(y+7 − …))), for y ≥ SWITCH."""
    tail = jnp.zeros_like(y)
    for k in range(TERMS, 0, -1):
        tail = k * k / (y + 2 * k + 1 - tail)
    return 1.0 - tail


def _series(y: jax.Array) -> jax.Array:
    """E1(y) = −γ − log y − Σ_k (−y)^k/(k·k!), for y ≤ SWITCH; jax.scipy's exp1 takes milliseconds a weight on a CPU."""
    term, total = jnp.ones_like(y), jnp.zeros_like(y)
    for k in range(1, SERIES + 1):
        term = -term * y / k
        total = total + term / k
    return -float(np.euler_gamma) - jnp.log(y) - total


@jax.custom_jvp
def log_scaled_exp1(y: jax.Array) -> jax.Array:
    """log(e^y E1(y)) for y > 0, without overflow; its derivative is 1 − 1/(y e^y E1(y))."""
    small, large = jnp.minimum(y, SWITCH), jnp.maximum(y, SWITCH)
    return jnp.where(y < SWITCH, small + jnp.log(_series(small)), -jnp.log(large + _fraction(large)))


@log_scaled_exp1.defjvp
def _derivative(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (y,), (dy,) = primals, tangents
    small, large = jnp.minimum(y, SWITCH), jnp.maximum(y, SWITCH)
    near = 1.0 - jnp.exp(-small) / (small * _series(small))
    # 1 − (y + h)/y without the cancellation that would eat every digit of it at large y
    return log_scaled_exp1(y), jnp.where(y < SWITCH, near, -_fraction(large) / large) * dy


@family
@dataclass(frozen=True)
class Horseshoe:
    """scale: s in θ_g, the global scale. floor: f in θ_g, the smallest scale that a weight may have."""

    scale: Quantity
    floor: Quantity

    def _at_anchor(self) -> jax.Array:
        """y at θ0: φ²/2."""
        return 0.5 * ratio(self.floor, self.scale) ** 2

    def nats(self, params: Params, anchor: Params, group: str) -> Quantity:
        start = self._at_anchor()

        def cost(d: Quantity) -> Quantity:
            y = 0.5 * ratio(d, self.scale) ** 2 + start
            return Quantity(log_scaled_exp1(y) - log_scaled_exp1(start), nat)

        return moved(params, anchor, group, cost)

    def constant(self, anchor: Params, group: str, measure: Quantity) -> Quantity:
        start = self._at_anchor()
        normaliser = 0.5 * math.log(2 * math.pi) + math.log(math.pi) + start
        # log erfc(φ/√2), which does not underflow
        normaliser = normaliser + math.log(2.0) + log_ndtr(-jnp.sqrt(2 * start))
        each = Quantity(log_scaled_exp1(start) - normaliser, nat)
        return dimension(anchor[group]) * each + scale_constant(anchor, group, self.scale, measure)
