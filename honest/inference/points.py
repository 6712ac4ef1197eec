"""Bits spent by a point: gradient descent and L-BFGS to the joint mode, and Laplace's volume around it.

What a point claims for the log evidence is the joint at the mode, without any volume: the height of the density in
place of its integral. Laplace adds −½ log|H|, the volume of the Gaussian that fits the mode. Both see one mode only.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from honest.inference.joint import Joint
from honest.inference.ledger import Ledger
from honest.objective.log_partition.mode import minimise

STARTS = 16  # from the prior; the best end is kept
LEARNING_RATE, MOMENTUM = 0.01, 0.9  # in whitened coordinates
STILL = 1e-5  # nat per unit of u: gradient descent has arrived
LAPLACE_DRAWS = 4096


class Found(NamedTuple):
    """What a solver says of a continuous world, as arrays.

    ledger: at the point, or its mean over draws, bare nat. log_evidence, and its standard error: NaN where the solver
    claims none. answers_B: probability that the intended head says yes. evaluations: of the joint, with its gradient.
    """

    ledger: Ledger
    log_evidence: jax.Array
    error: jax.Array
    answers_B: jax.Array
    evaluations: jax.Array


def averaged(joint: Joint, u_NxD: jax.Array, log_partition: bool) -> tuple[Ledger, jax.Array]:
    """(ledger, answers_B) in the mean over draws."""

    def each(u: jax.Array) -> tuple[list[jax.Array], jax.Array]:
        rows = joint.ledger(u, log_partition=log_partition)
        return [row.to(row.unit) for row in rows], joint.answers(u)

    rows, answers_NxB = jax.lax.map(each, u_NxD, batch_size=256)
    return Ledger(*(jnp.mean(row_N) for row_N in rows)), jnp.mean(answers_NxB, axis=0)


def _at_point(joint: Joint, u: jax.Array, log_partition: bool, evaluations: jax.Array) -> Found:
    ledger, answers_B = averaged(joint, u[None], log_partition)
    return Found(ledger, sum(ledger), jnp.zeros(()), answers_B, evaluations)


def _starts(joint: Joint, key: jax.Array) -> jax.Array:
    return jax.random.normal(key, (STARTS, joint.dimension))


def gradient(joint: Joint, key: jax.Array, budget: int, *, log_partition: bool) -> Found:
    """Gradient descent with momentum on all parameters together, from the best of 16 starts. Jittable."""
    optimizer = optax.sgd(LEARNING_RATE, momentum=MOMENTUM)

    def energy(u: jax.Array) -> jax.Array:
        return -joint.log_joint(u, log_partition=log_partition)

    slope = jax.vmap(jax.grad(energy))

    def more(carry: tuple) -> jax.Array:
        _, _, steps, largest = carry
        return ((steps + 1) * STARTS <= budget) & (largest > STILL)

    def step(carry: tuple) -> tuple:
        u_SxD, state, steps, _ = carry
        slope_SxD = slope(u_SxD)
        updates, state = optimizer.update(slope_SxD, state)
        return optax.apply_updates(u_SxD, updates), state, steps + 1, jnp.max(jnp.abs(slope_SxD))

    u_SxD = _starts(joint, key)
    first = (u_SxD, optimizer.init(u_SxD), jnp.zeros((), int), jnp.asarray(jnp.inf, u_SxD.dtype))
    u_SxD, _, steps, _ = jax.lax.while_loop(more, step, first)
    best = jnp.argmin(jnp.nan_to_num(jax.vmap(energy)(u_SxD), nan=jnp.inf))
    return _at_point(joint, u_SxD[best], log_partition, (steps + 1) * STARTS)


def _mode(joint: Joint, key: jax.Array, budget: int, log_partition: bool) -> tuple[jax.Array, jax.Array]:
    """(the lowest of the modes that L-BFGS finds from 16 starts, gradients spent)."""

    def energy(u: jax.Array) -> jax.Array:
        return -joint.log_joint(u, log_partition=log_partition)

    u_SxD, spent_S = jax.lax.map(lambda start: minimise(energy, start, budget // STARTS), _starts(joint, key))
    best = jnp.argmin(jnp.nan_to_num(jax.vmap(energy)(u_SxD), nan=jnp.inf))
    return u_SxD[best], jnp.sum(spent_S) + STARTS


def lbfgs(joint: Joint, key: jax.Array, budget: int, *, log_partition: bool) -> Found:
    """The joint mode by L-BFGS, from the best of 16 starts. Jittable."""
    u, spent = _mode(joint, key, budget, log_partition)
    return _at_point(joint, u, log_partition, spent)


def laplace(joint: Joint, key: jax.Array, budget: int, *, log_partition: bool) -> Found:
    """The Gaussian at the mode of `lbfgs`, and the ledger's mean under it. Jittable; NaN where H is not positive."""
    mode_key, draw_key = jax.random.split(key)
    u, spent = _mode(joint, mode_key, budget, log_partition)
    curvature = -jax.hessian(lambda v: joint.log_joint(v, log_partition=log_partition))(u)
    root = jnp.linalg.cholesky(curvature)
    noise = jax.random.normal(draw_key, (LAPLACE_DRAWS, joint.dimension))
    draws = u + jax.vmap(lambda n: jax.scipy.linalg.solve_triangular(root, n, trans=1, lower=True))(noise)
    ledger, answers_B = averaged(joint, draws, log_partition)
    # ∫ of the joint relative to the prior's own normalised Gaussian: (2π)^(D/2) of both cancels.
    claim = joint.log_joint(u, log_partition=log_partition) - jnp.sum(jnp.log(jnp.diagonal(root)))
    return Found(ledger, claim, jnp.zeros(()), answers_B, spent + joint.dimension + LAPLACE_DRAWS)
