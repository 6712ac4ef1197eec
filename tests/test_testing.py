"""The assertions of honest.testing: under chex's variants, on the shipped objective, and on objectives with a mistake.

The toy is that of the guards, with data for every term; the families are all of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from honest.config import GROUP_UNITS, GROUPS
from honest.objective.log_posterior import ObjectiveTerms
from honest.objective.parameter_prior import Horseshoe, Laplace, Sparse, StudentT, Tied, TowardZero
from honest.objective.parameter_prior.gaussian import Gaussian, TensorScale
from honest.testing import (
    StageObjective,
    assert_additive,
    assert_dataset_scaling,
    assert_log_density,
    assert_same_reference,
    assert_scale_invariant,
    assert_unit,
)
from honest.units import Quantity, UnitError, bit, density, displacement, example, nat
from tests.train.test_guards import problem

pytestmark = pytest.mark.usefixtures("quick_compilation")
TRUNK = displacement("trunk")
STATIC = {"with_jit": True, "without_jit": True, "with_device": True, "without_device": True, "with_pmap": True}


def kronecker(params: Any, group: str) -> Gaussian:
    """A metric with a rotation and σ of its own for every weight."""
    rng = np.random.default_rng(0)

    def scale(leaf: jax.Array) -> TensorScale:
        turn = [jnp.asarray(np.linalg.qr(rng.normal(size=(n, n)))[0]) for n in leaf.shape]
        sigma = Quantity(jnp.asarray(rng.uniform(0.3, 2.0, size=leaf.shape)), GROUP_UNITS[group])
        return TensorScale(sigma, *turn[:2])

    return Gaussian(jax.tree.map(scale, params[group]))


def families(group: str) -> dict[str, Any]:
    unit = GROUP_UNITS[group]
    s, narrow, b = Quantity(jnp.asarray(0.7), unit), Quantity(jnp.asarray(0.2), unit), Quantity(jnp.asarray(3.0), bit)
    made = {
        "toward_zero by weight": TowardZero(s, "weight"),
        "toward_zero by tensor": TowardZero(s, "tensor"),
        "student_t": StudentT(s, 3.0),
        "laplace": Laplace(s),
        "horseshoe": Horseshoe(s, narrow),
        "sparse": Sparse(s, narrow, b, "column"),
    }
    return {**made, "tied": Tied(s, narrow, b)} if group == "instrumental_head" else made


def shipped(kind: str, staging: str, transform: Any = lambda f: f, **first: Any) -> StageObjective:
    """The whole objective of the toy, with `first` priors instead of Gaussian ones."""
    spec, state, inputs = problem(kind, staging, data=True, chains=2)
    priors = state.held.priors
    assert priors is not None
    priors = priors._replace(first={**priors.first, **first})
    state = state._replace(held=state.held._replace(priors=priors))
    return StageObjective(spec, state, inputs.population, transform)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


class TestVariants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    def test_values_are_compared_outside(self):
        with jax.enable_x64(True):
            objective = shipped("laplace", "all", self.variant)
            assert_scale_invariant(objective, "intended_head")
            assert_dataset_scaling(objective)

    @chex.variants(**STATIC)
    def test_static_assertions_hold_while_tracing(self):
        @self.variant
        def summed(x):
            prior = density(Quantity(x, nat), "θ1.trunk")
            other = density(Quantity(2 * x, bit), "θ1.head")
            assert_unit(Quantity(x, TRUNK), TRUNK)
            assert_same_reference(prior, -prior)
            assert_log_density(prior, ["θ1.trunk"])
            return assert_additive({"trunk": prior, "head": other, "data": Quantity(-x, nat)}).to(nat)

        assert float(summed(jnp.float32(3.0))) == pytest.approx(6 * np.log(2))

    @chex.variants(**STATIC)
    def test_static_assertions_fail_while_tracing(self):
        @self.variant
        def summed(x):
            prior = density(Quantity(x, nat), "θ1.trunk")
            return assert_additive({"first": prior, "again": prior}).to(nat)

        with pytest.raises(UnitError, match=r"in term 'again'.*has \{θ1.trunk\} twice"):
            summed(jnp.float32(3.0))


def test_values_may_be_compared_under_chexify():
    @chex.chexify
    @jax.jit
    def check(factor):
        objective = shipped("points", "heads_then_trunk")
        assert_scale_invariant(objective, "trunk")
        return factor

    check(1.0)
    chex.block_until_chexify_assertions_complete()


def test_a_mistake_is_found_under_chexify():
    @chex.chexify
    @jax.jit
    def check(factor):
        assert_dataset_scaling(Mistaken("mean loss"))
        return factor

    with pytest.raises(AssertionError, match=r"term data\.h"):
        check(1.0)
        chex.block_until_chexify_assertions_complete()


def test_the_pmap_variants_pass_on_two_devices():
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "PJRT_NPROC": "64"}
    command = [sys.executable, "-m", "pytest", "-v", "-k", "pmap and TestVariants", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout and "skipped" not in done.stdout


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"data": Quantity(1.0, nat / example)}, "in term 'data': log density has unit nat/example, expected nat"),
        ([Quantity(1.0, nat), Quantity(jnp.ones(2), nat)], r"in term '1': log density has shape \(2,\)"),
        ({"a": density(Quantity(1.0, nat), "θ"), "b": density(Quantity(1.0, nat), "θ")}, "in term 'b'"),
        ([1.0], "is a bare float"),
    ],
)
def test_terms_that_do_not_add(terms, message):
    with pytest.raises(UnitError, match=message):
        assert_additive(terms)


def test_densities_of_different_variables_have_no_common_reference():
    with pytest.raises(UnitError, match="use densities of the same variables"):
        assert_same_reference(density(Quantity(1.0, nat), "a"), density(Quantity(1.0, nat), "b"))


# --- the two invariances of the shipped objective -------------------------------------------------------------


@pytest.mark.parametrize("staging", ["heads_then_trunk", "all"])
@pytest.mark.parametrize("kind", ["points", "laplace", "chains"])
def test_the_shipped_objective_has_no_hidden_unit_and_counts_each_label_once(kind, staging):
    objective = shipped(kind, staging)
    for group in GROUPS:
        assert_scale_invariant(objective, group, rtol=1e-9)
    assert_dataset_scaling(objective, times=3, rtol=1e-9)


@pytest.mark.parametrize("group", GROUPS)
def test_every_family_is_invariant(group):
    for prior in families(group).values():
        objective = shipped("points", "all", **{group: prior})
        assert_scale_invariant(objective, group, factor=0.01, rtol=1e-9)
        assert_dataset_scaling(objective, rtol=1e-9)


def test_a_rotated_metric_is_invariant_in_both_stages():
    objective = shipped("points", "all")
    priors = objective.state.held.priors
    metric = kronecker(objective.state.held.anchor, "trunk")
    priors = priors._replace(first={**priors.first, "trunk": metric}, second={**priors.second, "trunk": metric})
    state = objective.state._replace(held=objective.state.held._replace(priors=priors))
    assert_scale_invariant(replace(objective, state=state), "trunk", rtol=1e-9)


# --- objectives with a mistake --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mistaken:
    """One head with weights w around 0, n labels, and a prior of σ = 2 θ.head; `mistake` says what is wrong."""

    mistake: str
    unit: float = 1.0
    rows: int = 100

    def terms(self) -> ObjectiveTerms:
        w, sigma = jnp.asarray([3.0, -1.0]) / self.unit, 2.0 / self.unit
        nll = jnp.log1p(jnp.exp(-jnp.sum(w) * self.unit))
        data = nll if self.mistake == "mean loss" else self.rows * nll
        prior = 0.5 * jnp.sum(w**2) / (1.0 if self.mistake == "no σ" else sigma**2)
        prior = prior / self.rows if self.mistake == "prior over rows" else prior
        constant = jnp.log(2 * jnp.pi * sigma**2 / (1.0 if self.mistake == "no measure" else self.unit**-2))
        zero = Quantity(0.0, nat)
        return ObjectiveTerms(
            {"h": Quantity(-data, nat)}, {"h": Quantity(-prior, nat)}, {}, {"h": Quantity(-constant, nat)}, zero, zero
        )

    def rescaled(self, group: str, factor: float) -> Mistaken:
        return replace(self, unit=self.unit * factor)

    def repeated(self, times: int) -> Mistaken:
        return replace(self, rows=self.rows * times)


def test_a_sound_objective_of_ones_own_passes():
    assert_scale_invariant(Mistaken("none"), "head")
    assert_dataset_scaling(Mistaken("none"))


@pytest.mark.parametrize(("mistake", "term"), [("no σ", "first_prior.h"), ("no measure", "constants.h")])
def test_a_hidden_unit_is_found(mistake, term):
    assert_dataset_scaling(Mistaken(mistake))
    with pytest.raises(AssertionError, match=f"term {term} at a unit 10"):
        assert_scale_invariant(Mistaken(mistake), "head")


@pytest.mark.parametrize(("mistake", "term"), [("mean loss", "data.h"), ("prior over rows", "first_prior.h")])
def test_a_wrong_count_is_found(mistake, term):
    assert_scale_invariant(Mistaken(mistake), "head")
    with pytest.raises(AssertionError, match=f"term {term} at 2 × the data"):
        assert_dataset_scaling(Mistaken(mistake))


@pytest.mark.parametrize("check", [lambda o: assert_scale_invariant(o, "head"), assert_dataset_scaling])
def test_terms_that_are_not_finite_do_not_pass(check):
    class Broken(Mistaken):
        def terms(self):
            return super().terms()._replace(consistency=Quantity(jnp.asarray(jnp.nan), nat))

    with pytest.raises(AssertionError, match="finite: term consistency"):
        check(Broken("none"))


@pytest.mark.parametrize("check", [lambda o: assert_scale_invariant(o, "head"), assert_dataset_scaling])
def test_at_the_anchor_nothing_would_be_tested(check):
    class AtAnchor(Mistaken):
        def terms(self):
            return super().terms()._replace(first_prior={"h": Quantity(jnp.zeros(()), nat)})

    with pytest.raises(AssertionError, match="move the parameters away from the anchor"):
        check(AtAnchor("no σ"))


def test_a_head_at_its_anchor_is_named_though_other_priors_have_moved():
    objective = shipped("points", "heads_then_trunk")
    params = {**objective.state.params, "instrumental_head": objective.state.held.anchor["instrumental_head"]}
    there = replace(objective, state=objective.state._replace(params=params))
    assert_scale_invariant(there, "trunk")  # a prior of another kind may be 0
    for head in ("intended_head", "instrumental_head"):  # they share a unit
        with pytest.raises(AssertionError, match=r"first_prior\.instrumental_head is 0.*away from the anchor"):
            assert_scale_invariant(there, head)


@pytest.mark.parametrize(("value", "message"), [(0.0, r"first_prior\.trunk is 0"), (jnp.nan, r"finite: term first_")])
def test_what_would_test_nothing_is_found_under_chexify(value, message):
    class Traced(Mistaken):
        def terms(self):
            moved, still = Quantity(jnp.ones(()), nat), Quantity(prior[0], nat)
            return super().terms()._replace(first_prior={"h": moved, "trunk": still})

    prior: list[Any] = []

    @chex.chexify
    @jax.jit
    def check(traced):
        prior[:] = [traced]
        assert_scale_invariant(Traced("none"), "trunk")
        return traced

    with pytest.raises(AssertionError, match=message):
        check(value)
        chex.block_until_chexify_assertions_complete()


def test_checks_that_would_change_nothing_are_refused():
    for factor in (1.0, 0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="changes no unit"):
            assert_scale_invariant(Mistaken("none"), "head", factor=factor)
    for times in (1, 2.5):
        with pytest.raises(ValueError, match="repeats nothing"):
            assert_dataset_scaling(Mistaken("none"), times=times)
    with pytest.raises(ValueError, match="'head' is no group of parameters: give one of trunk, intended_head"):
        assert_scale_invariant(shipped("points", "heads_then_trunk"), "head")


def test_small_hidden_units_are_found():
    """A prior of 1e-3 nat: no absolute tolerance hides it."""

    class Small(Mistaken):
        def terms(self):
            terms = super().terms()
            return terms._replace(first_prior={"h": Quantity(1e-4 * terms.first_prior["h"].to(nat), nat)})

    with pytest.raises(AssertionError, match=r"term first_prior\.h"):
        assert_dataset_scaling(Small("prior over rows"))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (1.0, "in term 'first_prior.h': the term is a bare float"),
        (Quantity(1.0, nat / example), "in term 'first_prior.h': the term has unit nat/example, expected nat"),
    ],
)
def test_a_term_in_a_wrong_unit_is_named(bad, message):
    class Wrong(Mistaken):
        def terms(self):
            return super().terms()._replace(first_prior={"h": bad})

    with pytest.raises(UnitError, match=message):
        assert_dataset_scaling(Wrong("none"))


@pytest.mark.parametrize(
    ("densities", "message"),
    [
        ([], "needs two log densities"),
        ([Quantity(1.0, nat)], "needs two log densities"),
        ([1.0, Quantity(1.0, nat)], "density 0 is a bare float"),
        ([Quantity(1.0, nat), Quantity(1.0, example)], "density 1 has unit example, expected nat"),
    ],
)
def test_only_log_densities_have_a_reference(densities, message):
    with pytest.raises(UnitError, match=message):
        assert_same_reference(*densities)


def test_a_stage_whose_priors_are_not_rescaled_is_found():
    objective = shipped("points", "heads_then_trunk")

    class Forgetful(StageObjective):
        def rescaled(self, group: str, factor: float) -> StageObjective:
            moved = super().rescaled(group, factor)
            held = moved.state.held._replace(priors=self.state.held.priors)
            return replace(moved, state=moved.state._replace(held=held))

    with pytest.raises(AssertionError, match=r"term first_prior\.intended_head"):
        assert_scale_invariant(Forgetful(objective.spec, objective.state, objective.sets), "intended_head")
