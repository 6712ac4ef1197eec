"""Units: the algebra by properties, conversions and gradients by hand, transforms, and one message per mistake."""

import copy
import math
import operator
import pickle
import re
from fractions import Fraction
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from honest.units import (
    Quantity,
    UnitError,
    assert_log_density,
    assert_unit,
    bit,
    density,
    disagreement,
    displacement,
    example,
    exp,
    log,
    logsumexp,
    mean,
    nat,
    one,
    parse_quantity,
    parse_unit,
    stop_gradient,
    strip_grad,
    term,
    token,
    total,
    value_and_grad,
)

TRUNK, HEAD = displacement("trunk"), displacement("head")
BASE = (nat, bit, token, example, disagreement, TRUNK, HEAD)
LN2 = math.log(2)
OTHER_GROUP = "lengths of different groups do not convert: use a scale of the same group"

fractions = st.builds(Fraction, st.integers(-4, 4), st.integers(1, 3))


@st.composite
def units(draw):
    unit = one
    for base, power in zip(BASE, draw(st.lists(fractions, min_size=len(BASE), max_size=len(BASE))), strict=True):
        unit = unit * base**power
    return unit


# --- the algebra of units ---------------------------------------------------------------------------------------


@given(units(), units(), units())
def test_units_form_an_abelian_group(a, b, c):
    assert (a * b) * c == a * (b * c)
    assert a * b == b * a
    assert a * one == a
    assert a / a == one
    assert hash(a * b) == hash(b * a)
    assert a / b == a * b**-1


@given(units(), units(), fractions, fractions)
def test_powers_of_units(a, b, p, q):
    assert a**p * a**q == a ** (p + q)
    assert (a**p) ** q == a ** (p * q)
    assert (a * b) ** p == a**p * b**p


@given(units())
def test_a_printed_unit_parses_to_itself(unit):
    assert parse_unit(str(unit)) == unit
    assert parse_unit(str(unit).replace("θ.", "theta.").replace("·", " * ")) == unit


@given(units(), units())
def test_dimension_is_a_homomorphism_and_bit_has_that_of_nat(a, b):
    assert (a * b).dimension == a.dimension * b.dimension
    assert (a * bit).dimension == (a * nat).dimension
    assert a * bit != a * nat


@given(st.floats(0.1, 10), st.floats(0.1, 10), units(), units())
@settings(max_examples=50)
def test_products_of_quantities_convert_like_numbers(x, y, a, b):
    product = Quantity(x, a) * Quantity(y, b)
    assert product.unit == a * b
    in_nats = (a * b).dimension  # each power of bit is a factor ln 2, written out by hand
    bits = dict(a.powers).get("bit", 0) + dict(b.powers).get("bit", 0)
    assert product.to(in_nats) == pytest.approx(x * y * LN2 ** float(bits), rel=1e-12)
    assert (product / Quantity(y, b)).to(a) == pytest.approx(x, rel=1e-12)


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        (one, "1"),
        (nat / example, "nat/example"),
        (TRUNK**2, "θ.trunk²"),
        (nat / TRUNK**2, "nat/θ.trunk²"),
        (one / token, "1/token"),
        (nat * example / HEAD / TRUNK**12, "nat·example/θ.head/θ.trunk¹²"),
        (TRUNK ** Fraction(1, 2), "θ.trunk^(1/2)"),
        (nat / bit, "nat/bit"),
    ],
)
def test_how_units_are_printed(unit, text):
    assert str(unit) == text


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("theta.trunk^2", TRUNK**2),
        ("nat/theta.head^2", nat / HEAD**2),
        ("example * nat / example", nat),
        ("1/θ.trunk^-2", TRUNK**2),
        ("θ.trunk⁻²·nat", nat / TRUNK**2),
        ("1", one),
        ("θ.trunk2²", displacement("trunk2") ** 2),
    ],
)
def test_other_spellings_of_units(text, unit):
    assert parse_unit(text) == unit


def test_a_quantity_is_parsed_into_a_python_float():
    sigma = parse_quantity("0.02 θ.trunk")
    assert type(sigma.to(TRUNK)) is float
    assert sigma.to(TRUNK) == 0.02
    assert parse_quantity(" 3  bit / example ").to(nat / example) == pytest.approx(3 * 0.6931471805599453)
    assert parse_quantity("1e-3 disagreement/example").unit == disagreement / example


@pytest.mark.parametrize("text", ["", "nats", "nat//token", "nat/", "nat θ.trunk", "θ.", "nat^0.5", "nat^(1/0)", "2"])
def test_a_bad_unit_says_what_was_expected(text):
    with pytest.raises(UnitError, match=re.escape(f"in the unit {text!r}; expected products and quotients of nat")):
        parse_unit(text)


@pytest.mark.parametrize("text", ["", "0.02", "nat", "x nat", "0,5 nat", "nat 0.5"])
def test_a_bad_quantity_says_what_was_expected(text):
    expected = f"cannot read {text!r}; expected a number and a unit, such as '0.02 θ.trunk'"
    with pytest.raises(UnitError, match=re.escape(expected)):
        parse_quantity(text)


@pytest.mark.parametrize("kind", ["", "trunk²", "a.b", "a/b", "2"])
def test_a_bad_kind_of_group(kind):
    with pytest.raises(UnitError, match="is no kind of parameter group; use letters"):
        displacement(kind)


# --- arithmetic by hand -----------------------------------------------------------------------------------------


def test_bits_and_nats_by_hand():
    assert (Quantity(1.0, bit) + Quantity(1.0, nat)).to(bit) == pytest.approx(2.4426950408889634)
    assert (Quantity(1.0, bit) + Quantity(1.0, nat)).unit == bit  # the left operand's unit
    assert (Quantity(1.0, nat) - Quantity(1.0, bit)).to(nat) == pytest.approx(0.3068528194400547)
    assert Quantity(8.0, bit / example).to(nat / example) == pytest.approx(5.545177444479562)
    assert (Quantity(1.0, nat) / Quantity(1.0, bit)).to(one) == pytest.approx(1.4426950408889634)
    assert Quantity(0.69, nat) < Quantity(1.0, bit) < Quantity(0.70, nat)
    assert exp(Quantity(3.0, bit)).to(one) == pytest.approx(8.0)
    assert log(Quantity(8.0, one)).to(bit) == pytest.approx(3.0)
    assert (Quantity(1.0, bit) ** 2).to(nat**2) == pytest.approx(0.4804530139182014)


def test_a_squared_distance_becomes_nats_through_the_precision():
    sigma = parse_quantity("0.5 θ.trunk")
    distance = Quantity(jnp.array([0.3, -0.4]), TRUNK)
    precision = Quantity(1.0, nat) / sigma**2
    assert str(precision.unit) == "nat/θ.trunk²"
    assert (0.5 * precision * total(distance**2)).to(nat) == pytest.approx(0.5)  # ½ (.09 + .16)/.25
    assert (distance ** Fraction(1, 2)).unit ** 2 == TRUNK


def test_bare_factors_on_either_side():
    nll_B = Quantity(jnp.array([1.0, 2.0]), nat / example)
    weights: list[Any] = [2, 2.0, np.float32(2), np.array([2.0, 2.0], np.float32), jnp.array([2.0, 2.0])]
    for weight in weights:
        for product in (weight * nll_B, nll_B * weight, nll_B / (1 / weight)):
            np.testing.assert_allclose(product.to(nat / example), [2.0, 4.0])
        inverse = weight / nll_B
        assert inverse.unit == example / nat
        np.testing.assert_allclose(inverse.to(example / nat), [2.0, 1.0])
    assert (1 + Quantity(2.0, one) - 1).to(one) == 2.0
    np.testing.assert_array_equal((-nll_B)[1:].to(nat / example), [-2.0])
    np.testing.assert_array_equal(jnp.array([0.5, 3.0]) * Quantity(1.0, nat / example) > nll_B, [False, True])


def test_weights_outside_the_mask_do_not_count():
    nll_BxL = Quantity(jnp.array([[1.0, 2.0, jnp.nan], [6.0, jnp.inf, 0.0]]), nat)
    mask_BxL = jnp.array([[True, True, False], [True, False, False]])
    per_token = mean(nll_BxL, per=token, where=mask_BxL)
    assert per_token.unit == nat / token
    assert per_token.to(nat / token) == 3.0  # (1 + 2 + 6)/3
    rows_B = mean(nll_BxL, per=token, where=mask_BxL, axis=1)
    np.testing.assert_allclose(rows_B.to(nat / token), [1.5, 6.0])
    assert total(nll_BxL, where=mask_BxL).to(nat) == 9.0
    weighted = mean(Quantity(jnp.array([1.0, 5.0]), nat), per=example, where=jnp.array([3.0, 1.0]))
    assert weighted.to(nat / example) == 2.0
    assert mean(Quantity(jnp.array([[1.0, 5.0]]), nat), per=one, where=True).to(nat) == 3.0
    unmasked = mean(Quantity(jnp.eye(2), bit), per=example, axis=0)
    np.testing.assert_allclose(unmasked.to(bit / example), [0.5, 0.5])


def test_a_mean_counts_beyond_the_precision_of_its_values():
    ones = Quantity(jnp.ones(1000, jnp.bfloat16), nat)  # bfloat16 cannot count past 256
    assert mean(ones, per=token, where=jnp.ones(1000, bool)).to(nat / token) == 1.0


def test_logsumexp_by_hand():
    terms = Quantity(jnp.log(jnp.array([1.0, 2.0, 5.0])), nat)
    assert logsumexp(terms).to(nat) == pytest.approx(math.log(8), rel=1e-6)
    pair = logsumexp([Quantity(1.0, bit), Quantity(math.log(6), nat)])
    assert pair.to(bit) == pytest.approx(3.0)  # 2 + 6 = 8
    stacked = logsumexp([terms, terms], axis=0)
    np.testing.assert_allclose(stacked.to(nat), np.log([2.0, 4.0, 10.0]), rtol=1e-6)


def test_log_needs_a_reference_for_what_has_a_unit():
    variance = Quantity(jnp.float32(4.0), TRUNK**2)
    assert log(variance, ref=TRUNK**2).to(nat) == pytest.approx(math.log(4))
    assert log(variance, ref=Quantity(2.0, TRUNK) ** 2).to(nat) == pytest.approx(0.0)
    assert log(Quantity(2.0, nat), ref=bit).to(nat) == pytest.approx(math.log(2 / LN2))


def test_numbers_stay_weakly_typed():
    with jax.enable_x64(True):
        for number in (2.0, np.float64(2.0), np.array(2.0)[()]):
            q = Quantity(number, bit) * Quantity(jnp.float32(1.5), example)
            assert q.dtype == jnp.float32
            assert (Quantity(jnp.float32(1.0), nat) + Quantity(number, bit)).dtype == jnp.float32
            assert Quantity(jnp.float32(1.0), bit).to(nat).dtype == jnp.float32
            f32 = Quantity(jnp.ones(3, jnp.float32), nat)
            assert (f32 * exp(Quantity(number, nat)) * log(Quantity(number, one))).dtype == jnp.float32
            assert (jax.jit(lambda q, f32=f32: f32 * q)(Quantity(number, nat))).dtype == jnp.float32
            assert mean(f32, per=one, where=jnp.array([1, 0, 1])).dtype == jnp.float32
            assert logsumexp([f32[0], Quantity(number, nat)]).dtype == jnp.float32


# --- transforms -------------------------------------------------------------------------------------------------


def energy(q):
    """½ precision d², a log density in nats of one displacement vector."""
    return -0.5 * Quantity(1.0, nat) / Quantity(2.0, TRUNK) ** 2 * total(q**2)


def test_jit_vmap_scan_and_checkpoint():
    q_BxD = Quantity(jnp.arange(6.0).reshape(3, 2), TRUNK)
    expected_B = np.array([-1.0, -13.0, -41.0]) / 8
    for f in (jax.jit(jax.vmap(energy)), jax.vmap(jax.checkpoint(energy))):
        assert f(q_BxD).unit == nat
        np.testing.assert_allclose(f(q_BxD).to(nat), expected_B)
    on_one_device = jax.pmap(jax.vmap(energy))(jax.tree.map(lambda x: x[None], q_BxD))
    np.testing.assert_allclose(on_one_device[0].to(nat), expected_B)
    carry, _ = jax.lax.scan(lambda s, q: (s + energy(q), energy(q)), Quantity(jnp.float32(0), nat), q_BxD)
    assert carry.to(nat) == pytest.approx(-55 / 8)


def test_shard_map():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    q_BxD = Quantity(jnp.ones((4, 2)), TRUNK)
    got = jax.shard_map(jax.vmap(energy), mesh=mesh, in_specs=P("data"), out_specs=P("data"))(q_BxD)
    np.testing.assert_allclose(got.to(nat), -0.25 * np.ones(4))


def test_pytree_with_arbitrary_leaves():
    q = density(Quantity(jnp.ones(3), nat), "θ1.trunk")
    tree: Any
    leaves, tree = jax.tree.flatten(q)
    assert len(leaves) == 1
    for leaf in (None, object(), "text", jax.ShapeDtypeStruct((3,), jnp.float32), [1, 2]):
        back = jax.tree.unflatten(tree, [leaf])
        assert back.unit == nat
        assert back.reference == {"θ1.trunk"}
    assert jax.tree.map(lambda x: x * 2, q).reference == {"θ1.trunk"}
    assert jax.eval_shape(lambda q: -q, q).shape == (3,)
    assert tree != jax.tree.structure(Quantity(jnp.ones(3), nat))
    with pytest.raises(TypeError, match="must have the same"):
        jax.lax.cond(True, lambda: Quantity(1.0, nat), lambda: Quantity(1.0, bit))


def test_stop_gradient():
    def f(params):
        weight = Quantity(params["trunk"], TRUNK)
        return total(stop_gradient(weight) * weight) * Quantity(1.0, nat) / Quantity(1.0, TRUNK) ** 2

    _, gradients = value_and_grad(f, {"trunk": TRUNK})({"trunk": jnp.array([3.0, 4.0])})
    np.testing.assert_allclose(gradients["trunk"].to(nat / TRUNK), [3.0, 4.0])  # not 2x


def log_joint(params, scale):
    """−½ |trunk|²/σ² (σ = 2 θ.trunk) − scale · Σ head (a slope of 1 bit/θ.head): its gradient is written by hand."""
    trunk = energy(Quantity(params["trunk"]["w"], TRUNK))
    return trunk - scale * Quantity(1.0, bit / HEAD) * total(Quantity(params["head"], HEAD))


UNITS = {"trunk": TRUNK, "head": HEAD}


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_value_and_grad_against_the_gradient_by_hand(transform):
    params = {"trunk": {"w": jnp.array([1.0, -2.0])}, "head": jnp.array([0.5])}
    value, gradients = transform(value_and_grad(log_joint, UNITS))(params, 3.0)
    assert value.to(nat) == pytest.approx(-5 / 8 - 1.5 * LN2)
    assert gradients["trunk"]["w"].unit == nat / TRUNK
    bare = strip_grad(gradients, UNITS)
    np.testing.assert_allclose(bare["trunk"]["w"], [-0.25, 0.5])  # −x/σ²
    np.testing.assert_allclose(bare["head"], [-3 * LN2], rtol=1e-6)


def test_value_and_grad_with_aux_and_bits():
    def f(params):
        return Quantity(params["head"] ** 2, bit), {"q": Quantity(params["head"], HEAD), "n": 3}

    (value, aux), gradients = value_and_grad(f, {"head": HEAD}, has_aux=True)({"head": jnp.float32(3.0)})
    assert (value.unit, aux["n"], aux["q"].unit) == (bit, 3, HEAD)
    assert gradients["head"].unit == bit / HEAD
    assert strip_grad(gradients, {"head": HEAD})["head"] == pytest.approx(6 * LN2)


def test_value_and_grad_under_vmap_and_scan():
    f = value_and_grad(lambda params: energy(Quantity(params["trunk"], TRUNK)), {"trunk": TRUNK})
    x_BxD = jnp.arange(6.0).reshape(3, 2)
    _, gradients = jax.vmap(f)({"trunk": x_BxD})
    np.testing.assert_allclose(gradients["trunk"].to(nat / TRUNK), -x_BxD / 4)

    def descend(x_D, _):
        step = Quantity(1.0, TRUNK**2 / nat) * f({"trunk": x_D})[1]["trunk"]
        return x_D + step.to(TRUNK), None

    x_D, _ = jax.lax.scan(descend, jnp.array([8.0, 4.0]), length=2)
    np.testing.assert_allclose(x_D, [8 * 0.75**2, 4 * 0.75**2])


def test_units_vanish_after_compilation():
    def with_units(params, labels_B, mask_B):
        logits_B = jnp.tanh(params["trunk"]["w"] * params["head"])
        nll = mean(Quantity(jnp.logaddexp(0.0, -labels_B * logits_B), nat), per=example, where=mask_B)
        with term("data"):
            data = Quantity(100.0, example) * nll + Quantity(2.0, bit)
        prior = energy(Quantity(params["trunk"]["w"], TRUNK))
        return assert_log_density(density(prior, "trunk") - assert_unit(data, nat))

    def plain(params, labels_B, mask_B):
        logits_B = jnp.tanh(params["trunk"]["w"] * params["head"])
        kept_B = jnp.where(mask_B, jnp.logaddexp(0.0, -labels_B * logits_B), 0)
        data = 100.0 * (jnp.sum(kept_B) / jnp.sum(mask_B)) + 2.0 * LN2
        return -0.125 * jnp.sum(params["trunk"]["w"] ** 2) - data

    def unit_step(params, labels_B, mask_B):
        value, gradients = value_and_grad(with_units, UNITS)(params, labels_B, mask_B)
        return value.to(nat), strip_grad(gradients, UNITS)

    params = {"trunk": {"w": jnp.ones(4)}, "head": jnp.ones(4)}
    arguments = (params, jnp.ones(4), jnp.array([True, True, False, True]))
    step = jax.jit(unit_step).lower(*arguments).as_text()
    twin = jax.jit(jax.value_and_grad(plain)).lower(*arguments).as_text()
    assert step.replace("jit_unit_step", "jit_plain") == twin
    assert "stablehlo.tanh" in step


# --- log densities ----------------------------------------------------------------------------------------------


def prior(*variables, value=1.0):
    return density(Quantity(value, nat), *variables)


def test_densities_of_different_variables_add():
    joint = prior("θ1.trunk") + prior("θ2.trunk") + Quantity(1.0, bit)
    assert joint.reference == {"θ1.trunk", "θ2.trunk"}
    assert assert_log_density(joint, ["θ2.trunk", "θ1.trunk"]).to(nat) == pytest.approx(2 + LN2)
    assert (Quantity(1.0, nat) + prior("a") - Quantity(2.0, nat)).reference == {"a"}
    assert (-prior("a")).reference == (prior("a") / Quantity(2.0, example)).reference == {"a"}
    assert total(prior("a", value=jnp.ones(3))).reference == {"a"}
    assert prior("a", value=jnp.ones(3))[0].reference == {"a"}
    assert density(prior("a"), "b").reference == {"a", "b"}


def test_a_log_ratio_has_no_reference():
    ratio = prior("a", "b", value=3.0) - prior("b", "a", value=1.0)
    assert ratio.reference == frozenset()
    assert exp(ratio).to(one) == pytest.approx(math.exp(2))
    assert prior("a", value=3.0) > prior("a", value=1.0)
    mixture = logsumexp([prior("a") + Quantity(math.log(0.25), nat), prior("a") + Quantity(math.log(0.75), nat)])
    assert mixture.reference == {"a"}
    assert mixture.to(nat) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (lambda: prior("a") + prior("a"), "has {a} twice; add each once, or subtract for a log ratio"),
        (lambda: prior("a", "b") + prior("b", "c"), "has {b} twice"),
        (lambda: density(prior("a"), "a"), "has {a} twice"),
        (lambda: prior("a") - prior("b"), "a difference of log densities over {a} and {b} depends on their reference"),
        (lambda: prior("a") < prior("b"), "a comparison of log densities over {a} and {b}"),
        (lambda: prior("a") == Quantity(0.0, nat), "a comparison of log densities over {a} and {}"),
        (lambda: logsumexp([prior("a"), prior("b")]), "a logsumexp of log densities over {a} and {b}"),
        (lambda: logsumexp([prior("a"), Quantity(1.0, nat)]), "use densities of the same variables"),
        (lambda: exp(prior("a")), "the exponential of a log density over {a} depends on its reference measure"),
        (lambda: log(prior("a") / Quantity(1.0, nat)), "the logarithm of a log density over {a}"),
        (lambda: prior("a") * prior("b"), "a product with or quotient by a log density over {b}"),
        (lambda: Quantity(1.0, nat) / prior("a"), "subtract a density of the same variables (a log ratio)"),
        (
            lambda: 2.0 * prior("a"),
            "a multiple of a log density over {a} is no log density of them",
        ),
        (lambda: prior("a") / 2, "is not normalised; leave by .to(nat), or change the density's scale"),
        (lambda: prior("a") ** 2, "a power of a log density over {a}"),
        (lambda: prior("a", "a"), "each named once, not ('a', 'a')"),
        (lambda: density(Quantity(1.0, nat)), "a density needs variables"),
        (lambda: density(Quantity(1.0, TRUNK), "a"), "log density has unit θ.trunk, expected nat"),
        (lambda: assert_log_density(prior("a"), ["a", "b"]), "log density is over {a}, expected {a, b}; tag terms by"),
        (lambda: assert_log_density(prior("a", value=jnp.ones(2))), "has shape (2,), expected a scalar; sum it by"),
    ],
)
def test_densities_that_do_not_fit(expression, message):
    with pytest.raises(UnitError, match=re.escape(message)):
        expression()


# --- mistakes ---------------------------------------------------------------------------------------------------

nll = Quantity(jnp.float32(0.5), nat / example)  # the parts of an objective, put together wrongly below
count = Quantity(200.0, example)
distance = Quantity(jnp.float32(3.0), TRUNK)
precision = Quantity(1.0, nat / TRUNK**2)
gaussian = -0.5 * precision * distance**2
exchange_rate = Quantity(2.0, nat / disagreement)
text: Any = "nat"
disagreed = Quantity(jnp.float32(0.1), disagreement / example)


@pytest.mark.parametrize(
    ("expression", "has", "expected", "missing"),
    [
        (lambda: count * nll + nll, "nat/example", "nat", "example"),  # a mean added to a sum
        (lambda: nll + gaussian, "nat/example", "nat", "example"),  # a per-example mean and a whole prior
        (lambda: Quantity(1.0, nat / token) + gaussian, "nat/token", "nat", "token"),
        (lambda: nll + gaussian / Quantity(9.0, token), "nat/token", "nat/example", "token/example"),
        (lambda: gaussian - count * disagreed, "disagreement", "nat", "nat/disagreement"),  # no exchange rate
        (lambda: gaussian - exchange_rate * disagreed, "nat/example", "nat", "example"),  # no number of rows
        (lambda: gaussian - count * disagreed / exchange_rate, "disagreement²/nat", "nat", "nat²/disagreement²"),
        (lambda: distance**2 + gaussian, "θ.trunk²", "nat", "nat/θ.trunk²"),  # no precision
        (lambda: distance**2 / distance + distance**2, "θ.trunk²", "θ.trunk", "1/θ.trunk"),
        (lambda: distance - Quantity(1.0, HEAD), "θ.head", "θ.trunk", "θ.trunk/θ.head"),
        (lambda: gaussian + 1.0, "1", "nat", "nat"),  # a bare number is never a nat
        (lambda: 1.0 - nll, "1", "nat/example", "nat/example"),
        (lambda: jnp.ones(2) + gaussian, "1", "nat", "nat"),
        (lambda: np.ones(2) > nll, "1", "nat/example", "nat/example"),
        (lambda: nll < gaussian, "nat/example", "nat", "example"),
        (lambda: disagreed - Quantity(0.02, disagreement), "disagreement", "disagreement/example", "1/example"),
        (lambda: exp(distance), "θ.trunk", "nat", "nat/θ.trunk"),
        (lambda: exp(nll), "nat/example", "nat", "example"),
        (lambda: exp(2.0), "1", "nat", "nat"),
        (lambda: log(precision), "nat/θ.trunk²", "1", "θ.trunk²/nat"),  # of a curvature's determinant, say
        (lambda: log(distance, ref=HEAD), "θ.trunk/θ.head", "1", "θ.head/θ.trunk"),
        (lambda: logsumexp(jnp.ones(3)), "1", "nat", "nat"),
        (lambda: logsumexp([gaussian, nll]), "nat/example", "nat", "example"),
        (lambda: distance.to(nat), "θ.trunk", "nat", "nat/θ.trunk"),
        (lambda: (Quantity(0.1, TRUNK) * Quantity(1.0, nat / TRUNK)).to(TRUNK), "nat", "θ.trunk", "θ.trunk/nat"),
        (lambda: assert_log_density(nll), "nat/example", "nat", "example"),
        (lambda: assert_unit(distance, HEAD), "θ.trunk", "θ.head", "θ.head/θ.trunk"),
    ],
)
def test_an_ill_typed_expression_names_term_units_and_missing_factor(expression, has, expected, missing):
    two_groups = str(missing).count("θ.") == 2 and "nat" not in str(missing)
    advice = OTHER_GROUP if two_groups else "multiply by a quantity in that unit"
    named = f" has unit {has}, expected {expected}; missing factor: {missing}; {advice}"
    with pytest.raises(UnitError) as error, term("objective"):
        expression()
    assert str(error.value).startswith("in term 'objective': ")
    assert str(error.value).endswith(named)


def test_the_message_in_full():
    with pytest.raises(UnitError) as error, term("second_prior"), term("trunk"):
        assert_unit(distance**2, nat, what="precision·d²")
    assert str(error.value).startswith(
        "in term 'second_prior.trunk': precision·d² has unit θ.trunk², expected nat; missing factor: nat/θ.trunk²"
    )
    with pytest.raises(UnitError) as error:
        gaussian + 1.0
    assert str(error.value).startswith("the right operand of + (a bare number) has unit 1")  # the terms were left


def test_errors_come_while_tracing():
    with pytest.raises(UnitError, match=r"in term 'data': .* missing factor: example"), term("data"):
        jax.jit(lambda q: q + gaussian).lower(nll)


@pytest.mark.parametrize(
    "use",
    [
        float,
        int,
        complex,
        bool,
        list,
        math.exp,
        np.asarray,
        np.sum,
        lambda q: np.stack([q, q]),
        jnp.exp,
        jnp.sum,
        jnp.asarray,
        jax.lax.exp,
        jax.nn.logsumexp,
        jnp.zeros_like,
        lambda q: jnp.stack([q, q]),
        lambda q: jnp.where(True, q, q),
        lambda q: jnp.maximum(q, 0.0),
        lambda q: jnp.linalg.slogdet(q * jnp.eye(2)),
        lambda q: jnp.ones(2) @ q,
        lambda q: 2.0**q,
        jax.jit(jnp.exp),
        lambda q: jax.grad(lambda x: q * x)(1.0),
        lambda q: jax.jit(jax.grad(lambda x: q * x))(1.0),
        lambda q: jax.value_and_grad(lambda x: (q * x, None), has_aux=True)(1.0),
        lambda q: jax.typeof(q),
    ],
)
def test_a_quantity_is_no_array(use):
    with pytest.raises(UnitError, match=r"leave by \.to\(unit\).*honest\.units\.value_and_grad"):
        use(distance)


def test_numpy_functions_refuse_a_quantity_themselves():
    with pytest.raises(TypeError, match="'Quantity' does not support ufuncs"):
        np.exp(distance)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (lambda: Quantity(distance, nat), "a Quantity holds one bare array or number, not a Quantity"),
        (lambda: Quantity([1.0], nat), "not a list"),
        (lambda: Quantity(1.0, text), "'nat' is not a Unit; use those of honest.units or parse_unit(text)"),
        (lambda: distance * nat, "nat is a unit, not a value; write Quantity(1.0, unit)"),
        (lambda: nat / distance, "nat is a unit, not a value"),
        (lambda: distance.to(text), "'nat' is not a Unit"),
        (lambda: operator.pow(distance, 0.5), "0.5 is no power of a unit (θ.trunk); use an int or a Fraction"),
        (lambda: assert_unit(jnp.ones(2), nat, "log Z"), "log Z is a bare ArrayImpl, expected nat; wrap it in"),
        (lambda: strip_grad({"trunk": jnp.ones(2)}, {"trunk": TRUNK}), "gradient of trunk is a bare ArrayImpl"),
        (
            lambda: strip_grad({"trunk": distance}, {"trunk": TRUNK}),  # what jax.grad would label a cotangent
            "gradient of trunk has unit θ.trunk, expected nat/θ.trunk; missing factor: nat/θ.trunk²",
        ),
        (
            lambda: strip_grad({"trunk": Quantity(1.0, nat / example / TRUNK)}, {"trunk": TRUNK}),
            "gradient of trunk has unit nat/example/θ.trunk, expected nat/θ.trunk; missing factor: example",
        ),
        (lambda: strip_grad({"trunk": distance}, UNITS), "got groups {trunk}, but units for {head, trunk}; give each"),
        (
            lambda: value_and_grad(log_joint, UNITS)({"trunk": {"w": distance}, "head": 1.0}, 1.0),
            "params of value_and_grad hold a Quantity; pass bare arrays",
        ),
        (
            lambda: value_and_grad(lambda p: p["head"], {"head": HEAD})({"head": 1.0}),
            "the function must return a scalar Quantity",
        ),
        (
            lambda: value_and_grad(lambda p: Quantity(p["head"], nat), {"head": HEAD})({"head": jnp.ones(2)}),
            "the function must return a scalar Quantity",
        ),
    ],
)
def test_other_mistakes(expression, message):
    with pytest.raises(UnitError, match=re.escape(message)):
        expression()


def test_what_jax_cannot_refuse_is_caught_by_strip_grad():
    gradient = jax.grad(lambda q: energy(q).to(nat))(distance)  # labelled θ.trunk, and documented so
    with pytest.raises(UnitError, match=re.escape("missing factor: nat/θ.trunk²")):
        strip_grad({"trunk": gradient}, {"trunk": TRUNK})


def test_comparison_with_what_is_no_value_is_python_s():
    assert (distance == None) is False  # noqa: E711
    assert (distance != "text") is True


def test_term_is_left_after_an_error():
    with pytest.raises(UnitError, match="in term 'log Z'"), term("log Z"):
        exp(distance)
    with pytest.raises(UnitError, match=r"^the argument of exp"):
        partial(exp, distance)()


# --- what a person writes of habit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("habit", "message"),
    [
        (lambda q: q.mean(), "a Quantity has no .mean: use honest.units.mean(q, per=…)"),
        (lambda q: q.sum(), "a Quantity has no .sum: use honest.units.total(q)"),
        (lambda q: q.T, "a Quantity has no .T: use q.to(unit), which is bare"),
        (len, "a Quantity is not a bare array or number"),
        (abs, "a Quantity is not a bare array or number"),
        (round, "a Quantity is not a bare array or number"),
        (lambda q: q // 2, "a Quantity is not a bare array or number"),
        (lambda q: 2 // q, "a Quantity is not a bare array or number"),
        (lambda q: q % 2, "a Quantity is not a bare array or number"),
        (lambda q: divmod(q, 2), "a Quantity is not a bare array or number"),
        (lambda q: f"{q:.3f}", "a Quantity is not a bare array or number"),
        (lambda q: sum([q, q]), "(a bare 0: sum() starts from it unless given start=Quantity(0.0, unit)) has unit 1"),
        (lambda q: 0.5 * nat, "a number times a unit is no value; write Quantity(number, nat)"),
        (lambda q: jnp.ones(2) * nat, "a number times a unit is no value; write Quantity(number, nat)"),
        (lambda q: parse_quantity("nan nat"), "cannot read 'nan nat'"),
        (lambda q: assert_log_density(total(q), "head"), "names in a list or set, such as ['head'], not one text"),
        (lambda q: total(density(q, "θ1.head"), where=0.25), "a weighted sum of a log density over {θ1.head}"),
        (
            lambda q: Quantity(1.0, displacement("trunk")) + Quantity(1.0, displacement("head")),
            "lengths of different groups do not convert: use a scale of the same group",
        ),
    ],
)
def test_habits_of_bare_arrays_are_told_what_to_do(habit, message):
    with pytest.raises(UnitError, match=re.escape(message)), term("my term"):
        habit(Quantity(jnp.ones(2), nat))


def test_a_quantity_can_still_be_probed_printed_and_summed():
    q = Quantity(2.0, nat)
    assert not hasattr(q, "sum") and not hasattr(q, "no_such_thing")
    assert f"{q}" == "Quantity(2.0, nat)"
    assert sum([q, q], start=Quantity(0.0, nat)).to(nat) == 4.0
    assert copy.deepcopy(q).to(nat) == pickle.loads(pickle.dumps(q)).to(nat) == 2.0
