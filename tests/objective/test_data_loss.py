"""The data term against hand arithmetic and numpy: masking, whole-set scaling, and sums over chunks."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from honest.model.two_head import HeadLogits
from honest.objective.data_loss import comparison_nll, data_nats, label_nll, whole_data_nats, world_nll
from honest.objective.predictions import Counts, Predictions, RowSets, predict
from honest.units import nat

FEATURES, ANSWERS, LENGTH, CHANNELS, CLASSES = 3, 2, 4, 2, 5
GROUPS = ("intended_head", "instrumental_head", "trunk")


@pytest.fixture(autouse=True)
def strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


class ToyRows(NamedTuple):
    x_BxF: jax.Array
    label_B: jax.Array
    world_targets_BxLxT: jax.Array


class LinearPredictor:
    """Every logit is a linear function of the row's features."""

    def head_logits(self, params, rows):
        return HeadLogits(rows.x_BxF @ params["intended_head"], rows.x_BxF @ params["instrumental_head"])

    def world_logits(self, params, rows):
        return (rows.x_BxF @ params["trunk"]).reshape(-1, LENGTH, CHANNELS, CLASSES)


def toy_params(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "trunk": jnp.asarray(rng.normal(size=(FEATURES, LENGTH * CHANNELS * CLASSES))),
        "intended_head": jnp.asarray(rng.normal(size=(FEATURES, ANSWERS))),
        "instrumental_head": jnp.asarray(rng.normal(size=(FEATURES, ANSWERS))),
    }


def toy_rows(count, seed=1):
    """Rows with some labels and world targets missing (−1), the first row's label present."""
    rng = np.random.default_rng([seed, count])
    label_B = rng.integers(-1, ANSWERS, count)
    label_B[0] = 1
    return ToyRows(
        jnp.asarray(rng.normal(size=(count, FEATURES))),
        jnp.asarray(label_B),
        jnp.asarray(rng.integers(-1, CLASSES, (count, LENGTH, CHANNELS))),
    )


def toy_sets():
    return RowSets(trusted=toy_rows(7), untrusted=toy_rows(5), world=toy_rows(11), consistency=None)


def np_nll(logits, target):
    """−log softmax(logits)[target], written out."""
    return math.log(sum(math.exp(z) for z in logits)) - logits[target]


def np_whole_nats(params, sets):
    """The three sums by plain loops."""

    def labels(rows, head):
        logits_BxK = np.asarray(rows.x_BxF @ params[head])
        return sum(np_nll(z, y) for z, y in zip(logits_BxK, np.asarray(rows.label_B)) if y >= 0)

    logits = np.asarray(LinearPredictor().world_logits(params, sets.world))
    targets = np.asarray(sets.world.world_targets_BxLxT)
    world = sum(np_nll(logits[i], targets[i]) for i in np.ndindex(targets.shape) if targets[i] >= 0)
    return {
        "intended_head": labels(sets.trusted, "intended_head"),
        "instrumental_head": labels(sets.untrusted, "instrumental_head"),
        "trunk": world,
    }


@partial(jax.jit, static_argnums=2)
def batch_nats(params, sets, counts):
    return data_nats(predict(LinearPredictor(), params, sets), sets, counts)


def labelled(rows):
    return int((np.asarray(rows.label_B) >= 0).sum())


def test_label_nll_by_hand(x64):
    # softmax of [0, log 3] is [1/4, 3/4]; the last row has no label.
    logits_BxK = jnp.log(jnp.array([[1.0, 3.0], [1.0, 3.0], [1.0, 3.0]]))
    nll_B = label_nll(logits_BxK, jnp.array([0, 1, -1]))
    np.testing.assert_allclose(nll_B.to(nat), [math.log(4), math.log(4 / 3), 0.0], rtol=1e-14)


def test_world_nll_by_hand(x64):
    # softmax of log [1, 2, 5] is [1/8, 2/8, 5/8].
    logits_BxLxTxV = jnp.broadcast_to(jnp.log(jnp.array([1.0, 2.0, 5.0])), (1, 2, 2, 3))
    nll_BxLxT = world_nll(logits_BxLxTxV, jnp.array([[[0, 1], [2, -1]]]))
    np.testing.assert_allclose(nll_BxLxT.to(nat), [[[math.log(8), math.log(4)], [math.log(8 / 5), 0.0]]], rtol=1e-14)


def test_rows_without_a_label_have_no_gradient(x64):
    gradient = jax.grad(lambda z: jnp.sum(label_nll(z, jnp.array([-1, 0])).to(nat)))(jnp.ones((2, 2)))
    np.testing.assert_allclose(gradient, [[0.0, 0.0], [-0.5, 0.5]], rtol=1e-14)


@pytest.mark.parametrize("right", [True, False])
def test_saturated_logits_are_finite_in_float32(right):
    logits_BxK, label_B = jnp.array([[1e4, -1e4]], jnp.float32), jnp.array([0 if right else 1])
    value, gradient = jax.value_and_grad(lambda z: jnp.sum(label_nll(z, label_B).to(nat)))(logits_BxK)
    assert float(value) == (0.0 if right else 2e4)
    np.testing.assert_array_equal(gradient, [[0.0, 0.0]] if right else [[1.0, -1.0]])


def test_batch_means_are_scaled_to_the_declared_populations(x64):
    """N · (Σ over labelled rows / their number), with another N for each group."""
    params, sets = toy_params(), toy_sets()
    nats = batch_nats(params, sets, Counts(70, 600, 5000, 1))
    sums = np_whole_nats(params, sets)
    tokens = int((np.asarray(sets.world.world_targets_BxLxT) >= 0).sum())
    expected = {
        "intended_head": 70 * sums["intended_head"] / labelled(sets.trusted),
        "instrumental_head": 600 * sums["instrumental_head"] / labelled(sets.untrusted),
        "trunk": 5000 * sums["trunk"] / tokens,
    }
    assert set(nats) == set(GROUPS)
    for group in GROUPS:
        assert float(nats[group].to(nat)) == pytest.approx(expected[group], rel=1e-12)


def test_a_set_that_is_not_there_pays_nothing(x64):
    sets = toy_sets()._replace(untrusted=None, world=None)
    predictions = predict(LinearPredictor(), toy_params(), sets)
    assert set(data_nats(predictions, sets, Counts(7, 0, 0, 1))) == {"intended_head"}
    whole = jax.eval_shape(lambda params: whole_data_nats(LinearPredictor(), params, sets, chunk=4), toy_params())
    assert set(whole) == {"intended_head"}
    assert data_nats(Predictions(None, None, None, None), sets, Counts(7, 0, 0, 1)) == {}


@pytest.mark.parametrize("chunk", [4, 7, 100])
def test_whole_sums_and_their_gradients_do_not_depend_on_the_chunk(x64, chunk):
    """Chunks of 4 leave 3, 1 and 3 rows over in sets of 7, 5 and 11; a chunk of 100 is larger than any set."""
    params, sets = toy_params(), toy_sets()

    def whole(params):
        nats = whole_data_nats(LinearPredictor(), params, sets, chunk)
        return sum(quantity.to(nat) for quantity in nats.values()), nats

    (_, nats), gradient = jax.jit(jax.value_and_grad(whole, has_aux=True))(params)
    expected = np_whole_nats(params, sets)
    assert set(nats) == set(GROUPS)
    for group in GROUPS:
        assert float(nats[group].to(nat)) == pytest.approx(expected[group], rel=1e-12)
    # ∂/∂W of a label's nll is x (p − onehot)ᵀ
    for head, rows in (("intended_head", sets.trusted), ("instrumental_head", sets.untrusted)):
        x_BxF, label_B = np.asarray(rows.x_BxF), np.asarray(rows.label_B)
        residual_BxK = softmax(x_BxF @ np.asarray(params[head]), axis=1) - np.eye(ANSWERS)[label_B]
        np.testing.assert_allclose(gradient[head], x_BxF.T @ (residual_BxK * (label_B >= 0)[:, None]), atol=1e-12)
    logits, targets = LinearPredictor().world_logits(params, sets.world), np.asarray(sets.world.world_targets_BxLxT)
    residual = (softmax(np.asarray(logits), axis=-1) - np.eye(CLASSES)[targets]) * (targets >= 0)[..., None]
    expected_trunk = np.asarray(sets.world.x_BxF).T @ residual.reshape(len(targets), -1)
    np.testing.assert_allclose(gradient["trunk"], expected_trunk, atol=1e-12)


def test_whole_populations_as_a_batch_are_exact(x64):
    """With the sets whole and their true counts, N · mean is the exact sum."""
    params, sets = toy_params(), toy_sets()
    tokens = int((np.asarray(sets.world.world_targets_BxLxT) >= 0).sum())
    counts = Counts(labelled(sets.trusted), labelled(sets.untrusted), tokens, 1)
    nats = batch_nats(params, sets, counts)
    for group, exact in np_whole_nats(params, sets).items():
        assert float(nats[group].to(nat)) == pytest.approx(exact, rel=1e-12)


def test_comparisons_by_hand():
    """−log σ(z_b − z_w); z is the log-odds of True, whatever constant the logits carry."""
    better, worse = jnp.array([[1.0, 3.0], [0.0, 0.0]]), jnp.array([[5.0, 5.5], [0.0, 4.0]])
    found = comparison_nll(better, worse).to(nat)
    expected = [math.log1p(math.exp(-(2.0 - 0.5))), math.log1p(math.exp(4.0))]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert float(comparison_nll(jnp.array([[0.0, -1e4]]), jnp.array([[0.0, 1e4]])).to(nat)[0]) == pytest.approx(2e4)
