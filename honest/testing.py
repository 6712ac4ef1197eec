"""Assertions about units and objectives for your own tests, in the manner of chex.

Units are static, so `assert_unit`, `assert_log_density`, `assert_same_reference` and `assert_additive` hold or fail
while JAX traces, whatever the transformation. `assert_scale_invariant` and `assert_dataset_scaling` compare values:
call them on the outside, with `transform=self.variant` in a `@chex.variants` test, or inside a function wrapped by
`chex.chexify`. UnitError (a ValueError) says which unit is wrong, AssertionError which value.

    class TestObjective(chex.TestCase):
        @chex.variants(with_jit=True, without_jit=True)
        def test_no_unit_is_hidden(self):
            assert_scale_invariant(StageObjective(spec, state, sets, transform=self.variant), "trunk")
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Protocol, TypeVar

import chex
import jax
import jax.numpy as jnp

from honest.config import GROUP_UNITS
from honest.model.two_head import HeadLogits
from honest.objective.log_posterior import ObjectiveTerms
from honest.objective.predictions import Counts, Predictor, Rows, RowSets
from honest.params import Params
from honest.train.spec import StageSpec
from honest.train.state import Held, TrainState
from honest.train.terms import NEGATIVE, POSITIVE, data_terms, prior_terms
from honest.units import Quantity, UnitError, assert_log_density, assert_unit, nat, one, term
from honest.units.quantity import assert_same_reference as _same_reference

__all__ = [
    "Objective",
    "StageObjective",
    "assert_additive",
    "assert_dataset_scaling",
    "assert_log_density",
    "assert_same_reference",
    "assert_scale_invariant",
    "assert_unit",
]

T = TypeVar("T")
NOTHING = 1e-9  # nat: below it a term counts as 0
PRIORS = ("first_prior", "second_prior", "constants")


def assert_same_reference(*densities: Quantity) -> None:
    """UnitError unless all are in nat or bit and are log densities of the same variables, or none is of any."""
    if len(densities) < 2:
        raise UnitError("a comparison needs two log densities at least")
    _same_reference("a comparison", *(assert_unit(each, nat, f"density {i}") for i, each in enumerate(densities)))


def assert_additive(terms: Mapping[str, Quantity] | Iterable[Quantity]) -> Quantity:
    """The sum of terms of one log density. UnitError names the term that is not a scalar in nat or bit, or whose
    variables another term has already."""
    named = terms.items() if isinstance(terms, Mapping) else ((str(i), each) for i, each in enumerate(terms))
    total = Quantity(0.0, nat)
    for name, each in named:
        with term(name):
            total = total + assert_log_density(each)
    return total


class Objective(Protocol):
    """What the value assertions need of an objective; `StageObjective` is the shipped one."""

    def terms(self) -> ObjectiveTerms:
        """Its terms at some parameters, in nat."""
        ...

    def rescaled(self, group: str, factor: float) -> Objective:
        """The same objective at the same point, with lengths of the group's kind written in a unit `factor` times as
        large: parameters, anchors, standard deviations and the reference measure all divided by `factor`."""
        ...

    def repeated(self, times: int) -> Objective:
        """The same with every row that is data there `times` times; the consistency population is not data."""
        ...


def assert_scale_invariant(objective: Objective, group: str, *, factor: float = 10.0, rtol: float = 1e-4) -> None:
    """AssertionError unless every term keeps its value when the unit of `group`'s parameters is changed.

    A distance that becomes nats without a σ, or a σ meant for another group, changes by factor² or so. Groups that
    share a unit (the two heads) are rescaled together. AssertionError too where a prior term of one of them is 0, or
    all are, as at the anchor: nothing would be tested there. ValueError: `factor` is 1, or not positive and finite.
    """
    if factor == 1 or not 0 < factor < math.inf:
        raise ValueError(f"factor is {factor:g}, which changes no unit: give a positive number that is not 1")
    before = objective.terms()
    _assert_moved(before, group)
    _assert_close(objective.rescaled(group, factor).terms(), before, rtol, f"a unit {factor:g} × θ.{group}")


def assert_dataset_scaling(objective: Objective, *, times: int = 2, rtol: float = 1e-4) -> None:
    """AssertionError unless the data terms are `times` as large on `times` the data, and every other term unchanged.

    A mean loss beside whole-set priors, or priors divided by the number of rows, fails. AssertionError too where all
    prior terms are 0, as they are at the anchor. ValueError: `times` is below 2 or no integer.
    """
    if times < 2 or times != int(times):
        raise ValueError(f"times is {times}, which repeats nothing: give an integer, 2 or more")
    before = objective.terms()
    _assert_moved(before)
    expected = before._replace(data={group: times * nats for group, nats in before.data.items()})
    _assert_close(objective.repeated(times).terms(), expected, rtol, f"{times} × the data")


def _assert_close(got: ObjectiveTerms, expected: ObjectiveTerms, rtol: float, what: str) -> None:
    values, references = _named(got), _named(expected)
    if set(values) != set(references):
        raise AssertionError(f"at {what} there are other terms: {sorted(set(values) ^ set(references))}")
    for name, nats in values.items():
        message = f"term {name} at {what}, in nat"
        # NaN equals NaN to chex: two broken terms would agree.
        chex.assert_trees_all_equal(jnp.isfinite(nats), jnp.ones((), bool), custom_message=f"finite: {message}")
        chex.assert_trees_all_close(nats, references[name], rtol=rtol, atol=NOTHING, custom_message=message)


def _assert_moved(terms: ObjectiveTerms, group: str = "") -> None:
    """A prior at its anchor is 0 however it is written. (A stage without a prior has no such terms.)

    group: every prior term of a group that shares its unit must have moved too; others would not test that unit.
    """
    named = _named(terms)
    costs = {name: jnp.abs(n) for name, n in named.items() if name.startswith(("first_prior.", "second_prior."))}
    kin = [g for g in GROUP_UNITS if GROUP_UNITS[g] == GROUP_UNITS.get(group)] or [group]
    for name, nats in costs.items():
        if name.split(".", 1)[1] in kin:
            message = f"term {name} is 0, so its unit would not be tested: move the parameters away from the anchor"
            chex.assert_trees_all_equal(nats <= NOTHING, jnp.zeros_like(nats, bool), custom_message=message)
    if costs:
        message = "all prior terms are 0, so nothing would be tested: move the parameters away from the anchor"
        still = jnp.max(jnp.stack(list(costs.values()))) <= NOTHING
        chex.assert_trees_all_equal(still, jnp.zeros((), bool), custom_message=message)


def _named(terms: ObjectiveTerms) -> dict[str, jax.Array]:
    """Every term in nat, bare, by "term.group"."""
    named: dict[str, jax.Array] = {}
    for name, part in terms._asdict().items():
        parts = {f"{name}.{group}": q for group, q in part.items()} if isinstance(part, dict) else {name: part}
        for key, quantity in parts.items():
            with term(key):
                named[key] = jnp.asarray(assert_unit(quantity, nat, "the term").to(nat))
    return named


def _same(function: T) -> T:
    return function


@dataclass(frozen=True)
class StageObjective:
    """The shipped objective of a stage at a state, over the whole of `sets`.

    transform: wraps the function of arrays that computes the terms (`self.variant` of a chex test, `jax.jit`).
    """

    spec: StageSpec
    state: TrainState
    sets: RowSets
    transform: Callable[[Any], Any] = _same

    def terms(self) -> ObjectiveTerms:
        def compute(state: TrainState, sets: RowSets) -> ObjectiveTerms:
            if self.spec.prior is None or state.prior is None:
                return data_terms(self.spec, state.params, state.held, state.step, sets).terms
            positions = {POSITIVE: state.prior.positive.whitened, NEGATIVE: state.prior.negative.whitened}
            variables = {**state.params, **positions}
            return prior_terms(
                self.spec, self.spec.prior, variables, state.held, state.prior.multiplier, state.step, sets
            ).terms

        return self.transform(compute)(self.state, self.sets)

    def rescaled(self, group: str, factor: float) -> StageObjective:
        if group not in GROUP_UNITS:
            raise ValueError(f"{group!r} is no group of parameters: give one of {', '.join(GROUP_UNITS)}")
        groups = tuple(g for g, unit in GROUP_UNITS.items() if unit == GROUP_UNITS[group])

        def divide(params: Params) -> Params:
            return {g: jax.tree.map(lambda x: x / factor, p) if g in groups else p for g, p in params.items()}

        held = self.state.held
        priors = None if held.priors is None else _in_larger_unit(held.priors, groups[0], factor)
        state = self.state._replace(
            params=divide(self.state.params), held=Held(divide(held.anchor), divide(held.start), priors)
        )
        predictor = Rescaled(self.spec.predictor, groups, factor)
        return replace(self, spec=replace(self.spec, predictor=predictor), state=state)

    def repeated(self, times: int) -> StageObjective:
        def repeat(rows: Rows | None) -> Rows | None:
            return None if rows is None else jax.tree.map(lambda x: jnp.concatenate([x] * times), rows)

        counts = self.spec.counts
        more = Counts(
            times * counts.trusted,
            times * counts.untrusted,
            times * counts.world_tokens,
            counts.consistency,
            times * counts.compared,
        )
        sets = RowSets(
            repeat(self.sets.trusted),
            repeat(self.sets.untrusted),
            repeat(self.sets.world),
            self.sets.consistency,
            repeat(self.sets.compared),
        )
        return replace(self, spec=replace(self.spec, counts=more), sets=sets)


def _in_larger_unit(priors: Any, group: str, factor: float) -> Any:
    """Every Quantity with its numbers changed as its power of θ.<group> says; lengths are divided by `factor`."""
    ((symbol, _),) = GROUP_UNITS[group].powers

    def change(node: Any) -> Any:
        if not isinstance(node, Quantity):
            return node
        power = dict(node.unit.powers).get(symbol, Fraction(0))
        return node * Quantity(factor ** -float(power), one)

    return jax.tree.map(change, priors, is_leaf=lambda node: isinstance(node, Quantity))


@dataclass(frozen=True)
class Rescaled:
    """A predictor whose `groups` are given in a unit `factor` times as large."""

    predictor: Predictor
    groups: tuple[str, ...]
    factor: float

    def _own(self, params: Params) -> Params:
        return {g: jax.tree.map(lambda x: x * self.factor, p) if g in self.groups else p for g, p in params.items()}

    def head_logits(self, params: Params, rows: Rows) -> HeadLogits:
        return self.predictor.head_logits(self._own(params), rows)

    def world_logits(self, params: Params, rows: Rows) -> jax.Array:
        return self.predictor.world_logits(self._own(params), rows)
