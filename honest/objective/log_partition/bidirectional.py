"""Annealed importance sampling from both ends (third rung): value by Bennett's ratio, bounds by Markov's inequality.

    forward  u from the prior, β: 0 → 1     E[exp Σ Δβ w] = Z           (Neal 2001)          bounds log Z from below
    reverse  u from the target, β: 1 → 0    E[exp −Σ Δβ w] = 1/Z        (Grosse, Ghahramani & Adams 2015)  from above

The lower bound needs nothing but a path that is frozen before the pass, which the pilot's is. The upper bound needs
reverse starts that are draws from the target. They are not known to be; so two families start there, from opposite
sides — the forward pass's particles, and the mode, whose weight is too high — each moved at β = 1 first, and the larger
bound is kept. A start too high in w claims too large a Z, which errs on the safe side; the value leaves them out.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from honest.objective.log_partition.bounds import (
    TAIL_PROBABILITY,
    bennett_with_error,
    effective_size,
    lower_bound,
    upper_bound,
)
from honest.objective.log_partition.mode import find_mode
from honest.objective.log_partition.persistent import (
    PILOT_PARTICLES,
    PILOT_ROUNDS,
    Path,
    anneal,
    pilot,
    refine,
    start_at,
    start_at_prior,
)
from honest.objective.log_partition.problem import Problem
from honest.objective.log_partition.result import LogPartition, log_partition

PARTICLES, FROM_MODE = 32, 16  # forward particles, also the first reverse family; the second reverse family
SETTLING_SHARE = 0.125  # moves at β = 1 before the reverse pass, as a share of the bridges
PILOT_SHARE = 0.125  # the pilot's bridges, as a share of the bridges
MODE_SHARE = 0.03  # of the budget
FEWEST_BRIDGES = 16


class Plan(NamedTuple):
    """How a budget of gradient evaluations is spent."""

    bridges: int
    pilot_bridges: int
    settling: int
    mode: int

    @property
    def gradients(self) -> int:
        families = PARTICLES + FROM_MODE
        pilot_cost = PILOT_ROUNDS * PILOT_PARTICLES * (self.pilot_bridges + 1)
        return self.mode + pilot_cost + PARTICLES * (self.bridges + 1) + families * (self.bridges + self.settling + 2)


def plan(budget: int) -> Plan:
    """The most bridges that the budget (gradient evaluations) pays for. ValueError: too few."""
    mode = int(MODE_SHARE * budget)

    def with_bridges(bridges: int) -> Plan:
        return Plan(bridges, max(int(PILOT_SHARE * bridges), 8), max(int(SETTLING_SHARE * bridges), 4), mode)

    bridges = budget // PARTICLES
    while bridges >= FEWEST_BRIDGES and with_bridges(bridges).gradients > budget:
        bridges -= 1
    if bridges < FEWEST_BRIDGES:
        needed = with_bridges(FEWEST_BRIDGES).gradients
        raise ValueError(f"a budget of {budget} gradient evaluations is too small for ais; it needs {needed} or more")
    return with_bridges(bridges)


def ais(problem: Problem, key: jax.Array, budget: int) -> LogPartition:
    """log Z from both ends within `budget` gradient evaluations. Jittable; memory 48 positions of size D."""
    planned = plan(budget)
    vg = problem.value_and_grad
    keys = jax.random.split(key, 7)
    mode_D = find_mode(problem, planned.mode)
    path = refine(pilot(keys[0], problem.dimension, planned.pilot_bridges, vg, problem.dtype), planned.bridges)
    start = start_at_prior(keys[1], PARTICLES, problem.dimension, problem.dtype, vg)
    forward = anneal(keys[2], start, path, vg, ascending=True)
    at_mode = jnp.broadcast_to(mode_D, (FROM_MODE, problem.dimension))
    starts = jnp.concatenate([forward.end.position, at_mode])
    reverse_Q = reverse(keys[3], starts, path, planned.settling, problem)
    descended_P, from_mode_Q = reverse_Q[:PARTICLES], reverse_Q[PARTICLES:]
    value, standard_error = bennett_with_error(forward.work_P, descended_P)
    return log_partition(
        "ais",
        value,
        lower_bound(forward.work_P, TAIL_PROBABILITY),
        jnp.maximum(upper_bound(descended_P, TAIL_PROBABILITY), upper_bound(from_mode_Q, TAIL_PROBABILITY)),
        standard_error=standard_error,
        ess=effective_size(forward.work_P),
        why=f"{PARTICLES} particles up, {PARTICLES} + {FROM_MODE} down, {planned.bridges} bridges",
    )


def reverse(key: jax.Array, starts_QxD: jax.Array, path: Path, settling: int, problem: Problem) -> jax.Array:
    """Σ Δβ w of each start on its way from β = 1, after `settling` moves there, down the path."""
    keys, vg = jax.random.split(key, 4), problem.value_and_grad
    settled = anneal(keys[1], start_at(keys[0], starts_QxD, vg), path.at_target(settling), vg, ascending=True).end
    down = start_at(keys[2], settled.position, vg)
    return anneal(keys[3], down, path, vg, ascending=False).work_P
