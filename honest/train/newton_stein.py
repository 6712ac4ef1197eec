"""The Newton–Stein control variate inside the train step: on which rows, and with which sign it enters the gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from honest.config import GROUP_UNITS
from honest.objective.log_partition.control_variate import Correction, Weight, Weights, newton_stein
from honest.objective.predictions import RowSets
from honest.params import Params, Tree, dot, whiten
from honest.train import phases
from honest.train.spec import PriorSpec, StageSpec
from honest.train.state import PhaseState, TrainState
from honest.train.terms import NEGATIVE, POSITIVE, Metrics
from honest.units import Quantity, nat, strip_grad, value_and_grad

FIRST_KEY = 2  # folded into the step's key; 0 and 1 are the chains' moves


def corrections(
    spec: StageSpec, prior: PriorSpec, state: TrainState, weight: jax.Array, batch: RowSets, population: RowSets
) -> tuple[Params, Metrics]:
    """What the control variate adds to the loss's gradient in stage one (nat/θ_g, bare), and both mean residuals.

    weight: λ in nat/disagreement, bare. The loss holds −w₊ and +w₋, hence the signs.
    """
    assert state.prior is not None
    step_key = jax.random.fold_in(state.key, state.step)

    def of(phase: PhaseState, index: int, with_data: bool) -> Correction:
        key = jax.random.fold_in(step_key, FIRST_KEY + index)
        of_rows = weights(spec, prior, state, weight, batch, population, with_data)
        units = {group: GROUP_UNITS[group] for group in spec.trained}
        return newton_stein(key, of_rows, state.params, phase.whitened, units, prior.phases.cg_steps)

    positive = of(state.prior.positive, 0, True)
    shifted = stein_shift(spec, prior, state, positive.mean_score)
    total = jax.tree.map(lambda force, shift: -force - shift, positive.force, shifted)
    metrics = {f"phases/{POSITIVE}_mean_residual": positive.mean_residual}
    if prior.log_partition:
        negative = of(state.prior.negative, 1, False)
        total = jax.tree.map(jnp.add, total, negative.force)
        metrics[f"phases/{NEGATIVE}_mean_residual"] = negative.mean_residual
    return total, metrics


def weights(
    spec: StageSpec,
    prior: PriorSpec,
    state: TrainState,
    weight: jax.Array,
    batch: RowSets,
    population: RowSets,
    with_data: bool,
) -> Weights:
    """w of θ1 and u on the rows of each part.

    Adjusted chains target the whole sets, so the scores and P are of these; J is of the batch that the force to be
    corrected is estimated from. The scores of unadjusted chains are of the batch, and have mean zero only on average
    over batches: P and J of the same batch would be correlated with them. They take the first rows of the declared
    sets, always the same and as many as a batch has.
    """

    def of(rows: RowSets, whole: bool) -> Weight:
        def weight_of(params: Params, u: Tree) -> jax.Array:
            target = phases.log_weight(spec, params, state.held, weight, rows, with_data=with_data, whole=whole)
            return target(u)

        return weight_of

    if prior.phases.adjusted:
        whole = of(population, True)
        return Weights(score=whole, precision=whole, force=of(batch, False))
    first = jax.tree.map(lambda all_rows, some: all_rows[: some.shape[0]], population, batch)
    fixed = of(first, False)
    return Weights(score=of(batch, False), precision=fixed, force=fixed)


def stein_shift(spec: StageSpec, prior: PriorSpec, state: TrainState, mean_score: Tree) -> Params:
    """Σ2^−½ᵀ s̄ in nat/θ_g: what turns the positive phase's shift form under `all` into its force form; 0 for others.

    −∂_θ1 s̄ · Σ2^−½ (θ2 − c) at fixed θ2, as the shift form itself is −∂_θ1 ½ |Σ2^−½ (θ2 − c)|².
    """
    theta2 = jax.lax.stop_gradient(phases.centre(prior, state.params, state.held))

    def along(params: Params) -> Quantity:
        centre = phases.centre(prior, params, state.held)
        return Quantity(-dot(mean_score, whiten(theta2, centre, phases.metric(state.held), prior.resampled)), nat)

    units = {group: GROUP_UNITS[group] for group in spec.trained}
    return strip_grad(value_and_grad(along, units)(state.params)[1], units)
