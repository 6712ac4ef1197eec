"""Bounds and values of log Z from weights: what holds with which probability.

A weight W ≥ 0 with E[W] = Z (forward) bounds log Z from below, because by Markov's inequality P(W ≥ Z e^a) ≤ e^−a.
For P independent weights that gives a bound for their mean and for every order statistic: the j-th largest exceeds
Z e^a only if j of them do, which has probability at most C(P, j) e^{−a j}, so that

    log Z ≥ log W_(j) − [log 1/δ + log C(P, j)] / j           (Gogate & Dechter 2012, for counting; δ for each)

The smallest of many has a small allowance and the mean a large one; which is better depends on their spread, so a few
j and the mean share δ equally and the best one is taken. Applied to inverse weights with E[1/W] = 1/Z (reverse) it
bounds log Z from above. Bennett's acceptance ratio (Bennett 1976; Shirts & Pande 2003) combines both into one value.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp as _logsumexp

TAIL_PROBABILITY = 0.01  # δ of each bound
BISECTIONS = 60


def log_mean_exp(x_P: jax.Array) -> jax.Array:
    return _logsumexp(x_P) - math.log(x_P.shape[0])


def effective_size(log_weight_P: jax.Array) -> jax.Array:
    """(Σ W)² / Σ W²."""
    return jnp.exp(2 * _logsumexp(log_weight_P) - _logsumexp(2 * log_weight_P))


def lower_bound(log_weight_P: jax.Array, tail: float) -> jax.Array:
    """A number that exceeds log E[W] with probability at most `tail`, from P independent log weights."""
    count = log_weight_P.shape[0]
    ranks = sorted({math.ceil(count * share) for share in (0.25, 0.5, 0.75, 1.0)})
    each = math.log((len(ranks) + 1) / tail)
    descending = -jnp.sort(-log_weight_P)
    orders = [descending[j - 1] - (each + math.log(math.comb(count, j))) / j for j in ranks]
    return jnp.max(jnp.stack([log_mean_exp(log_weight_P) - each, *orders]))


def upper_bound(log_weight_P: jax.Array, tail: float) -> jax.Array:
    """The same from above, for log weights with E[exp(−log W)] = 1/Z."""
    return -lower_bound(-log_weight_P, tail)


def bennett(forward_P: jax.Array, reverse_P: jax.Array, used_P: jax.Array) -> jax.Array:
    """The c that solves  Σ_forward σ(f − c) = Σ_reverse σ(c − r), for as many particles up as down.

    Both log weights estimate log Z: f from below, r from above. used_P: bool, which of them count. f = −inf and
    r = inf, particles of no weight, count as such; NaN where there is nothing else.
    """
    both_2P = jnp.concatenate([forward_P, reverse_P])
    floor = jnp.min(both_2P, where=jnp.isfinite(both_2P), initial=jnp.inf) - 1.0
    ceiling = jnp.max(both_2P, where=jnp.isfinite(both_2P), initial=-jnp.inf) + 1.0

    def surplus(c: jax.Array) -> jax.Array:
        up = _logsumexp(jax.nn.log_sigmoid(forward_P - c), where=used_P)
        return up - _logsumexp(jax.nn.log_sigmoid(c - reverse_P), where=used_P)

    def halve(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        too_low = surplus(middle) > 0
        return jnp.where(too_low, middle, low), jnp.where(too_low, high, middle)

    low, high = jax.lax.fori_loop(0, BISECTIONS, halve, (floor, ceiling))
    return 0.5 * (low + high)


def bennett_with_error(forward_P: jax.Array, reverse_P: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Bennett's value and its jackknife standard error; reverse particle i may descend from forward particle i.

    Leaves out both, for each i.
    """
    count = forward_P.shape[0]
    value = bennett(forward_P, reverse_P, jnp.ones(count, bool))
    left_out_P = jax.vmap(lambda i: bennett(forward_P, reverse_P, jnp.arange(count) != i))(jnp.arange(count))
    return value, jnp.sqrt((count - 1) * jnp.mean((left_out_P - jnp.mean(left_out_P)) ** 2))
