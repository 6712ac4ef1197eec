"""A random direction in the standardised features: what no training at all would answer."""

import numpy as np

from honest.baselines.probe import Fitted, Probe, ProbeRows, Scale
from honest.config import ProbesConfig


def fit(rows: ProbeRows, _settings: ProbesConfig, rng: np.random.Generator) -> Fitted:
    scale = Scale.of(rows.trusted.question_BxD)
    weight_D = rng.normal(size=rows.trusted.question_BxD.shape[1])
    return lambda features: scale(features.question_BxD) @ weight_D


PROBE = Probe("random", "random direction", pairs=False, fit=fit)
