"""The ledger and the sum of the five terms."""

from __future__ import annotations

import math

import jax.numpy as jnp
import pytest

from honest.objective.ledger import Entry, ledger
from honest.objective.log_posterior import ObjectiveTerms, log_posterior
from honest.units import Quantity, UnitError, bit, density, disagreement, example, nat

VARIABLES = frozenset({"θ1.intended_head", "θ2.trunk"})


def some_terms():
    """Contributions −1, −2, −4, … nats: a sum of them names what it holds."""
    q = lambda power: Quantity(-(2.0**power), nat)  # noqa: E731
    return ObjectiveTerms(
        data={"intended_head": q(0), "instrumental_head": q(1), "trunk": q(2)},
        first_prior={"intended_head": density(q(3), "θ1.intended_head")},
        second_prior={"trunk": density(q(4), "θ2.trunk")},
        constants={"first intended_head": q(5), "second trunk": q(6)},
        consistency=q(7),
        log_partition=-q(8),
    )


EXPECTED = [
    Entry("data", "intended_head", -1.0),
    Entry("data", "instrumental_head", -2.0),
    Entry("data", "trunk", -4.0),
    Entry("first_prior", "intended_head", -8.0),
    Entry("second_prior", "trunk", -16.0),
    Entry("constants", "first intended_head", -32.0),
    Entry("constants", "second trunk", -64.0),
    Entry("consistency", "heads", -128.0),
    Entry("log_partition", "heads", 256.0),
]


def test_rows_name_every_term_and_add_up_to_the_total():
    rows, total = ledger(some_terms(), VARIABLES)
    assert rows == EXPECTED
    assert total == 1.0
    assert total == sum(row.nats for row in rows)


def replaced(name, group, quantity):
    terms = some_terms()
    if group == "heads":
        return terms._replace(**{name: quantity})
    return terms._replace(**{name: {**getattr(terms, name), group: quantity}})


def tagged(entry, quantity):
    """With the variable that a prior's term is a density of."""
    stages = {"first_prior": "θ1", "second_prior": "θ2"}
    return density(quantity, f"{stages[entry.term]}.{entry.group}") if entry.term in stages else quantity


@pytest.mark.parametrize("entry", EXPECTED, ids=lambda entry: f"{entry.term}-{entry.group}")
def test_every_term_reaches_the_sum(entry):
    quantity = tagged(entry, Quantity(entry.nats + 1000.0, nat))
    changed = replaced(entry.term, entry.group, quantity)
    assert float(log_posterior(changed, VARIABLES).to(nat)) == 1001.0
    rows, total = ledger(changed, VARIABLES)
    assert total == sum(row.nats for row in rows) == 1001.0


@pytest.mark.parametrize("entry", EXPECTED, ids=lambda entry: f"{entry.term}-{entry.group}")
@pytest.mark.parametrize("unit", [disagreement, nat / example], ids=str)
def test_a_term_that_is_not_in_nat_is_an_error(entry, unit):
    with pytest.raises(UnitError, match=r"in term 'log_posterior'.*missing factor"):
        log_posterior(replaced(entry.term, entry.group, Quantity(1.0, unit)), VARIABLES)


def test_bits_are_converted():
    rows, total = ledger(replaced("data", "trunk", Quantity(-8.0, bit)), VARIABLES)
    assert rows[2].nats == pytest.approx(-8 * math.log(2))
    assert total == pytest.approx(1.0 + 4.0 - 8 * math.log(2))


def test_a_density_of_the_same_variable_twice_is_an_error():
    twice = replaced("second_prior", "trunk", density(Quantity(-1.0, nat), "θ1.intended_head"))
    with pytest.raises(UnitError, match=r"in term 'log_posterior'.*\{θ1.intended_head\} twice"):
        log_posterior(twice, VARIABLES)


@pytest.mark.parametrize(
    "missing", [{"first_prior": {}}, {"second_prior": {}}, {"second_prior": {"trunk": Quantity(-16.0, nat)}}], ids=str
)
def test_a_prior_that_is_left_out_or_untagged_is_an_error(missing):
    with pytest.raises(UnitError, match=r"in term 'log_posterior'.*expected \{θ1.intended_head, θ2.trunk\}"):
        log_posterior(some_terms()._replace(**missing), VARIABLES)


def test_a_term_that_is_not_a_scalar_is_an_error():
    with pytest.raises(UnitError, match=r"in term 'log_posterior'.*shape"):
        log_posterior(some_terms()._replace(consistency=Quantity(jnp.ones(3), nat)), VARIABLES)
