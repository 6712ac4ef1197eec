"""The Gaussian priors against scipy: value and constant, units, and the reference measure."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from honest.objective.parameter_prior import gaussian_constant, gaussian_nats, precision
from honest.params import squared_distance
from honest.units import Quantity, UnitError, displacement, nat

TRUNK, HEAD = displacement("trunk"), displacement("head")


def test_precision_is_one_nat_per_squared_stddev():
    result = precision(Quantity(0.2, TRUNK))
    assert result.unit == nat / TRUNK**2
    assert result.to(nat / TRUNK**2) == pytest.approx(25.0)


@pytest.mark.parametrize("stddev", [0.02, 1.0, 7.0])
def test_log_density_with_its_constant_equals_scipy(stddev):
    rng = np.random.default_rng(0)
    theta, centre = rng.normal(size=17), rng.normal(size=17)
    sigma = Quantity(stddev, TRUNK)
    distance = squared_distance({"trunk": theta}, {"trunk": centre}, "trunk")
    total = gaussian_nats(distance, sigma, "prior") + gaussian_constant(17, sigma, TRUNK)
    assert float(total.to(nat)) == pytest.approx(norm.logpdf(theta, centre, stddev).sum(), rel=1e-5)


def test_cost_is_half_a_nat_at_one_stddev_and_the_constant_stays_apart():
    sigma = Quantity(0.3, HEAD)
    assert gaussian_nats(Quantity(0.09, HEAD**2), sigma, "prior").to(nat) == pytest.approx(-0.5)
    assert gaussian_nats(Quantity(0.0, HEAD**2), sigma, "prior").to(nat) == 0.0
    assert gaussian_constant(4, sigma, HEAD).to(nat) == pytest.approx(-2 * math.log(2 * math.pi * 0.09))


def test_reference_measure_changes_the_constant_alone():
    """Measured in a unit u ten times smaller, σ is ten times the number and each coordinate loses log 10 nats; d²/σ²
    stays. It is the change of variables of the density: scipy's, at ten times every number."""
    rng = np.random.default_rng(1)
    theta, centre, stddev, scale = rng.normal(size=5), rng.normal(size=5), 0.4, 10.0
    d2 = float(np.sum((theta - centre) ** 2))
    small, large = Quantity(stddev, HEAD), Quantity(scale * stddev, HEAD)
    assert gaussian_nats(Quantity(scale**2 * d2, HEAD**2), large, "prior").to(nat) == pytest.approx(
        gaussian_nats(Quantity(d2, HEAD**2), small, "prior").to(nat)
    )
    change = gaussian_constant(5, large, HEAD) - gaussian_constant(5, small, HEAD)
    assert change.to(nat) == pytest.approx(-5 * math.log(scale))
    expected = norm.logpdf(scale * theta, scale * centre, scale * stddev) - norm.logpdf(theta, centre, stddev)
    assert change.to(nat) == pytest.approx(expected.sum())


@pytest.mark.parametrize("wrong", [HEAD, TRUNK**2, nat], ids=str)
def test_stddev_in_a_wrong_unit_is_an_error_naming_the_term(wrong):
    with pytest.raises(UnitError, match=r"in term 'second_prior.trunk': precision·d² .* expected nat"):
        gaussian_nats(Quantity(1.0, TRUNK**2), Quantity(0.3, wrong), "second_prior.trunk")


def test_a_distance_that_is_not_squared_is_an_error():
    with pytest.raises(UnitError, match=r"precision·d².*missing factor: θ.trunk"):
        gaussian_nats(Quantity(1.0, TRUNK), Quantity(0.3, TRUNK), "second_prior.trunk")


def test_constant_needs_the_reference_measure_of_its_own_group():
    with pytest.raises(UnitError):
        gaussian_constant(3, Quantity(0.3, TRUNK), HEAD)
