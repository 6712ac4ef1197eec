"""The instrumental head as a copy of the intended one: with prior weight 2^−b within σ_tie, otherwise independent.

    p(h₋ | h₊) = 2^−b N(h₋ | h₊, σ_tie²) + (1 − 2^−b) N(h₋ | θ0, σ²)

A description-length prior: "the same again" takes b bits, so heads that become identical *save* bits, D log2(σ/σ_tie)
and the slab's own distance, less b. At D = 1,000, σ = 1, σ_tie = .01 and h₊ at distance √1000 from the anchor a copy
beats the slab by 1000·ln 100 + 500 = 5,105 nat. Both components are densities relative to one measure; with a measure
for each, the 4,605 would be lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from honest.objective.parameter_prior.coordinates import family, gaussian_constant, moved, ratio
from honest.objective.parameter_prior.sparse import log_not
from honest.params import Params, dimension
from honest.units import Quantity, log, logsumexp, nat

GROUP, PARTNER = "instrumental_head", "intended_head"


@family
@dataclass(frozen=True)
class Tied:
    """stddev: σ of the independent head in θ.head. tie_stddev: σ_tie in θ.head. bits: b > 0."""

    stddev: Quantity
    tie_stddev: Quantity
    bits: Quantity

    def _log_mixture(self, params: Params, anchor: Params, group: str) -> Quantity:
        """log p(h₋ | h₊) over the independent component's peak."""
        if group != GROUP:
            raise ValueError(f"tied is a prior of {GROUP}, a copy of {PARTNER}; not of {group}")
        apart = moved(
            params, {group: params[PARTNER]}, group, lambda d: Quantity(-0.5 * ratio(d, self.tie_stddev) ** 2, nat)
        )
        narrower = dimension(anchor[group]) * log(self.stddev, ref=self.tie_stddev)
        alone = moved(params, anchor, group, lambda d: Quantity(-0.5 * ratio(d, self.stddev) ** 2, nat))
        return logsumexp([apart + narrower - self.bits, alone + Quantity(log_not(self.bits), nat)], axis=0)

    def nats(self, params: Params, anchor: Params, group: str) -> Quantity:
        return self._log_mixture(params, anchor, group) - self._log_mixture(anchor, anchor, group)

    def constant(self, anchor: Params, group: str, measure: Quantity) -> Quantity:
        at_anchor = self._log_mixture(anchor, anchor, group)
        return at_anchor + gaussian_constant(dimension(anchor[group]), self.stddev, measure)
