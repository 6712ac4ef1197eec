"""The coordinates of a Gaussian near the target: an identity for any Gaussian, and the best one where it is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from honest.objective.log_partition.bidirectional import from_both_ends, plan
from honest.objective.log_partition.problem import Problem
from honest.objective.log_partition.variational import fit_gaussian, in_coordinates_of
from honest.units import nat

DIMENSION = 6
STIFFNESS, CENTRE = np.array([0.0, 0.5, 3.0, 30.0, 300.0, 1600.0]), np.array([0.0, 1.0, -2.0, 0.5, 1.5, -1.0])
# Of exp(w) N(u; 0, I) with w = −½ Σ a (u − b)²: mean ab/(1 + a), variance 1/(1 + a), and the integral.
MEAN, SCALE = STIFFNESS * CENTRE / (1 + STIFFNESS), 1 / np.sqrt(1 + STIFFNESS)
LOG_Z = -0.5 * np.sum(np.log1p(STIFFNESS) + STIFFNESS * CENTRE**2 / (1 + STIFFNESS))
pytestmark = pytest.mark.usefixtures("quick_compilation")


def problem_of(weight):
    return Problem(weight, None, DIMENSION, jnp.dtype("float32"))


def bowl(u_D):
    return -0.5 * jnp.sum(jnp.asarray(STIFFNESS, u_D.dtype) * (u_D - jnp.asarray(CENTRE, u_D.dtype)) ** 2)


def as_float32(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


def test_the_targets_own_gaussian_makes_it_constant():
    moved = in_coordinates_of(problem_of(bowl), *as_float32(MEAN, SCALE))
    draws = as_float32(np.zeros(DIMENSION), *np.random.default_rng(0).normal(size=(5, DIMENSION)))
    assert np.array([moved.weight(v) for v in draws]) == pytest.approx(LOG_Z, abs=2e-3)


def test_any_gaussian_leaves_the_integral_alone():
    """One dimension of six bends; its integral by quadrature."""

    def density(x):
        return np.exp(-2.0 * (x**2 - 1.0) ** 2 - 0.5 * x**2) / np.sqrt(2.0 * np.pi)

    truth = quad(density, -6, 6, limit=200)[0]
    bent = problem_of(lambda u_D: -2.0 * (u_D[0] ** 2 - 1.0) ** 2)
    moved = in_coordinates_of(bent, *as_float32(np.full(DIMENSION, 0.1), np.linspace(0.9, 1.1, DIMENSION)))
    draws = jnp.asarray(np.random.default_rng(1).normal(size=(200_000, DIMENSION)), jnp.float32)
    weights = np.exp(np.asarray(jax.vmap(moved.weight)(draws), float))
    error = weights.std() / np.sqrt(len(weights))
    assert abs(weights.mean() - truth) < 4 * error and error < 0.02 * truth


def test_the_fit_finds_mean_and_scale():
    mean_D, scale_D = fit_gaussian(lambda _: problem_of(bowl), jax.random.key(0), jnp.zeros(DIMENSION), 3000)
    assert np.asarray(mean_D) == pytest.approx(MEAN, abs=0.02)
    assert np.asarray(scale_D) == pytest.approx(SCALE, rel=0.05)


def test_the_fit_takes_estimates_of_the_weight():
    """The whole weight times a draw from [0, 2], which is 1 on average."""

    def problem_at(key):
        factor = jax.random.uniform(key, (), jnp.float32, 0.0, 2.0)
        return problem_of(lambda u_D: factor * bowl(u_D))

    mean_D, scale_D = fit_gaussian(problem_at, jax.random.key(0), jnp.zeros(DIMENSION), 4000)
    assert np.asarray(mean_D) == pytest.approx(MEAN, abs=0.05)
    assert np.asarray(scale_D) == pytest.approx(SCALE, rel=0.15)


def test_bounds_meet_in_these_coordinates_where_few_bridges_from_the_prior_leave_a_gap():
    """The same plan of 16 bridges from both; log(1/tail) is what Markov's inequality always leaves on either side."""
    problem = problem_of(bowl)
    gaps = []
    for one in (problem, in_coordinates_of(problem, *as_float32(MEAN, 1.1 * SCALE))):
        found = from_both_ends(one, jax.random.key(0), plan(2, 2, 16), [jnp.zeros((2, DIMENSION))], 0.01)
        lower, upper = float(found.lower.to(nat)), float(found.upper.to(nat))
        assert lower <= LOG_Z <= upper
        gaps.append(upper - lower)
    assert gaps[1] < 2 * np.log(1 / 0.01) + 0.1 < gaps[0]
