"""Priors: normalised log densities of a group's parameters around the anchor, in nat (design §2).

    log p(θ_g) = nats(θ) + constant          nats(θ0) = 0: what moving costs (positive: saves)

gaussian.py      N(c, Σ), Σ isotropic by group or tensor, diagonal, or Kronecker-factored: what stage two may have
curvature.py     Σ from the empirical Fisher information at θ0            scales_file.py   Σ from a file of scales
toward_zero.py   moving toward zero is cheaper than away from it          sparse.py        spike and slab
student_t.py, laplace.py, horseshoe.py    heavy tails                     tied.py          one head a copy of the other

All constants are relative to one reference measure ∏ dθ_i/u_g of the group, so that densities of different families,
and the components of a mixture, can be compared. Every family is a pytree: its scales are Quantities in θ_g, traced
with the parameters, so that one compiled step serves every σ.
"""

from __future__ import annotations

from typing import Protocol

from honest.objective.parameter_prior.gaussian import Gaussian, precision
from honest.objective.parameter_prior.horseshoe import Horseshoe
from honest.objective.parameter_prior.laplace import Laplace
from honest.objective.parameter_prior.sparse import Sparse
from honest.objective.parameter_prior.student_t import StudentT
from honest.objective.parameter_prior.tied import Tied
from honest.objective.parameter_prior.toward_zero import TowardZero
from honest.params import Params
from honest.units import Quantity

__all__ = [
    "Gaussian",
    "Horseshoe",
    "Laplace",
    "Prior",
    "Sparse",
    "StudentT",
    "Tied",
    "TowardZero",
    "precision",
]


class Prior(Protocol):
    """A family. params and anchor hold every group that is trained, bare, in that group's θ_g."""

    def nats(self, params: Params, anchor: Params, group: str) -> Quantity:
        """log p(θ_g) − log p(θ0_g), a scalar in nat."""
        ...

    def constant(self, anchor: Params, group: str, measure: Quantity) -> Quantity:
        """log p(θ0_g) in nat relative to ∏ dθ_i/u, u = `measure` in θ_g."""
        ...
