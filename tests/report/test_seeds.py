"""Means over seeds against hand arithmetic and the table of Student's t."""

import math

import pytest
from scipy.stats import ttest_1samp

from honest.report.seeds import seed_mean


def test_five_seeds_by_hand():
    """1 … 5: s² = 2.5, s/√5 = √.5; t at 97.5 % with 4 degrees of freedom is 2.776."""
    mean = seed_mean([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean.mean == 3.0
    assert mean.half_width == pytest.approx(2.776445 * math.sqrt(0.5), rel=1e-6)
    assert mean.text(2) == "3.00 ± 1.96"


def test_two_seeds_are_few():
    assert seed_mean([0.0, 2.0]).half_width == pytest.approx(12.7062, rel=1e-5)


def test_bounds_against_scipy():
    values = [0.91, 0.88, 0.97, 0.93]
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    found = seed_mean(values)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_one_seed_has_no_interval():
    assert seed_mean([4.0]).mean == 4.0
    assert math.isnan(seed_mean([4.0]).half_width)


def test_no_seed_is_an_error():
    with pytest.raises(ValueError, match="no seeds"):
        seed_mean([])
