"""One training step, the same for every stage: pure in its state. What it differentiates is `terms`."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from honest.config import GROUP_UNITS
from honest.objective.log_partition.volume import VolumeRows, factor, volume_nats
from honest.objective.log_posterior import log_posterior
from honest.objective.predictions import WHOLE, Part, RowSets
from honest.params import Params
from honest.train import multiplier as multipliers
from honest.train import phases
from honest.train.micro_batches import added_up
from honest.train.newton_stein import corrections
from honest.train.spec import PriorSpec, StageSpec
from honest.train.state import PhaseState, PriorState, TrainState, VolumeState
from honest.train.terms import NEGATIVE, POSITIVE, VARIABLE_UNITS, Forward, Metrics, data_terms, prior_terms
from honest.units import Quantity, example, nat, strip_grad, value_and_grad


class Inputs(NamedTuple):
    """What a step reads: a batch of each row set, the whole sets (for chains), and the volume's rows (for Laplace)."""

    batch: RowSets
    population: RowSets
    volume: VolumeRows | None


def train_step(
    spec: StageSpec, mode_optimizer: optax.GradientTransformation, state: TrainState, inputs: Inputs
) -> tuple[TrainState, Metrics]:
    """The next state and this step's metrics (bare scalars under their tags). Pure; jitted by the loop."""
    if spec.prior is None or state.prior is None:
        loss, forward, gradient = differentiate(spec, state, inputs.batch)
        new = descend(spec, state, gradient)
        return new, step_metrics(spec, loss, forward, gradient)
    prior = spec.prior
    loss, forward, gradient = differentiate(spec, state, inputs.batch)
    stein_metrics: Metrics = {}
    if prior.phases.control_variate == "newton_stein":
        stein, stein_metrics = corrections(spec, prior, state, forward.weight, inputs.batch, inputs.population)
        gradient = {**gradient, **jax.tree.map(jnp.add, {group: gradient[group] for group in spec.trained}, stein)}
    volume = state.prior.volume
    if volume is not None and inputs.volume is not None:
        rows, old = inputs.volume, volume
        volume = jax.lax.cond(
            state.step % prior.phases.volume_every == 0,
            lambda: volume_state(spec, prior, state, forward.weight, rows),
            lambda: old,
        )
        theta = {group: gradient[group] for group in spec.trained}
        gradient = {**gradient, **jax.tree.map(jnp.add, theta, volume.gradient)}
    new = descend(spec, state, gradient)
    assert forward.multiplier is not None
    positive, negative = move_phases(spec, prior, mode_optimizer, new, gradient, forward.weight, inputs)
    moved = PriorState(positive, negative, forward.multiplier, volume)
    metrics = step_metrics(spec, loss, forward, gradient) | prior_metrics(prior, forward, moved) | stein_metrics
    return new._replace(prior=moved), metrics


def differentiate(spec: StageSpec, state: TrainState, batch: RowSets) -> tuple[Quantity, Forward, Params]:
    """−log posterior in nat, what the forward pass hands on, and the gradient in nat/θ_g (nat for u₊ and u₋), bare.

    Modes are differentiated along with stage one; chains are constants here, and move by themselves.
    """
    variables: Params = dict(state.params)
    chains: Params = {}
    if spec.prior is not None and state.prior is not None:
        positions = {POSITIVE: state.prior.positive.whitened}
        if spec.prior.log_partition:
            positions[NEGATIVE] = state.prior.negative.whitened
        if spec.prior.phases.kind == "chains":
            chains = {name: phases.asked(whitened, spec.prior, state.step) for name, whitened in positions.items()}
        else:
            variables |= positions

    def loss(variables: Params, rows: RowSets, part: Part) -> tuple[Quantity, Forward]:
        if spec.prior is None or state.prior is None:
            forward = data_terms(spec, variables, state.held, state.step, rows, part)
        else:
            everything = {**variables, **chains}
            forward = prior_terms(spec, spec.prior, everything, state.held, state.prior.multiplier, state.step, rows)
        density_of: frozenset[str] = frozenset() if spec.prior is None else spec.prior.variables
        return -log_posterior(forward.terms, density_of), forward

    units = {name: VARIABLE_UNITS[name] for name in variables}

    def of_rows(rows: RowSets, part: Part) -> tuple[tuple[Quantity, Forward], Params]:
        answer, gradient = value_and_grad(loss, units, has_aux=True)(variables, rows, part)
        return answer, strip_grad(gradient, units)

    if spec.adds_up:
        (value, forward), gradient = added_up(of_rows, variables, batch, spec.micro_batches)
    else:
        (value, forward), gradient = of_rows(batch, WHOLE)
    return value, forward, gradient


def descend(spec: StageSpec, state: TrainState, gradient: Params) -> TrainState:
    """Stage one's update by the gradient per example."""
    per_example = {group: jax.tree.map(lambda leaf: leaf / spec.examples, gradient[group]) for group in spec.trained}
    updates, optimizer = spec.optimizer.update(per_example, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    return state._replace(step=state.step + 1, params=params, optimizer=optimizer)


def volume_state(
    spec: StageSpec, prior: PriorSpec, state: TrainState, weight: jax.Array, rows: VolumeRows
) -> VolumeState:
    """Both phases' Gauss–Newton volumes at their modes and the loss's gradient from them in stage one, u held fixed."""
    assert state.prior is not None

    def volume(params: Params, phase: PhaseState, with_data: bool) -> Quantity:
        a = factor(
            spec.predictor,
            lambda v: phases.place(prior, params, state.held, v),
            jax.tree.map(lambda leaf: leaf[0], phase.whitened),
            rows,
            spec.counts,
            jax.lax.stop_gradient(weight),
            prior.divergence,
            with_data,
        )
        return volume_nats(a)

    def loss(params: Params) -> tuple[Quantity, tuple[jax.Array, jax.Array]]:
        assert state.prior is not None
        positive = volume(params, state.prior.positive, True)
        negative = volume(params, state.prior.negative, False) if prior.log_partition else Quantity(0.0, nat)
        return negative - positive, (positive.to(nat), jnp.asarray(negative.to(nat), positive.dtype))

    units = {group: GROUP_UNITS[group] for group in spec.trained}
    (_, (positive, negative)), gradient = value_and_grad(loss, units, has_aux=True)(state.params)
    return VolumeState(strip_grad(gradient, units), positive, negative)


def move_phases(
    spec: StageSpec,
    prior: PriorSpec,
    mode_optimizer: optax.GradientTransformation,
    state: TrainState,
    gradient: Params,
    weight: jax.Array,
    inputs: Inputs,
) -> tuple[PhaseState, PhaseState]:
    """Both phases move once: modes down their energies, chains at the new θ1 and this step's λ.

    Chains move in steps 0, k, 2k …, k = move_every, counted as for `volume_every`; `state` is the next step's already.
    Unadjusted moves have their energy errors measured in one move of so many (`phases.chain_step`).
    Without −log Z in the objective the negative phase has no part, and stays.
    """
    assert state.prior is not None
    positive, negative = state.prior.positive, state.prior.negative
    if prior.phases.kind != "chains":
        moved = phases.mode_step(positive, gradient[POSITIVE], mode_optimizer)
        if not prior.log_partition:
            return moved, negative
        # The negative phase climbs the loss (see `terms`): down its energy is up −log p.
        climb = jax.tree.map(jnp.negative, gradient[NEGATIVE])
        return moved, phases.mode_step(negative, climb, mode_optimizer)
    whole = prior.phases.adjusted
    rows = inputs.population if whole else inputs.batch
    step_key = jax.random.fold_in(state.key, state.step)

    def move(phase: PhaseState, index: int, with_data: bool) -> PhaseState:
        target = phases.log_weight(spec, state.params, state.held, weight, rows, with_data=with_data, whole=whole)
        return phases.chain_step(phase, jax.random.fold_in(step_key, index), target, state.step, prior)

    def both() -> tuple[PhaseState, PhaseState]:
        return move(positive, 0, True), move(negative, 1, False) if prior.log_partition else negative

    if prior.phases.move_every == 1:
        return both()
    return jax.lax.cond((state.step - 1) % prior.phases.move_every == 0, both, lambda: (positive, negative))


def step_metrics(spec: StageSpec, loss: Quantity, forward: Forward, gradient: Params) -> Metrics:
    terms = forward.terms
    theta = {group: gradient[group] for group in spec.trained}
    metrics = {
        "objective/loss_nats_per_example": (loss / Quantity(spec.examples, example)).to(nat / example),
        "objective/gradient_norm": optax.global_norm(theta) / spec.examples,
        **forward.metrics,
    }
    by_group = (("data", terms.data), ("first_prior", terms.first_prior), ("second_prior", terms.second_prior))
    for name, parts in by_group:
        for group, quantity in parts.items():
            metrics[f"objective/{name}_{group}_nats"] = quantity.to(nat)
    return metrics


def prior_metrics(prior: PriorSpec, forward: Forward, state: PriorState) -> Metrics:
    metrics = {
        "objective/consistency_nats": forward.terms.consistency.to(nat),
        **multipliers.diagnostics(prior.multiplier, state.multiplier),
    }
    if prior.phases.kind == "chains":
        for name, phase in ((POSITIVE, state.positive), (NEGATIVE, state.negative)):
            metrics[f"phases/{name}_acceptance"] = jnp.mean(phase.acceptance)
            metrics[f"phases/{name}_step_size"] = jnp.mean(jnp.exp(phase.log_step))
        return metrics
    claim = -forward.terms.log_partition.to(nat)
    data_claim = forward.metrics["phases/log_partition_data_claim_nats"]
    if state.volume is not None:
        claim, data_claim = claim + state.volume.negative, data_claim + state.volume.positive
        metrics["phases/positive_volume_nats"] = state.volume.positive
        metrics["phases/negative_volume_nats"] = state.volume.negative
    if not prior.log_partition:
        return metrics | {"phases/log_partition_data_claim_nats": data_claim}
    net = data_claim - claim
    # log p(data | the heads agree) is at most 0: a claim above it is an artefact, and is flagged.
    return metrics | {
        "objective/log_partition_nats": -claim,
        "phases/log_partition_claim_nats": claim,
        "phases/log_partition_data_claim_nats": data_claim,
        "phases/net_claim_nats": net,
        "phases/net_claim_impossible": (net > 0).astype(net.dtype),
    }
