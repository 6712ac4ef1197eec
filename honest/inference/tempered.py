"""Sequential Monte Carlo over discrete states (Del Moral, Doucet & Jasra 2006): bits spent one question at a time.

A hard constraint cannot be tempered by a power; so the inputs come one after another: first the trusted inputs' factor
e^{−m·1(heads differ)}, whose mean increments multiply to Z, then the labels, which bring it to Σ π e^{−m d} L. After
each, particles are resampled and each slot is redrawn from π and accepted by Metropolis' rule on the factors so far.
The path is fixed beforehand, so both products are unbiased; islands that do not meet give the standard error.
"""

from __future__ import annotations

import numpy as np

from honest.inference.enumeration import Solution, mean_rows
from honest.inference.factors import Costs, Factors, log2_of, log2_sum

ISLANDS = 8
SWEEPS = 2  # redraws of every slot after each input


def smc(factors: Factors, samples: int, seed: int) -> Solution:
    """About `samples` evaluations, shared out evenly over the pairs; at least 4 particles an island."""
    rng = np.random.default_rng(seed)
    shape = (factors.readers, factors.readers)
    stages = _stages(factors.costs)
    a_pass = max(len(stages), 1) * (1 + SWEEPS * len(factors.sizes))
    particles = max(samples // (factors.readers**2 * ISLANDS * a_pass), 4)
    z, joint = np.full((ISLANDS, *shape), -np.inf), np.full((ISLANDS, *shape), -np.inf)
    rows = np.full((*shape, 3), np.nan)
    for i, j in np.ndindex(shape):
        z[:, i, j], joint[:, i, j], state_IxPxS = _pair(factors, stages, i, j, particles, rng)
        state_NxS = state_IxPxS.reshape(-1, len(factors.sizes))
        agreement, likelihood = factors.log2_weights(state_NxS, np.array(i), np.array(j))
        # Every particle of an island stands for an equal share of the sum that the island found.
        island_N = np.where(np.isfinite(agreement + likelihood), np.repeat(joint[:, i, j], particles), -np.inf)
        rows[i, j] = mean_rows((factors.log2_trunk(state_NxS), agreement, likelihood), island_N)[1]
    return Solution(
        log2_z_RxR=log2_sum(z, axis=0) - np.log2(ISLANDS),
        log2_joint_RxR=log2_sum(joint, axis=0) - np.log2(ISLANDS),
        log2_z_error_RxR=_error(z),
        log2_joint_error_RxR=_error(joint),
        evaluations=factors.readers**2 * ISLANDS * particles * a_pass,
        rows_RxRx3=rows,
    )


def _stages(costs: Costs) -> list[tuple[np.ndarray, bool]]:
    """(mask of the inputs so far, whether labels count) for each step: trusted inputs one by one, then labels."""
    trusted = np.flatnonzero(costs.trusted_X)
    labelled = np.flatnonzero((costs.label_X >= 0) | (costs.person_label_X >= 0))
    count = len(costs.trusted_X)
    agreement = [(np.isin(np.arange(count), trusted[: n + 1]), False) for n in range(len(trusted))]
    return agreement + [(np.isin(np.arange(count), labelled[: n + 1]), True) for n in range(len(labelled))]


def _pair(
    factors: Factors, stages: list[tuple[np.ndarray, bool]], i: int, j: int, particles: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log2 Z and log2 of the sum with labels, one an island, and the particles at the end."""
    state_IxPxS = factors.draw(rng, (ISLANDS, particles))
    weight_IxP = np.zeros((ISLANDS, particles))
    total_I, z_I = np.zeros(ISLANDS), None
    for mask_X, with_labels in stages:
        if with_labels and z_I is None:
            z_I = total_I.copy()

        def weight_of(state: np.ndarray, mask_X=mask_X, with_labels=with_labels) -> np.ndarray:
            return _partial(factors, state, i, j, mask_X, with_labels)

        new_IxP = weight_of(state_IxPxS)
        with np.errstate(invalid="ignore"):
            increment_IxP = np.where(np.isneginf(new_IxP), -np.inf, new_IxP - weight_IxP)
        mean_I = log2_sum(increment_IxP, axis=1) - np.log2(particles)
        total_I = total_I + mean_I
        state_IxPxS, weight_IxP = _resample(rng, state_IxPxS, new_IxP, increment_IxP)
        state_IxPxS, weight_IxP = _move(factors, rng, state_IxPxS, weight_IxP, weight_of)
    return total_I if z_I is None else z_I, total_I, state_IxPxS


def _partial(factors: Factors, state: np.ndarray, i: int, j: int, mask_X: np.ndarray, with_labels: bool) -> np.ndarray:
    """log2 of the factors of the inputs in the mask: of all trusted inputs once labels have begun."""
    combination = factors.combination(state)
    plus, minus = factors.readers_RxK[i][combination], factors.readers_RxK[j][combination]
    if not with_labels:
        return factors.log2_agreement(plus & mask_X, minus & mask_X)
    label = np.where(mask_X, factors.costs.label_X, -1)
    person = np.where(mask_X, factors.costs.person_label_X, -1)
    labels = factors.log2_labels(plus, label) + factors.log2_labels(minus, person)
    return factors.log2_agreement(plus, minus) + labels


def _resample(
    rng: np.random.Generator, state: np.ndarray, weight: np.ndarray, increment: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Systematic resampling within each island; an island without any weight stays as it is, and keeps weight 0."""
    islands, particles = weight.shape
    top = np.max(increment, axis=1, keepdims=True)
    share = np.exp2(increment - np.where(np.isfinite(top), top, 0.0))
    share = np.where(np.isfinite(top), share, 1.0)
    edges = np.cumsum(share, axis=1) / np.sum(share, axis=1, keepdims=True)
    points = (rng.random((islands, 1)) + np.arange(particles)) / particles
    chosen = np.stack([np.minimum(np.searchsorted(e, p), particles - 1) for e, p in zip(edges, points)])
    rows = np.arange(islands)[:, None]
    return state[rows, chosen], weight[rows, chosen]


def _move(factors: Factors, rng: np.random.Generator, state: np.ndarray, weight: np.ndarray, weight_of):
    for _ in range(SWEEPS):
        for slot in range(state.shape[-1]):
            proposed = state.copy()
            proposed[..., slot] = factors.draw(rng, state.shape[:-1])[..., slot]
            new = weight_of(proposed)
            with np.errstate(invalid="ignore"):
                gain = np.where(np.isneginf(weight), np.where(np.isneginf(new), -np.inf, 0.0), new - weight)
            accepted = log2_of(rng.random(weight.shape)) < gain
            state, weight = np.where(accepted[..., None], proposed, state), np.where(accepted, new, weight)
    return state, weight


def _error(log2_I: np.ndarray) -> np.ndarray:
    """Standard error of log2 of the islands' mean, by the delta method."""
    top = np.max(log2_I, axis=0)
    value = np.exp2(log2_I - np.where(np.isfinite(top), top, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.std(value, axis=0, ddof=1) / np.sqrt(ISLANDS) / np.mean(value, axis=0)
    return np.where(np.isfinite(top), relative / np.log(2), np.inf)
