"""The factors of a finite world's joint, in log2 (bits), at any states of its trunk.

Axes: W states of the trunk (one table a slot, as indices), S slots, R readers, X the inputs that matter: trusted ones
and labelled ones; no other input has a part in the joint.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from honest.config_world import FiniteWorld


def log2_normalised(bits: list[float]) -> np.ndarray:
    """log2 of the probabilities ∝ 2^−bits."""
    log2 = -np.asarray(bits, np.float64)
    return log2 - log2_sum(log2)


def log2_sum(log2: np.ndarray, axis: int | None = None) -> np.ndarray:
    """log2 Σ 2^x over an axis, or over all; −inf for no terms."""
    log2 = np.asarray(log2, np.float64).ravel() if axis is None else log2
    return np.logaddexp2.reduce(log2, axis=0 if axis is None else axis, initial=-np.inf)


def log2_of(x: float | np.ndarray) -> np.ndarray:
    """log2, −inf at 0."""
    with np.errstate(divide="ignore"):
        return np.log2(x)


class Costs(NamedTuple):
    """What each input of X says of the two heads' answers there; labels are −1 where there is none."""

    trusted_X: np.ndarray
    label_X: np.ndarray
    person_label_X: np.ndarray


class Factors:
    """tables: one (T, X) array of bits a slot. readers_RxK: answers by the slots' values, first slot the high bit.

    log2_tables: one (T,) a slot. log2_pair_RxR: p(r₊, r₋).
    """

    def __init__(self, world: FiniteWorld):
        self.world = world
        labels = {int(x): y for x, y in world.labels.items()}
        person_labels = {int(x): y for x, y in world.person_labels.items()}
        inputs = sorted({*world.trusted, *labels, *person_labels})
        self.costs = Costs(
            trusted_X=np.array([x in world.trusted for x in inputs], bool),
            label_X=np.array([labels.get(x, -1) for x in inputs], int),
            person_label_X=np.array([person_labels.get(x, -1) for x in inputs], int),
        )
        slots = list(world.slots.values())
        self.tables = [np.array([[int(t[x]) for x in inputs] for t in slot.tables], int) for slot in slots]
        self.log2_tables = [log2_normalised(slot.bits) for slot in slots]
        self.readers_RxK = np.array([[int(c) for c in reader.table] for reader in world.readers], bool)
        self.log2_pair_RxR = self._log2_pairs()
        # Nats to bits; the product 0 · ∞ is 0 here: heads that agree pay nothing.
        self.penalty = world.multiplier / math.log(2)
        self.log2_right, self.log2_wrong = log2_of(1 - world.label_noise), log2_of(world.label_noise)

    def _log2_pairs(self) -> np.ndarray:
        log2_R = log2_normalised([reader.bits for reader in self.world.readers])
        tied = 0.0 if self.world.tied_bits is None else 2.0**-self.world.tied_bits
        copy = log2_of(np.where(np.eye(len(log2_R)), tied, 0.0))
        return log2_R[:, None] + np.logaddexp2(log2_of(1 - tied) + log2_R[None, :], copy)

    @property
    def readers(self) -> int:
        return len(self.readers_RxK)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of tables of each slot."""
        return tuple(len(log2) for log2 in self.log2_tables)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """States from π, (*shape, S)."""
        slots = [rng.choice(len(log2), size=shape, p=np.exp2(log2)) for log2 in self.log2_tables]
        return np.stack(slots, axis=-1)

    def log2_trunk(self, state_WxS: np.ndarray) -> np.ndarray:
        """π of each state, (W,)."""
        return sum(log2[state_WxS[..., s]] for s, log2 in enumerate(self.log2_tables))

    def combination(self, state_WxS: np.ndarray) -> np.ndarray:
        """The slots' values at each input as one number, (W, X): an index into a reader's table."""
        count = len(self.tables)
        return sum(2 ** (count - 1 - s) * table[state_WxS[..., s]] for s, table in enumerate(self.tables))

    def log2_agreement(self, intended_WxX: np.ndarray, instrumental_WxX: np.ndarray) -> np.ndarray:
        """−m d of two heads' answers, (W,)."""
        differ_WxX = (intended_WxX != instrumental_WxX) & self.costs.trusted_X
        return -times(np.sum(differ_WxX, axis=-1), self.penalty)

    def log2_labels(self, answers_WxX: np.ndarray, label_X: np.ndarray) -> np.ndarray:
        """log2 probability of the labels that a head with these answers has to explain, (W,)."""
        given_X = label_X >= 0
        wrong_W = np.sum((answers_WxX != label_X) & given_X, axis=-1)
        return times(wrong_W, self.log2_wrong) + times(np.sum(given_X) - wrong_W, self.log2_right)

    def log2_weights(
        self, state_WxS: np.ndarray, intended: np.ndarray, instrumental: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(−m d, log2 L) of states with a pair of readers each; one evaluation a state."""
        combination_WxX = self.combination(state_WxS)
        plus, minus = (self.readers_RxK[np.asarray(r)[..., None], combination_WxX] for r in (intended, instrumental))
        likelihood = self.log2_labels(plus, self.costs.label_X) + self.log2_labels(minus, self.costs.person_label_X)
        return self.log2_agreement(plus, minus), likelihood


def times(count: np.ndarray, log2: float | np.ndarray) -> np.ndarray:
    """count · log2, where nothing times infinity is 0."""
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, count * log2, 0.0)
