"""The Newton–Stein control variate of a phase's expected force (derivation: notes/objective.md, §6).

    target   π(u) ∝ exp(w(u)) N(u; 0, I),   score s = −u + ∇w,   precision P = I − ∇²w,   E[s] = 0,   E[s sᵀ] = E[P]
    force    f(u) = ∂_θ w:  E[f + B s] = E[f] for every B that does not depend on the draw
    choice   B = J P⁻¹, J = ∂f/∂u: f + B s is the force after a Newton step, linearised; to first order no noise is left

(Stein's identity as a control variate: Assaraf & Caffarel 1999; Mira, Solgi & Imparato 2013.) A B that sees its own
draw is biased by −E[∇·B], so the chains are cut in two halves: J and P are taken at the other half's mean, and P⁻¹ is
the polynomial q_K(P) of K conjugate-gradient steps that never see the scores. What those steps solve is P x = Jᵀv for
random v: their energy ½xᵀPx − xᵀJᵀv is, on average over v, half the trace of the corrected force's covariance (less a
constant), so among all polynomials in P they look for the one that leaves the least noise. Every product with P is the
jvp of a gradient, every product with J a mixed derivative: memory is linear in the dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from honest.objective.log_partition.moves import normal_like
from honest.params import Params, Tree, difference, dot, squared_norm
from honest.units import Quantity, Unit, nat, strip_grad, value_and_grad

Weight = Callable[[Params, Tree], jax.Array]  # (θ1, u) -> w in nat, a bare scalar


class Weights(NamedTuple):
    """w as each part takes it, of the same rows or of others. score: the chains' target. precision, force: of P and J;
    any choice is exact whose randomness is independent of the chains, and of a batch in `score`."""

    score: Weight
    precision: Weight
    force: Weight


# Right-hand sides Jᵀv that share one polynomial. With one, K steps can miss a stiff direction in which it happens to be
# small, and the polynomial is huge there: rare draws then carry most of the noise.
GUIDES = 2
# Of P along a step, where the prior alone has 1. Less is met away from a mode, where the Newton step leads nowhere: the
# polynomial is stopped there. With 0 in its place, a phase of tests/planted_heads.py had four times the noise.
LEAST_CURVATURE = 0.5


class Correction(NamedTuple):
    """force: B s̄ in nat/θ_g, bare, to be added to the chains' mean of ∂_θ w. mean_score: s̄ over all chains.

    mean_residual: C |s̄|² / mean |s|² over C chains.
    """

    force: Params
    mean_score: Tree
    mean_residual: jax.Array


def newton_stein(
    key: jax.Array,
    weights: Weights,
    params: Params,
    whitened: Tree,
    units: Mapping[str, Unit],
    steps: int,
) -> Correction:
    """The correction of the mean force over C chains, C even, by `steps` conjugate-gradient steps.

    whitened: leaves (C, …). units: of θ_g by group. The key's draws must be used nowhere else. E[B s̄] = 0 at
    equilibrium, for halves that are independent given θ1's path.
    """
    score_C = jax.vmap(lambda u: difference(jax.grad(weights.score, argnums=1)(params, u), u))(whitened)
    # First and second half: chains start at two places in turn, so each half has both.
    half_means = lambda tree: jax.tree.map(lambda x: jnp.mean(x.reshape(2, -1, *x.shape[1:]), axis=1), tree)  # noqa: E731
    score_2 = half_means(score_C)
    reference_2 = jax.tree.map(lambda mean_2: mean_2[::-1], half_means(whitened))  # of the other half

    def force_of(key: jax.Array, reference: Tree, score: Tree) -> Params:
        def precision(x: Tree) -> Tree:
            gradient = lambda u: jax.grad(weights.precision, argnums=1)(params, u)  # noqa: E731
            return difference(x, jax.jvp(gradient, (reference,), (x,))[1])

        guide_M = jax.vmap(lambda key: pulled_back(weights.force, params, reference, normal_like(key, params)))(
            jax.random.split(key, GUIDES)
        )
        displacement = guided_solve(precision, guide_M, score, steps)
        return pushed_forward(weights.force, params, reference, displacement, units)

    force_2 = jax.vmap(force_of)(jax.random.split(key, 2), reference_2, score_2)
    average = lambda tree: jax.tree.map(lambda x: jnp.mean(x, axis=0), tree)  # noqa: E731
    mean_score = average(score_2)
    return Correction(average(force_2), mean_score, mean_residual(score_C, mean_score))


def mean_residual(score_C: Tree, mean_score: Tree) -> jax.Array:
    """C |s̄|² / mean |s|² = 1 + (C − 1) · (mean of s_i·s_j over pairs i ≠ j) / mean |s|², between 0 and C.

    The pairs' mean has expectation |E s|² for independent chains of any one law: 0 at equilibrium, so that the ratio of
    expectations is 1 there, and C where all chains are equally far off.
    """
    chains = jax.tree.leaves(score_C)[0].shape[0]
    mean_square = squared_norm(score_C) / chains
    return chains * squared_norm(mean_score) / jnp.where(mean_square > 0, mean_square, 1.0)


def pulled_back(weight: Weight, params: Params, u: Tree, v: Params) -> Tree:
    """Jᵀv = ∂_u (v · ∂_θ w), in the shape of u."""
    return jax.grad(lambda u: jax.jvp(lambda params: weight(params, u), (params,), (v,))[1])(u)


def pushed_forward(weight: Weight, params: Params, u: Tree, x: Tree, units: Mapping[str, Unit]) -> Params:
    """J x = ∂_θ (x · ∂_u w) in nat/θ_g, bare: u is dimensionless, so x · ∂_u w is in nat."""

    def along(params: Params) -> Quantity:
        return Quantity(jax.jvp(lambda u: weight(params, u), (u,), (x,))[1], nat)

    return strip_grad(value_and_grad(along, units)(params)[1], units)


def guided_solve(precision: Callable[[Tree], Tree], guide_M: Tree, right: Tree, steps: int) -> Tree:
    """q_K(P) right ≈ P⁻¹ right, q_K the polynomial of K conjugate-gradient steps on P x = guide, the guides one system.

    All M + 1 vectors take the same steps, whose lengths come from the guides alone: linear in `right`, as conjugate
    gradients on `right` itself would not be. Once the guides are zero or meet too little curvature (P need not be
    positive away from a mode) the polynomial stays what it is, as in Steihaug (1983). guide_M: leaves (M, …).
    """
    products = jax.vmap(precision)
    guides = lambda tree: jax.tree.map(lambda leaf: leaf[:-1], tree)  # noqa: E731
    residual = jax.tree.map(lambda g, b: jnp.concatenate([g, b[None]]), guide_M, right)

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        x, r, p, square = carry
        product = products(p)
        curvature = dot(guides(p), guides(product))
        going = curvature > LEAST_CURVATURE * squared_norm(guides(p))
        length = jnp.where(going, square / jnp.where(going, curvature, 1.0), 0.0)
        x = jax.tree.map(lambda x, p: x + length * p[-1], x, p)
        r = jax.tree.map(lambda r, product: r - length * product, r, product)
        new = squared_norm(guides(r))
        turn = jnp.where(going, new / jnp.where(going, square, 1.0), 0.0)
        p = jax.tree.map(lambda r, p: jnp.where(going, r + turn * p, p), r, p)
        return (x, r, p, new), None

    start = (jax.tree.map(jnp.zeros_like, right), residual, residual, squared_norm(guide_M))
    return jax.lax.scan(step, start, None, length=steps)[0][0]
