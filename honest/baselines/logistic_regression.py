"""Logistic regression on the frozen trunk's features of trusted rows."""

import numpy as np

from honest.baselines.probe import Fitted, Probe, ProbeRows, Scale, logistic_regression
from honest.config import ProbesConfig


def fit(rows: ProbeRows, settings: ProbesConfig, _rng: np.random.Generator) -> Fitted:
    scale = Scale.of(rows.trusted.question_BxD)
    weight_D, bias = logistic_regression(scale(rows.trusted.question_BxD), rows.label_N, settings.l2)
    return lambda features: scale(features.question_BxD) @ weight_D + bias


PROBE = Probe("logistic_regression", "probe: logistic regression", pairs=False, fit=fit)
