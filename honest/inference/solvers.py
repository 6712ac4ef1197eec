"""Ways to spend bits on a finite world, by name. Each gives a `Solution`; `enumeration.posterior` reads it."""

from __future__ import annotations

from collections.abc import Callable

from honest.inference.enumeration import Solution, enumerate_states
from honest.inference.factors import Factors
from honest.inference.integer_program import milp
from honest.inference.metropolis import metropolis
from honest.inference.rejection import rejection
from honest.inference.tempered import smc

EXACT = "enumerate"
POINTS = "milp"
DETERMINISTIC: dict[str, Callable[[Factors], Solution]] = {EXACT: enumerate_states, POINTS: milp}
SAMPLED: dict[str, Callable[[Factors, int, int], Solution]] = {
    "rejection": rejection,
    "smc": smc,
    "metropolis": metropolis,
}
SOLVERS = (*DETERMINISTIC, *SAMPLED)


def solve(factors: Factors, solver: str, samples: int, seed: int) -> Solution:
    """samples, seed: of the sampled solvers; the others have no use for them."""
    if solver in DETERMINISTIC:
        return DETERMINISTIC[solver](factors)
    return SAMPLED[solver](factors, samples, seed)
