"""What a bag of tokens can tell: a logistic regression on how often each token stands in a row.

Order is invisible to it, so it can know an answer only by a shortcut: a digit, a name or a length (padding is counted)
that goes with the answer. A test fits it on rows that a trainer may see and scores it on rows whose answer it should
not know.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from honest.data.batch import Batch

RIDGE = 1e-4  # nat per squared weight: keeps the weights finite where a token decides alone


class Shortcut(NamedTuple):
    """Shares of the scored rows.

    base_rate is the accuracy of the better constant answer. chance is the accuracy that this predictor would have if
    what it says were independent of the answers; it is the base rate where both answers are equally frequent, and it is
    what to compare with: a predictor that knows nothing need not say the commoner answer alone.
    """

    accuracy: float
    base_rate: float
    chance: float

    @property
    def advantage(self) -> float:
        """accuracy − chance: 0 for a predictor that knows nothing, negative for one that is led astray."""
        return self.accuracy - self.chance


def count_tokens(batch: Batch) -> np.ndarray:
    """float[B, V + 1]: how often each token stands in each row, padding too, and a constant 1."""
    tokens_BxL = np.asarray(batch.tokens_BxL)
    size = int(tokens_BxL.max()) + 1
    cells_BxL = tokens_BxL + size * np.arange(len(tokens_BxL))[:, None]
    counts_BxV = np.bincount(cells_BxL.ravel(), minlength=size * len(tokens_BxL)).reshape(-1, size)
    return np.concatenate([counts_BxV, np.ones((len(tokens_BxL), 1))], axis=1).astype(float)


def fit_logistic(x_BxF: np.ndarray, y_B: np.ndarray) -> np.ndarray:
    """float[F]: weights that minimise the mean cross-entropy (nat/example) and RIDGE times their squared length."""

    def loss(w_F: np.ndarray) -> tuple[float, np.ndarray]:
        z_B = x_BxF @ w_F
        error_B = 1 / (1 + np.exp(-z_B)) - y_B
        value = np.mean(np.logaddexp(0, z_B) - y_B * z_B) + RIDGE * w_F @ w_F
        return value, x_BxF.T @ error_B / len(y_B) + 2 * RIDGE * w_F

    return minimize(loss, np.zeros(x_BxF.shape[1]), jac=True, method="L-BFGS-B").x


def bag_of_tokens(train: Batch, learned_B: np.ndarray, test: Batch, answer_B: np.ndarray) -> Shortcut:
    """Fitted on `train` to tell `learned_B`, scored on `test` against `answer_B` (bool or 0/1, one a row)."""
    both = Batch(*(np.concatenate([x, y]) for x, y in zip(train, test, strict=True)))
    x_BxF, rows = count_tokens(both), len(learned_B)
    w_F = fit_logistic(x_BxF[:rows], np.asarray(learned_B, float))
    says_B, answer_B = x_BxF[rows:] @ w_F > 0, np.asarray(answer_B, bool)
    said, true = np.mean(says_B), np.mean(answer_B)
    chance = said * true + (1 - said) * (1 - true)
    return Shortcut(float(np.mean(says_B == answer_B)), float(max(true, 1 - true)), float(chance))


def rows_of(batch: Batch, chosen_B: np.ndarray) -> Batch:
    """The chosen rows (bool[B] or indices)."""
    return Batch(*(np.asarray(column)[chosen_B] for column in batch))
