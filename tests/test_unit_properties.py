"""Quantities by properties: arithmetic, exponentials, comparisons, means, gradients, references and transforms."""

import math
import operator
import re
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

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
    strip_grad,
    token,
    total,
    value_and_grad,
)

TRUNK, HEAD = displacement("trunk"), displacement("head")
LN2 = math.log(2)
COMPARISONS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
SIGNS = {"+": operator.add, "-": operator.sub, **COMPARISONS}
modest = settings(max_examples=40, deadline=None)
few = settings(max_examples=12, deadline=None)  # where each example is compiled

powers = st.builds(Fraction, st.integers(-3, 3), st.integers(1, 2))
# Products of smaller ones are denormal, where floats have no relative precision.
numbers = st.floats(-100, 100).map(lambda x: x if abs(x) > 1e-6 else 0.0)
nonzero = st.floats(0.1, 10) | st.floats(-10, -0.1)
information = st.sampled_from([nat, bit])
rows_BxD = arrays(np.float32, (4, 3), elements=st.floats(-10, 10, width=32))
masks_BxD = arrays(np.bool_, (4, 3)).filter(np.any)


@st.composite
def units(draw):
    unit = one
    for base in draw(st.lists(st.sampled_from([nat, bit, token, example, disagreement, TRUNK, HEAD]), max_size=4)):
        unit = unit * base ** draw(powers)
    return unit


@st.composite
def alike(draw, count):
    """Units of one dimension, that differ in their powers of bit."""
    unit = draw(units())
    return [unit * (bit / nat) ** draw(powers) for _ in range(count)]


@st.composite
def quantities_alike(draw, count):
    return [Quantity(draw(numbers), unit) for unit in draw(alike(count))]


def in_nats(q):
    return q.to(q.unit.dimension)


def assert_close(a, b, rtol=1e-5, atol=1e-5):
    """For arrays, in float32."""
    assert a.unit.dimension == b.unit.dimension
    np.testing.assert_allclose(in_nats(a), in_nats(b), rtol=rtol, atol=atol)


def assert_same(a, b, *terms, eps=1e-12):
    """For python floats: equal up to the rounding of a, b and the `terms` that may have cancelled in them."""
    assert a.unit.dimension == b.unit.dimension
    assert abs(in_nats(a) - in_nats(b)) <= eps * max(abs(in_nats(each)) for each in (a, b, *terms))


# --- arithmetic -------------------------------------------------------------------------------------------------


@given(quantities_alike(2))
@modest
def test_addition_commutes_and_takes_the_left_unit(pair):
    a, b = pair
    by_hand = Quantity(in_nats(a) + in_nats(b), a.unit.dimension)
    assert_same(a + b, by_hand, a, b)
    assert_same(a + b, b + a, a, b)
    assert_same(a - b, -(b - a), a, b)
    assert ((a + b).unit, (b + a).unit) == (a.unit, b.unit)


@given(quantities_alike(3))
@modest
def test_addition_associates(triple):
    a, b, c = triple
    assert_same((a + b) + c, a + (b + c), a, b, c)
    assert ((a + b) + c).unit == (a + (b + c)).unit == a.unit


@given(quantities_alike(2), numbers, units())
@modest
def test_multiplication_distributes_over_addition(pair, x, unit):
    a, b = pair
    factor = Quantity(x, unit)
    left, right = factor * (a + b), factor * a + factor * b
    assert left.unit == right.unit == unit * a.unit
    assert_same(left, right, factor * a, factor * b)
    assert_same((a + b) * factor, left)


@given(numbers, units())
@modest
def test_a_quantity_less_itself_is_zero_in_its_unit(x, unit):
    q = Quantity(x, unit)
    assert (q - q).unit == (q + -q).unit == unit
    assert (q - q).to(unit) == (q + -q).to(unit) == 0


@given(numbers, alike(3))
@modest
def test_conversions_compose_and_invert(x, three):
    start, middle, end = three
    q = Quantity(x, start)
    assert Quantity(q.to(middle), middle).to(end) == pytest.approx(q.to(end), rel=1e-12)
    assert assert_unit(assert_unit(q, middle), end).to(end) == pytest.approx(q.to(end), rel=1e-12)
    assert Quantity(q.to(end), end).to(start) == pytest.approx(x, rel=1e-12)


@given(numbers, numbers, units(), units(), st.sampled_from(list(SIGNS)))
@modest
def test_two_dimensions_never_meet_and_the_missing_factor_is_their_ratio(x, y, a, b, sign):
    assume(a.dimension != b.dimension)
    with pytest.raises(UnitError) as error:
        SIGNS[sign](Quantity(x, a), Quantity(y, b))
    said = re.fullmatch(
        rf"the (left|right) operand of {re.escape(sign)} has unit (\S+), expected (\S+); missing factor: (\S+); .*",
        str(error.value),
    )
    assert said is not None
    has, expected = (a, b) if said[1] == "left" else (b, a)
    assert (parse_unit(said[2]), parse_unit(said[3])) == (has, expected)
    assert (parse_unit(said[4]) * has).dimension == expected.dimension


@given(quantities_alike(2))
@modest
def test_one_dimension_always_meets(pair):
    left, right = pair
    for sign, operation in SIGNS.items():
        result = operation(left, right)
        expected = operation(left.to(left.unit), right.to(left.unit))
        if sign in COMPARISONS:
            assert bool(result) == bool(expected)
        else:
            assert result.unit == left.unit
            assert result.to(left.unit) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(nonzero, nonzero, units(), units())
@modest
def test_products_and_quotients_always_exist(x, y, a, b):
    p, q = Quantity(x, a), Quantity(y, b)
    assert ((p * q).unit, (p / q).unit) == (a * b, a / b)
    assert ((x * q).unit, (q * x).unit, (q / x).unit, (x / q).unit) == (b, b, b, one / b)
    assert_same(p * q / q, p)
    assert_same(p / (p / q), q)


@given(st.floats(allow_nan=False), units())
@modest
def test_a_printed_quantity_parses_to_itself(x, unit):
    parsed = parse_quantity(f"{x} {unit}")
    assert parsed.unit == unit
    assert parsed.to(unit) == x


# --- comparisons ------------------------------------------------------------------------------------------------

# Of whole numbers of nats and of bits no two are near but 0 and 0, so rounding cannot change their order.
whole = st.builds(lambda x, unit: Quantity(float(x), unit), st.integers(-300, 300), information)


@given(whole, whole)
@modest
def test_comparisons_are_those_of_the_values_in_nats(a, b):
    for operation in COMPARISONS.values():
        assert operation(a, b) == operation(a.to(nat), b.to(nat))


@given(whole, whole, whole)
@modest
def test_comparison_is_a_total_order(a, b, c):
    assert [bool(a < b), bool(a == b), bool(a > b)].count(True) == 1
    assert (a <= b) == (not a > b) == (b >= a)
    assert a <= a
    low, middle, high = sorted((a, b, c), key=lambda q: q.to(nat))
    assert low <= middle <= high
    assert low <= high


# --- exponentials -----------------------------------------------------------------------------------------------


@given(st.floats(-20, 20), information)
@modest
def test_log_undoes_exp(x, unit):
    q = Quantity(x, unit)
    assert_close(log(exp(q)), q)
    assert log(exp(q)).unit == nat


@given(st.floats(1e-6, 1e6))
@modest
def test_exp_undoes_log(x):
    back = exp(log(Quantity(x, one)))
    assert back.unit == one
    assert float(back.to(one)) == pytest.approx(x, rel=1e-5)


@given(st.floats(-20, 20), st.floats(-20, 20), information, information)
@modest
def test_exp_turns_sums_into_products(x, y, a, b):
    p, q = Quantity(x, a), Quantity(y, b)
    assert_close(exp(p + q), exp(p) * exp(q), rtol=2e-5)


@given(st.floats(0.01, 100), st.floats(0.01, 100), units())
@modest
def test_log_relative_to_a_reference_is_the_log_ratio(x, y, unit):
    a, b = Quantity(x, unit), Quantity(y, unit)
    assert float(log(a, ref=b).to(nat)) == pytest.approx(math.log(x / y), rel=1e-5, abs=1e-5)
    assert_close(log(a, ref=b), log(a, ref=unit) - log(b, ref=unit))


@given(arrays(np.float32, 5, elements=st.floats(-50, 50, width=32)), st.floats(-50, 50), information, information)
@modest
def test_logsumexp_moves_with_its_terms(x_B, c, a, b):
    q_B, shift = Quantity(jnp.asarray(x_B), a), Quantity(c, b)
    assert_close(logsumexp(q_B + shift), logsumexp(q_B) + shift, rtol=1e-5, atol=1e-4)


@given(arrays(np.float32, 5, elements=st.floats(-50, 50, width=32)), st.permutations(range(5)), information)
@modest
def test_logsumexp_is_that_of_numpy_in_any_order(x_B, order, unit):
    scale = LN2 if unit == bit else 1.0
    expected = np.logaddexp.reduce(x_B.astype(np.float64) * scale)
    q_B = Quantity(jnp.asarray(x_B), unit)
    for terms in (q_B, q_B[jnp.array(order)], [q_B[i] for i in order]):
        assert logsumexp(terms).unit == nat
        assert float(logsumexp(terms).to(nat)) == pytest.approx(expected, rel=1e-5, abs=1e-5)


# --- sums and means ---------------------------------------------------------------------------------------------


@given(rows_BxD, masks_BxD, units())
@modest
def test_a_mean_times_its_count_is_the_total(x_BxD, mask_BxD, unit):
    q_BxD, count = Quantity(jnp.asarray(x_BxD), unit), Quantity(float(mask_BxD.sum()), example)
    rate = mean(q_BxD, per=example, where=mask_BxD)
    assert rate.unit == unit / example
    assert (rate * count).unit == total(q_BxD, where=mask_BxD).unit == unit
    got = (rate * count).to(unit)
    np.testing.assert_allclose(got, total(q_BxD, where=mask_BxD).to(unit), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got, x_BxD[mask_BxD].astype(np.float64).sum(), rtol=1e-4, atol=1e-4)


@given(rows_BxD, masks_BxD, st.permutations(range(4)))
@modest
def test_a_mean_does_not_depend_on_the_order_of_rows(x_BxD, mask_BxD, order):
    order_B = np.array(order)
    straight = mean(Quantity(jnp.asarray(x_BxD), nat), per=example, where=mask_BxD)
    permuted = mean(Quantity(jnp.asarray(x_BxD[order_B]), nat), per=example, where=mask_BxD[order_B])
    assert_close(straight, permuted)


@given(rows_BxD, masks_BxD, arrays(np.float32, (4, 3), elements=st.sampled_from([math.nan, math.inf, -math.inf, 7.0])))
@modest
def test_sums_and_means_do_not_see_what_is_masked(x_BxD, mask_BxD, other_BxD):
    q_BxD = Quantity(jnp.asarray(x_BxD), nat)
    changed_BxD = Quantity(jnp.where(mask_BxD, x_BxD, other_BxD), nat)
    for reduced in (total, partial(mean, per=one)):
        kept, got = reduced(q_BxD, where=mask_BxD), reduced(changed_BxD, where=mask_BxD)
        np.testing.assert_array_equal(kept.to(nat), got.to(nat))


@given(rows_BxD, rows_BxD, masks_BxD, masks_BxD)
@modest
def test_the_mean_of_two_parts_is_their_weighted_mean(x_BxD, y_BxD, x_mask_BxD, y_mask_BxD):
    def part(values, mask):
        return mean(Quantity(jnp.asarray(values), nat), per=token, where=mask), Quantity(float(mask.sum()), token)

    (x_rate, x_count), (y_rate, y_count) = part(x_BxD, x_mask_BxD), part(y_BxD, y_mask_BxD)
    rate, count = part(np.concatenate([x_BxD, y_BxD]), np.concatenate([x_mask_BxD, y_mask_BxD]))
    assert_close(rate, (x_rate * x_count + y_rate * y_count) / count)
    assert (x_count + y_count).to(token) == count.to(token)


# --- gradients --------------------------------------------------------------------------------------------------


@given(nonzero, st.floats(0.5, 2), st.integers(-3, 4), information, st.sampled_from([TRUNK, HEAD]))
@modest
def test_the_gradient_of_a_power_is_that_of_calculus(c, x, n, unit, kind):
    def f(params):
        return Quantity(c, unit / kind**n) * Quantity(params["group"], kind) ** n

    value, gradients = value_and_grad(f, {"group": kind})({"group": jnp.float32(x)})
    x, scale = float(jnp.float32(x)), LN2 if unit == bit else 1.0
    assert (value.unit, gradients["group"].unit) == (unit, unit / kind)
    assert float(value.to(nat)) == pytest.approx(scale * c * x**n, rel=1e-5)
    bare = strip_grad(gradients, {"group": kind})["group"]
    assert float(bare) == pytest.approx(scale * c * n * x ** (n - 1), rel=1e-5)


@given(nonzero, nonzero, st.lists(information, min_size=2, max_size=2))
@modest
def test_gradients_are_linear(a, b, two):
    def slope(coefficient, unit):
        return lambda params: Quantity(coefficient, unit / TRUNK) * Quantity(params["trunk"], TRUNK)

    def gradient(f):
        return value_and_grad(f, {"trunk": TRUNK})({"trunk": jnp.float32(1.0)})[1]["trunk"]

    f, g = slope(a, two[0]), slope(b, two[1])
    assert_close(gradient(lambda params: f(params) + g(params)), gradient(f) + gradient(g))


# --- log densities ----------------------------------------------------------------------------------------------

variables = st.sampled_from([f"{stage}.{group}" for stage in ("θ1", "θ2") for group in ("trunk", "head", "readout")])
tags = st.lists(st.tuples(st.integers(-100, 100), variables), min_size=1, max_size=6, unique_by=lambda pair: pair[1])


def summed(tagged):
    result = Quantity(0.0, nat)
    for x, variable in tagged:
        result = result + density(Quantity(float(x), nat), variable)
    return result


@given(tags, st.randoms(use_true_random=False))
@modest
def test_a_sum_of_densities_is_over_the_union_in_any_order(tagged, random):
    shuffled = random.sample(tagged, len(tagged))
    joint = {variable for _, variable in tagged}
    for each in (summed(tagged), summed(shuffled)):
        assert assert_log_density(each, joint).reference == joint
        assert each.to(nat) == sum(x for x, _ in tagged)
    middle = len(tagged) // 2
    assert (summed(tagged[:middle]) + summed(tagged[middle:])).reference == joint
    assert exp(summed(tagged) - summed(shuffled)).to(one) == 1.0  # of the same variables: a ratio, without reference


@given(tags, tags)
@modest
def test_densities_of_a_shared_variable_do_not_add(some, others):
    shared = {variable for _, variable in some} & {variable for _, variable in others}
    assume(shared)
    named = "{" + ", ".join(sorted(shared)) + "}"
    with pytest.raises(UnitError, match=re.escape(f"a sum of log densities has {named} twice; ")):
        summed(some) + summed(others)


@given(tags, tags, st.booleans())
@modest
def test_densities_compare_and_mix_only_with_those_of_the_same_variables(some, others, same):
    a, b = summed(some), summed(some if same else others)
    for use in (operator.sub, *COMPARISONS.values(), lambda a, b: logsumexp([a, b])):
        if a.reference == b.reference:
            use(a, b)
        else:
            with pytest.raises(UnitError, match="use densities of the same variables"):
                use(a, b)


@given(tags, nonzero, units())
@modest
def test_a_factor_leaves_a_density_its_variables(tagged, x, unit):
    joint = summed(tagged)
    factor = Quantity(x, unit)
    if unit.dimension == one:
        for multiple in (lambda: joint * factor, lambda: factor * joint, lambda: joint / factor):
            with pytest.raises(UnitError, match="is no log density of them: a power of a density is not normalised"):
                multiple()
        return
    for scaled in (joint * factor, factor * joint, joint / factor, -joint, total(joint)):
        assert scaled.reference == joint.reference
    for refused in (lambda: factor / joint, lambda: joint * joint, lambda: exp(joint), lambda: log(joint)):
        with pytest.raises(UnitError, match=r"subtract a density of the same variables \(a log ratio\)"):
            refused()


# --- transforms -------------------------------------------------------------------------------------------------


@given(rows_BxD, alike(2), st.floats(0.5, 2))
@few
def test_jit_vmap_and_scan_agree_with_python(x_BxD, two, scale):
    unit, other = two
    q_BxD, offset = Quantity(jnp.asarray(x_BxD), unit), Quantity(scale, other**2)

    def f(q_D):
        return total(q_D**2) / scale - offset

    eager = [f(q_BxD[i]) for i in range(4)]
    assert all(each.unit == unit**2 for each in eager)
    expected_B = jnp.stack([each.to(unit**2) for each in eager])
    zero = Quantity(jnp.float32(0), unit**2)
    results = {
        "vmap": jax.vmap(f)(q_BxD),
        "jit": jax.jit(jax.vmap(f))(q_BxD),
        "scan": jax.lax.scan(lambda carry, q_D: (carry, f(q_D)), zero, q_BxD)[1],
        "map": jax.lax.map(f, q_BxD),
    }
    for name, result in results.items():
        assert result.unit == unit**2, name
        np.testing.assert_allclose(result.to(unit**2), expected_B, rtol=1e-4, atol=1e-3, err_msg=name)
    carried, _ = jax.lax.scan(lambda carry, q_D: (carry + f(q_D), None), zero, q_BxD)
    assert carried.unit == unit**2
    np.testing.assert_allclose(carried.to(unit**2), expected_B.sum(), rtol=1e-4, atol=1e-2)


@given(units(), units())
@few
def test_mistakes_are_refused_while_tracing(a, b):
    assume(a.dimension != b.dimension)
    p, q_B = Quantity(jnp.float32(1.0), a), Quantity(jnp.ones(3), b)
    transforms = (
        lambda: jax.jit(lambda p, q_B: p + q_B).lower(p, q_B),
        lambda: jax.vmap(lambda q: p - q)(q_B),
        lambda: jax.lax.scan(lambda carry, q: (carry + q, None), p, q_B),
        lambda: jax.eval_shape(lambda p, q_B: p < q_B, p, q_B),
    )
    for transform in transforms:
        with pytest.raises(UnitError, match="missing factor: "):
            transform()
