"""Tempered sequential Monte Carlo (third rung; Del Moral, Doucet & Jasra 2006), by blackjax.

The temperatures are chosen by a pilot so that reweighting keeps half of the effective sample size, and then frozen:
each island's product of mean increments is then unbiased for Z, and independent islands bound log Z from below as the
forward weights of `bidirectional` do. The upper bound is the reverse pass of `bidirectional`, started at the final
particles: it needs them to be draws from the target, has no second family that starts too high, and counts an island
as one, because its particles descend from one another. Moves are split Hamiltonian moves with the step sizes of
`persistent.pilot`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from blackjax.smc import adaptive_tempered, resampling, tempered
from blackjax.smc.base import SMCInfo
from blackjax.smc.tempered import TemperedSMCState

from honest.objective.log_partition.bidirectional import reverse
from honest.objective.log_partition.bounds import (
    TAIL_PROBABILITY,
    effective_size,
    log_mean_exp,
    lower_bound,
    upper_bound,
)
from honest.objective.log_partition.moves import hamiltonian_move
from honest.objective.log_partition.persistent import PILOT_PARTICLES, PILOT_ROUNDS, Path, pilot, refine
from honest.objective.log_partition.problem import Problem
from honest.objective.log_partition.result import LogPartition, log_partition

ISLANDS, PARTICLES = 4, 16
PILOT_RUN_PARTICLES = 16
TARGET_ESS = 0.5
LEAPFROG_STEPS = 4
REVERSED = 16  # particles of the reverse pass, as many from each island
REVERSE_SHARE = 0.4  # of the budget
PILOT_BRIDGES = 64
FEWEST_TEMPERATURES = 8


class Moved(NamedTuple):
    """What blackjax carries for one particle between moves."""

    position: jax.Array


def smc(problem: Problem, key: jax.Array, budget: int) -> LogPartition:
    """log Z within `budget` gradient evaluations. Jittable; memory 64 positions.

    ValueError: the budget pays for fewer than eight temperatures.
    """
    down = int(REVERSE_SHARE * budget)
    # A move costs its leapfrog steps and one gradient more; the weights, and the pilot's choice of β, a value each.
    per_temperature = (ISLANDS * PARTICLES + PILOT_RUN_PARTICLES) * (LEAPFROG_STEPS + 3)
    pilot_cost = PILOT_ROUNDS * PILOT_PARTICLES * (PILOT_BRIDGES + 1)
    temperatures = (budget - down - pilot_cost - REVERSED) // per_temperature
    bridges = down // REVERSED * 8 // 9 - 2
    if temperatures < FEWEST_TEMPERATURES:
        needed = math.ceil((pilot_cost + REVERSED + FEWEST_TEMPERATURES * per_temperature) / (1 - REVERSE_SHARE))
        raise ValueError(f"a budget of {budget} gradient evaluations is too small for smc; it needs {needed} or more")
    keys = jax.random.split(key, 4)
    steps = pilot(keys[0], problem.dimension, PILOT_BRIDGES, problem.value_and_grad, problem.dtype)
    ladder_K = choose_ladder(keys[1], problem, steps, temperatures)
    position_IxPxD, log_z_I = islands(keys[2], problem, steps, ladder_K)
    ends_QxD = position_IxPxD.reshape(ISLANDS * PARTICLES, -1)[:: ISLANDS * PARTICLES // REVERSED]
    reverse_Q = reverse(keys[3], ends_QxD, refine(steps, bridges), bridges // 8, problem)
    size = effective_size(log_z_I)
    return log_partition(
        "smc",
        log_mean_exp(log_z_I),
        lower_bound(log_z_I, TAIL_PROBABILITY),
        upper_bound(by_island(reverse_Q), TAIL_PROBABILITY),
        standard_error=jnp.std(log_z_I, ddof=1) / jnp.sqrt(jnp.asarray(ISLANDS, log_z_I.dtype)),
        ess=size * PARTICLES,
        highest=jnp.max(jax.vmap(problem.weight)(ends_QxD)),
        why=f"{ISLANDS} islands of {PARTICLES}, at most {temperatures} temperatures; {REVERSED} particles down",
    )


def by_island(reverse_Q: jax.Array) -> jax.Array:
    """(I,) log weights whose inverses are the islands' mean inverses, from particles that stand island by island."""
    return -jax.vmap(log_mean_exp)(-reverse_Q.reshape(ISLANDS, -1))


def _parts(problem: Problem, steps: Path) -> tuple[Callable, Callable, Callable, Callable]:
    """log prior, log likelihood, move and its initial state, as blackjax's builders take them."""

    def move(key: jax.Array, state: Moved, log_density: Callable, *, beta: jax.Array) -> tuple[Moved, None]:
        del log_density  # β w + log prior: the split move takes both parts
        step = jnp.interp(beta, steps.betas_T1[1:], steps.steps_T)
        weight = lambda u_D: beta * problem.weight(u_D)  # noqa: E731
        return Moved(hamiltonian_move(key, state.position, weight, step, LEAPFROG_STEPS, True).position), None

    log_prior = lambda u_D: -0.5 * jnp.sum(u_D**2)  # noqa: E731
    return log_prior, problem.weight, move, lambda position, log_density: Moved(position)


def _move_at(state: TemperedSMCState) -> dict[str, jax.Array]:
    """blackjax moves before it weighs: at the state's temperature, not at the next one."""
    return {"beta": state.tempering_param[None]}


def _start(key: jax.Array, problem: Problem, particles: int) -> TemperedSMCState:
    state = tempered.init(jax.random.normal(key, (particles, problem.dimension), problem.dtype))
    return state._replace(tempering_param=jnp.zeros((), problem.dtype))


def choose_ladder(key: jax.Array, problem: Problem, steps: Path, temperatures: int) -> jax.Array:
    """β_1 … β_K, ending in 1: adaptive, by a pilot of 16 particles; repeated ones once it has arrived."""
    kernel = adaptive_tempered.build_kernel(*_parts(problem, steps), resampling.systematic, TARGET_ESS)
    start_key, run_key = jax.random.split(key)

    def step(state: TemperedSMCState, index: jax.Array) -> tuple[TemperedSMCState, jax.Array]:
        state, _ = kernel(jax.random.fold_in(run_key, index), state, 1, _move_at(state))
        return state, state.tempering_param

    _, ladder_K = jax.lax.scan(step, _start(start_key, problem, PILOT_RUN_PARTICLES), jnp.arange(temperatures))
    return ladder_K.at[-1].set(1.0)  # where the budget ends before 1 is reached, the last increment shows it


def islands(key: jax.Array, problem: Problem, steps: Path, ladder_K: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Final positions (I, P, D) and log Z (I,) of independent runs on the frozen ladder."""
    kernel = tempered.build_kernel(*_parts(problem, steps), resampling.systematic)

    def island(island_key: jax.Array) -> tuple[jax.Array, jax.Array]:
        start_key, run_key, end_key = jax.random.split(island_key, 3)

        def step(state: TemperedSMCState, part: tuple) -> tuple[TemperedSMCState, jax.Array]:
            index, beta = part
            info: SMCInfo
            state, info = kernel(jax.random.fold_in(run_key, index), state, 1, beta, _move_at(state))
            return state, info.log_likelihood_increment

        end, increments_K = jax.lax.scan(
            step, _start(start_key, problem, PARTICLES), (jnp.arange(ladder_K.size), ladder_K)
        )
        # blackjax weighs last: its particles are draws from the last but one temperature until they are resampled.
        chosen_P = resampling.systematic(end_key, end.weights, PARTICLES)
        return end.particles[chosen_P], jnp.sum(increments_K)

    return jax.vmap(island)(jax.random.split(key, ISLANDS))
