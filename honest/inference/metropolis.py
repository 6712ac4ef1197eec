"""Metropolis sampling over (pair, z): bits spent by walking. Two chains, because log Z changes the target.

    with log Z      p(r₊, r₋) · π(z) e^{−m d}/Z(r₊, r₋) · L        Z of every pair would be needed
    without         p(r₊, r₋) · π(z) e^{−m d} · L                  an ordinary Metropolis walk

For the first, a new pair is proposed together with a z drawn from π e^{−m d}/Z by rejection: the proposal carries the
1/Z of the target, which cancels, and the move is accepted with min(1, p′L′/(pL)). In between, z moves alone, one slot
redrawn from π. The draws of z also give Z (the share that agreed) and the evidence (their mean L); the pairs'
probabilities are the chains' frequencies, with errors from the spread of independent chains.
"""

from __future__ import annotations

import numpy as np

from honest.inference.enumeration import Solution
from honest.inference.factors import Factors, log2_of, log2_sum

CHAINS = 64
SETTLING = 0.1  # of the steps, not counted
SURVEY = 0.25  # of the samples: draws from π that find the pairs with Z > 0
MOST_TRIES = 10_000  # draws of z for one proposal, in multiples of the chains


def metropolis(factors: Factors, samples: int, seed: int) -> Solution:
    """About `samples` evaluations: a survey, then both chains in turn until they are spent."""
    rng = np.random.default_rng(seed)
    readers = factors.readers
    z, joint, z_error, joint_error, spent = _survey(factors, max(int(SURVEY * samples) // readers**2, 16), rng)
    possible = np.argwhere(np.isfinite(z) & np.isfinite(factors.log2_pair_RxR))
    empty, no_rows = np.full((readers, readers), np.nan), np.full((readers, readers, 3), np.nan)
    solution = Solution(z, joint, z_error, joint_error, spent, no_rows, empty, empty)
    if not len(possible) or not np.isfinite(joint[tuple(possible.T)]).any():
        return solution
    share = (samples - spent) // 2
    with_z, rows, cost_with = _walk(factors, possible, share, rng, conditional=True)
    without, _, cost_without = _walk(factors, possible, share, rng, conditional=False)
    spent += cost_with + cost_without
    return solution._replace(evaluations=spent, rows_RxRx3=rows, posterior_RxR=with_z, without_RxR=without)


def _survey(factors: Factors, draws: int, rng: np.random.Generator):
    """log2 Z and log2 of the sum with labels from draws of π, with errors; and their cost."""
    shape = (factors.readers, factors.readers)
    z, joint, z_error, joint_error = (np.full(shape, -np.inf) for _ in range(4))
    for i, j in np.ndindex(shape):
        agreement, likelihood = factors.log2_weights(factors.draw(rng, (draws,)), np.array(i), np.array(j))
        for value, error, weight in ((z, z_error, agreement), (joint, joint_error, agreement + likelihood)):
            value[i, j] = log2_sum(weight) - np.log2(draws)
            share = np.exp2(weight)
            with np.errstate(divide="ignore", invalid="ignore"):
                error[i, j] = np.std(share) / np.sqrt(draws) / np.mean(share) / np.log(2)
    return z, joint, z_error, joint_error, draws * factors.readers**2


def _agreeing(factors: Factors, pair_Cx2: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """A draw of π e^{−m d}/Z for each chain's pair, by rejection; whether it was found; the cost."""
    state = factors.draw(rng, (len(pair_Cx2),))
    waiting, cost = np.arange(len(pair_Cx2)), 0
    for _ in range(MOST_TRIES):
        drawn = factors.draw(rng, (len(waiting),))
        agreement, _ = factors.log2_weights(drawn, *pair_Cx2[waiting].T)
        cost += len(waiting)
        kept = rng.random(len(waiting)) < np.exp2(agreement)
        state[waiting[kept]] = drawn[kept]
        waiting = waiting[~kept]
        if not len(waiting):
            break
    return state, ~np.isin(np.arange(len(pair_Cx2)), waiting), cost


def _walk(
    factors: Factors, possible: np.ndarray, samples: int, rng: np.random.Generator, *, conditional: bool
) -> tuple[np.ndarray, np.ndarray, int]:
    """Frequencies of the pairs, (R, R), the means of their states' factors, (R, R, 3), and the evaluations made."""
    pair = possible[rng.integers(len(possible), size=CHAINS)]
    state, found, cost = _agreeing(factors, pair, rng)
    agreement, likelihood = factors.log2_weights(state, *pair.T)
    counts, sums = np.zeros((factors.readers, factors.readers)), np.zeros((factors.readers, factors.readers, 3))
    while cost < samples:
        new_pair = possible[rng.integers(len(possible), size=CHAINS)]
        if conditional:
            new_state, found, tries = _agreeing(factors, new_pair, rng)
            cost += tries
        else:
            new_state, found = factors.draw(rng, (CHAINS,)), np.ones(CHAINS, bool)
        new = factors.log2_weights(new_state, *new_pair.T)
        gain = factors.log2_pair_RxR[tuple(new_pair.T)] - factors.log2_pair_RxR[tuple(pair.T)]
        # The agreement of a draw from π e^{−m d}/Z is in the proposal already.
        old_weight, new_weight = (likelihood, new[1]) if conditional else (agreement + likelihood, new[0] + new[1])
        accepted = found & _accept(rng, gain + _difference(new_weight, old_weight))
        pair = np.where(accepted[:, None], new_pair, pair)
        state = np.where(accepted[:, None], new_state, state)
        agreement, likelihood = (np.where(accepted, a, b) for a, b in zip(new, (agreement, likelihood)))
        state, agreement, likelihood = _redraw_slot(factors, rng, pair, state, agreement, likelihood)
        cost += 2 * CHAINS
        if cost > SETTLING * samples:
            there = np.isfinite(agreement + likelihood)
            factors_Cx3 = np.stack([factors.log2_trunk(state), agreement, likelihood], axis=-1)
            np.add.at(counts, tuple(pair[there].T), 1)
            np.add.at(sums, tuple(pair[there].T), factors_Cx3[there])
    with np.errstate(invalid="ignore"):
        rows = sums / counts[..., None]  # NaN where no visit was made
    return counts / max(np.sum(counts), 1), rows, cost


def _redraw_slot(factors: Factors, rng: np.random.Generator, pair, state, agreement, likelihood):
    """One slot, drawn anew from π, accepted by e^{−m d} L: the same for both targets, at a fixed pair."""
    slot = rng.integers(len(factors.sizes))
    proposed = state.copy()
    proposed[:, slot] = factors.draw(rng, (len(state),))[:, slot]
    new = factors.log2_weights(proposed, *pair.T)
    accepted = _accept(rng, _difference(new[0] + new[1], agreement + likelihood))
    return (
        np.where(accepted[:, None], proposed, state),
        np.where(accepted, new[0], agreement),
        np.where(accepted, new[1], likelihood),
    )


def _difference(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """new − old in bits; from a state of weight 0 every move is taken."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isneginf(old), 0.0, new - old)


def _accept(rng: np.random.Generator, gain: np.ndarray) -> np.ndarray:
    return log2_of(rng.random(gain.shape)) < gain
