"""The posterior over pairs of heads, with and without log Z: exactly, by summing over all states of the trunk.

    Z(r₊, r₋) = Σ_z π(z) e^{−m d(z)}                evidence(r₊, r₋) = Σ_z π(z) e^{−m d(z)} L(z) / Z(r₊, r₋)
    posterior ∝ p(r₊, r₋) · evidence                without log Z: ∝ p(r₊, r₋) · evidence · Z

The evidence is log p(data | the heads agree), the net claim log Z_D − log Z of design §2; −log2 Z are the bits
recovered. A pair that no state lets agree (Z = 0) is impossible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from honest.errors import UserError
from honest.inference.factors import Factors, log2_sum, times
from honest.inference.ledger import Account, Ledger

MOST_STATES = 2**24
CHUNK = 2**22  # numbers (states × pairs) in memory at a time


class Pair(NamedTuple):
    """An ordered pair of readers. log2 quantities in bit; −inf, or inf for bits_recovered, where it is impossible."""

    intended: str
    instrumental: str
    log2_prior: float
    bits_recovered: float
    log2_evidence: float
    posterior: float
    posterior_without_log_partition: float


class Posterior(NamedTuple):
    """pairs: all ordered pairs. total_log2_evidence: log2 Σ prior · evidence; −inf if no pair can give the labels."""

    pairs: list[Pair]
    total_log2_evidence: float


class Solution(NamedTuple):
    """What a solver says of each pair, in bit: log2 Z and log2 Σ π e^{−m d} L, with standard errors where sampled.

    posterior_RxR, without_RxR: the pairs' probabilities as the solver has them; None: those that follow from the
    sums. rows_RxRx3: mean of (log2 π(z), −m d, log2 L) over the states of each pair given agreement and labels, in
    bit; NaN where the solver has no such state. evaluations: states at which agreement and likelihood were computed.
    """

    log2_z_RxR: np.ndarray
    log2_joint_RxR: np.ndarray
    log2_z_error_RxR: np.ndarray
    log2_joint_error_RxR: np.ndarray
    evaluations: int
    rows_RxRx3: np.ndarray
    posterior_RxR: np.ndarray | None = None
    without_RxR: np.ndarray | None = None


def enumerate_states(factors: Factors) -> Solution:
    """Exact, in float64. UserError: more than 2²⁴ states."""
    count = math.prod(factors.sizes)
    if count > MOST_STATES:
        raise UserError(
            f"the trunk has {count} states, more than the {MOST_STATES} that are enumerated; "
            "take --solver rejection, smc or metropolis"
        )
    readers = factors.readers
    z, joint = np.full((readers, readers), -np.inf), np.full((readers, readers), -np.inf)
    rows = np.full((readers, readers, 3), np.nan)
    chunk = max(CHUNK // (readers * max(readers, len(factors.costs.trusted_X), 1)), 1)
    for start in range(0, count, chunk):
        index_W = np.arange(start, min(start + chunk, count))
        state_WxS = np.stack(np.unravel_index(index_W, factors.sizes), axis=-1)
        parts = _all_pairs(factors, state_WxS)
        trunk, agreement, likelihood = parts
        z = np.logaddexp2(z, log2_sum(trunk + agreement, axis=0))
        joint, rows = _merged(joint, rows, *mean_rows(parts, trunk + agreement + likelihood))
    exact = np.zeros_like(z)
    z = np.minimum(z, 0.0)  # Z ≤ 1, but for the rounding of the sum
    return Solution(z, joint, exact, exact, count * readers**2, rows)


def mean_rows(parts: Sequence[np.ndarray], log2_weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(log2 Σ 2^weight, mean of each part) over the leading axis of states; NaN where all weights are 0."""
    total = log2_sum(log2_weight, axis=0)
    share = np.exp2(log2_weight - np.where(np.isfinite(total), total, 0.0))
    with np.errstate(invalid="ignore"):
        means = [np.sum(np.where(share > 0, share * part, 0.0), axis=0) for part in parts]
    return total, np.where(np.isfinite(total)[..., None], np.stack(means, axis=-1), np.nan)


def _merged(total: np.ndarray, rows: np.ndarray, more: np.ndarray, more_rows: np.ndarray):
    """Two chunks' sums and means as one's."""
    new = np.logaddexp2(total, more)
    finite = np.where(np.isfinite(new), new, 0.0)
    parts = [(total, rows), (more, more_rows)]
    means = sum(np.where(np.isfinite(t)[..., None], np.exp2(t - finite)[..., None] * r, 0.0) for t, r in parts)
    return new, np.where(np.isfinite(new)[..., None], means, np.nan)


def _all_pairs(factors: Factors, state_WxS: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log2 of π, of e^{−m d} and of L for every pair of readers, (W, R, R) each."""
    answers_WxRxX = factors.readers_RxK[:, factors.combination(state_WxS)].swapaxes(0, 1)
    signs = 2.0 * answers_WxRxX[:, :, factors.costs.trusted_X] - 1.0
    differ_WxRxR = np.rint((signs.shape[-1] - signs @ signs.swapaxes(1, 2)) / 2)
    agreement = -times(differ_WxRxR, factors.penalty)
    label, person = factors.costs.label_X, factors.costs.person_label_X
    likelihood = factors.log2_labels(answers_WxRxX, label)[:, :, None]
    likelihood = likelihood + factors.log2_labels(answers_WxRxX, person)[:, None, :]
    return np.broadcast_to(factors.log2_trunk(state_WxS)[:, None, None], agreement.shape), agreement, likelihood


def posterior(factors: Factors, solution: Solution) -> Posterior:
    """The pairs' table from a solver's sums; from its own pair probabilities where it has them."""
    z, joint = solution.log2_z_RxR, solution.log2_joint_RxR
    possible = np.isfinite(z)
    evidence = np.where(possible, joint - np.where(possible, z, 0.0), -np.inf)
    with_z, total = _normalised(factors.log2_pair_RxR + evidence)
    without, _ = _normalised(factors.log2_pair_RxR + np.where(possible, joint, -np.inf))
    with_z = with_z if solution.posterior_RxR is None else solution.posterior_RxR
    without = without if solution.without_RxR is None else solution.without_RxR
    with_z, without = (np.where(possible, each, 0.0) for each in (with_z, without))
    names = [reader.name for reader in factors.world.readers]
    pairs = [
        Pair(
            intended=names[i],
            instrumental=names[j],
            log2_prior=float(factors.log2_pair_RxR[i, j]),
            bits_recovered=0.0 - float(z[i, j]),
            log2_evidence=float(evidence[i, j]),
            posterior=float(with_z[i, j]),
            posterior_without_log_partition=float(without[i, j]),
        )
        for i in range(len(names))
        for j in range(len(names))
    ]
    return Posterior(pairs, total)


def _normalised(log2_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Probabilities ∝ 2^x, and log2 of their sum; NaN where nothing is possible: there is no distribution then."""
    total = float(log2_sum(log2_weights))
    if not np.isfinite(total):
        return np.full_like(log2_weights, np.nan), total
    return np.exp2(log2_weights - total), total


def account(factors: Factors, found: Posterior, solution: Solution) -> Account:
    """The ledger in the mean over the posterior with log Z; answers: the pairs' probabilities."""
    probability = np.array([pair.posterior for pair in found.pairs])
    bit = math.log(2)  # nat

    def mean(log2_RxR: np.ndarray) -> float:
        with np.errstate(invalid="ignore"):
            return bit * float(np.sum(np.where(probability > 0, probability * log2_RxR.reshape(-1), 0.0)))

    trunk, agreement, likelihood = (mean(solution.rows_RxRx3[..., part]) for part in range(3))
    ledger = Ledger(likelihood, mean(factors.log2_pair_RxR), trunk, agreement, -mean(solution.log2_z_RxR))
    if np.isnan(probability).any():
        ledger = Ledger(*(math.nan for _ in ledger))
    return Account(ledger, bit * found.total_log2_evidence, math.nan, probability, solution.evaluations)
