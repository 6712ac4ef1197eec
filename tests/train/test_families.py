"""From a config's priors to families: the right class, scales by pattern, and mistakes told before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from honest.config_io import ConfigError, load_config
from honest.errors import UserError
from honest.model.two_head import HeadLogits
from honest.objective.parameter_prior import Gaussian, Horseshoe, Laplace, Sparse, StudentT, Tied, TowardZero
from honest.objective.predictions import RowSets
from honest.train import families
from honest.units import Quantity, displacement, nat

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
TRUNK, HEAD = displacement("trunk"), displacement("head")
GROUPS = ("trunk", "intended_head", "instrumental_head")


class Rows(NamedTuple):
    x_Bx2: jax.Array
    label_B: jax.Array
    world_targets_BxLxT: jax.Array


class Linear:
    """Heads of two weights on the inputs plus the trunk's bias; the world is answered by the trunk alone."""

    def head_logits(self, params, rows):
        def two(head):
            z_B = rows.x_Bx2 @ params[head]["w"] + params["trunk"]["bias"]["b"][0]
            return jnp.stack([jnp.zeros_like(z_B), z_B], axis=1)

        return HeadLogits(two("intended_head"), two("instrumental_head"))

    def world_logits(self, params, rows):
        z_B = rows.x_Bx2 @ params["trunk"]["kernel"][:, 0]
        return jnp.stack([jnp.zeros_like(z_B), z_B], axis=-1)[:, None, None]


def rows(seed, count, label=None):
    rng = np.random.default_rng(seed)
    label_B = rng.integers(0, 2, count) if label is None else np.full(count, label)
    world = rng.integers(0, 2, (count, 1, 1))
    return Rows(jnp.asarray(rng.normal(size=(count, 2)), jnp.float32), jnp.asarray(label_B), jnp.asarray(world))


SETS = RowSets(rows(0, 5), rows(1, 7), rows(2, 6), None)


def anchor():
    rng = np.random.default_rng(3)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    trunk = {"bias": {"b": draw(2)}, "kernel": draw(2, 3)}
    return {"trunk": trunk, "intended_head": {"w": draw(2)}, "instrumental_head": {"w": draw(2)}}


def objective(*overrides):
    return load_config(QUICKSTART, [f"objective.{override}" for override in overrides]).config.objective


def make(*overrides, sets=SETS):
    return families.make(objective(*overrides), GROUPS, ("trunk",), anchor(), families.Fisher(Linear(), sets))


def check(*overrides):
    families.check(objective(*overrides), jax.eval_shape(anchor))


def config_message(*overrides):
    with pytest.raises(ConfigError) as error:
        objective(*overrides)
    return str(error.value)


def bare(quantity, unit=HEAD):
    assert quantity.unit == unit and quantity.dtype == jnp.float32
    return float(quantity.to(unit))


INTENDED, SECOND = "first_prior.intended_head", "first_prior.instrumental_head"


def test_laplace_student_t_and_horseshoe_have_their_scales():
    made = make(f"{INTENDED}={{kind: laplace, scale: 0.3 θ.head}}").first["intended_head"]
    assert isinstance(made, Laplace) and bare(made.scale) == pytest.approx(0.3)
    made = make(f"{INTENDED}={{kind: student_t, scale: 0.4 θ.head, degrees_of_freedom: 2.5}}").first["intended_head"]
    assert isinstance(made, StudentT) and bare(made.scale) == pytest.approx(0.4) and made.degrees_of_freedom == 2.5
    made = make(f"{INTENDED}={{kind: horseshoe, scale: 0.5 θ.head, floor: 0.02 θ.head}}").first["intended_head"]
    assert isinstance(made, Horseshoe)
    assert (bare(made.scale), bare(made.floor)) == pytest.approx((0.5, 0.02))


@pytest.mark.parametrize("per", ["weight", "tensor"])
def test_toward_zero_has_its_scale_and_what_shrinks(per):
    made = make(f"first_prior.trunk={{kind: toward_zero, stddev: 0.6 theta.trunk, per: {per}}}").first["trunk"]
    assert isinstance(made, TowardZero) and bare(made.stddev, TRUNK) == pytest.approx(0.6) and made.per == per


@pytest.mark.parametrize("per", ["weight", "column", "tensor"])
def test_sparse_has_slab_spike_bits_and_factors(per):
    text = f"{{kind: sparse, stddev: 0.7 θ.head, spike_stddev: 0.01 θ.head, bits: 3.0 bit, per: {per}}}"
    made = make(f"{INTENDED}={text}").first["intended_head"]
    assert isinstance(made, Sparse) and made.per == per
    assert (bare(made.stddev), bare(made.spike_stddev)) == pytest.approx((0.7, 0.01))
    assert float(made.bits.to(nat)) == pytest.approx(3 * 0.693147)


@pytest.mark.parametrize(("text", "nats"), [("12.0 bit", 12 * 0.693147), ("2.0 nat", 2.0)])
def test_tied_has_its_scales_and_bits(text, nats):
    made = make(f"{SECOND}={{kind: tied, stddev: 0.9 θ.head, tie_stddev: 0.02 θ.head, bits: {text}}}")
    made = made.first["instrumental_head"]
    assert isinstance(made, Tied)
    assert (bare(made.stddev), bare(made.tie_stddev)) == pytest.approx((0.9, 0.02))
    assert float(made.bits.to(nat)) == pytest.approx(nats)


def test_the_first_pattern_that_matches_a_tensor_gives_its_stddev():
    tensors = "{kernel: 0.1 θ.trunk, 'k*': 0.2 θ.trunk, '*': 0.3 θ.trunk}"
    made = make(f"first_prior.trunk={{kind: gaussian, stddev: 2.0 θ.trunk, tensors: {tensors}}}").first["trunk"]
    assert isinstance(made, Gaussian)
    assert bare(made.tensors["kernel"].stddev, TRUNK) == pytest.approx(0.1)
    assert bare(made.tensors["bias"]["b"].stddev, TRUNK) == pytest.approx(0.3)


def test_a_tensor_that_no_pattern_matches_has_the_groups_stddev_and_stages_differ():
    made = make(
        "first_prior.trunk={kind: gaussian, stddev: 2.0 θ.trunk, tensors: {'bias/*': 0.5 θ.trunk}}",
        "second_prior.trunk={kind: gaussian, stddev: 0.25 θ.trunk, tensors: null}",
    )
    assert bare(made.first["trunk"].tensors["kernel"].stddev, TRUNK) == 2.0
    assert bare(made.first["trunk"].tensors["bias"]["b"].stddev, TRUNK) == 0.5
    assert bare(made.second["trunk"].tensors["kernel"].stddev, TRUNK) == 0.25
    assert list(made.first) == list(GROUPS) and list(made.second) == ["trunk"]


def test_the_reference_measure_is_that_of_the_config():
    made = make("reference_measure={trunk: 0.1 θ.trunk, head: 0.01 θ.head}")
    assert bare(made.measure["trunk"], TRUNK) == pytest.approx(0.1)
    assert bare(made.measure["intended_head"]) == bare(made.measure["instrumental_head"]) == pytest.approx(0.01)


def softmax_error(z, label):
    """∂(−log p(label))/∂z of logits (0, z)."""
    return 1 / (1 + np.exp(-np.asarray(z, float))) - np.asarray(label)


FISHER = "{source: fisher, stddev: 0.5 θ.head, examples: 20, rows: 4}"


def assert_curvature_of_head(group, of, sets):
    made = make(f"first_prior.{group}={{kind: diagonal, scales: {FISHER}}}", sets=sets).first[group]
    params = anchor()
    x = np.asarray(of.x_Bx2)[:4]
    z = x @ np.asarray(params[group]["w"]) + float(params["trunk"]["bias"]["b"][0])
    gradient = softmax_error(z, np.asarray(of.label_B)[:4])[:, None] * x
    expected = (1 / 0.25 + 20 * np.mean(gradient**2, axis=0)) ** -0.5
    np.testing.assert_allclose(made.tensors["w"].stddev.to(HEAD), expected, rtol=1e-5)


def test_a_heads_curvature_is_that_of_the_first_rows_it_explains():
    assert_curvature_of_head("intended_head", SETS.trusted, SETS)
    assert_curvature_of_head("instrumental_head", SETS.untrusted, SETS)
    assert_curvature_of_head("instrumental_head", SETS.trusted, SETS._replace(untrusted=None))


def test_the_trunks_kronecker_curvature_is_that_of_world_rows():
    """The world reads the kernel's first column alone: R is e₁e₁ᵀ, of rank one, and the bias has no information."""
    text = "{kind: kronecker, stddev: 0.5 θ.trunk, examples: 20, rows: 6, largest_axis: 8}"
    made = make(f"first_prior.trunk={text}").first["trunk"]
    x = np.asarray(SETS.world.x_Bx2, float)
    error = softmax_error(x @ np.asarray(anchor()["trunk"]["kernel"])[:, 0], SETS.world.world_targets_BxLxT[:, 0, 0])
    information = np.mean(error[:, None, None] ** 2 * x[:, :, None] * x[:, None, :], axis=0)
    column = np.linalg.inv(np.eye(2) / 0.25 + 20 * information)
    covariance = np.kron(column, np.diag([1.0, 0, 0])) + 0.25 * np.kron(np.eye(2), np.diag([0, 1.0, 1.0]))
    units = jnp.eye(6).reshape(6, 2, 3)
    nothing = {"b": jnp.zeros(2)}
    root = jax.vmap(lambda u: made.colour({"bias": nothing, "kernel": u})["kernel"])(units).reshape(6, 6)
    np.testing.assert_allclose(np.asarray(root).T @ np.asarray(root), covariance, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(made.tensors["bias"]["b"].stddev.to(TRUNK), 0.5, rtol=1e-6)


def test_scales_come_from_a_file_beside_the_config(tmp_path):
    np.savez(tmp_path / "s.npz", unit="θ.head", w=np.array([0.1, 0.2]))
    text = f"{INTENDED}={{kind: diagonal, scales: {{source: file, path: {tmp_path / 's.npz'}}}}}"
    made = make(text).first["intended_head"]
    np.testing.assert_allclose(made.tensors["w"].stddev.to(HEAD), [0.1, 0.2], rtol=1e-6)
    check(text)
    np.savez(tmp_path / "s.npz", unit="θ.trunk", w=np.array([0.1, 0.2]))
    with pytest.raises(UserError, match=r"^objective\.first_prior\.intended_head\.scales\.path: .*is in θ.trunk"):
        check(text)


def test_making_priors_can_be_traced():
    config = objective(f"{INTENDED}={{kind: diagonal, scales: {FISHER}}}")
    traced = jax.jit(
        lambda at, sets: families.make(config, GROUPS, ("trunk",), at, families.Fisher(Linear(), RowSets(*sets)))
    )
    made = traced(anchor(), tuple(SETS))
    plain = families.make(config, GROUPS, ("trunk",), anchor(), families.Fisher(Linear(), SETS))
    for a, b in zip(jax.tree.leaves(made), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("role", ["first_prior", "second_prior"])
def test_a_pattern_that_matches_no_tensor_is_an_error_that_lists_them(role):
    with pytest.raises(UserError) as error:
        check(f"{role}.trunk={{kind: gaussian, stddev: 1.0 θ.trunk, tensors: {{'kernels*': 1.0 θ.trunk}}}}")
    assert str(error.value) == (
        f"objective.{role}.trunk.tensors.kernels*: matches no tensor; the group's tensors are bias/b, kernel"
    )


def test_more_rows_than_there_are_is_an_error():
    with pytest.raises(UserError) as error:
        make(f"{INTENDED}={{kind: diagonal, scales: {{source: fisher, stddev: 1.0 θ.head, examples: 1, rows: 6}}}}")
    assert "rows asks for 6 rows, but there are 5 to take them from; lower it" in str(error.value)
    assert "objective.first_prior.intended_head.scales.rows" in str(error.value)


OTHERS = {
    "toward_zero": "stddev: 1.0 θ.head, per: weight",
    "student_t": "scale: 1.0 θ.head, degrees_of_freedom: 3.0",
    "laplace": "scale: 1.0 θ.head",
    "horseshoe": "scale: 1.0 θ.head, floor: 0.1 θ.head",
    "tied": "stddev: 1.0 θ.head, tie_stddev: 0.1 θ.head, bits: 1.0 bit",
    "sparse": "stddev: 1.0 θ.head, spike_stddev: 0.1 θ.head, bits: 1.0 bit, per: weight",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_the_second_stage_refuses_what_is_not_gaussian(kind):
    text = config_message(f"second_prior.instrumental_head={{kind: {kind}, {OTHERS[kind]}}}")
    assert "objective.second_prior.instrumental_head.kind" in text
    assert f"'{kind}' is refused in the second stage" in text
    assert "gaussian, diagonal, kronecker" in text


@pytest.mark.parametrize("group", ["trunk", "intended_head"])
def test_only_the_instrumental_head_may_be_tied(group):
    fields = OTHERS["tied"] if group != "trunk" else OTHERS["tied"].replace("θ.head", "θ.trunk")
    text = config_message(f"first_prior.{group}={{kind: tied, {fields}}}")
    assert f"objective.first_prior.{group}.kind" in text and "give it to instrumental_head, not here" in text


@pytest.mark.parametrize("spike", ["1.0 θ.head", "2.0 θ.head"])
def test_the_spike_is_below_the_slab(spike):
    fields = OTHERS["sparse"].replace("0.1 θ.head", spike)
    text = config_message(f"{INTENDED}={{kind: sparse, {fields}}}")
    assert f"{spike} is not below the slab's stddev 1.0 θ.head" in text
    assert "objective.first_prior.intended_head.spike_stddev" in text


def test_a_scale_of_another_group_is_refused_at_load():
    text = config_message("first_prior.trunk={kind: laplace, scale: 1.0 θ.head}")
    assert "objective.first_prior.trunk.scale: has unit θ.head, not θ.trunk" in text


def test_what_is_made_is_a_density_of_its_group():
    """−2·ln(2·0.3/0.1) for a Laplace of b = 0.3 on two weights, in units of u = 0.1."""
    made = make(
        f"{INTENDED}={{kind: laplace, scale: 0.3 θ.head}}", "reference_measure={trunk: 1.0 θ.trunk, head: 0.1 θ.head}"
    )
    constant = made.first["intended_head"].constant(anchor(), "intended_head", made.measure["intended_head"])
    assert isinstance(constant, Quantity)
    assert float(constant.to(nat)) == pytest.approx(-2 * 1.791759, rel=1e-5)
