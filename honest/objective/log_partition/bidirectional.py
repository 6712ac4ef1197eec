"""Annealed importance sampling from both ends (third rung): value by Bennett's ratio, bounds by Markov's inequality.

    forward  u from the prior, β: 0 → 1     E[exp Σ Δβ w] = Z           (Neal 2001)          bounds log Z from below
    reverse  u from the target, β: 1 → 0    E[exp −Σ Δβ w] = 1/Z        (Grosse, Ghahramani & Adams 2015)  from above

The lower bound needs nothing but a path that is frozen before the pass, which the pilot's is. The upper bound needs
reverse starts that are draws from the target. They are not known to be; so several families start there, from opposite
sides — the forward pass's particles, and what the caller gives, such as the mode, whose weight is too high — each moved
at β = 1 first, and the largest bound is kept. A start too high in w claims too large a Z, which errs on the safe side;
the value leaves these out.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    Particle,
    Pass,
    Path,
    anneal,
    pilot,
    refine,
    start_at,
    start_at_prior,
)
from honest.objective.log_partition.problem import Problem
from honest.objective.log_partition.result import LogPartition, log_partition

PARTICLES, FROM_MODE = 32, 16  # of `ais`: forward particles, also the first reverse family; the second reverse family
SETTLING_SHARE = 0.125  # moves at β = 1 before the reverse pass, as a share of the bridges
PILOT_SHARE = 0.125  # the pilot's bridges, as a share of the bridges
MODE_SHARE = 0.03  # of the budget
FEWEST_BRIDGES = 16


class Plan(NamedTuple):
    """Where the gradient evaluations go. particles: up, and down from where they end; further: down from given starts.

    bridges, pilot_bridges, settling: moves of one particle in either pass, in a round of the pilot, and at β = 1.
    """

    particles: int
    further: int
    bridges: int
    pilot_bridges: int
    settling: int

    @property
    def gradients(self) -> int:
        pilot_cost = PILOT_ROUNDS * PILOT_PARTICLES * (self.pilot_bridges + 1)
        down = (self.particles + self.further) * (self.bridges + self.settling + 2)
        return pilot_cost + self.particles * (self.bridges + 1) + down


def plan(particles: int, further: int, bridges: int) -> Plan:
    return Plan(particles, further, bridges, max(int(PILOT_SHARE * bridges), 8), max(int(SETTLING_SHARE * bridges), 4))


def plan_within(budget: int) -> tuple[Plan, int]:
    """`ais` with the most bridges that the budget (gradient evaluations) pays for, and the mode's share of it.

    ValueError: too few.
    """
    mode = int(MODE_SHARE * budget)

    def with_bridges(bridges: int) -> Plan:
        return plan(PARTICLES, FROM_MODE, bridges)

    bridges = budget // PARTICLES
    while bridges >= FEWEST_BRIDGES and with_bridges(bridges).gradients + mode > budget:
        bridges -= 1
    if bridges < FEWEST_BRIDGES:
        needed = with_bridges(FEWEST_BRIDGES).gradients + mode
        raise ValueError(f"a budget of {budget} gradient evaluations is too small for ais; it needs {needed} or more")
    return with_bridges(bridges), mode


def ais(problem: Problem, key: jax.Array, budget: int) -> LogPartition:
    """log Z from both ends within `budget` gradient evaluations. Jittable; memory 48 positions of size D."""
    planned, mode = plan_within(budget)
    mode_D = find_mode(problem, mode - 3)  # it compares two energies at its end; `from_both_ends` looks at one weight
    at_mode = jnp.broadcast_to(mode_D, (FROM_MODE, problem.dimension))
    return from_both_ends(problem, key, planned, [at_mode], TAIL_PROBABILITY)


def from_both_ends(
    problem: Problem, key: jax.Array, planned: Plan, further: Sequence[jax.Array], tail: float
) -> LogPartition:
    """log Z with bounds that hold with probability 1 − `tail` each. Jittable; memory: the reverse particles' positions.

    further: families of reverse starts beside the forward pass's ends, (particles, D) each, `planned.further` in all.
    They may come from anywhere but this key's draws.
    """
    keys = jax.random.split(key, 7)
    return descend(problem, keys[3], planned, ascend(problem, keys[:3], planned), further, tail)


class Ascent(NamedTuple):
    """The frozen path, where the particles started on it (draws from the prior), and where they ended."""

    path: Path
    start: Particle
    annealed: Pass


def ascend(problem: Problem, keys: jax.Array, planned: Plan) -> Ascent:
    """The forward pass, along a path that a pilot has laid out before it. keys: three."""
    vg = problem.value_and_grad
    path = refine(pilot(keys[0], problem.dimension, planned.pilot_bridges, vg, problem.dtype), planned.bridges)
    start = start_at_prior(keys[1], planned.particles, problem.dimension, problem.dtype, vg)
    return Ascent(path, start, anneal(keys[2], start, path, vg, ascending=True))


def descend(
    problem: Problem, key: jax.Array, planned: Plan, ascent: Ascent, further: Sequence[jax.Array], tail: float
) -> LogPartition:
    """The reverse pass from the ascent's ends and from `further`, and what both passes say; see `from_both_ends`."""
    assert sum(starts.shape[0] for starts in further) == planned.further
    path, start, forward, particles = ascent.path, ascent.start, ascent.annealed, planned.particles
    families = [forward.end.position, *further]
    reverse_Q = reverse(key, jnp.concatenate(families), path, planned.settling, problem)
    ends = [sum(starts.shape[0] for starts in families[: i + 1]) for i in range(len(families) - 1)]
    works = jnp.split(reverse_Q, ends)
    seen = [jnp.max(start.weight), jnp.max(forward.end.weight), *(problem.weight(starts[0]) for starts in further)]
    value, standard_error = bennett_with_error(forward.work_P, works[0])
    return log_partition(
        "ais",
        value,
        lower_bound(forward.work_P, tail),
        jnp.max(jnp.stack([upper_bound(work, tail) for work in works])),
        standard_error=standard_error,
        ess=effective_size(forward.work_P),
        highest=jnp.max(jnp.stack(seen)),
        why=f"{particles} particles up, {' + '.join(str(len(work)) for work in works)} down, {planned.bridges} bridges",
    )


def reverse(key: jax.Array, starts_QxD: jax.Array, path: Path, settling: int, problem: Problem) -> jax.Array:
    """Σ Δβ w of each start on its way from β = 1, after `settling` moves there, down the path.

    inf, which bounds nothing, for a start that has not left w = −inf: it would say log Z = −inf.
    """
    keys, vg = jax.random.split(key, 4), problem.value_and_grad
    settled = anneal(keys[1], start_at(keys[0], starts_QxD, vg), path.at_target(settling), vg, ascending=True).end
    down = start_at(keys[2], settled.position, vg)
    work_Q = anneal(keys[3], down, path, vg, ascending=False).work_P
    return jnp.where(work_Q == -jnp.inf, jnp.inf, work_Q)
