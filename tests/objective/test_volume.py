"""The Gauss–Newton volume against dense Hessians: exact where logits are linear in the weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.special import softmax

from honest.data.batch import Pairs
from honest.model.two_head import HeadLogits
from honest.objective.consistency import DIVERGENCES, FISHER_SCALE
from honest.objective.data_loss import comparison_nll, label_nll, world_nll
from honest.objective.log_partition.volume import (
    Factor,
    VolumeRows,
    choose_volume_rows,
    comparison_factor,
    factor,
    fisher_columns,
    sampled_column,
    volume_nats,
)
from honest.objective.predictions import Counts, RowSets
from honest.units import nat

pytestmark = pytest.mark.usefixtures("quick_compilation")

FEATURES, HIDDEN, LENGTH, CHANNELS = 3, 2, 2, 1
MULTIPLIER = 1.7


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


class BilinearPredictor:
    """Linear heads on a linear trunk: all logits are linear in the trunk, and both heads have one more weight, a bias
    that they may share."""

    def head_logits(self, params, rows):
        features_BxH = rows.x_BxF @ params["trunk"]["kernel"]

        def answer(head):
            return features_BxH @ head["kernel"] + head["bias"][None, :]

        return HeadLogits(answer(params["intended_head"]), answer(params["instrumental_head"]))

    def world_logits(self, params, rows):
        return (rows.x_BxF @ params["trunk"]["readout"]).reshape(rows.x_BxF.shape[0], LENGTH, CHANNELS, -1)


def toy_params(answers, classes, seed=0):
    rng = np.random.default_rng(seed)
    head = lambda: {"kernel": rng.normal(size=(HIDDEN, answers)), "bias": rng.normal(size=answers)}  # noqa: E731
    trunk = {
        "kernel": rng.normal(size=(FEATURES, HIDDEN)),
        "readout": rng.normal(size=(FEATURES, LENGTH * CHANNELS * classes)),
    }
    params = {"trunk": trunk, "intended_head": head(), "instrumental_head": head()}
    return jax.tree.map(jnp.asarray, params)


def toy_rows(count, answers, classes, seed):
    rng = np.random.default_rng([seed, count])
    return ToyRows(
        jnp.asarray(rng.normal(size=(count, FEATURES))),
        jnp.asarray(rng.integers(0, answers, count)),
        jnp.asarray(rng.integers(-1, classes, (count, LENGTH, CHANNELS))),
    )


def toy_sets(answers=2, classes=2) -> Any:
    return RowSets(*(toy_rows(count, answers, classes, seed) for seed, count in enumerate((5, 4, 3, 6))))


def tokens(sets):
    return int((np.asarray(sets.world.world_targets_BxLxT) >= 0).sum())


def whole_counts(sets):
    return Counts(5, 4, tokens(sets), 6)


def placing(params, stddev=0.8):
    """u -> parameters: the trunk at its place plus σu."""

    def place(u):
        moved = jax.tree.map(lambda c, step: c + stddev * step, params["trunk"], u)
        return {**params, "trunk": moved}

    return place


def dense(factor: Factor) -> jax.Array:
    """A as one matrix (rows, D): parts under one another, leaves in the order of the tree."""

    def matrix(part) -> jax.Array:
        return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(part)], axis=1)

    return jnp.concatenate([matrix(part) for part in factor])


def a_factor(params, sets, counts, **options):
    return dense(parts_of(params, sets, counts, **options))


def parts_of(params, sets, counts, *, with_data, rows=1000, divergence="jensen_shannon", u=None):
    chosen = choose_volume_rows(sets, rows, seed=0)
    u = jax.tree.map(jnp.zeros_like, params["trunk"]) if u is None else u

    @jax.jit
    def compute(params, u, chosen):
        multiplier = jnp.asarray(MULTIPLIER)
        return factor(BilinearPredictor(), placing(params), u, chosen, counts, multiplier, divergence, with_data)

    return compute(params, u, chosen)


def dense_hessian(energy, u):
    """∂²energy/∂u² in the order of the tree's leaves."""
    flat, unflatten = ravel_pytree(u)
    return np.asarray(jax.jit(jax.hessian(lambda v: energy(unflatten(v))))(flat))


def half_slogdet(matrix):
    return -0.5 * np.linalg.slogdet(matrix)[1]


# --- columns of H --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [[0.3, 0.7], [0.2, 0.5, 0.3]], ids=str)
def test_fisher_columns_are_a_root_of_the_fisher_matrix(x64, p):
    columns = np.asarray(jax.jit(fisher_columns)(jnp.log(jnp.array(p)) + 3.0))  # logits, up to a constant
    np.testing.assert_allclose(columns @ columns.T, np.diag(p) - np.outer(p, p), atol=1e-15)
    assert columns.shape == ((2, 1) if len(p) == 2 else (len(p), len(p)))


@pytest.mark.parametrize("logits", [[1e4, -1e4], [1e4, -1e4, 0.0], [300.0, -300.0, 0.0]], ids=str)
def test_saturated_logits_have_zero_columns_and_finite_derivatives_in_float32(logits):
    logits_K = jnp.array(logits, jnp.float32)
    np.testing.assert_allclose(fisher_columns(logits_K), 0.0, atol=1e-6)
    assert np.isfinite(jax.jit(jax.jacrev(fisher_columns))(logits_K)).all()


@pytest.mark.parametrize("p", [[0.3, 0.7], [0.2, 0.5, 0.3], [0.05, 0.05, 0.6, 0.3]], ids=str)
def test_sampled_column_is_unbiased(x64, p):
    """Averaged over 10,000 evenly spread uniforms, v vᵀ is the Fisher matrix."""
    uniforms = (jnp.arange(10_000) + 0.5) / 10_000
    columns = np.asarray(jax.jit(jax.vmap(sampled_column, (None, 0)))(jnp.log(jnp.array(p)), uniforms))[:, :, 0]
    np.testing.assert_allclose(columns.T @ columns / 10_000, np.diag(p) - np.outer(p, p), atol=2e-4)


def test_sampled_column_stays_in_range_at_the_end():
    """A cumulative sum may round to below the uniform: the last class is drawn then."""
    column = sampled_column(jnp.zeros(3), jnp.asarray(2.0))
    np.testing.assert_allclose(column[:, 0], [-1 / 3, -1 / 3, 2 / 3], atol=1e-6)


# --- exactness -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("divergence", "answers"), [("jensen_shannon", 2), ("symmetric_kl", 3)])
def test_agreement_block_is_the_weighted_jacobian(x64, divergence, answers):
    """Aᵀ A = Σ λ Jᵀ H J with J by hand: ∂(logit gap)/∂kernel_fh = x_f (W⁺ − W⁻)_hk, none from the readout."""
    params, sets = toy_params(answers, 2), toy_sets(answers)
    a = np.asarray(a_factor(params, sets, whole_counts(sets), with_data=False, divergence=divergence))
    logits = BilinearPredictor().head_logits(params, sets.consistency)
    gap_HxK = np.asarray(params["intended_head"]["kernel"] - params["instrumental_head"]["kernel"])
    width, readout = FEATURES * HIDDEN, params["trunk"]["readout"].size
    gram = np.zeros((width + readout,) * 2)
    for x_F, midpoint_K in zip(np.asarray(sets.consistency.x_BxF), 0.5 * np.add(*logits)):
        p = softmax(midpoint_K)
        metric_KxK = MULTIPLIER * FISHER_SCALE[divergence] * (np.diag(p) - np.outer(p, p))
        jacobian_KxD = 0.8 * np.stack([np.outer(x_F, gap_HxK[:, k]).ravel() for k in range(answers)])
        gram[:width, :width] += jacobian_KxD.T @ metric_KxK @ jacobian_KxD
    np.testing.assert_allclose(a.T @ a, gram, atol=1e-12)
    expected = half_slogdet(np.eye(len(gram)) + gram)
    assert float(volume_nats([jnp.asarray(a)]).to(nat)) == pytest.approx(expected, rel=1e-10)
    assert expected < -1


@pytest.mark.parametrize("divergence", sorted(FISHER_SCALE))
def test_agreement_volume_is_exact_where_the_heads_agree(x64, divergence):
    """At weights where both heads answer alike, −½ log|∂²(½|u|² + λ N_c C̄)/∂u²| to the last digit."""
    params, sets = toy_params(2, 2), toy_sets()
    params["trunk"]["kernel"] = jnp.zeros((FEATURES, HIDDEN))  # answers are the biases,
    params["instrumental_head"]["bias"] = params["intended_head"]["bias"]  # and these are one
    place, zero = placing(params), jax.tree.map(jnp.zeros_like, params["trunk"])

    def energy(u):
        logits = BilinearPredictor().head_logits(place(u), sets.consistency)
        return 0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(u)) + MULTIPLIER * jnp.sum(
            DIVERGENCES[divergence](*logits)
        )

    a = a_factor(params, sets, whole_counts(sets), with_data=False, divergence=divergence)
    expected = half_slogdet(dense_hessian(energy, zero))
    assert expected < -0.2
    assert float(volume_nats([a]).to(nat)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("answers", [2, 3])
def test_data_volume_is_the_exact_hessian_of_linear_logits(x64, answers):
    """Label and (two-class) world likelihoods of linear logits: Gauss–Newton is the Hessian of ½|u|² + data anywhere.
    λ N_c = 0 leaves the data alone."""
    params, sets = toy_params(answers, 2), toy_sets(answers)
    counts = Counts(5, 4, tokens(sets), 0)
    place, predictor = placing(params), BilinearPredictor()
    rng = np.random.default_rng(9)
    u = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params["trunk"])

    def energy(v):
        theta = place(v)
        data = (
            label_nll(predictor.head_logits(theta, sets.trusted).intended_BxK, sets.trusted.label_B),
            label_nll(predictor.head_logits(theta, sets.untrusted).instrumental_BxK, sets.untrusted.label_B),
            world_nll(predictor.world_logits(theta, sets.world), sets.world.world_targets_BxLxT),
        )
        prior = 0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(v))
        return prior + sum(jnp.sum(part.to(nat)) for part in data)

    a = np.asarray(a_factor(params, sets, counts, with_data=True, u=u))
    hessian = dense_hessian(energy, u)
    np.testing.assert_allclose(np.eye(len(hessian)) + a.T @ a, hessian, atol=1e-9)
    assert float(volume_nats([jnp.asarray(a)]).to(nat)) == pytest.approx(half_slogdet(hessian), rel=1e-9)


def test_negative_phase_has_the_agreement_rows_of_the_positive(x64):
    params, sets = toy_params(3, 2), toy_sets(3)
    positive, negative = (
        np.asarray(a_factor(params, sets, whole_counts(sets), with_data=with_data)) for with_data in (True, False)
    )
    np.testing.assert_allclose(positive[: len(negative)], negative, rtol=1e-12)
    assert float(volume_nats([jnp.asarray(positive)]).to(nat)) < float(volume_nats([jnp.asarray(negative)]).to(nat)) < 0


def test_world_tokens_of_many_classes_use_their_fixed_uniforms(x64):
    """Averaged over even uniforms, the sampled columns' Gram matrix is the Hessian of the world tokens."""
    classes = 3
    params = toy_params(2, classes)
    world = toy_rows(1, 2, classes, 3)._replace(world_targets_BxLxT=jnp.array([[[2], [-1]]]))
    sets = RowSets(None, None, world, toy_rows(6, 2, 2, 3))
    zero, place = jax.tree.map(jnp.zeros_like, params["trunk"]), placing(params)

    @jax.jit
    def gram(uniform):
        token = VolumeRows(sets, jnp.array([0]), jnp.array([0]), uniform[None])
        counts = Counts(0, 0, 1, 0)
        a = dense(factor(BilinearPredictor(), place, zero, token, counts, jnp.ones(()), "jensen_shannon", True))
        return a.T @ a

    mean = np.mean(jax.lax.map(gram, (jnp.arange(2000) + 0.5) / 2000), axis=0)

    def nll(u):
        logits = BilinearPredictor().world_logits(place(u), world)
        return jnp.sum(world_nll(logits, world.world_targets_BxLxT).to(nat))

    np.testing.assert_allclose(mean, dense_hessian(nll, zero), atol=3e-3)


# --- subsets, and the derivative in stage one -----------------------------------------------------------------


def test_a_subset_stands_for_the_whole(x64):
    """n of N rows are weighted by N/n: rows that are all there twice are one half of them, counted twice."""
    params, half = toy_params(2, 2), toy_sets()
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), half)
    counts = Counts(10, 8, 2 * tokens(half), 12)
    a_half, a_whole = (np.asarray(a_factor(params, sets, counts, with_data=True)) for sets in (half, twice))
    assert len(a_whole) == 2 * len(a_half)
    np.testing.assert_allclose(a_half.T @ a_half, a_whole.T @ a_whole, atol=1e-10)


def test_chosen_rows_are_drawn_once_without_replacement():
    count = 30
    numbered = ToyRows(
        jnp.arange(count)[:, None], jnp.arange(count), jnp.where(jnp.arange(count)[:, None, None] % 2 == 0, 1, -1)
    )
    sets = RowSets(numbered, None, numbered, numbered)
    drawn: list[Any] = [choose_volume_rows(sets, rows, seed) for rows, seed in ((12, 0), (12, 0), (12, 1), (1000, 0))]
    chosen, again, other, whole = drawn
    labels = np.asarray(chosen.sets.trusted.label_B)
    assert len(set(labels.tolist())) == 12
    np.testing.assert_array_equal(np.ravel(chosen.sets.trusted.x_BxF), labels)
    assert chosen.sets.untrusted is None
    np.testing.assert_array_equal(again.sets.consistency.label_B, chosen.sets.consistency.label_B)
    assert set(np.asarray(other.sets.trusted.label_B)) != set(labels.tolist())
    # world: tokens, not rows; only those with a target
    assert (np.asarray(chosen.sets.world.label_B) % 2 == 0).all()
    assert len(chosen.position_n) == len(chosen.uniform_n) == 12
    assert len(whole.position_n) == 15
    np.testing.assert_array_equal(whole.sets.trusted.label_B, np.arange(count))
    without_world = choose_volume_rows(RowSets(None, None, None, numbered), 12, 0)
    assert without_world.uniform_n is None


def test_gradient_in_the_heads_equals_finite_differences(x64):
    params, sets = toy_params(3, 2), toy_sets(3)

    @jax.jit
    def volume(heads):
        parts = parts_of({**params, **heads}, sets, whole_counts(sets), with_data=True)
        return volume_nats(parts).to(nat)

    heads = {name: params[name] for name in ("intended_head", "instrumental_head")}
    gradient = jax.grad(volume)(heads)
    rng = np.random.default_rng(4)
    direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), heads)
    step = 1e-5
    ahead, behind = (volume(jax.tree.map(lambda h, d, s=s: h + s * d, heads, direction)) for s in (step, -step))
    slope = sum(jnp.vdot(g, d) for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction)))
    assert float(slope) == pytest.approx(float(ahead - behind) / (2 * step), rel=1e-7)
    assert abs(float(slope)) > 0.1


def test_volume_of_nothing_is_zero_and_no_volume_is_positive(x64):
    assert float(volume_nats([jnp.zeros((3, 5))]).to(nat)) == 0.0
    a = jnp.asarray(np.random.default_rng(0).normal(size=(4, 9)))
    assert float(volume_nats([a]).to(nat)) == pytest.approx(half_slogdet(np.eye(9) + np.asarray(a).T @ np.asarray(a)))


@pytest.mark.parametrize("moving", [(True, True), (True, False), (False, True)], ids=str)
def test_the_derivative_is_that_of_the_dense_determinant(x64, moving):
    """Parts of two tensors each, some of which are constants: JAX's own derivative of log|I + A Aᵀ| written out."""
    rng = np.random.default_rng(1)
    parts = [
        {"a": jnp.asarray(rng.normal(size=(rows, 2, 3))), "b": jnp.asarray(rng.normal(size=(rows, 4)))}
        for rows in (3, 5)
    ]

    def held(parts):
        return [part if moves else jax.lax.stop_gradient(part) for part, moves in zip(parts, moving)]

    def written_out(parts):
        a = dense(held(parts))
        return -0.5 * jnp.linalg.slogdet(jnp.eye(len(a)) + a @ a.T)[1]

    expected = jax.jit(jax.grad(written_out))(parts)
    found = jax.jit(jax.grad(lambda parts: volume_nats(held(parts)).to(nat)))(parts)
    chex.assert_trees_all_close(found, expected, rtol=1e-11, atol=1e-13)
    assert [bool(jnp.any(part["a"])) for part in found] == list(moving)


def test_comparisons_have_the_curvature_of_their_loss(x64):
    """The margin z_b − z_w is linear in the trunk's kernel here, so that AᵀA is the Hessian exactly."""
    params = toy_params(2, 2)
    pairs = Pairs(toy_rows(3, 2, 2, 8), toy_rows(3, 2, 2, 9))
    u = jax.tree.map(jnp.zeros_like, params["trunk"])
    a = dense([comparison_factor(BilinearPredictor(), placing(params), u, pairs, 12)])

    def energy(v):
        better, worse = (BilinearPredictor().head_logits(placing(params)(v), rows).intended_BxK for rows in pairs)
        return 12 * jnp.mean(comparison_nll(better, worse).to(nat))

    np.testing.assert_allclose(np.asarray(a.T @ a), dense_hessian(energy, u), atol=1e-9)
    chosen = choose_volume_rows(toy_sets()._replace(compared=pairs), 2, seed=0)
    assert chosen.sets.compared.better.x_BxF.shape[0] == 2
    counts = Counts(5, 4, tokens(toy_sets()), 6, 12)
    whole = a_factor(params, toy_sets()._replace(compared=pairs), counts, with_data=True)
    alone = a_factor(params, toy_sets(), counts, with_data=True)
    assert whole.shape[0] == alone.shape[0] + 3
