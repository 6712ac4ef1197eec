"""Annealing from both ends: unbiased passes, valid bounds with two particles, and what reverse starts do to them."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from honest.objective.log_partition.bidirectional import from_both_ends, plan
from honest.objective.log_partition.persistent import Path, anneal, cubic, start_at, start_at_prior
from honest.objective.log_partition.problem import Problem, flat_positions, flat_problem
from honest.units import nat

DIMENSION, BRIDGES, SEEDS = 12, 30, 60
TAIL = 0.05  # not the module's own, so that one that is not passed on shows


@pytest.fixture(autouse=True)
def strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield


class Bowl:
    """w = −½ Σ a (u − b)², cut smoothly at `floor`; the other coordinates are free, and leave log Z alone."""

    def __init__(self, stiffness, centre, floor=-1e30):
        free = (0, DIMENSION - len(stiffness))
        self.a, self.b = np.pad(np.asarray(stiffness, float), free), np.pad(np.asarray(centre, float), free)
        self.truth = float(-0.5 * np.sum(np.log1p(self.a) + self.a * self.b**2 / (1 + self.a)))  # uncut
        self.leaves = [jnp.asarray(leaf, jnp.float32) for leaf in (self.a, self.b, floor)]

    def target_draws(self, count):
        """Exact, (count, D): N(ab/(1+a), 1/(1+a)) in every coordinate."""
        noise = np.random.default_rng(0).normal(size=(count, DIMENSION))
        return jnp.asarray(self.a * self.b / (1 + self.a) + noise / np.sqrt(1 + self.a), jnp.float32)

    def bounds(self, starts_SxFxD=None):
        """log Z, lower, upper (nat) and effective size of every seed; the further starts are exact draws unless given:
        (2, D), or so many for every seed."""
        starts = self.target_draws(2 * SEEDS).reshape(SEEDS, 2, DIMENSION) if starts_SxFxD is None else starts_SxFxD
        found = over_seeds(*self.leaves, jnp.broadcast_to(starts, (SEEDS, 2, DIMENSION)))
        return (*(np.asarray(q.to(nat)) for q in (found.log_z, found.lower, found.upper)), np.asarray(found.ess))


def bowl_problem(a_D, b_D, floor):
    def weight(u_D):
        return jnp.logaddexp(-0.5 * jnp.sum(a_D * (u_D - b_D) ** 2), floor) - jnp.log1p(jnp.exp(floor))

    return Problem(weight, None, DIMENSION, jnp.dtype("float32"))


@jax.jit  # all bowls share one program
def over_seeds(a_D, b_D, floor, starts_SxFxD):
    problem, planned = bowl_problem(a_D, b_D, floor), plan(2, 2, BRIDGES)
    one = lambda key, starts: from_both_ends(problem, key, planned, [starts], TAIL)  # noqa: E731
    return jax.vmap(one)(jax.random.split(jax.random.key(0), SEEDS), starts_SxFxD)


STEEP = Bowl(np.geomspace(0.1, 100.0, 10), 0.3 * np.ones(10))


def test_both_passes_are_unbiased_however_few_the_bridges():
    """E[exp S] = Z up and E[exp −S'] = 1/Z down from exact draws, with 5 bridges and long steps, where log exp S is
    low: the momentum persists through the bridges in both directions."""
    bowl, particles = Bowl([1.0, 3.0], [0.7, -0.4]), 20_000
    path = Path(cubic(5, jnp.dtype("float32")), jnp.full(5, 0.6))
    vg, keys = bowl_problem(*bowl.leaves).value_and_grad, jax.random.split(jax.random.key(1), 4)
    up = start_at_prior(keys[0], particles, DIMENSION, jnp.dtype("float32"), vg)
    down = start_at(keys[1], bowl.target_draws(particles), vg)
    forward = np.asarray(anneal(keys[2], up, path, vg, ascending=True).work_P, float) - bowl.truth
    backward = bowl.truth - np.asarray(anneal(keys[3], down, path, vg, ascending=False).work_P, float)
    for error in (forward, backward):
        ratio, spread = np.exp(error), np.std(np.exp(error)) / math.sqrt(particles)
        assert np.mean(ratio) == pytest.approx(1.0, abs=4.5 * spread) and spread < 0.02
        assert np.mean(error) < -0.05  # Jensen: what the bounds rest on


def test_two_particles_bound_from_both_sides():
    """Each side may fail in 1 of 20: more than 9 of 60 have a probability below 1 in 1,000."""
    _, lower, upper, ess = STEEP.bounds()
    assert np.sum(lower > STEEP.truth) <= 9
    assert np.sum(upper < STEEP.truth) <= 9
    assert np.median(lower) > STEEP.truth - 15  # and they say something
    assert ((ess >= 1 - 1e-5) & (ess <= 2 + 1e-5)).all()


def test_bounds_are_cut_at_the_certain_limit_and_know_their_tail():
    """w = 0: Z = 1, and 2 equal weights have the allowance log(3/δ)/2 (two ranks and the mean share δ)."""
    log_z, lower, upper, ess = Bowl([0.0], [0.0]).bounds()
    np.testing.assert_allclose(log_z, 0.0, atol=1e-6)
    np.testing.assert_allclose(upper, 0.0, atol=1e-6)
    np.testing.assert_allclose(lower, -math.log(3 / TAIL) / 2, rtol=1e-5)
    np.testing.assert_allclose(ess, 2.0, rtol=1e-5)


def test_an_upper_bound_needs_a_reverse_start_in_every_mode():
    """A plain at −60 nats with a narrow well at distance 5. The forward particles miss the well, so that the bound from
    their ends alone is wrong; a start in the well, as the negative phase may give, lifts it over the truth."""
    well = Bowl([400.0, 400.0], [3.0, 4.0], floor=-60.0)
    assert well.truth > -20  # the plain's e⁻⁶⁰ is nothing beside the well
    _, lower, outside, _ = well.bounds(jnp.zeros((1, 2, DIMENSION)))
    _, same, inside, _ = well.bounds(jnp.zeros((1, 2, DIMENSION)).at[..., :2].set(jnp.array([[[3.0, 4.0]]])))
    assert (outside < well.truth - 10).all()
    assert (inside >= well.truth).all()
    np.testing.assert_allclose(lower, same, rtol=1e-5)


def test_a_bad_further_start_does_not_spoil_the_upper_bound():
    """The largest of the families' bounds is kept: with starts in the tail, that of the forward passes' ends stays."""
    _, _, good, _ = STEEP.bounds()
    _, _, spoiled, _ = STEEP.bounds(jnp.full((1, 2, DIMENSION), 30.0))
    assert np.sum(spoiled < STEEP.truth) <= 9
    assert np.median(spoiled) < np.median(good) + 20


def test_plan_by_hand_and_every_key_its_own_draws():
    """Pilot: 3 rounds of 2 particles; 2 particles up 5 bridges; 2 + 3 down, after 4 moves and from 2 fresh starts."""
    assert plan(2, 3, 5).gradients == 3 * 2 * (8 + 1) + 2 * (5 + 1) + (2 + 3) * (5 + 4 + 2)
    log_z, lower, upper, _ = STEEP.bounds()
    assert len({*log_z.tolist()}) == len({*lower.tolist()}) == len({*upper.tolist()}) == SEEDS


def test_a_weight_of_trees_becomes_one_of_vectors():
    like = {"b": jnp.zeros((2, 1)), "a": jnp.zeros(3)}
    problem = flat_problem(lambda u: -jnp.sum(u["a"]) - 10 * u["b"][1, 0], like)
    assert problem.dimension == 5
    (position_D,) = flat_positions({"a": jnp.array([[1.0, 2.0, 3.0]]), "b": jnp.array([[[4.0], [5.0]]])})
    assert float(problem.weight(position_D)) == -6 - 50


def test_schedule_runs_from_zero_to_one_and_starts_slowly():
    np.testing.assert_allclose(cubic(4, jnp.dtype("float32")), [0.0, 1 / 64, 1 / 8, 27 / 64, 1.0])
