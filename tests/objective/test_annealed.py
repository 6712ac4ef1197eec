"""Two-sided estimates of log Z against closed forms and quadrature, and what a bad reverse start does to them."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from honest.objective.consistency import jensen_shannon
from honest.objective.log_partition.annealed import annealed, annealing_schedule

SEEDS, DIMENSION = 20, 100
TAIL = 0.01
ALLOWANCE = math.log(1 / TAIL)
PARTICLES = 8
ROWS_B, GAP_B = np.array([-1.0, 0.5, 2.0], np.float32), np.array([3.0, -1.5, 2.0], np.float32)  # of Bernoulli heads


@pytest.fixture(autouse=True)
def strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield


class Problem(NamedTuple):
    """w = bowl + agreement, in 100 dimensions, so that all problems share one compiled program.

    bowl: −½ Σ a (u − b)², cut smoothly at `floor`; coordinates with a = 0 are free, and leave log Z alone.
    agreement: −λ Σ JS of two Bernoulli heads on three rows, whose gap has the slope u_0 and the offset u_1.
    """

    stiffness_D: jax.Array
    centre_D: jax.Array
    floor: jax.Array
    multiplier: jax.Array

    def log_weight(self, u_D):
        bowl = -0.5 * jnp.sum(self.stiffness_D * (u_D - self.centre_D) ** 2)
        bowl = jnp.logaddexp(bowl, self.floor) - jnp.log1p(jnp.exp(self.floor))
        gap_B = GAP_B + 1.5 * (u_D[0] * ROWS_B + u_D[1])
        divergence_B = jensen_shannon(jnp.stack([jnp.zeros(3), gap_B], axis=1), jnp.zeros((3, 2)))
        return bowl - self.multiplier * jnp.sum(divergence_B)

    def bowl_log_partition(self):
        """log Z of the uncut bowl alone: −½ Σ [log(1+a) + ab²/(1+a)]."""
        a, b = np.asarray(self.stiffness_D, float), np.asarray(self.centre_D, float)
        return -0.5 * np.sum(np.log1p(a) + a * b**2 / (1 + a))


def make_problem(stiffness, centre, floor=-1e30, multiplier=0.0):
    free = (0, DIMENSION - len(stiffness))
    leaves = (np.pad(stiffness, free), np.pad(centre, free), floor, multiplier)
    return Problem(*(jnp.asarray(leaf, jnp.float32) for leaf in leaves))


@functools.partial(jax.jit, static_argnames="temperatures")
def estimate(keys, problem, extra_start, temperatures):
    def one(key):
        return annealed(
            key,
            problem.log_weight,
            jnp.zeros(DIMENSION),
            extra_start,
            particles=PARTICLES,
            temperatures=temperatures,
            leapfrog=4,
            step_size=0.1,
            tail_probability=TAIL,
        )

    return jax.vmap(one)(keys)


def over_seeds(problem, extra_start=None, temperatures=48, first_seed=0):
    """An estimate for each of 20 seeds, fields of shape (20,); the further reverse start is the bowl's own centre."""
    keys = jax.random.split(jax.random.key(first_seed), SEEDS)
    start_D = problem.centre_D if extra_start is None else extra_start
    return jax.tree.map(lambda x: np.asarray(x, float), estimate(keys, problem, start_D, temperatures))


# active dimensions: problem, largest error of the seeds' mean estimate and largest spread over the seeds (nat)
PROBLEMS = {
    2: (make_problem([60.0, 300.0], [1.0, 0.5]), 0.3, 1.0),
    10: (make_problem(np.geomspace(0.1, 100.0, 10), 0.3 * np.ones(10)), 0.5, 1.0),
    100: (make_problem(np.geomspace(0.001, 30.0, 100), np.zeros(100)), 1.2, 1.5),
}


@functools.cache
def finely(active):
    return over_seeds(PROBLEMS[active][0])


@pytest.mark.parametrize("active", PROBLEMS)
def test_quadratic_problems_are_bracketed(active):
    problem, largest_error, largest_spread = PROBLEMS[active]
    truth, result = problem.bowl_log_partition(), finely(active)
    assert (result.lower <= truth).all()
    assert (result.upper >= truth).all()
    assert abs(result.estimate.mean() - truth) < largest_error
    assert result.estimate.std() < largest_spread
    # no looser than the two allowances and the estimates' errors
    assert (result.upper - result.lower).mean() < 2 * ALLOWANCE + 4 * largest_error
    assert ((result.acceptance > 0.6) & (result.acceptance <= 1)).all()
    assert ((result.ess >= 1 - 1e-5) & (result.ess <= PARTICLES + 1e-5)).all()


def test_forward_weights_are_unbiased_for_z():
    """E[Ẑ] = Z with only 5 bridges, where log Ẑ is low: over 400 runs the mean of Ẑ/Z is 1 within its error."""
    problem = make_problem([3.0, 8.0], [0.7, -0.4])
    runs = [over_seeds(problem, temperatures=5, first_seed=seed).estimate for seed in range(20)]
    error = np.concatenate(runs) - problem.bowl_log_partition()
    ratio = np.exp(error)
    assert ratio.mean() == pytest.approx(1.0, abs=4.5 * ratio.std() / 20)
    assert ratio.std() / 20 < 0.05
    assert error.mean() < -0.01  # the logarithm's expectation is below, by Jensen


@pytest.mark.parametrize("active", PROBLEMS)
def test_too_few_bridges_widen_the_bounds_but_keep_them_valid_on_average(active):
    """5 bridges are too few to move at β = 1 (the reverse start's condition), so that only the lower bound is sure."""
    problem = PROBLEMS[active][0]
    truth, coarse, fine = problem.bowl_log_partition(), over_seeds(problem, temperatures=5), finely(active)
    assert (coarse.lower <= truth).all()
    assert coarse.upper.mean() >= truth
    assert coarse.lower.mean() < fine.lower.mean()


def test_bounds_are_cut_at_the_certain_limit():
    """w = 0 gives Z = 1: the estimate and the upper bound are 0, and the lower one keeps its allowance."""
    result = over_seeds(make_problem([0.0], [0.0]))
    np.testing.assert_allclose(result.estimate, 0.0, atol=1e-6)
    np.testing.assert_allclose(result.upper, 0.0, atol=1e-6)
    np.testing.assert_allclose(result.lower, -ALLOWANCE, rtol=1e-6)
    np.testing.assert_allclose(result.ess, PARTICLES, rtol=1e-5)
    assert (result.upper <= 0).all()


def test_an_upper_bound_needs_a_reverse_start_in_every_mode():
    """A plain at −60 nats with a narrow well at distance 5. The forward particles miss the well, so that the bound from
    their ends alone is wrong; a start in the well, as the negative phase may give, lifts it over the truth."""
    well = make_problem([400.0, 400.0], [3.0, 4.0], floor=-60.0)
    truth = well.bowl_log_partition()
    assert truth > -20  # the plain's e⁻⁶⁰ is nothing beside the well
    outside, inside = over_seeds(well, extra_start=jnp.zeros(DIMENSION)), over_seeds(well)
    assert (outside.upper < truth - 10).all()
    assert (inside.upper >= truth).all()
    np.testing.assert_allclose(inside.lower, outside.lower, rtol=1e-5)


def test_a_bad_further_start_does_not_spoil_the_upper_bound():
    """The larger of the two families' bounds is kept: a start far out in the tail leaves it valid."""
    problem = PROBLEMS[10][0]
    spoiled = over_seeds(problem, extra_start=jnp.full(DIMENSION, 30.0, jnp.float32))
    assert (spoiled.upper >= problem.bowl_log_partition()).all()


def test_bernoulli_heads_against_quadrature():
    """Agreement of two Bernoulli heads, λ = 60, integrated over slope and offset on a grid."""
    heads = make_problem([0.0], [0.0], multiplier=60.0)
    grid = np.linspace(-7.0, 7.0, 201)
    slopes, offsets = (jnp.asarray(x.ravel(), jnp.float32) for x in np.meshgrid(grid, grid, indexing="ij"))
    weigh = lambda slope, offset: heads.log_weight(jnp.zeros(DIMENSION).at[0].set(slope).at[1].set(offset))  # noqa: E731
    w = np.asarray(jax.jit(jax.vmap(weigh))(slopes, offsets), float).reshape(201, 201)
    density = np.exp(w - 0.5 * (grid[:, None] ** 2 + grid[None, :] ** 2)) / (2 * math.pi)
    truth = math.log(np.trapezoid(np.trapezoid(density, grid, axis=1), grid))
    assert truth < -ALLOWANCE  # so that the upper bound is no idle 0
    result, again, other = over_seeds(heads), over_seeds(heads), over_seeds(heads, first_seed=1)
    assert (result.lower <= truth).all()
    assert (result.upper >= truth).all()
    assert abs(result.estimate.mean() - truth) < 0.2
    assert result.estimate.std() < 0.6
    np.testing.assert_array_equal(again.estimate, result.estimate)  # one key, one estimate
    assert len({*result.estimate.tolist(), *other.estimate.tolist()}) == 2 * SEEDS


def test_schedule_runs_from_zero_to_one_and_starts_slowly():
    betas = np.asarray(annealing_schedule(4, jnp.float32))
    np.testing.assert_allclose(betas, [0.0, 1 / 64, 1 / 8, 27 / 64, 1.0])
