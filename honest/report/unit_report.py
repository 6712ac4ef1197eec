"""The unit table of an objective: each term as −measured × coefficient in nat, and what one unit of each is worth.

Products are multiplied out as Quantities, so that a coefficient in a wrong unit cannot be printed.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from pydantic import BaseModel

from honest.config import GROUP_UNITS
from honest.config_objective import ObjectiveConfig
from honest.config_priors import GaussianPrior
from honest.objective.log_posterior import ObjectiveTerms
from honest.objective.parameter_prior import Prior, precision
from honest.params import Params, dimension, squared_distance, squared_norm
from honest.report.answers import chain_params
from honest.report.ledger_values import LN2, whole_terms
from honest.train import phases
from honest.train.stage import Stage
from honest.train.state import TrainState
from honest.units import Quantity, assert_unit, bit, disagreement, example, nat, one, parse_quantity, token

ONE_DISAGREEMENT = {
    "jensen_shannon": "1 nat of Jensen–Shannon divergence",
    "symmetric_kl": "1 nat of KL + KL",
    "total_variation": "a total variation of 1",
}
CONTRADICTION = {"jensen_shannon": LN2, "total_variation": 1.0}  # the most that a row can have; KL has no limit
DRAWS = 16  # directions, and weights, that the cost of 1 θ is taken over


class UnitRow(NamedTuple):
    """One contribution to the log joint: −measured × coefficient.

    coefficient None: the cost is no multiple of what is measured, and `note` says what it is.
    """

    term: str
    group: str
    measured: Quantity
    coefficient: Quantity | None
    note: str
    contribution: Quantity


class DistanceCost(NamedTuple):
    """What 1 θ_g away from a prior's centre costs, in bit (below 0: it saves); pairs are (lowest, highest) of draws.

    norm: of the centre, in θ_g. toward_zero: straight from the centre toward θ = 0; None for a centre at 0.
    """

    prior: str
    group: str
    weights: int
    norm: float
    random_direction: tuple[float, float]
    one_weight: tuple[float, float]
    toward_zero: float | None


class UnitReport(NamedTuple):
    """exchange: (what, how much of it, what that is worth in bit)."""

    rows: list[UnitRow]
    distances: list[DistanceCost]
    exchange: list[tuple[str, Quantity, Quantity]]


class _Centred(NamedTuple):
    """A prior of a stage and group; `params` is where the state has the group, `centre` every group at the centre."""

    name: str
    group: str
    family: Prior
    section: BaseModel
    params: Params
    centre: Params


def unit_report(stage: Stage, state: TrainState, objective: ObjectiveConfig, log_z: float | None) -> UnitReport:
    """The table of a state of the full objective, over its whole declared sets.

    log_z: the upper bound of log Z in nat, from which a run's ledger claims its bits; None where it is left out.
    """
    assert stage.spec.prior is not None and state.prior is not None
    terms, violation = jax.device_get(whole_terms(stage.program, state, stage.sets))
    terms = terms._replace(log_partition=Quantity(0.0 if log_z is None else -log_z, nat))
    population = Quantity(stage.spec.counts.consistency, example)
    rate = Quantity(float(state.prior.multiplier.value), nat / disagreement)
    priors = list(_priors(stage, state, objective))
    rows = [
        *_data_rows(stage, terms),
        *(_prior_row(prior, getattr(terms, prior.name)[prior.group]) for prior in priors),
        *_constant_rows(state, terms),
        _checked(UnitRow("consistency", "heads", violation, rate * population, "λ N_c", terms.consistency)),
        _log_partition_row(terms, log_z is not None),
    ]
    disagree = Quantity(1.0, disagreement)
    tolerated = Quantity(stage.spec.prior.multiplier.tolerance, disagreement / example) * population
    divergence = objective.consistency.divergence
    amounts = {
        f"λ: one disagreement ({ONE_DISAGREEMENT[divergence]})": disagree,
        "ε N_c: what is tolerated over all rows": tolerated,
    }
    if divergence in CONTRADICTION:
        amounts["one row on which the heads contradict each other"] = Quantity(CONTRADICTION[divergence], disagreement)
    exchange = [(what, much, assert_unit(rate * much, bit)) for what, much in amounts.items()]
    return UnitReport(rows, [_distance_cost(prior) for prior in priors], exchange)


def _checked(row: UnitRow) -> UnitRow:
    if row.coefficient is not None:
        assert_unit(row.measured * row.coefficient, nat, f"{row.term} {row.group}: measured × coefficient")
    return row


def _data_rows(stage: Stage, terms: ObjectiveTerms) -> Iterator[UnitRow]:
    counts = stage.spec.counts
    sizes = {
        "trunk": (Quantity(counts.world_tokens, token), "world tokens"),
        "intended_head": (Quantity(counts.trusted, example), "trusted labels"),
        "instrumental_head": (Quantity(counts.untrusted, example), "answers of the person"),
        "comparisons": (Quantity(counts.compared, example), "comparisons by a helped person"),
    }
    for group, nats in terms.data.items():
        count, what = sizes[group]
        yield _checked(UnitRow("data", group, -nats / count, count, what, nats))


def _priors(stage: Stage, state: TrainState, objective: ObjectiveConfig) -> Iterator[_Centred]:
    prior, held = stage.spec.prior, state.held
    assert prior is not None and held.priors is not None
    theta1 = {group: state.params[group] for group in prior.trained}
    for group in prior.trained:
        section = getattr(objective.first_prior, group)
        yield _Centred("first_prior", group, held.priors.first[group], section, theta1, held.anchor)
    theta2, centre = chain_params(stage.spec, state, 0), phases.centre(prior, state.params, held)
    for group in prior.resampled:
        section = getattr(objective.second_prior, group)
        yield _Centred("second_prior", group, held.priors.second[group], section, theta2, centre)


def _prior_row(prior: _Centred, nats: Quantity) -> UnitRow:
    squared = jax.device_get(squared_distance(prior.params, prior.centre, prior.group))
    if isinstance(prior.section, GaussianPrior) and not prior.section.tensors:
        rate = precision(parse_quantity(str(prior.section.stddev)))
        note = f"½ d²; (1 nat)/σ² at σ = {prior.section.stddev}"
        return _checked(UnitRow(prior.name, prior.group, 0.5 * squared, rate, note, nats))
    return UnitRow(prior.name, prior.group, squared ** Fraction(1, 2), None, f"d; {described(prior.section)}", nats)


def _constant_rows(state: TrainState, terms: ObjectiveTerms) -> Iterator[UnitRow]:
    for name, nats in terms.constants.items():
        weights = Quantity(dimension(state.held.anchor[name.split()[-1]]), one)
        yield _checked(UnitRow("constants", name, weights, -nats / weights, "weights, each relative to u", nats))


def _log_partition_row(terms: ObjectiveTerms, included: bool) -> UnitRow:
    note = "log Z: its sampled upper bound" if included else "log Z, left out of this objective"
    contribution = terms.log_partition
    return _checked(UnitRow("log_partition", "heads", -contribution, Quantity(1.0, one), note, contribution))


def described(section: BaseModel) -> str:
    """A prior's section in one line: "student_t, scale 1.0 θ.head, degrees_of_freedom 3.0"."""
    parts = []
    for key, value in section:
        if isinstance(value, BaseModel):
            parts.append(described(value))
        elif isinstance(value, dict):
            parts += [f"{pattern} {stddev}" for pattern, stddev in value.items()]
        elif value is not None:
            parts.append(str(value) if key in ("kind", "source") else f"{key} {value}")
    return ", ".join(parts)


def _distance_cost(prior: _Centred) -> DistanceCost:
    at, unravel = ravel_pytree(prior.centre[prior.group])
    size, key = at.size, jax.random.key(0)
    unit = GROUP_UNITS[prior.group]

    @jax.jit
    def cost(direction: jax.Array) -> Quantity:
        moved = unravel(at + direction.astype(at.dtype))  # 1 θ_g along a unit vector
        return assert_unit(-prior.family.nats({**prior.centre, prior.group: moved}, prior.centre, prior.group), bit)

    def bits(directions: jax.Array) -> tuple[float, float]:
        costs = [float(cost(direction).to(bit)) for direction in directions]
        return min(costs), max(costs)

    spread = jax.random.normal(key, (DRAWS, size), at.dtype)
    spread = spread / jnp.linalg.norm(spread, axis=1, keepdims=True)
    weights = jax.nn.one_hot(jax.random.choice(key, size, (min(DRAWS, size),), replace=False), size, dtype=at.dtype)
    norm = Quantity(squared_norm(at), unit**2) ** Fraction(1, 2)
    length = float(norm.to(unit))
    return DistanceCost(
        prior=prior.name,
        group=prior.group,
        weights=size,
        norm=length,
        random_direction=bits(spread),
        one_weight=bits(weights),
        toward_zero=None if length == 0 else float(cost(-at / length).to(bit)),
    )
