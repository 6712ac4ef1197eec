"""Linear discriminant analysis (Fisher 1936): two Gaussians of one covariance S, fitted to trusted rows.

z = (μ₁ − μ₀)ᵀ S⁻¹ (x − (μ₀ + μ₁)/2) + log(n₁/n₀). `l2` · (mean variance) · I is added to S.
"""

import numpy as np

from honest.baselines.probe import Fitted, Probe, ProbeRows, class_means
from honest.config import ProbesConfig


def fit(rows: ProbeRows, settings: ProbesConfig, _rng: np.random.Generator) -> Fitted:
    x_NxD = rows.trusted.question_BxD
    false_D, true_D = class_means(x_NxD, rows.label_N)
    residual_NxD = x_NxD - np.where(rows.label_N[:, None] == 1, true_D, false_D)
    covariance_DxD = residual_NxD.T @ residual_NxD / len(x_NxD)
    ridge = settings.l2 * np.trace(covariance_DxD) / len(covariance_DxD)
    weight_D = np.linalg.solve(covariance_DxD + ridge * np.eye(len(covariance_DxD)), true_D - false_D)
    odds = np.log(np.sum(rows.label_N == 1) / np.sum(rows.label_N == 0))
    return lambda features: (features.question_BxD - (false_D + true_D) / 2) @ weight_D + odds


PROBE = Probe("lda", "probe: LDA", pairs=False, fit=fit)
