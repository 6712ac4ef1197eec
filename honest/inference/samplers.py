"""Bits spent by sampling a continuous world: SMC with Hamiltonian moves, NUTS (blackjax), and unadjusted Langevin.

Only SMC claims a log evidence: NUTS and Langevin give draws, and no volume.
"""

from __future__ import annotations

import blackjax
import jax
import jax.numpy as jnp

from honest.inference.joint import Joint
from honest.inference.points import Found, averaged
from honest.objective.log_partition.bounds import log_mean_exp
from honest.objective.log_partition.moves import hamiltonian_move
from honest.objective.log_partition.persistent import PILOT_PARTICLES, PILOT_ROUNDS, pilot
from honest.objective.log_partition.problem import Problem
from honest.objective.log_partition.smc import (
    ISLANDS,
    LEAPFROG_STEPS,
    PARTICLES,
    PILOT_RUN_PARTICLES,
    choose_ladder,
    islands,
)

PILOT_BRIDGES = 64
TEMPERATURES = 24
NUTS_CHAINS, NUTS_GUESS = 4, 16  # leapfrog steps a draw that the budget is divided by
NUTS_WARMUP = 0.25  # of the iterations
LANGEVIN_CHAINS, LANGEVIN_STEP = 16, 0.1  # radians: its bias is of order step²
SETTLING = 0.2  # of Langevin's steps, not counted
KEPT = 4096  # draws whose ledger is averaged


def smc(joint: Joint, key: jax.Array, budget: int, *, log_partition: bool) -> Found:
    """Independent islands on one frozen ladder from the prior to the joint, as many as the budget pays for."""
    problem = Problem(
        lambda u: joint.log_weight(u, log_partition=log_partition), None, joint.dimension, jnp.result_type(float)
    )
    pilot_cost = PILOT_ROUNDS * PILOT_PARTICLES * (PILOT_BRIDGES + 1)
    per_particle = TEMPERATURES * (LEAPFROG_STEPS + 3)
    rounds = max((budget - pilot_cost - PILOT_RUN_PARTICLES * per_particle) // (ISLANDS * PARTICLES * per_particle), 1)
    pilot_key, ladder_key, run_key = jax.random.split(key, 3)
    steps = pilot(pilot_key, joint.dimension, PILOT_BRIDGES, problem.value_and_grad, problem.dtype)
    ladder_K = choose_ladder(ladder_key, problem, steps, TEMPERATURES)
    position, log_z = jax.lax.map(lambda k: islands(k, problem, steps, ladder_K), jax.random.split(run_key, rounds))
    u_IxPxD, log_z_I = position.reshape(-1, PARTICLES, joint.dimension), log_z.reshape(-1)
    # An island counts as much as the evidence that it found.
    chosen = jax.random.categorical(jax.random.fold_in(run_key, rounds), log_z_I, shape=(KEPT,))
    draws = u_IxPxD[chosen, jnp.arange(KEPT) % PARTICLES]
    ledger, answers_B = averaged(joint, draws, log_partition)
    weight_I = jnp.exp(log_z_I - jnp.max(log_z_I))
    error = jnp.std(weight_I, ddof=1) / jnp.sqrt(weight_I.size) / jnp.mean(weight_I)
    spent = pilot_cost + (PILOT_RUN_PARTICLES + rounds * ISLANDS * PARTICLES) * per_particle
    return Found(ledger, log_mean_exp(log_z_I), error, answers_B, jnp.asarray(spent))


def _no_claim(joint: Joint, draws_NxD: jax.Array, log_partition: bool, spent: jax.Array) -> Found:
    kept = draws_NxD[:: max(len(draws_NxD) // KEPT, 1)]
    ledger, answers_B = averaged(joint, kept, log_partition)
    return Found(ledger, jnp.asarray(jnp.nan), jnp.asarray(jnp.nan), answers_B, spent)


def nuts(joint: Joint, key: jax.Array, budget: int, *, log_partition: bool) -> Found:
    """Four chains of the no-U-turn sampler with window adaptation (blackjax). The cost is what they came to."""

    def log_density(u: jax.Array) -> jax.Array:
        return joint.log_joint(u, log_partition=log_partition)

    iterations = max(budget // (NUTS_CHAINS * NUTS_GUESS), 40)
    warmup = max(int(NUTS_WARMUP * iterations), 20)

    def chain(chain_key: jax.Array) -> tuple[jax.Array, jax.Array]:
        start_key, adapt_key, run_key = jax.random.split(chain_key, 3)
        start = jax.random.normal(start_key, (joint.dimension,))
        adaptation = blackjax.window_adaptation(blackjax.nuts, log_density)
        (state, parameters), tuning = adaptation.run(adapt_key, start, num_steps=warmup)
        step = blackjax.nuts(log_density, **parameters).step

        def move(state, move_key: jax.Array):
            state, info = step(move_key, state)
            return state, (state.position, info.num_integration_steps)

        _, (position, steps) = jax.lax.scan(move, state, jax.random.split(run_key, iterations - warmup))
        return position, jnp.sum(steps) + jnp.sum(tuning.info.num_integration_steps)

    position, spent = jax.vmap(chain)(jax.random.split(key, NUTS_CHAINS))
    return _no_claim(joint, position.reshape(-1, joint.dimension), log_partition, jnp.sum(spent))


def langevin(joint: Joint, key: jax.Array, budget: int, *, log_partition: bool) -> Found:
    """Sixteen chains of one unadjusted leapfrog step a move, from the prior: what noisy gradient descent does."""

    def log_weight(u: jax.Array) -> jax.Array:
        return joint.log_weight(u, log_partition=log_partition)

    moves = max(budget // (2 * LANGEVIN_CHAINS), 10)  # a move takes the gradient at both of its ends
    step = jnp.asarray(LANGEVIN_STEP)

    def move(u_CxD: jax.Array, move_key: jax.Array) -> tuple[jax.Array, jax.Array]:
        keys = jax.random.split(move_key, LANGEVIN_CHAINS)
        moved = jax.vmap(lambda k, u: hamiltonian_move(k, u, log_weight, step, 1, False).position)(keys, u_CxD)
        return moved, moved

    start_key, run_key = jax.random.split(key)
    start = jax.random.normal(start_key, (LANGEVIN_CHAINS, joint.dimension))
    _, u_TxCxD = jax.lax.scan(move, start, jax.random.split(run_key, moves))
    draws = u_TxCxD[int(SETTLING * moves) :].reshape(-1, joint.dimension)
    return _no_claim(joint, draws, log_partition, jnp.asarray(2 * moves * LANGEVIN_CHAINS))
