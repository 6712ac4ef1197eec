"""One Hamiltonian move on exp(w(u)) N(u; 0, I), in whitened coordinates.

The Gaussian part of the Hamiltonian ½|u|² + ½|p|² − w(u) is a rotation and is followed exactly; only the gradient of
the log weight w is kicked (split HMC: Beskos, Pinski, Sanz-Serna & Stuart 2011; Shahbaba, Lan, Johnson & Neal 2014).
So the acceptance rate does not fall with the number of directions that w leaves free, which at 10⁵ parameters is
nearly all of them; plain leapfrog would need steps of D^(−1/4). One leapfrog step is the Gaussian-exact form of MALA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from honest.params import dot, squared_norm

Tree = Any
LogWeight = Callable[[Tree], jax.Array]  # u -> w(u) in nat, a bare scalar


class Move(NamedTuple):
    position: Tree
    accepted: jax.Array  # bool; for unadjusted moves False only where energies or gradients were not finite
    acceptance: jax.Array  # min(1, exp(−ΔH)), 0 where the trajectory diverged; NaN where it was not measured


def normal_like(key: jax.Array, tree: Tree) -> Tree:
    """Independent N(0, 1) draws in the shape of `tree`, one folded key a leaf."""
    leaves, structure = jax.tree.flatten(tree)
    draws = [jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, draws)


def _axpy(a: jax.Array | float, x: Tree, b: jax.Array | float, y: Tree) -> Tree:
    return jax.tree.map(lambda x, y: a * x + b * y, x, y)


def _rotated(u: Tree, p: Tree, angle: jax.Array) -> tuple[Tree, Tree]:
    """The flow of ½|u|² + ½|p|² for `angle` radians."""
    return _axpy(jnp.cos(angle), u, jnp.sin(angle), p), _axpy(jnp.cos(angle), p, -jnp.sin(angle), u)


def split_leapfrog(
    u: Tree,
    p: Tree,
    grad: Tree,
    angle: jax.Array,
    value_and_grad: Callable[[Tree], tuple[jax.Array, Tree]],
    beta: jax.Array | float = 1.0,
) -> tuple[Tree, Tree, jax.Array, Tree, jax.Array]:
    """Half a kick by β∇w, a rotation by `angle`, half a kick: (u, p, w, ∇w, work), one new gradient.

    work: the change of ½|p|² by both kicks, in nat.
    """

    def kick(p: Tree, grad: Tree) -> tuple[Tree, jax.Array]:
        kicked = _axpy(1.0, p, 0.5 * angle * beta, grad)
        return kicked, 0.25 * angle * beta * dot(grad, _axpy(1.0, p, 1.0, kicked))  # ½|p|² after minus before

    p, first_work = kick(p, grad)
    u, p = _rotated(u, p, angle)
    weight, grad = value_and_grad(u)
    p, second_work = kick(p, grad)
    return u, p, weight, grad, first_work + second_work


def hamiltonian_move(
    key: jax.Array, position: Tree, log_weight: LogWeight, step_size: jax.Array, steps: int, adjusted: bool
) -> Move:
    """`steps` split-leapfrog steps from a fresh momentum, with the step size jittered by ±20 %, then accept or not.

    position: tree of whitened coordinates. step_size: radians of rotation a step (below 2). With `adjusted` the
    target exp(w) N(0, I) is left exactly invariant; without it every move is taken and the bias is of order step².
    """
    momentum, angle, accept_key = _drawn(key, position, step_size)
    value_and_grad = jax.value_and_grad(log_weight)
    start_weight, start_grad = value_and_grad(position)

    def leapfrog(carry: tuple, _: None) -> tuple[tuple, None]:
        u, p, grad, _, work = carry
        u, p, weight, grad, more = split_leapfrog(u, p, grad, angle, value_and_grad)
        return (u, p, grad, weight, work + more), None

    start = (position, momentum, start_grad, start_weight, jnp.zeros_like(start_weight))
    (end, _, _, end_weight, work), _ = jax.lax.scan(leapfrog, start, None, length=steps)
    # −ΔH. The rotations keep ½|u|² + ½|p|², so only the kicks' work changes it. Summed over all D coordinates, the
    # rotations' rounding would reach tenths of a nat at D = 10⁵ in float32.
    gained = end_weight - start_weight - work
    acceptance = jnp.where(jnp.isfinite(gained), jnp.exp(jnp.minimum(gained, 0.0)), 0.0)
    if adjusted:
        accepted = jax.random.uniform(accept_key, (), dtype=acceptance.dtype) < acceptance
    else:
        accepted = jnp.isfinite(gained)  # a diverged trajectory would be NaN for ever
    kept = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), end, position)
    return Move(kept, accepted, acceptance)


def unmeasured_move(key: jax.Array, position: Tree, log_weight: LogWeight, step_size: jax.Array, steps: int) -> Move:
    """The unadjusted `hamiltonian_move` without its last gradient: `steps` of them in place of `steps` + 1.

    The last half kick changes nothing but a momentum that is thrown away, so the position is the same one. What is
    missed is the end: acceptance is NaN, and a trajectory that diverges is taken, where `hamiltonian_move` keeps the
    old position if the energy overflows; its next measured move shows an acceptance of 0. A gradient that is not finite
    kicks nothing (accepted says that there was none), so that such a place is left by the rotation.
    """
    momentum, angle, _ = _drawn(key, position, step_size)
    gradient_of = jax.grad(log_weight)

    def leapfrog(carry: tuple, halves: jax.Array) -> tuple[tuple, jax.Array]:
        u, p = carry
        grad = gradient_of(u)
        finite = jnp.isfinite(squared_norm(grad))
        kicked = _axpy(1.0, p, 0.5 * halves * angle, grad)
        p = jax.tree.map(lambda new, old: jnp.where(finite, new, old), kicked, p)
        return _rotated(u, p, angle), finite

    # Between two steps, the half kicks of both are one.
    halves_T = jnp.full(steps, 2.0, angle.dtype).at[0].set(1.0)
    (end, _), finite_T = jax.lax.scan(leapfrog, (position, momentum), halves_T)
    return Move(end, jnp.all(finite_T), jnp.full((), jnp.nan, angle.dtype))


def _drawn(key: jax.Array, position: Tree, step_size: jax.Array) -> tuple[Tree, jax.Array, jax.Array]:
    """A fresh momentum, the step size jittered by ±20 %, and the key of the decision."""
    momentum_key, jitter_key, accept_key = jax.random.split(key, 3)
    angle = step_size * jax.random.uniform(jitter_key, (), minval=0.8, maxval=1.2, dtype=step_size.dtype)
    return normal_like(momentum_key, position), angle, accept_key


def whitened_energy(position: Tree) -> jax.Array:
    """½|u|², the second prior's cost in nat without its constant."""
    return 0.5 * squared_norm(position)
