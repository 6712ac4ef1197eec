"""The same integral in the coordinates of a Gaussian near the target, for a target that the prior's draws do not find.

With E(u) = ½|u|² − w(u), any mean m and scale s > 0, u = m + s ⊙ v turns

    Z = E_{u ~ N(0, I)} [exp w(u)]   into   Z = E_{v ~ N(0, I)} [exp w'(v)],   w'(v) = Σ log s + ½|v|² − E(m + s ⊙ v)

exactly. By Jensen's inequality log Z ≥ E_v[w'(v)], the evidence bound: (m, s) are found by climbing it (mean-field
variational inference; Kingma & Welling 2014, §2.3). It is E[w] less the bits that θ costs, KL(N(m, s²) ‖ N(0, I)). An
estimator that anneals w' from N(0, I) starts at that Gaussian: its lower bound holds for the whole integral, its upper
one for what its moves reach from there.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from honest.objective.log_partition.problem import Problem

LEARNING_RATE, FIRST_SCALE, DRAWS = 0.005, 0.02, 2  # draws: antithetic pairs of v a step


def in_coordinates_of(problem: Problem, mean_D: jax.Array, scale_D: jax.Array) -> Problem:
    """The problem in v, u = mean + scale ⊙ v. scale_D > 0."""
    log_scale = jnp.sum(jnp.log(scale_D))

    def weight(v_D: jax.Array) -> jax.Array:
        return log_scale + 0.5 * jnp.sum(v_D**2) - problem.energy(mean_D + scale_D * v_D)

    return Problem(weight, None, problem.dimension, problem.dtype)


def fit_gaussian(
    problem_at: Callable[[jax.Array], Problem], key: jax.Array, start_D: jax.Array, steps: int
) -> tuple[jax.Array, jax.Array]:
    """(mean_D, scale_D) after so many Adam steps up the evidence bound, from a narrow Gaussian at the start.

    problem_at: key -> the problem, or one whose weight is an unbiased estimate, as from a batch of rows. 2 · DRAWS
    gradients a step; the learning rate falls to 0 along a cosine. Jittable.
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps))

    def loss(gaussian: tuple[jax.Array, jax.Array], step_key: jax.Array) -> jax.Array:
        mean_D, log_scale_D = gaussian
        own, shared = jax.random.split(step_key)
        v_SxD = jax.random.normal(own, (DRAWS, *start_D.shape), start_D.dtype)
        moved = in_coordinates_of(problem_at(shared), mean_D, jnp.exp(log_scale_D))
        return -jnp.mean(jax.vmap(moved.weight)(jnp.concatenate([v_SxD, -v_SxD])))

    def step(carry: tuple, step_key: jax.Array) -> tuple[tuple, None]:
        gaussian, state = carry
        updates, state = optimizer.update(jax.grad(loss)(gaussian, step_key), state)
        return (optax.apply_updates(gaussian, updates), state), None

    first = start_D, jnp.full_like(start_D, jnp.log(FIRST_SCALE))
    ((mean_D, log_scale_D), _), _ = jax.lax.scan(step, (first, optimizer.init(first)), jax.random.split(key, steps))
    return mean_D, jnp.exp(log_scale_D)
