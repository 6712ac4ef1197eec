"""The ledger of a state over the whole declared sets, and a sampled log Z with its two bounds."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from honest.config import LogPartitionEvaluation
from honest.objective.consistency import consistency_nats, whole_violation
from honest.objective.data_loss import whole_data_nats
from honest.objective.ledger import Entry, ledger
from honest.objective.log_partition import LogPartition
from honest.objective.log_partition.bidirectional import from_both_ends, plan
from honest.objective.log_partition.moves import whitened_energy
from honest.objective.log_partition.problem import flat_positions, flat_problem
from honest.objective.log_posterior import ObjectiveTerms
from honest.objective.predictions import RowSets
from honest.report.answers import chain_params
from honest.train import phases
from honest.train.spec import StageSpec
from honest.train.stage import Stage
from honest.train.state import TrainState
from honest.train.terms import first_prior, prior_constants, second_prior
from honest.units import Quantity, disagreement, example, nat

LN2 = math.log(2.0)


class LedgerValues(NamedTuple):
    """rows and total in nat; log_partition: what the row −log Z was taken from. C̄ in disagreement/example."""

    rows: list[Entry]
    total: float
    violation: float
    multiplier: float
    log_partition: float


class SampledLogPartition(NamedTuple):
    """log Z, or log Z_D, in nat. lower ≤ value ≤ upper; NaN where the objective is."""

    value: float
    lower: float
    upper: float


class LogPartitionSampler:
    """log Z and log Z_D of a stage from both ends of annealing.

    Reverse passes start where the forward pass ends, and at the phase's own position (chains: the first few's).
    """

    def __init__(self, stage: Stage, settings: LogPartitionEvaluation):
        self.stage, self.settings = stage, settings

    def __call__(self, state: TrainState, key: jax.Array, with_data: bool) -> SampledLogPartition:
        """log Z(θ1) in nat at the state's λ over the whole populations, bounded from both sides; log Z_D with data."""
        settings = self.settings
        plans = (settings.particles, settings.bridges, settings.tail_probability)
        found = jax.device_get(_estimate(self.stage.program, plans, with_data, key, state, self.stage.sets))
        value, lower, upper = (float(x.to(nat)) for x in (found.log_z, found.lower, found.upper))
        return ordered(value, lower, upper)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _estimate(
    spec: StageSpec,
    settings: tuple[int, int, float],
    with_data: bool,
    key: jax.Array,
    state: TrainState,
    sets: RowSets,
) -> LogPartition:
    """settings: particles, bridges, tail probability. Compiled once for all stages that have one program."""
    assert state.prior is not None
    particles, bridges, tail = settings
    phase = state.prior.positive if with_data else state.prior.negative
    target = phases.log_weight(
        spec, state.params, state.held, state.prior.multiplier.value, sets, with_data=with_data, whole=True
    )
    problem = flat_problem(target, jax.tree.map(lambda leaf: leaf[0], phase.whitened))
    positions_CxD = flat_positions(phase.whitened)
    starts = positions_CxD[jnp.arange(particles) % positions_CxD.shape[0]]
    return from_both_ends(problem, key, plan(particles, particles, bridges), [starts], tail)


def ordered(value: float, lower: float, upper: float) -> SampledLogPartition:
    """Where bounds cross, one has failed: that from below, which needs no equilibrium, is believed."""
    upper = lower if upper < lower else upper
    return SampledLogPartition(min(max(value, lower), upper), lower, upper)


@partial(jax.jit, static_argnums=0)
def whole_terms(spec: StageSpec, state: TrainState, sets: RowSets) -> tuple[ObjectiveTerms, Quantity]:
    """The terms over the whole sets at the first chain, with −log Z as the modes claim it (0 for chains); and C̄."""
    prior = spec.prior
    assert prior is not None and state.prior is not None
    weight = state.prior.multiplier.value
    theta = chain_params(spec, state, 0)
    centre = phases.centre(prior, state.params, state.held)
    violation = whole_violation(spec.predictor, theta, sets.consistency, prior.divergence, prior.phases.chunk_rows)
    data = whole_data_nats(spec.predictor, theta, sets, prior.phases.chunk_rows)
    log_partition = Quantity(jnp.zeros((), weight.dtype), nat)
    if prior.log_partition and prior.phases.kind != "chains":
        u = jax.tree.map(lambda leaf: leaf[0], state.prior.negative.whitened)
        target = phases.log_weight(spec, state.params, state.held, weight, sets, with_data=False, whole=True)
        claim = target(u) - whitened_energy(u)
        if state.prior.volume is not None:
            claim = claim + state.prior.volume.negative
        log_partition = Quantity(-claim, nat)
    terms = ObjectiveTerms(
        data={group: -nats for group, nats in data.items()},
        first_prior=first_prior(prior, state.params, state.held),
        second_prior=second_prior(prior, theta, centre, state.held),
        constants=prior_constants(prior, state.held),
        consistency=-consistency_nats(Quantity(weight, nat / disagreement), violation, spec.counts.consistency),
        log_partition=log_partition,
    )
    return terms, violation


class LedgerReader:
    """Reads the ledger of a stage's states to the host."""

    def __init__(self, stage: Stage):
        self.stage = stage

    def __call__(self, state: TrainState, log_partition: float | None) -> LedgerValues:
        """log_partition: log Z in nat that the row −log Z states; None takes the modes' own claim.

        An objective without −log Z has 0 there.
        """
        assert state.prior is not None and self.stage.spec.prior is not None
        terms, violation = jax.device_get(whole_terms(self.stage.program, state, self.stage.sets))
        if log_partition is not None and self.stage.spec.prior.log_partition:
            terms = terms._replace(log_partition=Quantity(np.float64(-log_partition), nat))
        rows, total = ledger(terms, self.stage.spec.prior.variables)
        return LedgerValues(
            rows=rows,
            total=total,
            violation=float(violation.to(disagreement / example)),
            multiplier=float(state.prior.multiplier.value),
            log_partition=-float(terms.log_partition.to(nat)),
        )


def ledger_scalars(values: LedgerValues) -> dict[str, float]:
    """`ledger/*_bits` by term and group, and their total."""
    scalars = {f"ledger/{row.term}_{row.group.replace(' ', '_')}_bits": row.nats / LN2 for row in values.rows}
    return {**scalars, "ledger/total_bits": values.total / LN2}


def bits_spent(values: LedgerValues) -> float:
    """The prior terms in bits, constants excluded (design §2)."""
    return -sum(row.nats for row in values.rows if row.term in ("first_prior", "second_prior")) / LN2
