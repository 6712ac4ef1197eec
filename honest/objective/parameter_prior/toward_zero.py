"""Moving toward zero is cheaper than moving away from it, and staying is not punished.

An even mixture of N(θ0, σ²) and the density of s·θ0 + noise with s uniform on [0, 1] and noise N(0, σ²), the second
being the path of shrinkage. With a = |θ0|, x the position along θ0 (so x = 0 is zero and x = a the anchor):

    per weight   path(x) = [Φ(x/σ) − Φ((x−a)/σ)]/a                                  → N(0, σ²) as a → 0
    per tensor   path(θ) = (2πσ²)^(−(D−1)/2) e^(−x⊥²/2σ²) [Φ(x∥/σ) − Φ((x∥−‖A‖)/σ)]/‖A‖,     A = θ0's tensor
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr

from honest.objective.parameter_prior.coordinates import LOG_2PI, family, gaussian_constant, over_tensors, ratio
from honest.params import Params, dimension
from honest.units import Quantity, nat

NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)  # on [−1, 1]; weights add up to 2
SHORT = 2.0  # δ(1 + |m|) below which the difference of two Φ would cancel


def log_path(t: jax.Array, delta: jax.Array) -> jax.Array:
    """log of √(2π) [Φ(t) − Φ(t−δ)]/δ for δ ≥ 0: the path's density over N(0, 1)'s peak; −t²/2 at δ = 0.

    By log_ndtr in the tail where both are small; where the interval is short against the distance over which φ
    changes, by Gauss–Legendre quadrature of φ over it.
    """
    m = t - 0.5 * delta  # φ is integrated over m ± δ/2
    short = delta * (1 + jnp.abs(m)) < SHORT
    half = jnp.where(short, 0.5 * delta, 0.0)[..., None]
    offsets = half * jnp.asarray(NODES, t.dtype)
    middle = jnp.where(short, m, 0.0)[..., None]
    exponents = -middle * offsets - 0.5 * offsets**2
    near = -0.5 * m**2 + jax.nn.logsumexp(exponents, b=jnp.asarray(0.5 * WEIGHTS, t.dtype), axis=-1)
    # Φ(hi) − Φ(lo) with both in the lower tail: Φ(hi)(1 − Φ(lo)/Φ(hi)). Safe arguments where `short` is taken.
    length = jnp.where(short, SHORT, delta)
    hi = -jnp.where(short, 1.0, jnp.abs(m)) + 0.5 * length
    low, high = log_ndtr(hi - length), log_ndtr(hi)
    far = high + jnp.log(-jnp.expm1(low - high)) - jnp.log(length) + 0.5 * LOG_2PI
    return jnp.where(short, near, far)


def _mixture(stay: jax.Array, path: jax.Array) -> jax.Array:
    return jnp.logaddexp(stay, path) - math.log(2.0)


@family
@dataclass(frozen=True)
class TowardZero:
    """stddev: σ in θ_g. per: whether each weight has a path of its own, or each tensor shrinks as a whole."""

    stddev: Quantity
    per: Literal["weight", "tensor"] = field(metadata={"static": True})

    def _log_mixture(self, theta: Quantity, at: Quantity) -> Quantity:
        """log of the mixture over the Gaussian's peak, for each weight or for the tensor."""
        x, a = ratio(theta, self.stddev), ratio(at, self.stddev)
        if self.per == "weight":
            along = x * jnp.where(a < 0, -1.0, 1.0).astype(x.dtype)
            return Quantity(_mixture(-0.5 * (x - a) ** 2, log_path(along, jnp.abs(a))), nat)
        length = jnp.sqrt(jnp.sum(a**2))
        direction = a / jnp.where(length > 0, length, 1.0)
        along = jnp.sum(x * direction)
        across = jnp.sum((x - along * direction) ** 2)
        return Quantity(_mixture(-0.5 * jnp.sum((x - a) ** 2), log_path(along, length) - 0.5 * across), nat)

    def nats(self, params: Params, anchor: Params, group: str) -> Quantity:
        def relative(theta: Quantity, at: Quantity) -> Quantity:
            return self._log_mixture(theta, at) - self._log_mixture(at, at)

        return over_tensors(relative, group, params[group], anchor[group])

    def constant(self, anchor: Params, group: str, measure: Quantity) -> Quantity:
        at_anchor = over_tensors(lambda at: self._log_mixture(at, at), group, anchor[group])
        return at_anchor + gaussian_constant(dimension(anchor[group]), self.stddev, measure)
