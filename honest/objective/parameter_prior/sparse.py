"""Spike and slab around the anchor: a factor stays (a narrow Gaussian), or for b bits moves (a wide one).

    p = (1 − 2^−b) ∏ N(θ_i | θ0_i, σ_spike²) + 2^−b ∏ N(θ_i | θ0_i, σ²)        over the weights of a factor

A factor is a weight, a column (all weights into one output; in a vector, an entry), or a tensor. b is the description
length of "this factor moved": few factors that move far are cheaper than all moving a little.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp

from honest.objective.parameter_prior.coordinates import family, gaussian_constant, moved, over_tensors, ratio
from honest.params import Params, dimension
from honest.units import Quantity, log, nat


def log_not(bits: Quantity) -> jax.Array:
    """log(1 − 2^−b), bare, in nat."""
    return jnp.log(-jnp.expm1(-bits.to(nat)))


@family
@dataclass(frozen=True)
class Sparse:
    """stddev: the slab's σ in θ_g. spike_stddev: the spike's. bits: b > 0. per: what a factor is."""

    stddev: Quantity
    spike_stddev: Quantity
    bits: Quantity
    per: Literal["weight", "column", "tensor"] = field(metadata={"static": True})

    def _log_mixture(self, d: Quantity) -> Quantity:
        """log of the mixture over the slab's peak, for each factor."""
        axes = {"weight": (), "column": tuple(range(d.ndim - 1)), "tensor": tuple(range(d.ndim))}[self.per]
        weights = 1
        for axis in axes:
            weights *= d.shape[axis]
        narrower = weights * log(self.stddev, ref=self.spike_stddev).to(nat)
        slab = -self.bits.to(nat) - 0.5 * jnp.sum(ratio(d, self.stddev) ** 2, axis=axes)
        spike = log_not(self.bits) + narrower - 0.5 * jnp.sum(ratio(d, self.spike_stddev) ** 2, axis=axes)
        return Quantity(jnp.logaddexp(slab, spike), nat)

    def nats(self, params: Params, anchor: Params, group: str) -> Quantity:
        return moved(params, anchor, group, lambda d: self._log_mixture(d) - self._log_mixture(0.0 * d))

    def constant(self, anchor: Params, group: str, measure: Quantity) -> Quantity:
        at_anchor = over_tensors(lambda at: self._log_mixture(0.0 * at), group, anchor[group])
        return at_anchor + gaussian_constant(dimension(anchor[group]), self.stddev, measure)
