"""The Newton–Stein control variate: exact on quadratics, unbiased elsewhere, and never NaN."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from honest.objective.log_partition.control_variate import Weights, guided_solve, mean_residual, newton_stein
from honest.units import displacement

pytestmark = pytest.mark.usefixtures("quick_compilation")

UNITS = {"head": displacement("head")}


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def correction(weight: Callable, steps: int, params: dict) -> Callable:
    """(key, chains u_CxD) -> Correction, jitted."""
    weights = Weights(weight, weight, weight)
    return jax.jit(lambda key, u_CxD: newton_stein(key, weights, params, u_CxD, UNITS, steps))


def mean_force(weight: Callable, params: dict, u_CxD: jax.Array) -> jax.Array:
    return jnp.mean(jax.vmap(lambda u: jax.grad(weight)(params, u)["head"])(u_CxD), axis=0)


# --- quadratic w ------------------------------------------------------------------------------------------------------


def slopes(dimension: int) -> np.ndarray:
    """Design §2: eigenvalues 100/i of −∇²w, half of them zero."""
    index = np.arange(1, dimension + 1)
    return np.where(index <= dimension // 2, 100.0 / index, 0.0)


def test_a_quadratic_leaves_no_noise_after_as_many_steps_as_eigenvalues():
    """w = −½ rᵀHr, r = u + Mθ − a, H of four eigenvalues and 0: E[∂_θw] = −MᵀH (u* + Mθ − a)."""
    keys = jax.random.split(jax.random.key(0), 5)
    dimension, eigenvalues = 30, np.repeat([50.0, 7.0, 2.0, 0.3, 0.0], 6)
    q = np.linalg.qr(np.asarray(jax.random.normal(keys[0], (dimension, dimension))))[0]
    h, m = q @ np.diag(eigenvalues) @ q.T, np.asarray(jax.random.normal(keys[1], (dimension, 4)))
    a, params = np.asarray(jax.random.normal(keys[2], (dimension,))), {"head": jax.random.normal(keys[3], (4,))}

    def weight(params: dict, u: jax.Array) -> jax.Array:
        r = u + m @ params["head"] - a
        return -0.5 * r @ (h @ r)

    off = a - m @ np.asarray(params["head"])
    mode = np.linalg.solve(np.eye(dimension) + h, h @ off)
    truth = -m.T @ h @ (mode - off)
    u_CxD = 5.0 * jax.random.normal(keys[4], (6, dimension))  # any law: the correction is exact for every draw
    plain = mean_force(weight, params, u_CxD)
    corrected = plain + correction(weight, 4, params)(jax.random.key(1), u_CxD).force["head"]
    assert np.linalg.norm(plain - truth) > np.linalg.norm(truth)
    np.testing.assert_allclose(corrected, truth, atol=1e-9 * np.linalg.norm(truth))


def test_more_steps_than_eigenvalues_do_no_harm():
    """The guides have nothing left to say after three steps, and nothing is divided by it."""
    precision, keys = jnp.repeat(jnp.array([1.0, 5.0, 60.0]), 5), jax.random.split(jax.random.key(4), 2)
    guides, right = jax.random.normal(keys[0], (2, 15)), jax.random.normal(keys[1], (15,))
    for steps in (3, 40):
        found = guided_solve(lambda x: precision * x, guides, right, steps)
        np.testing.assert_allclose(found, right / precision, rtol=1e-11)


def test_one_step_by_hand():
    """q_1 = Σ b·b / Σ b·Pb over the guides b, whatever is solved for."""
    precision, guides, right = np.diag([1.0, 3.0, 10.0]), np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]]), np.ones(3)
    length = (5.0 + 2.0) / ((1.0 + 12.0) + (3.0 + 10.0))
    found = guided_solve(lambda x: precision @ x, jnp.asarray(guides), jnp.asarray(right), 1)
    np.testing.assert_allclose(found, length * right)


def test_the_solve_is_linear_in_what_is_solved_for():
    """Conjugate gradients on the score itself would not be: E[s] = 0 would no longer give E[B s] = 0."""
    keys = jax.random.split(jax.random.key(2), 3)
    precision = 1.0 + jnp.asarray(slopes(50))
    guides, (a, b) = jax.random.normal(keys[0], (2, 50)), jax.random.normal(keys[1], (2, 50))
    solve = jax.jit(lambda right: guided_solve(lambda x: precision * x, guides, right, 4))
    np.testing.assert_allclose(solve(a) + solve(b), solve(a + b), rtol=1e-10)
    assert np.max(np.abs(precision * solve(a) - a)) > 0.01  # four steps are not the inverse


# --- exact draws of separable targets, by inversion on a grid ---------------------------------------------------------


class Separable:
    """exp(Σ w_i(u_i)) N(u; 0, I), drawn exactly up to a grid of 4,001 points in [−8, 8]."""

    def __init__(self, weight_D: Callable[[np.ndarray], np.ndarray]):
        self.grid = np.linspace(-8.0, 8.0, 4001)
        log_density_GxD = weight_D(self.grid[:, None]) - 0.5 * self.grid[:, None] ** 2
        self.density_GxD = np.exp(log_density_GxD - log_density_GxD.max(0))
        self.density_GxD /= self.density_GxD.sum(0)
        self.cumulative_GxD = np.cumsum(self.density_GxD, axis=0) - 0.5 * self.density_GxD

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        uniform = rng.uniform(size=(*shape, self.cumulative_GxD.shape[1]))
        columns = [np.interp(uniform[..., i], c, self.grid) for i, c in enumerate(self.cumulative_GxD.T)]
        return np.stack(columns, axis=-1)

    def mean(self, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return np.sum(self.density_GxD * function(self.grid[:, None]), axis=0)


def z_scores(samples_RxD: np.ndarray, truth_D: np.ndarray) -> np.ndarray:
    error = samples_RxD.std(0, ddof=1) / np.sqrt(len(samples_RxD))
    return (samples_RxD.mean(0) - truth_D) / error


def test_unbiased_where_w_is_not_quadratic_and_the_naive_variant_is_not():
    """w = −Σ k_i e^(θ_i + u_i), E[∂_θw] by quadrature; two exact draws, two steps in three dimensions."""
    k, params = np.array([4.0, 1.0, 0.3]), {"head": jnp.zeros(3)}
    target = Separable(lambda u: -k * np.exp(u))
    truth = target.mean(lambda u: -k * np.exp(u))
    weight = lambda params, u: -jnp.sum(jnp.asarray(k) * jnp.exp(params["head"] + u))  # noqa: E731
    u_RxCxD = jnp.asarray(target.draw(np.random.default_rng(0), (40_000, 2)))
    keys = jax.random.split(jax.random.key(0), len(u_RxCxD))
    plain = np.asarray(-k * jnp.exp(u_RxCxD)).mean(1)
    corrected = plain + np.asarray(jax.vmap(correction(weight, 2, params))(keys, u_RxCxD).force["head"])
    assert np.max(np.abs(z_scores(plain, truth))) < 4.5
    assert np.max(np.abs(z_scores(corrected, truth))) < 4.5
    assert np.linalg.norm(corrected.std(0)) < 0.6 * np.linalg.norm(plain.std(0))
    # J P⁻¹ s at the draw itself, P⁻¹ exact: f'(u) = w'', s = w' − u.
    draw = np.asarray(u_RxCxD)
    slope = -k * np.exp(draw)
    naive = (slope + slope / (1.0 - slope) * (slope - draw)).mean(1)
    assert np.min(np.abs(z_scores(naive, truth))) > 10


@pytest.mark.parametrize(("shape", "most"), [("quadratic", 0.05), ("log cosh", 0.45)])
def test_ten_steps_take_most_of_the_noise_at_a_thousand_dimensions(shape, most):
    """The design's spectrum as −½h(u − a)² and as −h log cosh(u − a), of curvature h at a and 0 far from it."""
    rng, dimension = np.random.default_rng(1), 1000
    h, a = slopes(dimension), rng.normal(size=dimension)
    bowl = {"quadratic": lambda r: 0.5 * r**2, "log cosh": lambda r: jnp.logaddexp(r, -r) - np.log(2.0)}[shape]
    pull = {"quadratic": lambda r: r, "log cosh": np.tanh}[shape]
    target = Separable(lambda u: -h * np.asarray(bowl(u - a)))
    truth = target.mean(lambda u: -h * pull(u - a))
    params = {"head": jnp.zeros(dimension)}
    weight = lambda params, u: -jnp.sum(jnp.asarray(h) * bowl(params["head"] + u - a))  # noqa: E731
    run = correction(weight, 10, params)
    before, after = [], []
    for index, u_CxD in enumerate(target.draw(rng, (12, 8))):
        plain = -(h * pull(u_CxD - a)).mean(0)
        before.append(plain - truth)
        after.append(plain + np.asarray(run(jax.random.key(index), jnp.asarray(u_CxD)).force["head"]) - truth)
    assert np.linalg.norm(after) < most * np.linalg.norm(before)


# --- what must not break ----------------------------------------------------------------------------------------------


def test_negative_curvature_ends_the_polynomial():
    ones, guides = jnp.ones(2), jnp.array([[1.0, 2.0], [0.5, -1.0]])
    solve = jax.jit(lambda precision: guided_solve(lambda x: precision * x, guides, ones, 9))
    np.testing.assert_array_equal(solve(jnp.array([-3.0, -3.0])), 0.0)  # no step is taken
    # P = diag(20, −3): the first step sees a positive curvature, a later one does not, and what was found is kept.
    length = (1.25 + 5.0) / (20.0 * 1.25 - 3.0 * 5.0)
    np.testing.assert_allclose(solve(jnp.array([20.0, -3.0])), length * ones)


def test_nothing_to_correct_gives_zero():
    """No guides without a coupling of θ and u; no score at the mode of every chain."""
    solve = jax.jit(lambda guides, right: guided_solve(lambda x: 4.0 * x, guides, right, 3))
    np.testing.assert_array_equal(solve(jnp.zeros((2, 4)), jnp.ones(4)), 0.0)
    np.testing.assert_array_equal(solve(jnp.ones((2, 4)), jnp.zeros(4)), 0.0)
    assert float(mean_residual(jnp.zeros((2, 4)), jnp.zeros(4))) == 0.0


# --- the diagnostic ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("chains", "shift"), [(2, 0.0), (8, 0.0), (8, 0.5), (8, 100.0)])
def test_the_mean_residual_is_one_at_equilibrium_and_the_number_of_chains_far_off(chains, shift):
    """Chains ~ N(u* + m, P⁻¹): E|s̄|² = tr P/C + |Pm|² and E|s|² = tr P + |Pm|²."""
    precision = 1.0 + slopes(2000)
    score = -precision * shift - np.sqrt(precision) * np.random.default_rng(3).normal(size=(20, chains, 2000))
    found = np.mean([float(mean_residual({"trunk": s}, {"trunk": s.mean(0)})) for s in score])
    trace, lag = precision.sum(), np.sum((precision * shift) ** 2)
    expected = (trace + chains * lag) / (trace + lag)
    assert found == pytest.approx(expected, rel=0.05)
    if shift in (0.0, 100.0):
        assert found == pytest.approx(chains if shift else 1.0, rel=0.05)
