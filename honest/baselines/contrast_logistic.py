"""Logistic regression on contrast pairs: on φ(question, True) − φ(question, False) of trusted rows.

After "LogR on contrast pairs" of Mallen and Belrose, "Eliciting Latent Knowledge from Quirky Language Models" (2023).
"""

import numpy as np

from honest.baselines.probe import Fitted, Probe, ProbeRows, Scale, logistic_regression
from honest.config import ProbesConfig


def fit(rows: ProbeRows, settings: ProbesConfig, _rng: np.random.Generator) -> Fitted:
    scale = Scale.of(rows.trusted.contrast())
    weight_D, bias = logistic_regression(scale(rows.trusted.contrast()), rows.label_N, settings.l2)
    return lambda features: scale(features.contrast()) @ weight_D + bias


PROBE = Probe("contrast_logistic", "probe: logistic regression on contrast pairs", pairs=True, fit=fit)
