"""Difference in means (Marks and Tegmark 2023): the direction from the mean of False to that of True trusted rows.

z = (μ₁ − μ₀)ᵀ (x − (μ₀ + μ₁)/2) / s², the log-odds of two round Gaussians of variance s², that of a feature around its
own class mean, averaged over features.
"""

import numpy as np

from honest.baselines.probe import Fitted, Probe, ProbeRows, class_means
from honest.config import ProbesConfig


def fit(rows: ProbeRows, _settings: ProbesConfig, _rng: np.random.Generator) -> Fitted:
    x_NxD = rows.trusted.question_BxD
    false_D, true_D = class_means(x_NxD, rows.label_N)
    variance = np.mean((x_NxD - np.where(rows.label_N[:, None] == 1, true_D, false_D)) ** 2)
    weight_D = (true_D - false_D) / variance
    return lambda features: (features.question_BxD - (false_D + true_D) / 2) @ weight_D


PROBE = Probe("difference_in_means", "probe: difference in means", pairs=False, fit=fit)
