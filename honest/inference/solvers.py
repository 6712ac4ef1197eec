"""Ways to spend bits, by name: on a finite world (`Solution`s, which `enumeration.posterior` reads), and on a
continuous one (`Account`s)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import numpy as np

from honest.inference.enumeration import Solution, enumerate_states
from honest.inference.factors import Factors
from honest.inference.integer_program import milp
from honest.inference.joint import Joint
from honest.inference.ledger import Account, Ledger
from honest.inference.metropolis import metropolis
from honest.inference.points import Found, gradient, laplace, lbfgs
from honest.inference.rejection import rejection
from honest.inference.samplers import langevin, nuts
from honest.inference.samplers import smc as hamiltonian_smc
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

QUADRATURE = "quadrature"  # exact, in a continuous world
CONTINUOUS: dict[str, Callable[..., Found]] = {
    "gradient": gradient,
    "lbfgs": lbfgs,
    "laplace": laplace,
    "smc": hamiltonian_smc,
    "nuts": nuts,
    "langevin": langevin,
}


def solve(factors: Factors, solver: str, samples: int, seed: int) -> Solution:
    """samples, seed: of the sampled solvers; the others have no use for them."""
    if solver in DETERMINISTIC:
        return DETERMINISTIC[solver](factors)
    return SAMPLED[solver](factors, samples, seed)


def solve_continuous(joint: Joint, solver: str, samples: int, seed: int, *, log_partition: bool) -> Account:
    """What a solver of `CONTINUOUS` arrives at, with log Z in the joint or without. samples: evaluations at most."""
    run = functools.partial(CONTINUOUS[solver], joint, budget=samples, log_partition=log_partition)
    found: Found = jax.device_get(jax.jit(run)(jax.random.key(seed)))
    return Account(
        ledger=Ledger(*(float(row) for row in found.ledger)),
        log_evidence=float(found.log_evidence),
        error=float(found.error),
        answers=np.asarray(found.answers_B),
        evaluations=int(found.evaluations),
    )
