"""Two-sided estimates of log Z against closed forms and quadrature, and what a bad reverse start does to them."""

from __future__ import annotations

import math
from functools import partial
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
SETTINGS = {"particles": 8, "leapfrog": 4, "step_size": 0.1, "tail_probability": TAIL}
compiled_fast = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(autouse=True)
def strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield


class Quadratic(NamedTuple):
    """w = −½ Σ a (u − b)², cut smoothly at `floor`; coordinates with a = 0 are free, and leave log Z alone."""

    stiffness_D: jax.Array
    centre_D: jax.Array
    floor: float

    def log_weight(self, u_D):
        bowl = -0.5 * jnp.sum(self.stiffness_D * (u_D - self.centre_D) ** 2)
        return jnp.logaddexp(bowl, self.floor) - jnp.log1p(jnp.exp(self.floor))

    def log_partition(self):
        """log Z of the uncut bowl: −½ Σ [log(1+a) + ab²/(1+a)]."""
        a, b = np.asarray(self.stiffness_D, float), np.asarray(self.centre_D, float)
        return -0.5 * np.sum(np.log1p(a) + a * b**2 / (1 + a))


def quadratic(stiffness, centre, floor=-1e30):
    """All problems are laid into 100 dimensions, so that they share one compiled program."""
    free = (0, DIMENSION - len(stiffness))
    return Quadratic(jnp.asarray(np.pad(stiffness, free), jnp.float32), jnp.asarray(np.pad(centre, free), jnp.float32), floor)


@partial(compiled_fast, static_argnames="temperatures")
def estimate(keys, problem, extra_start, temperatures):
    def one(key):
        like = jnp.zeros(DIMENSION, jnp.float32)
        return annealed(key, problem.log_weight, like, extra_start, temperatures=temperatures, **SETTINGS)

    return jax.vmap(one)(keys)


def over_seeds(problem, extra_start=None, temperatures=48, first_seed=0):
    """An estimate for each of 20 seeds: fields of shape (20,)."""
    keys = jax.random.split(jax.random.key(first_seed), SEEDS)
    return jax.tree.map(lambda x: np.asarray(x, float), estimate(keys, problem, extra_start, temperatures))


# active dimensions: problem, largest error of the seeds' mean estimate and largest spread over the seeds (nat)
PROBLEMS = {
    2: (quadratic([60.0, 300.0], [1.0, 0.5]), 0.3, 0.6),
    10: (quadratic(np.geomspace(0.1, 100.0, 10), 0.3 * np.ones(10)), 0.5, 1.0),
    100: (quadratic(np.geomspace(0.001, 30.0, 100), np.zeros(100)), 1.2, 1.5),
}


@pytest.mark.parametrize("active", PROBLEMS)
def test_quadratic_problems_are_bracketed(active):
    problem, largest_error, largest_spread = PROBLEMS[active]
    truth, result = problem.log_partition(), over_seeds(problem)
    assert (result.lower <= truth).all()
    assert (result.upper >= truth).all()
    assert abs(result.estimate.mean() - truth) < largest_error
    assert result.estimate.std() < largest_spread
    # no looser than the two allowances and the estimates' errors
    assert (result.upper - result.lower).mean() < 2 * ALLOWANCE + 4 * largest_error
    assert ((result.acceptance > 0.6) & (result.acceptance <= 1)).all()
    assert ((result.ess >= 1 - 1e-5) & (result.ess <= SETTINGS["particles"] + 1e-5)).all()


def test_forward_weights_are_unbiased_for_z():
    """E[Ẑ] = Z with only 5 bridges, where log Ẑ is low: over 400 runs the mean of Ẑ/Z is 1 within its error."""
    problem = quadratic([3.0, 8.0], [0.7, -0.4])
    runs = [over_seeds(problem, temperatures=5, first_seed=seed).estimate for seed in range(20)]
    error = np.concatenate(runs) - problem.log_partition()
    ratio = np.exp(error)
    assert ratio.mean() == pytest.approx(1.0, abs=4.5 * ratio.std() / 20)
    assert ratio.std() / 20 < 0.05
    assert error.mean() < -0.01  # the logarithm's expectation is below, by Jensen


@pytest.mark.parametrize("active", PROBLEMS)
def test_too_few_bridges_widen_the_bounds_but_keep_them_valid_on_average(active):
    """5 bridges are too few to move at β = 1 (the reverse start's condition), so that only the lower bound is sure."""
    problem = PROBLEMS[active][0]
    truth, coarse, fine = problem.log_partition(), over_seeds(problem, temperatures=5), over_seeds(problem)
    assert (coarse.lower <= truth).all()
    assert coarse.upper.mean() >= truth
    assert coarse.lower.mean() < fine.lower.mean()


def test_bounds_are_cut_at_the_certain_limit():
    """w = 0 gives Z = 1: the estimate and the upper bound are 0, and the lower one keeps its allowance."""
    result = over_seeds(quadratic([0.0], [0.0]))
    np.testing.assert_allclose(result.estimate, 0.0, atol=1e-6)
    np.testing.assert_allclose(result.upper, 0.0, atol=1e-6)
    np.testing.assert_allclose(result.lower, -ALLOWANCE, rtol=1e-6)
    np.testing.assert_allclose(result.ess, SETTINGS["particles"], rtol=1e-5)
    assert (result.upper <= 0).all()


def test_an_upper_bound_needs_a_reverse_start_in_every_mode():
    """A plain at −60 nats with a narrow well at distance 5. The forward particles miss the well, so that the bound from
    their ends alone is wrong; a start in the well, as the negative phase may give, lifts it over the truth."""
    well = quadratic([400.0, 400.0], [3.0, 4.0], floor=-60.0)
    truth = well.log_partition()
    assert truth > -20  # the plain's e⁻⁶⁰ is nothing beside the well
    alone, helped = over_seeds(well), over_seeds(well, extra_start=well.centre_D)
    assert (alone.upper < truth - 10).all()
    assert (helped.upper >= truth).all()
    np.testing.assert_allclose(helped.lower, alone.lower, rtol=1e-5)


def test_a_bad_further_start_does_not_lower_the_upper_bound():
    """The larger of the two families' bounds is kept: a start far out in the tail leaves it valid."""
    problem = PROBLEMS[2][0]
    far = jnp.full(DIMENSION, 30.0, jnp.float32)
    alone, spoiled = over_seeds(problem), over_seeds(problem, extra_start=far)
    assert (spoiled.upper >= alone.upper - 1e-3).all()
    assert (spoiled.upper >= problem.log_partition()).all()


def test_bernoulli_heads_against_quadrature():
    """u = (slope, offset) of the gap between two Bernoulli heads on three rows; w = −λ·Σ JS, integrated on a grid.
    Also: u may be a tree, and one key gives one estimate."""
    x_B, centre_B, multiplier = jnp.array([-1.0, 0.5, 2.0]), jnp.array([3.0, -1.5, 2.0]), 60.0

    def log_weight(u):
        z_B = centre_B + 1.5 * (u["slope"] * x_B + u["offset"])
        a_BxK = jnp.stack([jnp.zeros(3), z_B], axis=1)
        return -multiplier * jnp.sum(jensen_shannon(a_BxK, jnp.zeros((3, 2))))

    grid = np.linspace(-7.0, 7.0, 201)
    slopes, offsets = (jnp.asarray(x.ravel(), jnp.float32) for x in np.meshgrid(grid, grid, indexing="ij"))
    w = np.asarray(jax.jit(jax.vmap(log_weight))({"slope": slopes, "offset": offsets}), float).reshape(201, 201)
    density = np.exp(w - 0.5 * (grid[:, None] ** 2 + grid[None, :] ** 2)) / (2 * math.pi)
    truth = math.log(np.trapezoid(np.trapezoid(density, grid, axis=1), grid))
    assert truth < -ALLOWANCE  # so that the upper bound is no idle 0
    origin = {"slope": jnp.zeros(()), "offset": jnp.zeros(())}
    run = compiled_fast(jax.vmap(lambda key: annealed(key, log_weight, origin, None, temperatures=24, **SETTINGS)))
    keys = jax.random.split(jax.random.key(0), SEEDS)
    result = run(keys)
    assert (result.lower <= truth).all()
    assert (result.upper >= truth).all()
    assert abs(result.estimate.mean() - truth) < 0.2
    np.testing.assert_array_equal(run(keys).estimate, result.estimate)
    assert len(set(result.estimate.tolist())) == SEEDS


def test_schedule_runs_from_zero_to_one_and_starts_slowly():
    betas = np.asarray(annealing_schedule(4, jnp.float32))
    np.testing.assert_allclose(betas, [0.0, 1 / 64, 1 / 8, 27 / 64, 1.0])
