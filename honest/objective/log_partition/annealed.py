"""log Z by annealed importance sampling, bounded from both sides (design §2, third rung).

    Z = E_{u ~ N(0, I)} [exp w(u)],   w = −λ N_c C̄ ≤ 0 in nat,   bridge  π_β ∝ exp(β w) N(0, I)

Forward (β: 0 → 1; Neal 2001): the mean weight is unbiased for Z, so its logarithm is below log Z in expectation and,
by Markov's inequality, exceeds log Z + log(1/δ) with probability at most δ. Reverse (β: 1 → 0; Grosse, Ghahramani &
Adams 2015): the mean inverse weight is unbiased for 1/Z *if the start is a draw from π_1*, which bounds log Z from
above. That condition is not guaranteed: the starts are the forward particles and the negative phase's own position,
moved at β = 1, and the upper bound is taken over each family of starts separately, keeping the larger.
Schedule and step sizes are frozen after a pilot run, as the unbiasedness requires.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp as _logsumexp

from honest.objective.log_partition.moves import LogWeight, Tree, hamiltonian_move, normal_like

PILOT_GAIN = 0.3  # step of log(step size) per unit of acceptance surplus in the pilot run
PILOT_ROUNDS = 3
TARGET_ACCEPTANCE = 0.8


class LogPartition(NamedTuple):
    """log Z in nat: bare scalars, read by `honest.report`.

    estimate: forward log-mean weight. lower, upper: with their tail allowances, cut at the certain limit log Z ≤ 0.
    acceptance: mean over the forward run. ess: effective number of forward particles.
    """

    estimate: jax.Array
    lower: jax.Array
    upper: jax.Array
    acceptance: jax.Array
    ess: jax.Array


def _log_mean_exp(x_P: jax.Array) -> jax.Array:
    return _logsumexp(x_P) - math.log(x_P.shape[0])


def annealing_schedule(temperatures: int, dtype: jnp.dtype) -> jax.Array:
    """β_0 = 0 < … < β_T = 1, cubic: most bridges are spent near the prior, where w varies most."""
    return (jnp.arange(temperatures + 1, dtype=dtype) / temperatures) ** 3


def _pass(
    key: jax.Array,
    start_P: Tree,
    log_weight: LogWeight,
    betas: jax.Array,
    steps_T: jax.Array,
    leapfrog: int,
    ascending: bool,
) -> tuple[jax.Array, Tree, jax.Array]:
    """One annealing pass for P particles: (Σ Δβ w per particle, final positions, acceptance_TxP).

    Ascending: at each bridge weigh, then move at the next β_k. Descending runs the exact reversal: move
    at β_k, then weigh by the same Δβ; both return the sum of Δβ w, whose sign the caller chooses.
    """
    particles = jax.tree.leaves(start_P)[0].shape[0]
    batched_weight = jax.vmap(log_weight)

    def move(index: jax.Array, position_P: Tree, beta: jax.Array, step: jax.Array) -> tuple[Tree, jax.Array]:
        keys_P = jax.vmap(lambda p: jax.random.fold_in(jax.random.fold_in(key, index), p))(jnp.arange(particles))
        moved = jax.vmap(lambda k, u: hamiltonian_move(k, u, lambda v: beta * log_weight(v), step, leapfrog, True))(
            keys_P, position_P
        )
        return moved.position, moved.acceptance

    def ascend(carry: tuple, bridge: tuple) -> tuple[tuple, jax.Array]:
        position_P, sum_P = carry
        index, low, high, step = bridge
        sum_P = sum_P + (high - low) * batched_weight(position_P)
        position_P, acceptance_P = move(index, position_P, high, step)
        return (position_P, sum_P), acceptance_P

    def descend(carry: tuple, bridge: tuple) -> tuple[tuple, jax.Array]:
        position_P, sum_P = carry
        index, low, high, step = bridge
        position_P, acceptance_P = move(index, position_P, high, step)
        sum_P = sum_P + (high - low) * batched_weight(position_P)
        return (position_P, sum_P), acceptance_P

    bridges = (jnp.arange(betas.size - 1), betas[:-1], betas[1:], steps_T)
    zero_P = jnp.zeros(particles, betas.dtype)
    (end_P, sum_P), acceptance_TxP = jax.lax.scan(
        ascend if ascending else descend, (start_P, zero_P), bridges, reverse=not ascending
    )
    return sum_P, end_P, acceptance_TxP


def annealed(
    key: jax.Array,
    log_weight: LogWeight,
    like: Tree,
    extra_start: Tree | None,
    *,
    particles: int,
    temperatures: int,
    leapfrog: int,
    step_size: float,
    tail_probability: float,
) -> LogPartition:
    """Two-sided estimate of log Z in nat. Jittable; memory is `particles` positions.

    log_weight: u -> w(u) ≤ 0 in nat. like: a tree with the shapes of u. extra_start: a further start for the reverse
    pass (the negative phase's position), or None. step_size: the pilot's first step, in radians.
    """
    dtype = jax.tree.leaves(like)[0].dtype
    betas = annealing_schedule(temperatures, dtype)
    prior_key, pilot_key, forward_key, reverse_key, extra_key = jax.random.split(key, 5)

    def draw(k: jax.Array, count: int) -> Tree:
        return jax.vmap(lambda p: normal_like(jax.random.fold_in(k, p), like))(jnp.arange(count))

    def pilot(log_step_T: jax.Array, round_: jax.Array) -> tuple[jax.Array, None]:
        round_key = jax.random.fold_in(pilot_key, round_)
        _, _, acceptance = _pass(round_key, draw(round_key, 1), log_weight, betas, jnp.exp(log_step_T), leapfrog, True)
        surplus_T = acceptance[:, 0] - TARGET_ACCEPTANCE
        gain = PILOT_GAIN * (PILOT_ROUNDS - round_).astype(dtype)
        return jnp.minimum(log_step_T + gain * surplus_T, 0.0), None

    # Scans over pilot rounds and over families of starts, so that each pass is compiled once.
    first = jnp.full(temperatures, math.log(step_size), dtype)
    steps_T = jnp.exp(jax.lax.scan(pilot, first, jnp.arange(PILOT_ROUNDS))[0])

    start_P = draw(prior_key, particles)
    forward_P, end_P, acceptance = _pass(forward_key, start_P, log_weight, betas, steps_T, leapfrog, True)
    estimate = _log_mean_exp(forward_P)
    allowance = math.log(1 / tail_probability)

    def upper_from(family: tuple[jax.Array, Tree]) -> jax.Array:
        # Equilibrate at β = 1 with as many moves as there are bridges, then anneal down.
        k, starts_P = family
        flat = jnp.ones(temperatures + 1, dtype)
        last_T = jnp.full_like(steps_T, steps_T[-1])
        _, settled_P, _ = _pass(jax.random.fold_in(k, 0), starts_P, log_weight, flat, last_T, leapfrog, True)
        reverse_P, _, _ = _pass(jax.random.fold_in(k, 1), settled_P, log_weight, betas, steps_T, leapfrog, False)
        return -_log_mean_exp(-reverse_P)

    families = [(reverse_key, end_P)]
    if extra_start is not None:
        repeated = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (particles, *leaf.shape)), extra_start)
        families.append((extra_key, repeated))
    upper = jnp.max(jax.lax.map(upper_from, jax.tree.map(lambda *leaves: jnp.stack(leaves), *families)))
    normalised_P = jnp.exp(forward_P - _logsumexp(forward_P))
    return LogPartition(
        estimate=estimate,
        lower=jnp.minimum(estimate - allowance, 0.0),
        upper=jnp.minimum(upper + allowance, 0.0),
        acceptance=jnp.mean(acceptance),
        ess=1.0 / jnp.sum(normalised_P**2),
    )
