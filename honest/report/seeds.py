"""Means over seeds with their intervals: the one place where they are computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t


class SeedMean(NamedTuple):
    """The mean of one number a seed, and half the width of its 95 % t-interval (nan for a single seed)."""

    mean: float
    half_width: float

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width

    def text(self, digits: int) -> str:
        return f"{self.mean:.{digits}f} ± {self.half_width:.{digits}f}"


def seed_mean(values: Sequence[float], confidence: float = 0.95) -> SeedMean:
    """Student's t-interval: seeds are independent, and their number is small. ValueError for no value."""
    if len(values) == 0:
        raise ValueError("no seeds to take a mean of")
    count = len(values)
    if count == 1:
        return SeedMean(float(values[0]), math.nan)
    spread = float(np.std(values, ddof=1)) / math.sqrt(count)
    return SeedMean(float(np.mean(values)), float(t.ppf(0.5 + confidence / 2, count - 1)) * spread)
