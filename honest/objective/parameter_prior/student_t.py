"""Student's t around the anchor, each weight alone: −(ν+1)/2 · log(1 + (θ−θ0)²/(ν s²)), with Cauchy tails at ν = 1."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import jax.numpy as jnp

from honest.objective.parameter_prior.coordinates import family, moved, ratio, scale_constant
from honest.params import Params, dimension
from honest.units import Quantity, nat


@family
@dataclass(frozen=True)
class StudentT:
    """scale: s in θ_g (the standard deviation is s·√(ν/(ν−2)), where there is one). degrees_of_freedom: ν > 0."""

    scale: Quantity
    degrees_of_freedom: float = field(metadata={"static": True})

    def nats(self, params: Params, anchor: Params, group: str) -> Quantity:
        nu = self.degrees_of_freedom

        def cost(d: Quantity) -> Quantity:
            return Quantity(-0.5 * (nu + 1) * jnp.log1p(ratio(d, self.scale) ** 2 / nu), nat)

        return moved(params, anchor, group, cost)

    def constant(self, anchor: Params, group: str, measure: Quantity) -> Quantity:
        nu = self.degrees_of_freedom
        each = math.lgamma(0.5 * (nu + 1)) - math.lgamma(0.5 * nu) - 0.5 * math.log(nu * math.pi)
        return Quantity(dimension(anchor[group]) * each, nat) + scale_constant(anchor, group, self.scale, measure)
