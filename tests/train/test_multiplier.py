"""The multiplier's rules by hand arithmetic, its diagnostics, and its value: the measured exchange rate."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from honest.config import GROUP_UNITS
from honest.model.two_head import HeadLogits
from honest.objective.consistency import consistency_nats, violation_rate
from honest.objective.data_loss import data_nats
from honest.objective.log_posterior import ObjectiveTerms, log_posterior
from honest.objective.predictions import Counts, RowSets, predict
from honest.train import multiplier
from honest.train.multiplier import MultiplierRule
from honest.train.spec import MULTIPLIER_NUMBERS
from honest.units import Quantity, density, disagreement, example, nat, strip_grad, value_and_grad
from tests.priors import gaussian

update_jit = jax.jit(multiplier.update, static_argnums=0)
pytestmark = pytest.mark.usefixtures("quick_compilation")
RULES = ("multiplicative", "additive", "augmented_lagrangian", "nupi")


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def make_rule(update, **changed):
    base = {
        "tolerance": 0.1,
        "initial": 2.0,
        "minimum": 0.5,
        "maximum": 10.0,
        "rate": 0.02,
        "proportional_rate": 0.3,
        "ema": multiplier.decay(0.5),
        "warmup_steps": 0,
    }
    return MultiplierRule(update=update, **{**base, **changed})


def follow(rule, violations):
    """(λ, weight) after each violation, and the last state."""
    state, path = multiplier.init(rule, jnp.float64), []
    for step, violation in enumerate(violations):
        state, weight = update_jit(rule, state, jnp.asarray(violation), jnp.asarray(step))
        path.append((float(state.value), float(weight)))
    return path, state


def test_traced_numbers_give_the_multiplier_of_stated_ones():
    """Of members that are trained together they are traced; float32 chains would make more of another rounding."""
    with jax.enable_x64(False):
        violations = np.random.default_rng(0).uniform(0, 0.05, 50).astype(np.float32)
        rule = make_rule("multiplicative", tolerance=0.02, ema=multiplier.decay(0.9))

        @jax.jit
        def traced(numbers, state, violation, step):
            return multiplier.update(dataclasses.replace(rule, **numbers), state, violation, step)

        numbers = {name: jax.tree.map(jnp.float32, vars(rule)[name]) for name in MULTIPLIER_NUMBERS}
        ours = expected = multiplier.init(rule, jnp.float32)
        for step, violation in enumerate(violations):
            ours, _ = traced(numbers, ours, violation, step)
            expected, _ = update_jit(rule, expected, violation, step)
            assert (ours.value, ours.violation) == (expected.value, expected.violation)
    assert 0.5 < float(ours.value) != 2.0


def test_a_traced_decay_close_to_one_loses_no_digits():
    """0 and then 0.2 average to 0.2·10⁻⁴; in float32, 1 − 0.9999 would be 1.00017·10⁻⁴."""
    with jax.enable_x64(False):
        rule = make_rule("multiplicative", ema=jax.tree.map(jnp.float32, multiplier.decay(0.9999)))
        state = multiplier.init(rule, jnp.float32)
        for step, violation in enumerate((0.0, 0.2)):
            state, _ = multiplier.update(rule, state, jnp.float32(violation), jnp.asarray(step))
        np.testing.assert_allclose(state.violation, 2e-5, rtol=1e-6)


# Violations 0.2 then 0.05 at tolerance 0.1: errors 1 and −0.5; averages 0.2 and 0.125, whose errors are 1 and 0.25.
BY_HAND = {
    "multiplicative": [(2 * math.exp(0.02),) * 2, (2 * math.exp(0.025),) * 2],
    "additive": [(2.04,) * 2, (2.02,) * 2],
    "augmented_lagrangian": [(2.04, 2.04 + 0.6), (2.02, 2.02 - 0.3)],
    "nupi": [(2.64,) * 2, (2.64 - 0.02 - 0.6 * 0.75,) * 2],
}


@pytest.mark.parametrize("update", RULES)
def test_two_updates_by_hand(update):
    path, state = follow(make_rule(update), [0.2, 0.05])
    np.testing.assert_allclose(path, BY_HAND[update], rtol=1e-12)
    assert float(state.violation) == pytest.approx(0.125)


def test_multiplicative_error_is_clipped_to_one_tolerance():
    """C̄ of 100 tolerances moves λ by exp(η), as two tolerances do."""
    path, _ = follow(make_rule("multiplicative"), [10.0, 10.0])
    np.testing.assert_allclose([value for value, _ in path], [2 * math.exp(0.02), 2 * math.exp(0.04)], rtol=1e-12)


@pytest.mark.parametrize("update", RULES)
@pytest.mark.parametrize(("violation", "limit"), [(1.0, 10.0), (0.0, 0.5)])
def test_value_and_weight_stay_between_minimum_and_maximum(update, violation, limit):
    path, _ = follow(make_rule(update, rate=0.5), [violation] * 40)
    assert path[-1] == (limit, limit)
    assert all(0.5 <= number <= 10.0 for step in path for number in step)


@pytest.mark.parametrize("update", RULES)
def test_frozen_in_warm_up_while_the_averages_move(update):
    path, state = follow(make_rule(update, warmup_steps=3), [0.2, 0.4, 0.1])
    assert path == [(2.0, 2.0)] * 3
    assert float(state.violation) == pytest.approx(0.5 * (0.5 * (0.2 + 0.4)) + 0.5 * 0.1)
    path, _ = follow(make_rule(update, warmup_steps=3), [0.2, 0.4, 0.1, 0.3])
    assert path[3][0] > 2.0


@pytest.mark.parametrize("update", RULES)
def test_no_gradient_flows_through_the_violation(update):
    rule = make_rule(update)

    def outputs(violation):
        state, weight = multiplier.update(rule, multiplier.init(rule, jnp.float64), violation, jnp.asarray(0))
        return weight + state.value + state.violation

    assert float(jax.grad(outputs)(jnp.asarray(0.2))) == 0.0


def test_diagnostics_by_hand():
    rule = make_rule("additive")
    _, state = follow(rule, [0.2, 0.05])
    result = {name: float(value) for name, value in multiplier.diagnostics(rule, state).items()}
    assert result == pytest.approx(
        {
            "constraint/lambda_nats_per_disagreement": 2.02,
            "constraint/violation_disagreement_per_example": 0.125,
            "constraint/violation_over_tolerance": 1.25,
            "constraint/slackness_nats_per_example": 2.02 * 0.025,
            "constraint/feasible_fraction": 0.01,  # 0.99·[0.2 ≤ 0.1] + 0.01·[0.05 ≤ 0.1]
            "constraint/infeasible": 0.0,
        }
    )


@pytest.mark.parametrize(
    ("name", "violations", "flag"),
    [
        ("at its cap and violated", [0.3] * 200, 1.0),
        ("at its cap, then satisfied", [0.3] * 200 + [0.01] * 10, 0.0),
        ("rising while the violation stays", [0.3] * 20, 1.0),
        ("rising while the violation grows", [0.2 + 0.01 * t for t in range(20)], 1.0),
        ("rising while the violation falls", [0.5 * 0.95**t for t in range(20)], 0.0),
        ("satisfied", [0.05] * 20, 0.0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_infeasible_flag(name, violations, flag):
    rule = make_rule("multiplicative")
    path, state = follow(rule, violations)
    assert (path[-1][0] > 9.99) == (len(violations) == 200)
    assert float(multiplier.diagnostics(rule, state)["constraint/infeasible"]) == flag, name


# --- λ is the exchange rate ----------------------------------------------------------------------------------

ROWS, POPULATION, FEATURES, STDDEV = 40, 25, 3, 2.0
TOLERANCE, RELATIVE_STEP = 0.03, 0.02
HEADS = ("intended_head", "instrumental_head")
VARIABLES = frozenset(f"θ1.{head}" for head in HEADS)
UNITS = {head: GROUP_UNITS[head] for head in HEADS}


class ToyRows(NamedTuple):
    x_BxF: jax.Array
    label_B: jax.Array


class LinearHeads:
    def head_logits(self, params, rows):
        return HeadLogits(rows.x_BxF @ params["intended_head"], rows.x_BxF @ params["instrumental_head"])

    def world_logits(self, params, rows):
        raise AssertionError("there is no world data")


def disagreeing_people():
    """The truth follows the first feature, the person the second: agreement costs nats of data."""
    x_BxF = np.random.default_rng(0).normal(size=(ROWS, FEATURES))
    rows = lambda labels: ToyRows(jnp.asarray(x_BxF), jnp.asarray(labels.astype(int)))  # noqa: E731
    truth, person = rows(x_BxF[:, 0] + 0.3 * x_BxF[:, 2] > 0), rows(x_BxF[:, 1] > 0)
    return RowSets(truth, person, None, jax.tree.map(lambda leaf: leaf[:POPULATION], truth))


def terms_at(params, sets, exchange):
    """The log posterior's terms without log Z, and C̄."""
    predictions = predict(LinearHeads(), params, sets)
    violation = violation_rate(predictions, "jensen_shannon")
    data = data_nats(predictions, sets, Counts(ROWS, ROWS, 0, POPULATION))
    anchor = jax.tree.map(jnp.zeros_like, params)
    prior = {head: density(gaussian(params, head, STDDEV).nats(params, anchor, head), f"θ1.{head}") for head in HEADS}
    cost = consistency_nats(exchange, violation, POPULATION)
    data = {group: -nats for group, nats in data.items()}
    return ObjectiveTerms(data, prior, {}, {}, -cost, Quantity(0.0, nat)), violation


def constrained_optimum(rule, sets, steps=6000, learning_rate=0.01):
    """(λ, C̄, the cost of data and priors in nat) where gradient descent under the multiplier's own loop ends."""
    rng = np.random.default_rng(1)
    params = {head: jnp.asarray(0.1 * rng.normal(size=(FEATURES, 2))) for head in HEADS}

    def loss(params, exchange):
        terms, violation = terms_at(params, sets, exchange)
        return -log_posterior(terms, VARIABLES), (terms, violation)

    def step(carry, index):
        params, state = carry
        violation = violation_rate(predict(LinearHeads(), params, sets), "jensen_shannon")
        state, weight = multiplier.update(rule, state, violation.to(disagreement / example), index)
        _, gradient = value_and_grad(loss, UNITS, has_aux=True)(params, Quantity(weight, nat / disagreement))
        params = jax.tree.map(lambda p, g: p - learning_rate * g, params, strip_grad(gradient, UNITS))
        return (params, state), None

    start = (params, multiplier.init(rule, jnp.float64))
    (params, state), _ = jax.lax.scan(step, start, jnp.arange(steps))
    terms, violation = terms_at(params, sets, Quantity(state.value, nat / disagreement))
    free = log_posterior(terms._replace(consistency=Quantity(0.0, nat)), VARIABLES)
    return state.value, violation.to(disagreement / example), -free.to(nat)


@pytest.mark.parametrize("update", RULES)
def test_multiplier_is_the_measured_exchange_rate(update):
    """λ·N_c = −∂(data + priors at the optimum)/∂ε: nats paid for one unit of disagreement, by finite difference
    (there is no log Z here, so it is fixed)."""
    sets = disagreeing_people()
    rule = make_rule(
        update, initial=1.0, minimum=1e-3, maximum=1e3, rate=0.01, warmup_steps=100, ema=multiplier.decay(0.9)
    )

    @jax.jit
    @jax.vmap
    def optimum(tolerance):
        return constrained_optimum(dataclasses.replace(rule, tolerance=tolerance), sets)

    tolerances = TOLERANCE * np.array([1 - RELATIVE_STEP, 1.0, 1 + RELATIVE_STEP])
    value_3, violation_3, cost_3 = (np.asarray(x) for x in optimum(jnp.asarray(tolerances)))
    np.testing.assert_allclose(violation_3, tolerances, rtol=1e-4)  # the constraint is active, and met
    slope = (cost_3[2] - cost_3[0]) / (2 * RELATIVE_STEP * TOLERANCE * POPULATION)
    assert value_3[1] > 1.5  # agreement costs something, and λ has moved
    assert value_3[0] > value_3[1] > value_3[2]  # and costs more, the more is asked for
    assert value_3[1] == pytest.approx(-slope, rel=1e-3)
