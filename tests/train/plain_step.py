"""The train step in bare arrays: the same objective as `honest.train.step`, in numbers alone.

What is lowered from it is what `honest.train.step` has to lower to (test_zero_cost.py), and what its tracing time is
compared with (benchmarks/tracing.py).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.lax import stop_gradient

from honest.objective.consistency import DIVERGENCES
from honest.objective.log_partition.moves import LogWeight, whitened_energy
from honest.objective.log_partition.volume import VolumeRows, factor, log_determinant
from honest.objective.parameter_prior.toward_zero import log_path
from honest.objective.predictions import Counts, Predictions, Predictor, Rows, RowSets, predict, size
from honest.params import Params, Tree, difference, dimension, over_particles
from honest.train import multiplier as multipliers
from honest.train.multiplier import MultiplierState
from honest.train.phases import centre, chain_step, mode_step
from honest.train.spec import PriorSpec, StageSpec
from honest.train.state import Held, PhaseState, PriorState, TrainState, VolumeState
from honest.train.step import Inputs
from honest.train.terms import NEGATIVE, POSITIVE, Metrics, batch_divergence

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Scale(NamedTuple):
    """σ of a Gaussian's tensor, and the rotations into the basis in which it is one."""

    stddev: jax.Array
    left: jax.Array | None
    right: jax.Array | None


class TowardZero(NamedTuple):
    """An even mixture, for each weight, of N(θ0, σ²) and of the path from θ0 to zero blurred by N(0, σ²)."""

    stddev: jax.Array


class Priors(NamedTuple):
    first: dict[str, Any]  # by group: its tree with a Scale for each tensor, or a TowardZero
    second: dict[str, Tree]
    measure: dict[str, jax.Array]


class Terms(NamedTuple):
    data: dict[str, jax.Array]
    first_prior: dict[str, jax.Array]
    second_prior: dict[str, jax.Array]
    constants: dict[str, jax.Array]
    consistency: jax.Array | float
    log_partition: jax.Array | float


class Forward(NamedTuple):
    terms: Terms
    multiplier: MultiplierState | None
    weight: jax.Array
    metrics: Metrics


# --- data and consistency -------------------------------------------------------------------------------------------


def nll(logits: jax.Array, target: jax.Array) -> jax.Array:
    log_p = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(log_p, jnp.maximum(target, 0)[..., None], axis=-1)[..., 0]
    return jnp.where(target >= 0, -chosen, 0.0)


def world_nll(logits: jax.Array, targets: jax.Array) -> jax.Array:
    chosen = jnp.take_along_axis(logits, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    nats = jax.nn.logsumexp(logits, axis=-1) - chosen
    return jnp.where(targets >= 0, nats, 0.0)


def mean_over(x: jax.Array, where: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(where, x, 0)) / jnp.sum(where)


def data_nats(predictions: Predictions, sets: RowSets, counts: Counts) -> dict[str, jax.Array]:
    nats = {}
    if sets.trusted is not None and predictions.trusted is not None:
        label = sets.trusted.label_B
        nats["intended_head"] = mean_over(nll(predictions.trusted.intended_BxK, label), label >= 0) * counts.trusted
    if sets.untrusted is not None and predictions.untrusted is not None:
        label = sets.untrusted.label_B
        rate = mean_over(nll(predictions.untrusted.instrumental_BxK, label), label >= 0)
        nats["instrumental_head"] = rate * counts.untrusted
    if sets.world is not None and predictions.world is not None:
        targets = sets.world.world_targets_BxLxT
        nats["trunk"] = mean_over(world_nll(predictions.world, targets), targets >= 0) * counts.world_tokens
    return nats


def violation_rate(predictions: Predictions, divergence: str) -> jax.Array:
    assert predictions.consistency is not None
    return jnp.mean(DIVERGENCES[divergence](*predictions.consistency))


def sum_over_rows(total_of: Any, rows: Rows, chunk: int, zero: jax.Array) -> jax.Array:
    count = size(rows)
    if count <= chunk:
        return zero + total_of(rows, jnp.ones(count, bool))
    chunks = -(-count // chunk)
    index = jnp.arange(chunks * chunk)
    real = (index < count).reshape(chunks, chunk)
    index = jnp.where(index < count, index, 0).reshape(chunks, chunk)
    stacked = jax.tree.map(lambda leaf: leaf[index], rows)

    def add_chunk(carry, part):
        return carry + total_of(*part), None

    return jax.lax.scan(jax.checkpoint(add_chunk), zero, (stacked, real))[0]


def whole_data_nats(predictor: Predictor, params: Params, sets: RowSets, chunk: int) -> dict[str, jax.Array]:
    zero = jnp.zeros((), jax.tree.leaves(params)[0].dtype)

    def trusted(rows: Rows, real: jax.Array) -> jax.Array:
        logits = predictor.head_logits(params, rows)
        return jnp.sum(nll(logits.intended_BxK, jnp.where(real, rows.label_B, -1)))

    def untrusted(rows: Rows, real: jax.Array) -> jax.Array:
        logits = predictor.head_logits(params, rows)
        return jnp.sum(nll(logits.instrumental_BxK, jnp.where(real, rows.label_B, -1)))

    def world(rows: Rows, real: jax.Array) -> jax.Array:
        targets = jnp.where(real[:, None, None], rows.world_targets_BxLxT, -1)
        return jnp.sum(world_nll(predictor.world_logits(params, rows), targets))

    parts = {
        "intended_head": (sets.trusted, trusted),
        "instrumental_head": (sets.untrusted, untrusted),
        "trunk": (sets.world, world),
    }
    return {g: sum_over_rows(total, rows, chunk, zero) for g, (rows, total) in parts.items() if rows is not None}


def whole_violation(predictor: Predictor, params: Params, rows: Rows, divergence: str, chunk: int) -> jax.Array:
    def summed(part: Rows, real: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(real, DIVERGENCES[divergence](*predictor.head_logits(params, part)), 0))

    return sum_over_rows(summed, rows, chunk, jnp.zeros((), jax.tree.leaves(params)[0].dtype)) / size(rows)


# --- priors ---------------------------------------------------------------------------------------------------------


def is_scale(node: Any) -> bool:
    return isinstance(node, Scale)


def pairs(scales: Tree, tree: Tree) -> list[tuple[Scale, jax.Array]]:
    return list(zip(jax.tree.leaves(scales, is_leaf=is_scale), jax.tree.leaves(tree)))


def colour(scales: Tree, u: Tree) -> Tree:
    def one(scale: Scale, u: jax.Array) -> jax.Array:
        d = scale.stddev * u
        d = d if scale.left is None else scale.left @ d
        return d if scale.right is None else d @ scale.right.T

    return jax.tree.map(one, scales, u, is_leaf=is_scale)


def gaussian_cost(scales: Tree, displacement: Tree) -> jax.Array:
    cost: Any = 0.0
    for (stddev, left, right), d in pairs(scales, displacement):
        d = d if left is None else left.T @ d
        d = d if right is None else d @ right
        squared, precision = d**2, 1.0 / stddev**2
        cost = cost + 0.5 * jnp.sum(precision * (jnp.sum(squared) if stddev.shape == () else squared))
    return cost


def gaussian_constant(coordinates: float, stddev: jax.Array, measure: jax.Array) -> jax.Array:
    return -coordinates * (HALF_LOG_2PI + jnp.log(stddev / measure))


def path_mixture(stddev: jax.Array, theta: jax.Array, at: jax.Array) -> jax.Array:
    """log of the mixture over its Gaussian's peak: ½ e^(−(x−a)²/2) + ½ √(2π) [Φ(±x) − Φ(±x − |a|)]/|a|."""
    x, a = theta / stddev, at / stddev
    along = x * jnp.where(a < 0, -1.0, 1.0).astype(x.dtype)
    return jnp.logaddexp(-0.5 * (x - a) ** 2, log_path(along, jnp.abs(a))) - math.log(2.0)


def prior_nats(family: Any, params: Params, anchor: Params, group: str) -> Any:
    if not isinstance(family, TowardZero):
        return -gaussian_cost(family, difference(params[group], anchor[group]))
    leaves = zip(jax.tree.leaves(params[group]), jax.tree.leaves(anchor[group]))
    mixture = partial(path_mixture, family.stddev)
    return sum([jnp.sum(mixture(theta, at) - mixture(at, at)) for theta, at in leaves], 0.0)


def prior_constant(family: Any, anchor: Params, group: str, measure: jax.Array) -> Any:
    if not isinstance(family, TowardZero):
        parts = pairs(family, anchor[group])
        return sum([jnp.sum(gaussian_constant(x.size / s.stddev.size, s.stddev, measure)) for s, x in parts], 0.0)
    at_anchor = sum([jnp.sum(path_mixture(family.stddev, at, at)) for at in jax.tree.leaves(anchor[group])], 0.0)
    return at_anchor + gaussian_constant(dimension(anchor[group]), family.stddev, measure)


# --- the objective --------------------------------------------------------------------------------------------------


def scales_of(held: Held) -> Priors:
    return cast(Priors, held.priors)


def resample(c: Params, u: Tree, held: Held, others: Params) -> Params:
    second = scales_of(held).second
    return {**others, **{g: jax.tree.map(jnp.add, c[g], colour(second[g], u[g])) for g in u}}


def log_posterior(terms: Terms) -> jax.Array:
    total: Any = 0.0
    for part in (terms.data, terms.first_prior, terms.second_prior, terms.constants):
        for nats in part.values():
            total = total + nats
    return total + terms.consistency + terms.log_partition


def means(nats_C: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {group: jnp.mean(nats) for group, nats in nats_C.items()}


def prior_terms(
    spec: StageSpec, prior: PriorSpec, variables: Params, state: TrainState, multiplier: MultiplierState, batch: RowSets
) -> Forward:
    held, priors = state.held, scales_of(state.held)
    params = {group: variables[group] for group in spec.trained}
    c = centre(prior, params, held)
    fixed_c = stop_gradient(c)

    def positive(u: Tree) -> tuple:
        theta2 = resample(fixed_c, u, held, params)
        predictions = predict(spec.predictor, theta2, batch)
        second = {group: prior_nats(priors.second[group], theta2, c, group) for group in prior.resampled}
        return data_nats(predictions, batch, spec.counts), second, violation_rate(predictions, prior.divergence)

    def negative(u: Tree) -> tuple:
        agreement = RowSets(None, None, None, batch.consistency)
        predictions = predict(spec.predictor, resample(c, u, held, params), agreement)
        return violation_rate(predictions, prior.divergence), whitened_energy(u)

    data_C, second_C, violation_C = over_particles(positive, variables[POSITIVE], prior.batch_particles)
    violation = jnp.mean(violation_C)
    new_multiplier, weight = multipliers.update(prior.multiplier, multiplier, violation, state.step)
    exchange = stop_gradient(weight)
    agreement_nats = lambda rate: exchange * spec.counts.consistency * rate  # noqa: E731
    agreement_cost = agreement_nats(violation)
    negative_energy: jax.Array | float = 0.0
    if prior.log_partition:
        negative_violation_C, distance_C = over_particles(negative, variables[NEGATIVE], prior.batch_particles)
        negative_cost = agreement_nats(jnp.mean(negative_violation_C))
        negative_energy = negative_cost + jnp.mean(distance_C)
    stages = (("first", prior.trained, priors.first), ("second", prior.resampled, priors.second))
    terms = Terms(
        data={group: -nats for group, nats in means(data_C).items()},
        first_prior={group: prior_nats(priors.first[group], params, held.anchor, group) for group in prior.trained},
        second_prior=means(second_C),
        constants={
            f"{name} {group}": prior_constant(families[group], held.anchor, group, priors.measure[group])
            for name, groups, families in stages
            for group in groups
        },
        consistency=-agreement_cost,
        log_partition=negative_energy,
    )
    metrics = {"divergence/batch_consistency": violation}
    if prior.phases.kind != "chains":
        alone = terms._replace(first_prior={}, constants={}, log_partition=0.0)
        metrics["phases/log_partition_data_claim_nats"] = log_posterior(alone)
    return Forward(terms, new_multiplier, weight, metrics)


def data_terms(spec: StageSpec, variables: Params, held: Held, batch: RowSets) -> Forward:
    predictions = predict(spec.predictor, {**held.start, **variables}, batch)
    data = {group: -nats for group, nats in data_nats(predictions, batch, spec.counts).items()}
    terms = Terms(data, {}, {}, {}, consistency=0.0, log_partition=0.0)
    return Forward(terms, None, jnp.zeros(()), batch_divergence(predictions))


def differentiate(spec: StageSpec, state: TrainState, batch: RowSets) -> tuple[jax.Array, Forward, Params]:
    variables: Params = dict(state.params)
    chains: Params = {}
    if spec.prior is not None and state.prior is not None:
        positions = {POSITIVE: state.prior.positive.whitened}
        if spec.prior.log_partition:
            positions[NEGATIVE] = state.prior.negative.whitened
        if spec.prior.phases.kind == "chains":
            chains = positions
        else:
            variables |= positions

    def loss(variables: Params) -> tuple[jax.Array, Forward]:
        if spec.prior is None or state.prior is None:
            forward = data_terms(spec, variables, state.held, batch)
        else:
            everything = {**variables, **chains}
            forward = prior_terms(spec, spec.prior, everything, state, state.prior.multiplier, batch)
        return -log_posterior(forward.terms), forward

    (value, forward), gradient = jax.value_and_grad(loss, has_aux=True)(variables)
    return value, forward, gradient


# --- the step -------------------------------------------------------------------------------------------------------


def volume_state(
    spec: StageSpec, prior: PriorSpec, state: TrainState, weight: jax.Array, rows: VolumeRows
) -> VolumeState:
    before = state.prior
    assert before is not None

    def volume(params: Params, phase: PhaseState, with_data: bool) -> jax.Array:
        c = centre(prior, params, state.held)
        u = jax.tree.map(lambda leaf: leaf[0], phase.whitened)
        fixed = stop_gradient(weight)
        place = lambda v: resample(c, v, state.held, params)  # noqa: E731
        a = factor(spec.predictor, place, u, rows, spec.counts, fixed, prior.divergence, with_data)
        return -0.5 * log_determinant(a)

    def loss(params: Params) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        positive = volume(params, before.positive, True)
        negative = volume(params, before.negative, False) if prior.log_partition else jnp.zeros((), positive.dtype)
        return negative - positive, (positive, negative)

    (_, (positive, negative)), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    return VolumeState(gradient, positive, negative)


def log_weight(spec: StageSpec, state: TrainState, weight: jax.Array, rows: RowSets, with_data: bool) -> LogWeight:
    assert spec.prior is not None
    prior, chunk = spec.prior, spec.prior.phases.chunk_rows

    def log_weight_of(u: Tree) -> jax.Array:
        theta = resample(centre(prior, state.params, state.held), u, state.held, state.params)
        if prior.phases.adjusted:
            violation = whole_violation(spec.predictor, theta, rows.consistency, prior.divergence, chunk)
            data = whole_data_nats(spec.predictor, theta, rows, chunk) if with_data else {}
        else:
            asked = rows if with_data else RowSets(None, None, None, rows.consistency)
            predictions = predict(spec.predictor, theta, asked)
            violation = violation_rate(predictions, prior.divergence)
            data = data_nats(predictions, asked, spec.counts) if with_data else {}
        return -sum(data.values(), start=weight * spec.counts.consistency * violation)

    return log_weight_of


def move_phases(
    spec: StageSpec,
    prior: PriorSpec,
    mode_optimizer: optax.GradientTransformation,
    state: TrainState,
    gradient: Params,
    weight: jax.Array,
    inputs: Inputs,
) -> tuple[PhaseState, PhaseState]:
    assert state.prior is not None
    positive, negative = state.prior.positive, state.prior.negative
    if prior.phases.kind != "chains":
        moved = mode_step(positive, gradient[POSITIVE], mode_optimizer)
        if not prior.log_partition:
            return moved, negative
        return moved, mode_step(negative, jax.tree.map(jnp.negative, gradient[NEGATIVE]), mode_optimizer)
    rows = inputs.population if prior.phases.adjusted else inputs.batch
    key = jax.random.fold_in(state.key, state.step)

    def move(phase: PhaseState, index: int, with_data: bool) -> PhaseState:
        target = log_weight(spec, state, weight, rows, with_data)
        return chain_step(phase, jax.random.fold_in(key, index), target, state.step, prior)

    def both() -> tuple[PhaseState, PhaseState]:
        return move(positive, 0, True), move(negative, 1, False) if prior.log_partition else negative

    if prior.phases.move_every == 1:
        return both()
    return jax.lax.cond((state.step - 1) % prior.phases.move_every == 0, both, lambda: (positive, negative))


def step_metrics(spec: StageSpec, loss: jax.Array, forward: Forward, gradient: Params) -> Metrics:
    terms = forward.terms
    metrics = {
        "objective/loss_nats_per_example": loss / spec.examples,
        "objective/gradient_norm": optax.global_norm({g: gradient[g] for g in spec.trained}) / spec.examples,
        **forward.metrics,
    }
    by_group = (("data", terms.data), ("first_prior", terms.first_prior), ("second_prior", terms.second_prior))
    return metrics | {f"objective/{name}_{g}_nats": nats for name, parts in by_group for g, nats in parts.items()}


def prior_metrics(prior: PriorSpec, forward: Forward, state: PriorState) -> Metrics:
    metrics: Metrics = {
        "objective/consistency_nats": jnp.asarray(forward.terms.consistency),
        **multipliers.diagnostics(prior.multiplier, state.multiplier),
    }
    if prior.phases.kind == "chains":
        for name, phase in ((POSITIVE, state.positive), (NEGATIVE, state.negative)):
            metrics[f"phases/{name}_acceptance"] = jnp.mean(phase.acceptance)
            metrics[f"phases/{name}_step_size"] = jnp.mean(jnp.exp(phase.log_step))
        return metrics
    claim = -forward.terms.log_partition
    data_claim = forward.metrics["phases/log_partition_data_claim_nats"]
    if state.volume is not None:
        claim, data_claim = claim + state.volume.negative, data_claim + state.volume.positive
        metrics["phases/positive_volume_nats"] = state.volume.positive
        metrics["phases/negative_volume_nats"] = state.volume.negative
    if not prior.log_partition:
        return metrics | {"phases/log_partition_data_claim_nats": data_claim}
    net = data_claim - claim
    return metrics | {
        "objective/log_partition_nats": jnp.asarray(-claim),
        "phases/log_partition_claim_nats": jnp.asarray(claim),
        "phases/log_partition_data_claim_nats": data_claim,
        "phases/net_claim_nats": net,
        "phases/net_claim_impossible": (net > 0).astype(net.dtype),
    }


def train_step(
    spec: StageSpec, mode_optimizer: optax.GradientTransformation, state: TrainState, inputs: Inputs
) -> tuple[TrainState, Metrics]:
    loss, forward, gradient = differentiate(spec, state, inputs.batch)
    prior, before = spec.prior, state.prior
    volume = None
    if prior is not None and before is not None and before.volume is not None and inputs.volume is not None:
        rows, old = inputs.volume, before.volume
        volume = jax.lax.cond(
            state.step % prior.phases.volume_every == 0,
            lambda: volume_state(spec, prior, state, forward.weight, rows),
            lambda: old,
        )
        theta = {group: gradient[group] for group in spec.trained}
        gradient = {**gradient, **jax.tree.map(jnp.add, theta, volume.gradient)}
    per_example = {group: jax.tree.map(lambda leaf: leaf / spec.examples, gradient[group]) for group in spec.trained}
    updates, optimizer = spec.optimizer.update(per_example, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    new = state._replace(step=state.step + 1, params=params, optimizer=optimizer)
    if prior is None or before is None or forward.multiplier is None:
        return new, step_metrics(spec, loss, forward, gradient)
    positive, negative = move_phases(spec, prior, mode_optimizer, new, gradient, forward.weight, inputs)
    moved = PriorState(positive, negative, forward.multiplier, volume)
    metrics = step_metrics(spec, loss, forward, gradient) | prior_metrics(prior, forward, moved)
    return new._replace(prior=moved), metrics
