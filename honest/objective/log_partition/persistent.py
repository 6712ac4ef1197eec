"""Annealing with persistent momentum: one gradient a bridge (generalised HMC, Horowitz 1991; Neal 2011, §5.5.3).

    target at β   exp(β w(u)) N(u; 0, I) N(p; 0, I)
    move          p ← α p + √(1−α²) n,  α = e^{−γ·step};   one split-leapfrog step;   accept, or keep u and turn p

A Hamiltonian move with a fresh momentum spends a trajectory of gradients at one bridge. Here the trajectory runs
through the bridges: every gradient is at a new β, and the momentum carries it on. The rotation is exact as in `moves`.
The reverse pass runs the same two halves in the other order, which is the time reversal that Crooks' relation between
forward and reverse weights asks for (the accept-or-turn half commutes with the momentum's sign as the refresh does).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from honest.objective.log_partition.moves import split_leapfrog

FRICTION = 1.0  # γ: the momentum is forgotten within one radian, the scale of the slowest direction
FIRST_STEP = 0.15  # radians; the pilot's start
PILOT_ROUNDS, PILOT_PARTICLES, PILOT_GAIN = 3, 2, 3.0
TARGET_ACCEPTANCE = 0.8  # of one leapfrog step; each rejection turns the momentum around
ValueAndGrad = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


class Particle(NamedTuple):
    """u and p (D,), w in nat, ∇w (D,); with a leading axis P for a family."""

    position: jax.Array
    momentum: jax.Array
    weight: jax.Array
    gradient: jax.Array


class Path(NamedTuple):
    """betas_T1: β_0 … β_T, ascending. steps_T: step size in radians of the move at β_1 … β_T."""

    betas_T1: jax.Array
    steps_T: jax.Array

    def at_target(self, moves: int) -> Path:
        """`moves` moves at the last β, with its step."""
        return Path(jnp.full(moves + 1, self.betas_T1[-1]), jnp.full(moves, self.steps_T[-1]))


class Pass(NamedTuple):
    """work_P: Σ Δβ w in nat of each particle; end: the particles; acceptance_T: mean over particles."""

    work_P: jax.Array
    end: Particle
    acceptance_T: jax.Array


def start_at(key: jax.Array, position_PxD: jax.Array, value_and_grad: ValueAndGrad) -> Particle:
    """Particles at given positions with fresh momenta. Costs one gradient each."""
    weight, gradient = jax.vmap(value_and_grad)(position_PxD)
    momentum = jax.random.normal(key, position_PxD.shape, position_PxD.dtype)
    return Particle(position_PxD, momentum, weight, gradient)


def start_at_prior(key: jax.Array, particles: int, dimension: int, dtype: jnp.dtype, grad: ValueAndGrad) -> Particle:
    position_key, momentum_key = jax.random.split(key)
    return start_at(momentum_key, jax.random.normal(position_key, (particles, dimension), dtype), grad)


def refresh(key: jax.Array, particle: Particle, step: jax.Array) -> Particle:
    kept = jnp.exp(-FRICTION * step)
    noise = jax.random.normal(key, particle.momentum.shape, particle.momentum.dtype)
    return particle._replace(momentum=kept * particle.momentum + jnp.sqrt(1.0 - kept**2) * noise)


def leap(
    key: jax.Array, particle: Particle, beta: jax.Array, step: jax.Array, value_and_grad: ValueAndGrad
) -> tuple[Particle, jax.Array]:
    """One leapfrog step, jittered by ±20 %, then accept or turn around: (particle, acceptance probability)."""
    jitter_key, accept_key = jax.random.split(key)
    angle = step * jax.random.uniform(jitter_key, (), minval=0.8, maxval=1.2, dtype=step.dtype)
    u, p, weight, gradient = particle
    new_u, new_p, new_weight, new_gradient, work = split_leapfrog(u, p, gradient, angle, value_and_grad, beta)
    gained = beta * (new_weight - weight) - work
    # A particle of w = −inf has no density at any β > 0: every finite w is better (gained = inf). NaN is a divergence.
    acceptance = jnp.where(jnp.isnan(gained), 0.0, jnp.exp(jnp.minimum(gained, 0.0))).astype(step.dtype)
    accepted = jax.random.uniform(accept_key, (), dtype=acceptance.dtype) < acceptance
    proposed, turned = Particle(new_u, new_p, new_weight, new_gradient), particle._replace(momentum=-p)
    return jax.tree.map(lambda new, old: jnp.where(accepted, new, old), proposed, turned), acceptance


def anneal(key: jax.Array, start: Particle, path: Path, value_and_grad: ValueAndGrad, *, ascending: bool) -> Pass:
    """One pass of a family of particles. Ascending: weigh, then move at β_k; descending: move at β_k, then weigh.

    One gradient a particle and bridge.
    """
    particles = start.weight.shape[0]

    def move(index: jax.Array, family: Particle, beta: jax.Array, step: jax.Array) -> tuple[Particle, jax.Array]:
        def one(particle_key: jax.Array, particle: Particle) -> tuple[Particle, jax.Array]:
            refresh_key, leap_key = jax.random.split(particle_key)
            if ascending:
                return leap(leap_key, refresh(refresh_key, particle, step), beta, step, value_and_grad)
            particle, acceptance = leap(leap_key, particle, beta, step, value_and_grad)
            return refresh(refresh_key, particle, step), acceptance

        family, acceptance_P = jax.vmap(one)(jax.random.split(jax.random.fold_in(key, index), particles), family)
        return family, jnp.mean(acceptance_P)

    def bridge(carry: tuple[Particle, jax.Array], part: tuple) -> tuple[tuple[Particle, jax.Array], jax.Array]:
        family, work_P = carry
        index, low, high, step = part
        if ascending:
            work_P = work_P + (high - low) * family.weight
            family, acceptance = move(index, family, high, step)
        else:
            family, acceptance = move(index, family, high, step)
            work_P = work_P + (high - low) * family.weight
        return (family, work_P), acceptance

    betas_T1 = path.betas_T1
    bridges = (jnp.arange(betas_T1.size - 1), betas_T1[:-1], betas_T1[1:], path.steps_T)
    (end, work_P), acceptance_T = jax.lax.scan(
        bridge, (start, jnp.zeros_like(start.weight)), bridges, reverse=not ascending
    )
    return Pass(work_P, end, acceptance_T)


def cubic(bridges: int, dtype: jnp.dtype) -> jax.Array:
    """β_0 = 0 < … < β_T = 1, cubic: most bridges are spent near the prior, where w varies most."""
    return (jnp.arange(bridges + 1, dtype=dtype) / bridges) ** 3


def pilot(key: jax.Array, dimension: int, bridges: int, value_and_grad: ValueAndGrad, dtype: jnp.dtype) -> Path:
    """A path whose step sizes make each leapfrog step accepted four times in five. Frozen afterwards.

    Costs PILOT_ROUNDS · PILOT_PARTICLES · (bridges + 1) gradients.
    """
    betas_T1 = cubic(bridges, dtype)
    half = max(bridges // 20, 1)
    window = jnp.full(2 * half + 1, 1.0 / (2 * half + 1), dtype)

    def round_(log_steps_T: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
        start_key, pass_key = jax.random.split(jax.random.fold_in(key, index))
        start = start_at_prior(start_key, PILOT_PARTICLES, dimension, dtype, value_and_grad)
        path = Path(betas_T1, jnp.exp(log_steps_T))
        acceptance_T = anneal(pass_key, start, path, value_and_grad, ascending=True).acceptance_T
        # Two particles say little of one bridge: neighbours are averaged.
        smooth_T = jnp.convolve(jnp.pad(acceptance_T, half, mode="edge"), window, mode="valid")
        gain = PILOT_GAIN * (PILOT_ROUNDS - index).astype(dtype) / PILOT_ROUNDS
        # One radian at most: beyond it a rotation brings nothing more.
        return jnp.minimum(log_steps_T + gain * (smooth_T - TARGET_ACCEPTANCE), 0.0), None

    first_T = jnp.full(bridges, jnp.log(FIRST_STEP), dtype)
    log_steps_T, _ = jax.lax.scan(round_, first_T, jnp.arange(PILOT_ROUNDS))
    return Path(betas_T1, jnp.exp(log_steps_T))


def refine(path: Path, bridges: int) -> Path:
    """The path with more bridges, its step sizes interpolated in β."""
    betas_T1 = cubic(bridges, path.betas_T1.dtype)
    return Path(betas_T1, jnp.interp(betas_T1[1:], path.betas_T1[1:], path.steps_T))
