"""Importance sampling from the prior (second rung): E[exp w] as a mean of bounded numbers.

Weights lie in [0, 1], because w ≤ 0; so their mean m over N draws is bounded from both sides by the binomial
Chernoff bound, which holds for all variables in [0, 1] (Hoeffding 1963, theorem 1):

    P(m ≥ x) ≤ e^{−N kl(x, Z)} for x ≥ Z, and alike below;   kl(x, z) = x log x/z + (1−x) log (1−x)/(1−z)

Both bounds need nothing else: no equilibrium, no variance. They are wide where few draws carry the sum.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from honest.objective.log_partition.bounds import (
    BISECTIONS,
    TAIL_PROBABILITY,
    effective_size,
    log_mean_exp,
)
from honest.objective.log_partition.problem import Problem
from honest.objective.log_partition.result import LogPartition, log_partition

CHUNK = 64  # draws in memory at a time


def importance(problem: Problem, key: jax.Array, budget: int) -> LogPartition:
    """log of the mean weight of `budget` draws (evaluations of w; no gradient). Jittable; memory 64 positions."""
    chunks = max(budget // CHUNK, 1)

    def draw(chunk_key: jax.Array) -> jax.Array:
        return jax.vmap(problem.weight)(jax.random.normal(chunk_key, (CHUNK, problem.dimension), problem.dtype))

    log_weight_N = jax.lax.map(draw, jax.random.split(key, chunks)).reshape(-1)
    value, size = log_mean_exp(log_weight_N), effective_size(log_weight_N)
    count = chunks * CHUNK
    # The lower bound is the better one of two, which share δ; Markov's is better where few draws carry the sum.
    lower, upper = chernoff(value, count, TAIL_PROBABILITY / 2)
    return log_partition(
        "importance",
        value,
        jnp.maximum(lower, value - math.log(2 / TAIL_PROBABILITY)),
        upper,
        # delta method on the log of a mean: its relative error
        standard_error=jnp.sqrt(jnp.maximum(1.0 / size - 1.0 / count, 0.0)),
        ess=size,
        highest=jnp.max(log_weight_N),
        why=f"{count} draws from the prior",
    )


def chernoff(log_mean: jax.Array, count: int, tail: float) -> tuple[jax.Array, jax.Array]:
    """(lower, upper) log Z with N kl(mean, Z) = log 1/δ on either side of the mean.

    lower is not sought further down than log mean − log(1/δ) − 1, where Markov's bound is better; upper is at most 0.
    """
    room = math.log(1 / tail) / count
    mean = jnp.exp(log_mean)

    def excess(log_z: jax.Array) -> jax.Array:
        """kl(mean, Z) − room; −(1−m) log(1−Z) stays exact for small Z, m log(m/Z) for small m."""
        hit = jnp.where(mean > 0, mean * (log_mean - log_z), 0.0)
        miss = jnp.where(mean < 1, (1 - mean) * (jnp.log1p(-mean) - jnp.log1p(-jnp.exp(log_z))), 0.0)
        return hit + miss - room

    def bisect(inside: jax.Array, outside: jax.Array) -> jax.Array:
        def halve(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            inside, outside = bracket
            middle = 0.5 * (inside + outside)
            near = excess(middle) < 0
            return jnp.where(near, middle, inside), jnp.where(near, outside, middle)

        return jax.lax.fori_loop(0, BISECTIONS, halve, (inside, outside))[1]

    # kl(m, Z) < room for every m ≤ Z = room/e: from there on the search upwards also ends where no draw has a weight.
    from_there = jnp.maximum(log_mean, math.log(room) - 1.0)
    return bisect(log_mean, log_mean - math.log(1 / tail) - 1.0), bisect(from_there, jnp.zeros_like(log_mean))
