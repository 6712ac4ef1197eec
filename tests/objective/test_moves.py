"""Hamiltonian moves: the invariant distribution, the order of the energy error, and what is rejected."""

from __future__ import annotations

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from honest.objective.log_partition.moves import hamiltonian_move, normal_like, unmeasured_move, whitened_energy

STIFFNESS, CENTRE = np.array([0.5, 4.0, 30.0]), np.array([1.0, -2.0, 0.5])
CHAINS = 4000
move = jax.jit(hamiltonian_move, static_argnums=(2, 4, 5))


@pytest.fixture(autouse=True)
def strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield


def gaussian_weight(u):
    """w = −½ Σ a (u − b)², on a tree of two leaves: exp(w) N(0, I) is N(ab/(1+a), 1/(1+a))."""
    flat_3 = jnp.concatenate([u["first"], u["rest"]])
    return -0.5 * jnp.sum(STIFFNESS.astype(np.float32) * (flat_3 - CENTRE.astype(np.float32)) ** 2)


def split(flat_Cx3):
    return {"first": flat_Cx3[:, :1], "rest": flat_Cx3[:, 1:]}


@partial(jax.jit, static_argnames=("moves", "adjusted", "leapfrog", "log_weight"))
def run_chains(key, start_C, step_size, *, moves, leapfrog, adjusted, log_weight):
    """Positions of all chains after `moves` moves, and the mean acceptance."""
    count = jax.tree.leaves(start_C)[0].shape[0]

    def move_all(position_C, index):
        keys_C = jax.random.split(jax.random.fold_in(key, index), count)
        moved = jax.vmap(lambda k, u: hamiltonian_move(k, u, log_weight, step_size, leapfrog, adjusted))(
            keys_C, position_C
        )
        return moved.position, jnp.mean(moved.acceptance)

    position_C, acceptance = jax.lax.scan(move_all, start_C, jnp.arange(moves))
    return position_C, jnp.mean(acceptance)


def test_target_is_invariant_and_reached():
    """4000 chains started at 0: after 60 moves their moments are those of N(ab/(1+a), 1/(1+a))."""
    end, acceptance = run_chains(
        jax.random.key(0),
        split(jnp.zeros((CHAINS, 3))),
        jnp.float32(0.25),
        moves=60,
        leapfrog=4,
        adjusted=True,
        log_weight=gaussian_weight,
    )
    assert 0.5 < float(acceptance) < 0.98  # rejections take part
    flat_Cx3 = np.concatenate([end["first"], end["rest"]], axis=1)
    variance = 1 / (1 + STIFFNESS)
    error = 4.5 * np.sqrt(variance / CHAINS)
    assert (np.abs(flat_Cx3.mean(axis=0) - STIFFNESS * CENTRE * variance) < error).all()
    assert (np.abs(flat_Cx3.var(axis=0) / variance - 1) < 4.5 * np.sqrt(2 / CHAINS)).all()
    correlation = np.corrcoef(flat_Cx3.T)
    assert (np.abs(correlation[np.triu_indices(3, 1)]) < 4.5 / np.sqrt(CHAINS)).all()


def stiff_weight(u):
    return -1.0 * jnp.sum(u**2)  # a = 2, b = 0


def test_unadjusted_moves_have_the_bias_of_their_recursion():
    """One step is u' = (cos h − ½ h a sin h) u + sin h·p with p ~ N(0, 1): its stationary variance, averaged over the
    jitter of h, is E[sin² h]/(1 − E[(cos h − ½ h a sin h)²]), far from the target's 1/(1+a) at a large step."""
    step, a = 1.0, 2.0
    h = np.linspace(0.8, 1.2, 100_001) * step
    expected = np.mean(np.sin(h) ** 2) / (1 - np.mean((np.cos(h) - 0.5 * h * a * np.sin(h)) ** 2))
    assert expected > 1.5 / (1 + a)
    end, acceptance = run_chains(
        jax.random.key(1),
        jnp.zeros((CHAINS, 4)),
        jnp.float32(step),
        moves=60,
        leapfrog=1,
        adjusted=False,
        log_weight=stiff_weight,
    )
    assert float(acceptance) < 0.95  # reported, although every move is taken
    # every chain's four coordinates are stirred by one jitter, which correlates their squares a little
    assert np.var(end) == pytest.approx(expected, rel=6 * np.sqrt(2 / (4 * CHAINS)))


def test_unadjusted_moves_are_always_taken():
    start = jnp.zeros(4)
    moved = move(jax.random.key(0), start, lambda u: -1e4 * jnp.sum(u**2), jnp.float32(1.0), 3, False)
    assert bool(moved.accepted)
    assert float(moved.acceptance) == 0.0
    assert (np.asarray(moved.position) != 0).all()


@pytest.mark.parametrize("steps", [1, 3])
def test_a_move_that_is_not_measured_ends_in_the_same_place_with_a_gradient_less(steps):
    key, start = jax.random.key(5), split(jnp.array([[0.3, -1.2, 0.7]]))
    start = jax.tree.map(lambda leaf: leaf[0], start)
    measured = move(key, start, gaussian_weight, jnp.float32(0.2), steps, False)
    quick = jax.jit(unmeasured_move, static_argnums=(2, 4))(key, start, gaussian_weight, jnp.float32(0.2), steps)
    chex.assert_trees_all_close(quick.position, measured.position, rtol=1e-5)
    assert bool(quick.accepted)
    assert np.isnan(quick.acceptance)
    counted = []

    def counting(u):
        jax.debug.callback(lambda: counted.append(1))
        return gaussian_weight(u)

    for moved in (unmeasured_move, partial(hamiltonian_move, adjusted=False)):
        jax.block_until_ready(moved(key, start, counting, jnp.float32(0.2), steps))
        jax.effects_barrier()
        counted.append(0)
    assert counted == [1] * steps + [0] + [1] * (steps + 1) + [0]


def test_a_place_without_a_finite_gradient_is_left_by_the_rotation():
    """√ has an infinite derivative at 0: nothing is kicked, and cos h · 0 + sin h · p is somewhere else."""
    key, start = jax.random.key(5), jnp.zeros(4)
    moved = unmeasured_move(key, start, lambda u: -jnp.sum(jnp.sqrt(jnp.abs(u))), jnp.float32(0.2), 1)
    assert not bool(moved.accepted)
    free = unmeasured_move(key, start, lambda u: 0.0 * jnp.sum(u), jnp.float32(0.2), 1)
    np.testing.assert_array_equal(moved.position, free.position)
    assert (np.asarray(moved.position) != 0).all()


def quartic_weight(u):
    return -jnp.sum(u**4 + jnp.sin(3 * u))


def test_energy_error_is_of_second_order_in_the_step():
    """A trajectory of fixed length in half the steps has four times the error. 64 momenta from a place with a small
    gradient, from where most errors are upward, so that −log(acceptance) shows them."""
    with jax.enable_x64(True):
        start_D = jnp.full(20, -0.5)
        keys = jax.random.split(jax.random.key(3), 64)
        errors = []
        for steps in (20, 40):
            step = jnp.float64(0.64 / steps)
            moved = jax.vmap(lambda k, n=steps, h=step: move(k, start_D, quartic_weight, h, n, True))(keys)
            errors.append(-np.log(moved.acceptance))
    coarse, fine = errors
    rising = (coarse > 0) & (fine > 0)
    assert rising.sum() > 30
    assert coarse[rising].sum() / fine[rising].sum() == pytest.approx(4.0, rel=0.02)


def no_weight(u):
    return jnp.zeros(())


@pytest.mark.parametrize("step_size", [1e-3, 0.3, 1.5])
def test_without_a_weight_every_move_is_accepted_at_any_size(step_size):
    """The Gaussian is followed exactly: no energy error at 10⁵ dimensions in float32; |u|² stays that of N(0, I)."""
    position = jax.random.normal(jax.random.key(0), (100_000,))
    for seed in range(1, 4):
        moved = move(jax.random.key(seed), position, no_weight, jnp.float32(step_size), 16, True)
        assert float(moved.acceptance) == 1.0
        assert bool(moved.accepted)
        assert float(jnp.mean(moved.position**2)) == pytest.approx(1.0, abs=0.025)


def test_free_directions_do_not_lower_the_acceptance():
    """The same three stiff coordinates alone and beside 20,000 free ones: equal acceptances, move by move."""

    def acceptances(free):
        def log_weight(u):
            return -0.5 * 30.0 * jnp.sum((u["stiff"] - 0.3) ** 2)

        def accept(key):
            u = {"free": jnp.zeros(free), "stiff": jnp.full(3, 0.3)}
            return hamiltonian_move(key, u, log_weight, jnp.float32(0.25), 4, True).acceptance

        return np.asarray(jax.jit(lambda keys: jax.lax.map(accept, keys))(jax.random.split(jax.random.key(5), 50)))

    alone, beside = acceptances(1), acceptances(20_000)
    assert alone.mean() < 0.97
    np.testing.assert_allclose(alone, beside, atol=1e-5)  # the momenta of the stiff leaf are the same draws


@pytest.mark.parametrize("outside", [jnp.nan, -jnp.inf, jnp.inf])
def test_a_diverged_trajectory_is_rejected(outside):
    def log_weight(u):
        return jnp.where(jnp.max(jnp.abs(u)) > 1e-3, outside, 0.0)

    start = jnp.zeros(5)
    moved = move(jax.random.key(0), start, log_weight, jnp.float32(0.3), 4, True)
    assert float(moved.acceptance) == 0.0
    assert not bool(moved.accepted)
    np.testing.assert_array_equal(moved.position, start)


def test_an_overflowing_trajectory_is_rejected():
    start = jnp.ones(5)
    moved = move(jax.random.key(0), start, lambda u: -1e6 * jnp.sum(u**4), jnp.float32(1.0), 20, True)
    assert float(moved.acceptance) == 0.0
    np.testing.assert_array_equal(moved.position, start)


def test_leaves_get_independent_normal_draws():
    draws = normal_like(jax.random.key(0), {"a": jnp.zeros((50, 40)), "b": jnp.zeros((2000,))})
    a, b = np.ravel(draws["a"]), np.asarray(draws["b"])
    for draw in (a, b):
        assert abs(draw.mean()) < 4.5 / np.sqrt(2000)
        assert abs(draw.var() - 1) < 4.5 * np.sqrt(2 / 2000)
    assert abs(np.mean(a * b)) < 4.5 / np.sqrt(2000)


def test_whitened_energy_by_hand():
    assert float(whitened_energy({"a": jnp.array([3.0]), "b": jnp.array([[1.0, 2.0]])})) == 7.0
