"""Divergences of the two heads against numpy, at saturation and near equality, and the units of λ·N_c·C̄."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from scipy.stats import entropy

from honest.model.two_head import HeadLogits
from honest.objective.consistency import (
    DIVERGENCES,
    FISHER_SCALE,
    consistency_nats,
    violation_rate,
    whole_violation,
)
from honest.objective.predictions import Predictions
from honest.units import Quantity, UnitError, disagreement, example, nat, one

NAMES = sorted(DIVERGENCES)
COMPILED = {name: jax.jit(divergence) for name, divergence in DIVERGENCES.items()}
LIMITS = {"jensen_shannon": math.log(2), "total_variation": 1.0, "symmetric_kl": math.inf}


@pytest.fixture(autouse=True)
def strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def two_logits(answers, rows=20, spread=2.0):
    return np.random.default_rng(answers).normal(0.0, spread, (2, rows, answers))


def from_scipy(name, p, q):
    return {
        "jensen_shannon": lambda: jensenshannon(p, q) ** 2,
        "symmetric_kl": lambda: entropy(p, q) + entropy(q, p),
        "total_variation": lambda: 0.5 * np.abs(p - q).sum(),
    }[name]()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("answers", [2, 5])
def test_divergence_equals_scipy(x64, name, answers):
    a_BxK, b_BxK = two_logits(answers)
    expected = [from_scipy(name, p, q) for p, q in zip(softmax(a_BxK, axis=1), softmax(b_BxK, axis=1))]
    np.testing.assert_allclose(COMPILED[name](a_BxK, b_BxK), expected, rtol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_divergence_of_two_answers_by_hand(x64, name):
    """p = (1/2, 1/2) and q = (1/4, 3/4), whose middle is (3/8, 5/8)."""
    expected = {
        "jensen_shannon": (
            0.5 * (0.5 * math.log(4 / 3) + 0.5 * math.log(4 / 5) + 0.25 * math.log(2 / 3) + 0.75 * math.log(6 / 5))
        ),
        "symmetric_kl": 0.25 * math.log(2) - 0.25 * math.log(2 / 3),
        "total_variation": 0.25,
    }[name]
    value = COMPILED[name](jnp.zeros((1, 2)), jnp.log(jnp.array([[1.0, 3.0]])))
    assert float(value[0]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_symmetric_bounded_and_zero_at_equality(x64, name):
    divergence = COMPILED[name]
    a_BxK, b_BxK = two_logits(3, rows=200, spread=20.0)
    value_B = divergence(a_BxK, b_BxK)
    np.testing.assert_allclose(value_B, divergence(b_BxK, a_BxK), rtol=1e-12)
    assert float(value_B.min()) > 0
    assert float(value_B.max()) <= LIMITS[name] * (1 + 1e-12)
    np.testing.assert_allclose(divergence(a_BxK, a_BxK + 3.0), 0.0, atol=1e-12)  # logits up to a constant a row


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_zero_at_equality(name):
    a_BxK = jnp.asarray(two_logits(3)[0], jnp.float32)
    gradients = jax.grad(lambda a, b: jnp.sum(COMPILED[name](a, b)), argnums=(0, 1))(a_BxK, a_BxK)
    for gradient in gradients:
        np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("other", [[1e4, -1e4], [-1e4, 1e4], [0.0, 0.0]])
def test_saturated_heads_are_finite_in_float32(name, other):
    a_BxK, b_BxK = jnp.array([[1e4, -1e4]], jnp.float32), jnp.array([other], jnp.float32)
    value_and_grad = jax.value_and_grad(lambda a, b: jnp.sum(COMPILED[name](a, b)), argnums=(0, 1))
    value, gradients = value_and_grad(a_BxK, b_BxK)
    # p = (1, 0) against itself, against (0, 1), and against (1/2, 1/2)
    far, half = [-1e4, 1e4], [0.0, 0.0]
    expected = {
        "jensen_shannon": {tuple(far): math.log(2), tuple(half): 0.75 * math.log(4 / 3)},
        "symmetric_kl": {tuple(far): 4e4, tuple(half): 1e4},
        "total_variation": {tuple(far): 1.0, tuple(half): 0.5},
    }[name].get(tuple(other), 0.0)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("name", sorted(FISHER_SCALE))
def test_curvature_at_equality_is_the_scaled_fisher_matrix(x64, name):
    """∂²/∂r² at r = 0 is scale·(diag p − ppᵀ), and the divergence of a small r is half its quadratic form."""
    logits_K, direction_K = np.array([0.3, -1.2, 0.8]), np.array([1.0, -0.5, 0.7])
    p = softmax(logits_K)
    metric = FISHER_SCALE[name] * (np.diag(p) - np.outer(p, p))

    @jax.jit
    def shifted(r_K):
        return DIVERGENCES[name]((logits_K + r_K)[None], jnp.asarray(logits_K)[None])[0]

    np.testing.assert_allclose(jax.jit(jax.hessian(shifted))(jnp.zeros(3)), metric, atol=1e-12)
    r_K = 1e-3 * direction_K
    assert float(shifted(jnp.asarray(r_K))) == pytest.approx(0.5 * r_K @ metric @ r_K, rel=2e-3)


# --- C̄ and its cost ------------------------------------------------------------------------------------------


class ToyRows(NamedTuple):
    a_BxK: jax.Array
    b_BxK: jax.Array


class RowsAreLogits:
    """A predictor whose rows hold the logits, scaled by its only parameter."""

    def head_logits(self, params, rows):
        return HeadLogits(params["trunk"] * rows.a_BxK, params["trunk"] * rows.b_BxK)

    def world_logits(self, params, rows):
        raise AssertionError("C̄ has no use for world logits")


@pytest.mark.parametrize("name", NAMES)
def test_violation_is_the_mean_over_examples(x64, name):
    a_BxK, b_BxK = (jnp.asarray(z) for z in two_logits(2))
    predictions = Predictions(None, None, None, HeadLogits(a_BxK, b_BxK))
    expected = np.mean([from_scipy(name, p, q) for p, q in zip(softmax(a_BxK, axis=1), softmax(b_BxK, axis=1))])
    violation = violation_rate(predictions, name)
    assert violation.unit == disagreement / example
    assert float(violation.to(disagreement / example)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("chunk", [3, 20, 64])
def test_whole_violation_equals_the_mean_for_any_chunk(x64, chunk):
    rows = ToyRows(*(jnp.asarray(z) for z in two_logits(2)))

    def whole(scale):
        params = {"trunk": scale}
        violation = whole_violation(RowsAreLogits(), params, rows, "jensen_shannon", chunk)
        return violation.to(disagreement / example)

    def at_once(scale):
        return jnp.mean(DIVERGENCES["jensen_shannon"](scale * rows.a_BxK, scale * rows.b_BxK))

    scale = jnp.asarray(0.7)
    for got, expected in zip(*(jax.jit(jax.value_and_grad(f))(scale) for f in (whole, at_once))):
        assert float(got) == pytest.approx(float(expected), rel=1e-10)


def test_violation_without_a_consistency_set_is_an_error():
    with pytest.raises(ValueError, match="no consistency set"):
        violation_rate(Predictions(None, None, None, None), "jensen_shannon")


def test_cost_by_hand():
    cost = consistency_nats(Quantity(3.0, nat / disagreement), Quantity(0.05, disagreement / example), 200)
    assert float(cost.to(nat)) == pytest.approx(3.0 * 200 * 0.05)


@pytest.mark.parametrize("wrong", [nat / example, nat, one, disagreement / nat, nat / disagreement / example], ids=str)
def test_multiplier_in_a_wrong_unit_is_an_error_naming_the_term(wrong):
    with pytest.raises(UnitError, match=r"in term 'consistency'.*λ·N_c·C̄"):
        consistency_nats(Quantity(3.0, wrong), Quantity(0.05, disagreement / example), 200)


def test_a_violation_that_is_already_a_sum_is_an_error():
    with pytest.raises(UnitError, match=r"in term 'consistency'.*missing factor: 1/example"):
        consistency_nats(Quantity(3.0, nat / disagreement), Quantity(0.05, disagreement), 200)
