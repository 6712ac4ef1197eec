"""The Gaussian priors against scipy and dense linear algebra: values, constants, metrics from curvature, and units."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from honest.objective.parameter_prior import Gaussian, curvature, precision
from honest.objective.parameter_prior.gaussian import TensorScale, isotropic
from honest.units import Quantity, UnitError, displacement, example, nat, total
from tests.priors import gaussian

TRUNK, HEAD = displacement("trunk"), displacement("head")


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def tree(seed, **shapes):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}


def two_trees(**shapes):
    """(params, anchor) of the trunk."""
    return {"trunk": tree(0, **shapes)}, {"trunk": tree(1, **shapes)}


def log_density(prior, params, anchor, group="trunk", measure=1.0):
    unit = TRUNK if group == "trunk" else HEAD
    at_anchor = prior.constant(anchor, group, Quantity(measure, unit))
    return float((prior.nats(params, anchor, group) + at_anchor).to(nat))


# --- one σ a group or tensor, and diagonal metrics ------------------------------------------------------------


def test_precision_is_one_nat_per_squared_stddev():
    result = precision(Quantity(0.2, TRUNK))
    assert result.unit == nat / TRUNK**2
    assert result.to(nat / TRUNK**2) == pytest.approx(25.0)


@pytest.mark.parametrize("stddev", [0.02, 1.0, 7.0])
def test_log_density_with_its_constant_equals_scipy(stddev):
    params, anchor = two_trees(a=(3, 4), b=(5,), c=())
    prior = gaussian(params, "trunk", stddev)
    expected = sum(norm.logpdf(params["trunk"][k], anchor["trunk"][k], stddev).sum() for k in "abc")
    assert log_density(prior, params, anchor) == pytest.approx(expected, rel=1e-12)


def test_each_tensor_may_have_a_stddev_of_its_own():
    params, anchor = two_trees(a=(3, 4), b=(5,))
    prior = isotropic(params["trunk"], [Quantity(0.3, TRUNK), Quantity(2.0, TRUNK)])
    expected = norm.logpdf(params["trunk"]["a"], anchor["trunk"]["a"], 0.3).sum()
    expected += norm.logpdf(params["trunk"]["b"], anchor["trunk"]["b"], 2.0).sum()
    assert log_density(prior, params, anchor) == pytest.approx(expected, rel=1e-12)


def test_each_coordinate_may_have_a_stddev_of_its_own():
    params, anchor = two_trees(a=(3, 4), b=(5,))
    rng = np.random.default_rng(2)
    stddev = {"a": rng.uniform(0.1, 3.0, (3, 4)), "b": rng.uniform(0.1, 3.0, 5)}
    prior = Gaussian({k: TensorScale(Quantity(jnp.asarray(s), TRUNK)) for k, s in stddev.items()})
    expected = sum(norm.logpdf(params["trunk"][k], anchor["trunk"][k], stddev[k]).sum() for k in "ab")
    assert log_density(prior, params, anchor) == pytest.approx(expected, rel=1e-12)


def test_cost_is_half_a_nat_at_one_stddev_and_the_constant_stays_apart():
    anchor = {"intended_head": {"w": jnp.asarray([1.0, 2.0, 3.0, 4.0])}}
    params = {"intended_head": {"w": jnp.asarray([1.3, 2.0, 3.0, 4.0])}}
    prior = gaussian(anchor, "intended_head", 0.3)
    assert prior.nats(params, anchor, "intended_head").to(nat) == pytest.approx(-0.5)
    assert prior.nats(anchor, anchor, "intended_head").to(nat) == 0.0
    constant = prior.constant(anchor, "intended_head", Quantity(1.0, HEAD))
    assert constant.to(nat) == pytest.approx(-2 * math.log(2 * math.pi * 0.09))


def test_reference_measure_changes_the_constant_alone():
    """Measured in a unit u ten times smaller, σ is ten times the number and each coordinate loses log 10 nats; d²/σ²
    stays. It is the change of variables of the density: scipy's, at ten times every number."""
    params, anchor = two_trees(a=(5,))
    large_params, large_anchor = jax.tree.map(lambda x: 10 * x, (params, anchor))
    small, large = gaussian(params, "trunk", 0.4), gaussian(params, "trunk", 4.0)
    assert large.nats(large_params, large_anchor, "trunk").to(nat) == pytest.approx(
        small.nats(params, anchor, "trunk").to(nat)
    )
    unit = Quantity(1.0, TRUNK)
    change = large.constant(large_anchor, "trunk", unit) - small.constant(anchor, "trunk", unit)
    assert change.to(nat) == pytest.approx(-5 * math.log(10))
    theta, centre = np.asarray(params["trunk"]["a"]), np.asarray(anchor["trunk"]["a"])
    expected = norm.logpdf(10 * theta, 10 * centre, 4.0) - norm.logpdf(theta, centre, 0.4)
    assert change.to(nat) == pytest.approx(expected.sum())
    assert log_density(large, large_params, large_anchor, measure=10.0) == pytest.approx(
        log_density(small, params, anchor)
    )


@pytest.mark.parametrize("wrong", [HEAD, TRUNK**2, nat], ids=str)
def test_a_stddev_in_a_wrong_unit_is_an_error_of_the_cost(wrong):
    params, anchor = two_trees(a=(5,))
    with pytest.raises(UnitError):
        isotropic(params["trunk"], [Quantity(0.3, wrong)]).nats(params, anchor, "trunk")


@pytest.mark.parametrize("wrong", [HEAD, TRUNK**2, nat], ids=str)
def test_a_stddev_in_a_wrong_unit_is_an_error_of_the_constant(wrong):
    _, anchor = two_trees(a=(5,))
    with pytest.raises(UnitError):
        isotropic(anchor["trunk"], [Quantity(0.3, wrong)]).constant(anchor, "trunk", Quantity(1.0, TRUNK))


def test_constant_needs_the_reference_measure_of_its_own_group():
    _, anchor = two_trees(a=(5,))
    with pytest.raises(UnitError):
        gaussian(anchor, "trunk", 0.3).constant(anchor, "trunk", Quantity(1.0, HEAD))


# --- Kronecker-factored metrics -------------------------------------------------------------------------------


def orthogonal(seed, size):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def kronecker_case(left, right, seed=3):
    """(prior, dense covariance) of a 3×4 matrix with the rotations that are asked for, and σ of each rotated entry.

    d = Lᵀ x R has independent entries of variance s², so that x = L d Rᵀ, which in row-major order is (L ⊗ R) vec d.
    """
    stddev = np.random.default_rng(seed).uniform(0.2, 3.0, (3, 4))
    l_3x3, r_4x4 = orthogonal(seed + 1, 3), orthogonal(seed + 2, 4)
    rotation = np.kron(l_3x3 if left else np.eye(3), r_4x4 if right else np.eye(4))
    covariance = rotation @ np.diag(stddev.ravel() ** 2) @ rotation.T
    rotations = (jnp.asarray(l_3x3) if left else None, jnp.asarray(r_4x4) if right else None)
    return Gaussian({"a": TensorScale(Quantity(jnp.asarray(stddev), TRUNK), *rotations)}), covariance


SIDES = pytest.mark.parametrize(("left", "right"), [(True, True), (True, False), (False, True), (False, False)])


@SIDES
def test_kronecker_density_equals_that_of_the_dense_covariance(left, right):
    prior, covariance = kronecker_case(left, right)
    params, anchor = two_trees(a=(3, 4))
    theta, centre = (np.asarray(side["trunk"]["a"]).ravel() for side in (params, anchor))
    expected = multivariate_normal.logpdf(theta, centre, covariance)
    assert log_density(prior, params, anchor) == pytest.approx(expected, rel=1e-11)
    constant = float(prior.constant(anchor, "trunk", Quantity(1.0, TRUNK)).to(nat))
    assert constant == pytest.approx(-0.5 * np.linalg.slogdet(2 * math.pi * covariance)[1], rel=1e-11)


@SIDES
def test_colour_is_a_root_of_the_covariance_and_whiten_undoes_it(left, right):
    """colour is linear: its matrix, from the unit vectors, times its transpose is Σ."""
    prior, covariance = kronecker_case(left, right)
    units = jnp.eye(12).reshape(12, 3, 4)
    root = np.asarray(jax.vmap(lambda u: prior.colour({"a": u})["a"])(units)).reshape(12, 12).T
    np.testing.assert_allclose(root @ root.T, covariance, rtol=1e-11, atol=1e-12)
    u = tree(5, a=(3, 4))
    np.testing.assert_allclose(prior.whiten(prior.colour(u))["a"], u["a"], rtol=1e-11)
    np.testing.assert_allclose(prior.colour(prior.whiten(u))["a"], u["a"], rtol=1e-11)
    assert float(prior.cost(u, TRUNK).to(nat)) == pytest.approx(
        0.5 * float(jnp.sum(prior.whiten(u)["a"] ** 2)), rel=1e-11
    )


def test_coloured_normal_draws_have_the_covariance():
    prior, covariance = kronecker_case(True, True)
    draws = jnp.asarray(np.random.default_rng(0).normal(size=(40000, 3, 4)))
    coloured = np.asarray(jax.vmap(lambda u: prior.colour({"a": u})["a"])(draws)).reshape(-1, 12)
    # An entry's standard error is √((Σ_ii Σ_jj + Σ_ij²)/n) ≤ √(2 Σ_ii Σ_jj / n); five of them.
    spread = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(np.cov(coloured.T) - covariance) < 5 * math.sqrt(2 / 40000) * np.outer(spread, spread))


def test_a_vector_has_a_left_rotation_alone():
    l_4x4, stddev = orthogonal(0, 4), np.array([0.1, 0.5, 1.0, 3.0])
    prior = Gaussian({"a": TensorScale(Quantity(jnp.asarray(stddev), TRUNK), jnp.asarray(l_4x4))})
    params, anchor = two_trees(a=(4,))
    covariance = l_4x4 @ np.diag(stddev**2) @ l_4x4.T
    expected = multivariate_normal.logpdf(params["trunk"]["a"], anchor["trunk"]["a"], covariance)
    assert log_density(prior, params, anchor) == pytest.approx(expected, rel=1e-11)


# --- metrics from the empirical Fisher information ------------------------------------------------------------


class Labelled(NamedTuple):
    x_Bx3: jax.Array
    y_B: jax.Array


ROWS = Labelled(
    jnp.asarray(np.random.default_rng(7).normal(size=(6, 3)), jnp.float32), jnp.asarray([0, 1, 1, 0, 1, 0], jnp.int32)
)
SIGMA, EXAMPLES = 0.7, 50.0


def softmax_nll(theta, row):
    log_p_BxK = jax.nn.log_softmax(row.x_Bx3.astype(theta["W"].dtype) @ theta["W"] + theta["b"])
    return total(Quantity(-jnp.take_along_axis(log_p_BxK, row.y_B[:, None], axis=1)[:, 0], nat))


def no_information(theta, row):
    return total(Quantity(0.0 * (jnp.sum(theta["W"]) + jnp.sum(theta["b"])) * row.y_B, nat))


def theta_3x2():
    return tree(8, W=(3, 2), b=(2,))


def row_gradients(theta):
    """By hand: x ⊗ (p − e_y) and p − e_y of every row."""
    x, y = np.asarray(ROWS.x_Bx3, float), np.asarray(ROWS.y_B)
    logits = x @ np.asarray(theta["W"]) + np.asarray(theta["b"])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = p - np.eye(2)[y]
    return np.einsum("bi,bk->bik", x, error), error


def dense_precision(scale, size):
    """Σ⁻¹ of one tensor in row-major order, from its whitening: each unit vector's."""
    prior, shape = Gaussian({"t": scale}), scale.stddev.shape
    units = jnp.eye(size).reshape(size, *shape)
    whitened = np.asarray(jax.vmap(lambda u: prior.whiten({"t": u})["t"])(units)).reshape(size, size)
    return whitened @ whitened.T


def kronecker_of(largest_axis, nll=softmax_nll, examples=EXAMPLES, theta=None):
    theta = theta_3x2() if theta is None else theta
    return curvature.kronecker(nll, "trunk", theta, ROWS, Quantity(SIGMA, TRUNK), examples, largest_axis)


def test_diagonal_curvature_adds_the_mean_squared_gradient_to_each_precision():
    theta = theta_3x2()
    made = curvature.diagonal(softmax_nll, "trunk", theta, ROWS, Quantity(SIGMA, TRUNK), EXAMPLES)
    for name, gradients in zip(("W", "b"), row_gradients(theta)):
        expected = 1 / SIGMA**2 + EXAMPLES * np.mean(gradients**2, axis=0)
        scale = made.tensors[name]
        assert scale.left is None and scale.right is None
        assert scale.stddev.unit == TRUNK
        result = precision(scale.stddev)
        assert result.unit == nat / TRUNK**2
        np.testing.assert_allclose(result.to(nat / TRUNK**2), expected, rtol=1e-10)


def test_kronecker_curvature_is_the_product_of_both_sides_over_their_trace():
    theta = theta_3x2()
    made = kronecker_of(8)
    g_Bx3x2, g_Bx2 = row_gradients(theta)
    left, right = np.einsum("bij,bkj->ik", g_Bx3x2, g_Bx3x2) / 6, np.einsum("bij,bik->jk", g_Bx3x2, g_Bx3x2) / 6
    expected = np.eye(6) / SIGMA**2 + EXAMPLES * np.kron(left, right) / np.trace(left)
    np.testing.assert_allclose(dense_precision(made.tensors["W"], 6), expected, rtol=1e-9, atol=1e-9)
    whole = np.eye(2) / SIGMA**2 + EXAMPLES * np.einsum("bi,bj->ij", g_Bx2, g_Bx2) / 6
    np.testing.assert_allclose(dense_precision(made.tensors["b"], 2), whole, rtol=1e-9, atol=1e-9)
    assert {scale.stddev.unit for scale in made.tensors.values()} == {TRUNK}
    # the factors have the trace of what they stand for
    traced = np.trace(dense_precision(made.tensors["W"], 6)) - 6 / SIGMA**2
    assert traced == pytest.approx(EXAMPLES * np.mean(np.sum(g_Bx3x2**2, axis=(1, 2))), rel=1e-9)


@pytest.mark.parametrize("largest_axis", [1, 2])
def test_of_a_longer_axis_only_the_diagonal_of_its_factor_is_kept(largest_axis):
    made = kronecker_of(largest_axis)
    g_Bx3x2, g_Bx2 = row_gradients(theta_3x2())
    left, right = np.einsum("bij,bkj->ik", g_Bx3x2, g_Bx3x2) / 6, np.einsum("bij,bik->jk", g_Bx3x2, g_Bx3x2) / 6
    whole = np.einsum("bi,bj->ij", g_Bx2, g_Bx2) / 6
    left = np.diag(np.diag(left))
    assert made.tensors["W"].left is None
    if largest_axis < 2:
        right, whole = np.diag(np.diag(right)), np.diag(np.diag(whole))
        assert made.tensors["W"].right is None and made.tensors["b"].left is None
    expected = np.eye(6) / SIGMA**2 + EXAMPLES * np.kron(left, right) / np.trace(left)
    np.testing.assert_allclose(dense_precision(made.tensors["W"], 6), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        dense_precision(made.tensors["b"], 2), np.eye(2) / SIGMA**2 + EXAMPLES * whole, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(("nll", "examples"), [(softmax_nll, 0), (no_information, EXAMPLES)], ids=["no rows", "flat"])
def test_without_information_every_metric_is_isotropic(nll, examples):
    theta, sigma = theta_3x2(), Quantity(SIGMA, TRUNK)
    for made in (
        curvature.diagonal(nll, "trunk", theta, ROWS, sigma, examples),
        kronecker_of(8, nll, examples),
        kronecker_of(1, nll, examples),
    ):
        for name, size in (("W", 6), ("b", 2)):
            np.testing.assert_allclose(dense_precision(made.tensors[name], size), np.eye(size) / SIGMA**2, atol=1e-12)


def test_kronecker_density_with_curvature_equals_scipy():
    theta = {"trunk": theta_3x2()}
    moved = {"trunk": tree(9, W=(3, 2), b=(2,))}
    made = kronecker_of(8)
    expected = 0.0
    for name, size in (("W", 6), ("b", 2)):
        covariance = np.linalg.inv(dense_precision(made.tensors[name], size))
        pair = (np.asarray(side["trunk"][name]).ravel() for side in (moved, theta))
        expected += multivariate_normal.logpdf(*pair, covariance)
    assert log_density(made, moved, theta) == pytest.approx(expected, rel=1e-9)


def test_the_metric_keeps_single_precision():
    with jax.enable_x64(False):
        theta = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float32), theta_3x2())
        sigma = Quantity(jnp.float32(SIGMA), TRUNK)
        for made in (
            curvature.diagonal(softmax_nll, "trunk", theta, ROWS, sigma, EXAMPLES),
            curvature.kronecker(softmax_nll, "trunk", theta, ROWS, sigma, EXAMPLES, 8),
        ):
            assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype("float32")}


def test_a_tensor_with_three_axes_has_no_kronecker_metric():
    theta = tree(0, W=(2, 2, 2), b=(2,))
    with pytest.raises(ValueError, match=r"needs vectors and matrices, not a tensor of shape \(2, 2, 2\)"):
        kronecker_of(8, no_information, theta=theta)


def test_a_single_number_is_a_vector_of_one_to_the_kronecker_metric():
    made = kronecker_of(8, lambda theta, row: total(Quantity(theta["b"] * row.x_Bx3[:, 0], nat)), theta=tree(0, b=()))
    params, anchor = two_trees(b=())
    stddev = (1 / SIGMA**2 + EXAMPLES * float(np.mean(np.asarray(ROWS.x_Bx3, float)[:, 0] ** 2))) ** -0.5
    expected = norm.logpdf(params["trunk"]["b"], anchor["trunk"]["b"], stddev)
    assert log_density(made, params, anchor) == pytest.approx(expected, rel=1e-6)


def test_curvature_needs_a_likelihood_in_nat_and_a_stddev_of_the_group():
    theta = theta_3x2()
    in_example = lambda theta, row: softmax_nll(theta, row) * Quantity(1.0, example)  # noqa: E731
    with pytest.raises(UnitError, match=r"expected nat/θ\.trunk"):
        curvature.diagonal(in_example, "trunk", theta, ROWS, Quantity(SIGMA, TRUNK), EXAMPLES)
    with pytest.raises(UnitError):
        curvature.diagonal(softmax_nll, "trunk", theta, ROWS, Quantity(SIGMA, HEAD), EXAMPLES)
