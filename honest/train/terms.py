"""The scalar that a stage minimises: −log posterior, written so that one gradient serves stage one and both phases.

A stage with a prior minimises −log posterior over stage one (θ1) while the two phases are followed. One scalar serves
all of it, because the log posterior is a saddle: with θ2 = c + σu₊ in the data, the second prior and the consistency
term, and −log Z written through its negative phase as  min_u₋ [λ N_c C̄(c + σu₋) + ½|u₋|²],

    ∂/∂u₊ of −log p  is the positive mode's descent direction,
    ∂/∂u₋ of −log p  is minus the negative mode's descent direction (the negative phase climbs the loss),
    ∂/∂θ1 of −log p  is − ∂ first prior + E₊[∂(data + λ N_c C̄)] − E₋[∂(λ N_c C̄)]            (heads, not resampled)
                        − ∂ first prior − Σ2⁻¹(E₊[θ2] − θ1) − λ N_c E₋[∂C̄]                  (resampled groups, `all`)

(design §2, "Two phases"). θ2 holds a stop-gradient of c, which gives the positive phase the shift form; θ' moves
with c, which gives the negative phase the force form. λ is updated by this forward pass's violation before it weights
the gradient, and no gradient flows through it, inside log Z least of all.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from honest.config import GROUP_UNITS
from honest.objective.consistency import DIVERGENCES, consistency_nats, violation_rate
from honest.objective.data_loss import data_nats
from honest.objective.log_partition.moves import whitened_energy
from honest.objective.log_posterior import ObjectiveTerms, log_posterior
from honest.objective.predictions import WHOLE, Part, Predictions, RowSets, predict
from honest.params import Params, Tree, over_particles, resample
from honest.train import multiplier as multipliers
from honest.train import phases
from honest.train.multiplier import MultiplierState
from honest.train.spec import PriorSpec, StageSpec
from honest.train.state import Held
from honest.units import Quantity, density, disagreement, example, mean, nat, one, term

POSITIVE, NEGATIVE = "positive", "negative"  # names of u₊ and u₋ among the differentiated variables
VARIABLE_UNITS = {**GROUP_UNITS, POSITIVE: one, NEGATIVE: one}
Metrics = dict[str, jax.Array]


class Forward(NamedTuple):
    """What the loss hands on beside its value."""

    terms: ObjectiveTerms
    multiplier: MultiplierState | None
    weight: jax.Array  # λ of this step, nat/disagreement, bare
    metrics: Metrics


def prior_terms(
    spec: StageSpec,
    prior: PriorSpec,
    variables: Params,
    held: Held,
    multiplier: MultiplierState,
    step: jax.Array,
    batch: RowSets,
) -> Forward:
    """The five terms at θ1 = the trained groups of `variables`, θ2 at u₊ and θ' at u₋, estimated from `batch`."""
    params = {group: variables[group] for group in spec.trained}
    c = phases.centre(prior, params, held)
    fixed_c = jax.lax.stop_gradient(c)

    def positive(u: Tree) -> tuple:
        theta2 = resample(fixed_c, u, phases.metric(held), params)
        predictions = predict(spec.predictor, theta2, batch)
        second = second_prior(prior, theta2, c, held)
        return (
            data_nats(predictions, batch, spec.counts),
            second,
            violation_rate(predictions, prior.divergence),
        )

    def negative(u: Tree) -> tuple:
        agreement = RowSets(None, None, None, batch.consistency)
        predictions = predict(spec.predictor, resample(c, u, phases.metric(held), params), agreement)
        return violation_rate(predictions, prior.divergence), Quantity(whitened_energy(u), nat)

    data_C, second_C, violation_C = over_particles(positive, variables[POSITIVE], prior.batch_particles)
    average = lambda tree: {group: mean(quantity, per=one) for group, quantity in tree.items()}  # noqa: E731
    violation = mean(violation_C, per=one)
    new_multiplier, weight = multipliers.update(
        prior.multiplier, multiplier, violation.to(disagreement / example), step
    )
    exchange = Quantity(jax.lax.stop_gradient(weight), nat / disagreement)
    agreement_cost = consistency_nats(exchange, violation, spec.counts.consistency)
    negative_energy = Quantity(0.0, nat)
    if prior.log_partition:
        negative_violation_C, distance_C = over_particles(negative, variables[NEGATIVE], prior.batch_particles)
        negative_cost = consistency_nats(exchange, mean(negative_violation_C, per=one), spec.counts.consistency)
        negative_energy = negative_cost + mean(distance_C, per=one)
    terms = ObjectiveTerms(
        data={group: -nats for group, nats in average(data_C).items()},
        first_prior=first_prior(prior, params, held),
        second_prior=average(second_C),
        constants=prior_constants(prior, held),
        consistency=-agreement_cost,
        log_partition=negative_energy,  # −log Z ≈ the negative mode's energy; the volume joins in `metrics`
    )
    metrics = {"divergence/batch_consistency": violation.to(disagreement / example)}
    if prior.phases.kind != "chains":
        # log Z_D of the modes: minus the positive mode's energy.
        alone = terms._replace(first_prior={}, constants={}, log_partition=Quantity(0.0, nat))
        metrics["phases/log_partition_data_claim_nats"] = log_posterior(
            alone, frozenset(f"θ2.{group}" for group in prior.resampled)
        ).to(nat)
    return Forward(terms, new_multiplier, weight, metrics)


def first_prior(prior: PriorSpec, params: Params, held: Held) -> dict[str, Quantity]:
    """log p(θ1_g) − log p(θ0_g) by group, in nat."""
    assert held.priors is not None
    costs = {}
    for group in prior.trained:
        with term(f"first_prior.{group}"):
            cost = held.priors.first[group].nats(params, held.anchor, group)
        costs[group] = density(cost, f"θ1.{group}")
    return costs


def second_prior(prior: PriorSpec, theta2: Params, centre: Params, held: Held) -> dict[str, Quantity]:
    """−½ Σ precision · d²(θ2, c) by group, in nat."""
    costs = {}
    for group in prior.resampled:
        with term(f"second_prior.{group}"):
            cost = phases.metric(held)[group].nats(theta2, centre, group)
        costs[group] = density(cost, f"θ2.{group}")
    return costs


def prior_constants(prior: PriorSpec, held: Held) -> dict[str, Quantity]:
    """Both priors' log densities at their centres by stage and group, in nat; they depend on nothing that is trained.

    For a Gaussian −(D/2) log 2πσ²/u².
    """
    assert held.priors is not None
    stages = (("first", prior.trained, held.priors.first), ("second", prior.resampled, held.priors.second))
    constants = {}
    for name, groups, families in stages:
        for group in groups:
            with term(f"{name}_prior.{group}.constant"):
                measure = held.priors.measure[group]
                constants[f"{name} {group}"] = families[group].constant(held.anchor, group, measure)
    return constants


def data_terms(
    spec: StageSpec, variables: Params, held: Held, step: jax.Array, batch: RowSets, part: Part = WHOLE
) -> Forward:
    """A stage without a prior: the data term, and a baseline's own loss; groups not trained are held where they start.

    The loss beyond the data is a rate, and is taken as often as there are trusted labels, so that its weight is
    relative to the cross-entropy of one head. part: what `batch` is of the step's; without such a loss (see
    `StageSpec.adds_up`) every number of the parts' answers adds up to the whole batch's.
    """
    predictions = predict(spec.predictor, {**held.start, **variables}, batch)
    data = {group: -nats for group, nats in data_nats(predictions, batch, spec.counts, part).items()}
    if spec.penalty is not None and predictions.consistency is not None and batch.consistency is not None:
        with term("data.target"):
            rate = spec.penalty(predictions.consistency, batch.consistency.label_B, step)
            data["target"] = -rate * Quantity(spec.counts.trusted, example)
    zero = Quantity(0.0, nat)
    terms = ObjectiveTerms(data, {}, {}, {}, consistency=zero, log_partition=zero)
    return Forward(terms, None, jnp.zeros(()), batch_divergence(predictions, part))


def batch_divergence(predictions: Predictions, part: Part = WHOLE) -> Metrics:
    """Mean Jensen–Shannon divergence of the heads over the untrusted rows of the batch, or else the trusted, in nats.

    Labelled or not. For a part, its share of that mean.
    """
    logits, share = predictions.untrusted, part.untrusted
    if logits is None:
        logits, share = predictions.trusted, part.trusted
    if logits is None:
        return {}
    divergence_B = DIVERGENCES["jensen_shannon"](*logits)
    if share is None:
        return {"divergence/batch_untrusted": jnp.mean(divergence_B)}
    return {"divergence/batch_untrusted": jnp.sum(jnp.where(share.real_B, divergence_B, 0)) / share.rows}
