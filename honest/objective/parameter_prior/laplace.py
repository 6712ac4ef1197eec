"""Laplace's density around the anchor, each weight alone: −|θ−θ0|/b − log 2b. Its mode is sparse: most weights stay."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax.numpy as jnp

from honest.objective.parameter_prior.coordinates import family, moved, ratio, scale_constant
from honest.params import Params, dimension
from honest.units import Quantity, nat


@family
@dataclass(frozen=True)
class Laplace:
    """scale: b in θ_g, the displacement that costs 1 nat (the standard deviation is √2·b)."""

    scale: Quantity

    def nats(self, params: Params, anchor: Params, group: str) -> Quantity:
        return moved(params, anchor, group, lambda d: Quantity(-jnp.abs(ratio(d, self.scale)), nat))

    def constant(self, anchor: Params, group: str, measure: Quantity) -> Quantity:
        halves = Quantity(-dimension(anchor[group]) * math.log(2.0), nat)
        return halves + scale_constant(anchor, group, self.scale, measure)
