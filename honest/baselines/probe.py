"""What a probe is: a direction in the frozen trunk's features, fitted in closed form or by a library's optimiser.

Everything is float64 on the host. Axes: N trusted rows, M untrusted rows, B rows to be answered, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from honest.config import ProbesConfig


class Features(NamedTuple):
    """Of some rows: at the question's last token, and after an appended answer True or False (None: no such pairs)."""

    question_BxD: np.ndarray
    true_BxD: np.ndarray | None
    false_BxD: np.ndarray | None

    def contrast(self) -> np.ndarray:
        """φ(question, True) − φ(question, False), BxD."""
        assert self.true_BxD is not None and self.false_BxD is not None, "the config refuses such a probe"
        return self.true_BxD - self.false_BxD


class ProbeRows(NamedTuple):
    """What a probe may see: trusted rows with their labels (1 is True), and untrusted rows without."""

    trusted: Features
    label_N: np.ndarray
    untrusted: Features


Fitted = Callable[[Features], np.ndarray]  # rows -> log-odds of True, nat, (B,)


@dataclass(frozen=True)
class Probe:
    """name: in `methods`. line: in tables. pairs: whether it reads contrast pairs. fit: see `Fitted`."""

    name: str
    line: str
    pairs: bool
    fit: Callable[[ProbeRows, ProbesConfig, np.random.Generator], Fitted]


class Scale(NamedTuple):
    """Standardises features by the rows it was made of; a feature that does not vary is left at 0."""

    mean_D: np.ndarray
    stddev_D: np.ndarray

    @staticmethod
    def of(x_NxD: np.ndarray) -> Scale:
        stddev_D = x_NxD.std(axis=0)
        return Scale(x_NxD.mean(axis=0), np.where(stddev_D > 0, stddev_D, np.inf))

    def __call__(self, x_BxD: np.ndarray) -> np.ndarray:
        return (x_BxD - self.mean_D) / self.stddev_D


def class_means(x_NxD: np.ndarray, label_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(of False, of True), (D,) each."""
    return x_NxD[label_N == 0].mean(axis=0), x_NxD[label_N == 1].mean(axis=0)


def logistic_regression(x_NxD: np.ndarray, label_N: np.ndarray, l2: float) -> tuple[np.ndarray, float]:
    """(weights, bias) minimising mean nll + ½ l2 |weights|², in nat/example; convex, by L-BFGS."""

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weight_D, bias = parameters[:-1], parameters[-1]
        z_N = x_NxD @ weight_D + bias
        residual_N = (expit(z_N) - label_N) / len(label_N)
        loss = np.mean(np.logaddexp(0.0, z_N) - label_N * z_N) + 0.5 * l2 * weight_D @ weight_D
        return float(loss), np.append(x_NxD.T @ residual_N + l2 * weight_D, residual_N.sum())

    found = minimize(objective, np.zeros(x_NxD.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 2000})
    return found.x[:-1], float(found.x[-1])
