"""Rejection sampling: bits spent by throwing worlds away.

    z ~ π;   kept with probability e^{−m d(z)}: the share kept estimates Z;   of these, kept again with probability L

The pairs that stay after both, when pairs are drawn from their prior and z is drawn again until it agrees, are draws
from the posterior with log Z; when z is drawn once, from the one without. Pairs are not drawn but visited in turn, so
that an improbable pair is known as well as a probable one, and weighted by their prior. Shares are unbiased; a pair of
which no draw agreed is said to be impossible, which is true of Z up to a few over the number of draws.
"""

from __future__ import annotations

import numpy as np

from honest.inference.enumeration import Solution, mean_rows
from honest.inference.factors import Factors, log2_of


def rejection(factors: Factors, samples: int, seed: int) -> Solution:
    """`samples` draws of z, shared out evenly over the ordered pairs; at least one each."""
    rng = np.random.default_rng(seed)
    shape = (factors.readers, factors.readers)
    draws = max(samples // factors.readers**2, 1)
    agreed, explained, rows = np.zeros(shape), np.zeros(shape), np.full((*shape, 3), np.nan)
    for i, j in np.ndindex(shape):
        state = factors.draw(rng, (draws,))
        agreement, likelihood = factors.log2_weights(state, np.array(i), np.array(j))
        kept = rng.random(draws) < np.exp2(agreement)
        both = kept & (rng.random(draws) < np.exp2(likelihood))
        agreed[i, j], explained[i, j] = np.sum(kept), np.sum(both)
        parts = (factors.log2_trunk(state), agreement, likelihood)
        rows[i, j] = mean_rows(parts, log2_of(both.astype(float)))[1]
    return Solution(
        log2_z_RxR=log2_of(agreed / draws),
        log2_joint_RxR=log2_of(explained / draws),
        log2_z_error_RxR=_error(agreed, draws),
        log2_joint_error_RxR=_error(explained, draws),
        evaluations=draws * factors.readers**2,
        rows_RxRx3=rows,
    )


def _error(count: np.ndarray, draws: int) -> np.ndarray:
    """Standard error of log2 of a share: √((1−p)/(np)) / ln 2; infinite where nothing was kept."""
    with np.errstate(divide="ignore"):
        return np.sqrt((1 - count / draws) / count) / np.log(2)
