"""The consistency term λ · N_c · C̄(θ): what the two heads' disagreement costs (design §2).

C̄ is the mean divergence of the two heads' answers over a declared finite population, in disagreement/example; λ is in
nat/disagreement. One disagreement is one nat of Jensen–Shannon divergence, one nat of symmetric Kullback–Leibler
divergence, or one unit of total variation. All three are computed from log-probabilities: the textbook forms give
NaN as soon as a head saturates.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from honest.objective.predictions import Predictions, Predictor, Rows, size, sum_over_rows
from honest.params import Params
from honest.units import Quantity, assert_unit, disagreement, example, mean, nat, term, total

Divergence = Callable[[jax.Array, jax.Array], jax.Array]


def jensen_shannon(a_BxK: jax.Array, b_BxK: jax.Array) -> jax.Array:
    """½ KL(p‖m) + ½ KL(q‖m), m = (p+q)/2, of the softmaxes of two logits; shape (B,), between 0 and ln 2."""
    log_p, log_q = jax.nn.log_softmax(a_BxK), jax.nn.log_softmax(b_BxK)
    log_m = jnp.logaddexp(log_p, log_q) - jnp.log(2.0)
    kl = jnp.exp(log_p) * (log_p - log_m) + jnp.exp(log_q) * (log_q - log_m)
    return 0.5 * jnp.sum(kl, axis=-1)


def symmetric_kl(a_BxK: jax.Array, b_BxK: jax.Array) -> jax.Array:
    """KL(p‖q) + KL(q‖p) = Σ (p−q)(log p − log q); shape (B,)."""
    log_p, log_q = jax.nn.log_softmax(a_BxK), jax.nn.log_softmax(b_BxK)
    return jnp.sum((jnp.exp(log_p) - jnp.exp(log_q)) * (log_p - log_q), axis=-1)


def total_variation(a_BxK: jax.Array, b_BxK: jax.Array) -> jax.Array:
    """½ Σ |p − q|; shape (B,), between 0 and 1."""
    return 0.5 * jnp.sum(jnp.abs(jax.nn.softmax(a_BxK) - jax.nn.softmax(b_BxK)), axis=-1)


DIVERGENCES: dict[str, Divergence] = {
    "jensen_shannon": jensen_shannon,
    "symmetric_kl": symmetric_kl,
    "total_variation": total_variation,
}

# Curvature of the divergence in the logit difference r at r = 0, as a multiple of the softmax Fisher matrix
# diag(p) − ppᵀ: divergence ≈ ½ rᵀ (scale · Fisher) r. Total variation has none: it is not quadratic at 0.
FISHER_SCALE = {"jensen_shannon": 0.25, "symmetric_kl": 2.0}


def disagreements(divergence: Divergence, a_BxK: jax.Array, b_BxK: jax.Array) -> Quantity:
    """Each row's divergence in disagreement, shape (B,)."""
    return Quantity(divergence(a_BxK, b_BxK), disagreement)


def violation_rate(predictions: Predictions, divergence: str) -> Quantity:
    """C̄ in disagreement/example over the rows of the consistency set (a batch of it, or all)."""
    if predictions.consistency is None:
        raise ValueError("C̄ was asked for, but there is no consistency set")
    with term("consistency"):
        return mean(disagreements(DIVERGENCES[divergence], *predictions.consistency), per=example)


def whole_violation(predictor: Predictor, params: Params, rows: Rows, divergence: str, chunk: int) -> Quantity:
    """C̄ over the whole declared population, in disagreement/example, `chunk` rows at a time."""
    zero = Quantity(jnp.zeros((), jax.tree.leaves(params)[0].dtype), disagreement)

    def summed(part: Rows, real_B: jax.Array) -> Quantity:
        logits = predictor.head_logits(params, part)
        return total(disagreements(DIVERGENCES[divergence], *logits), where=real_B)

    with term("consistency"):
        return sum_over_rows(summed, rows, chunk, zero) / Quantity(size(rows), example)


def consistency_nats(multiplier: Quantity, violation: Quantity, population: int) -> Quantity:
    """λ · N_c · C̄ in nat, from λ in nat/disagreement and C̄ in disagreement/example."""
    with term("consistency"):
        return assert_unit(multiplier * Quantity(population, example) * violation, nat, what="λ·N_c·C̄")
