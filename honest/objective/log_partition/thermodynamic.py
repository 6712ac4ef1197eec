"""Thermodynamic integration: log Z = ∫₀¹ E_β[w] dβ, π_β ∝ exp(βw) N(0, I)   (Gelman & Meng 1998).

dE_β[w]/dβ = Var_β[w] ≥ 0, so E_β[w] increases and the two Riemann sums bound the integral from both sides:

    Σ h_k E_{k−1}[w]  ≤  log Z  ≤  Σ h_k E_k[w]

and the corrected trapezoid Σ h/2 (E_{k−1} + E_k) − h²/12 (V_k − V_{k−1}) lies between (Friel, Hurn & Wyse 2014). The
means are over chains that pass the temperatures in order; bounds are widened by a one-sided t allowance over
independent chains. They are conditional: a chain that lags behind its temperature has too low a mean, which the lower
bound can bear and the upper one cannot.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from scipy import stats

from honest.objective.log_partition.bounds import TAIL_PROBABILITY
from honest.objective.log_partition.persistent import (
    PILOT_PARTICLES,
    PILOT_ROUNDS,
    Particle,
    Path,
    leap,
    pilot,
    refine,
    refresh,
    start_at_prior,
)
from honest.objective.log_partition.problem import Problem
from honest.objective.log_partition.result import LogPartition, log_partition

CHAINS = 16
MOVES_PER_TEMPERATURE = 40  # the first half of them settles
PILOT_BRIDGES = 64


def thermodynamic(problem: Problem, key: jax.Array, budget: int) -> LogPartition:
    """The integral within `budget` gradient evaluations. Jittable; memory 16 positions.

    ValueError: the budget pays for fewer than four temperatures.
    """
    spent = PILOT_ROUNDS * PILOT_PARTICLES * (PILOT_BRIDGES + 1) + CHAINS
    temperatures = (budget - spent) // (CHAINS * MOVES_PER_TEMPERATURE)
    if temperatures < 4:
        needed = spent + 4 * CHAINS * MOVES_PER_TEMPERATURE
        raise ValueError(f"a budget of {budget} gradient evaluations is too small for thermodynamic; it needs {needed}")
    vg = problem.value_and_grad
    pilot_key, start_key, chain_key = jax.random.split(key, 3)
    path = refine(pilot(pilot_key, problem.dimension, PILOT_BRIDGES, vg, problem.dtype), temperatures)
    start = start_at_prior(start_key, CHAINS, problem.dimension, problem.dtype, vg)
    mean_KxC, variance_K = moments(chain_key, start, path, problem)
    h_K = jnp.diff(path.betas_T1)
    left_C, right_C = h_K @ mean_KxC[:-1], h_K @ mean_KxC[1:]
    trapezoid_C = 0.5 * (left_C + right_C)
    value = jnp.mean(trapezoid_C) - jnp.sum(h_K**2 / 12 * jnp.diff(variance_K))
    allowance = float(stats.t.ppf(1 - TAIL_PROBABILITY, CHAINS - 1))
    return log_partition(
        "thermodynamic",
        value,
        jnp.mean(left_C) - allowance * _error(left_C),
        jnp.mean(right_C) + allowance * _error(right_C),
        standard_error=_error(trapezoid_C),
        ess=jnp.nan,
        highest=jnp.max(mean_KxC),
        why=f"{CHAINS} chains at {temperatures + 1} temperatures, {MOVES_PER_TEMPERATURE} moves at each",
    )


def _error(x_C: jax.Array) -> jax.Array:
    return jnp.std(x_C, ddof=1) / jnp.sqrt(jnp.asarray(x_C.shape[0], x_C.dtype))


def moments(key: jax.Array, start: Particle, path: Path, problem: Problem) -> tuple[jax.Array, jax.Array]:
    """Mean of w for each temperature and chain, (K+1, C), and its variance at each temperature, (K+1,)."""
    vg, settling = problem.value_and_grad, MOVES_PER_TEMPERATURE // 2

    def temperature(family: Particle, part: tuple) -> tuple[Particle, tuple[jax.Array, jax.Array]]:
        index, beta, step = part

        def move(carry: tuple, number: jax.Array) -> tuple:
            family, first_C, second_C = carry
            keys_C = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, index), number), CHAINS)

            def one(k: jax.Array, particle):
                refresh_key, leap_key = jax.random.split(k)
                return leap(leap_key, refresh(refresh_key, particle, step), beta, step, vg)[0]

            family = jax.vmap(one)(keys_C, family)
            counted = (number >= settling).astype(family.weight.dtype) / (MOVES_PER_TEMPERATURE - settling)
            centred_C = family.weight - around
            return (family, first_C + counted * centred_C, second_C + counted * centred_C**2), None

        around = jnp.mean(family.weight)  # squares of w itself would cancel in float32
        zero_C = jnp.zeros_like(family.weight)
        (family, first_C, second_C), _ = jax.lax.scan(move, (family, zero_C, zero_C), jnp.arange(MOVES_PER_TEMPERATURE))
        return family, (around + first_C, jnp.mean(second_C) - jnp.mean(first_C) ** 2)

    # At β = 0 the target is the prior, in which the chains start.
    mean_C, variance = start.weight, jnp.var(start.weight)
    steps = (jnp.arange(path.steps_T.size), path.betas_T1[1:], path.steps_T)
    _, (mean_KxC, variance_K) = jax.lax.scan(temperature, start, steps)
    return jnp.concatenate([mean_C[None], mean_KxC]), jnp.concatenate([variance[None], variance_K])
