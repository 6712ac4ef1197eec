"""The two phases behind log Z_D − log Z, treated alike (design §2).

    positive  θ2 ~ N(c, Σ2) · exp(−λ N_c C̄ − data)          negative  θ' ~ N(c, Σ2) · exp(−λ N_c C̄)

Both are followed as modes (`points`, `laplace`) or as persistent chains (`chains`); never one of each. Coordinates are
whitened: θ = c + σu, so both targets are N(u; 0, I) times a weight exp(w), w in nat.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from honest.objective.consistency import consistency_nats, violation_rate, whole_violation
from honest.objective.data_loss import data_nats, whole_data_nats
from honest.objective.log_partition.moves import LogWeight, hamiltonian_move
from honest.objective.parameter_prior import Gaussian
from honest.objective.predictions import RowSets, predict
from honest.params import Params, Tree, resample
from honest.train.spec import PriorSpec, StageSpec
from honest.train.state import Held, PhaseState
from honest.units import Quantity, disagreement, nat

ADAPTATION_POWER = 0.6  # Robbins–Monro gain of the log step size: (1 + step)^−0.6, which vanishes


def centre(prior: PriorSpec, params: Params, held: Held) -> Params:
    """c: the anchor's trunk under `heads_then_trunk`; θ1 itself under `all`."""
    source = held.anchor if prior.staging == "heads_then_trunk" else params
    return {group: source[group] for group in prior.resampled}


def metric(held: Held) -> Mapping[str, Gaussian]:
    """The second prior's metric by group: what whitens and colours the resampled groups."""
    assert held.priors is not None
    return held.priors.second


def place(prior: PriorSpec, params: Params, held: Held, u: Tree) -> Params:
    """The parameters at whitened coordinates u."""
    return resample(centre(prior, params, held), u, metric(held), params)


def log_weight(
    spec: StageSpec,
    params: Params,
    held: Held,
    weight: jax.Array,
    rows: RowSets,
    *,
    with_data: bool,
    whole: bool,
) -> LogWeight:
    """u -> w(u) in nat: −λ N_c C̄, and − data for the positive phase.

    weight: λ in nat/disagreement, bare. whole: `rows` are the declared populations, summed exactly and in chunks (for
    values and accept decisions); otherwise they are a batch, and w is the whole set's estimate from it.
    """
    assert spec.prior is not None
    prior, chunk = spec.prior, spec.prior.phases.chunk_rows
    exchange = Quantity(weight, nat / disagreement)
    agreement = RowSets(None, None, None, rows.consistency)

    def log_weight_of(u: Tree) -> jax.Array:
        theta = place(prior, params, held, u)
        if whole:
            violation = whole_violation(spec.predictor, theta, rows.consistency, prior.divergence, chunk)
            data = whole_data_nats(spec.predictor, theta, rows, chunk) if with_data else {}
        else:
            asked = rows if with_data else agreement
            predictions = predict(spec.predictor, theta, asked)
            violation = violation_rate(predictions, prior.divergence)
            data = data_nats(predictions, asked, spec.counts) if with_data else {}
        cost = consistency_nats(exchange, violation, spec.counts.consistency)
        return -sum(data.values(), start=cost).to(nat)

    return log_weight_of


def init_phase(whitened: Params, prior: PriorSpec, optimizer: optax.GradientTransformation) -> PhaseState:
    """A phase whose particles start at `whitened` (leaves with a leading axis C)."""
    leaf = jax.tree.leaves(whitened)[0]
    chains = prior.phases.kind == "chains"
    return PhaseState(
        whitened=whitened,
        optimizer=() if chains else optimizer.init(whitened),
        log_step=jnp.full(leaf.shape[0], jnp.log(prior.phases.step_size), leaf.dtype),
        acceptance=jnp.zeros(leaf.shape[0], leaf.dtype),
        accepted=jnp.zeros(leaf.shape[0], bool),
    )


def mode_step(phase: PhaseState, gradient: Tree, optimizer: optax.GradientTransformation) -> PhaseState:
    """One Adam step down the phase's energy; `gradient` in nat per unit of u, leaves (C, …)."""
    updates, state = optimizer.update(gradient, phase.optimizer, phase.whitened)
    return phase._replace(whitened=optax.apply_updates(phase.whitened, updates), optimizer=state)


def chain_step(phase: PhaseState, key: jax.Array, target: LogWeight, step: jax.Array, prior: PriorSpec) -> PhaseState:
    """One move of every chain, with its key taken by chain index, and a vanishing adaptation of its step size."""
    settings = prior.phases
    chains = phase.log_step.shape[0]
    keys_C = jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.arange(chains))

    def move(chain_key: jax.Array, u: Tree, log_step: jax.Array):
        return hamiltonian_move(chain_key, u, target, jnp.exp(log_step), settings.leapfrog_steps, settings.adjusted)

    moved = jax.vmap(move)(keys_C, phase.whitened, phase.log_step)
    if settings.adjusted:
        gain = (1.0 + step.astype(phase.log_step.dtype)) ** -ADAPTATION_POWER
        # 0 is one radian: beyond it a rotation brings nothing more.
        log_step = jnp.minimum(phase.log_step + gain * (moved.acceptance - settings.target_accept), jnp.zeros(()))
    else:
        log_step = phase.log_step
    return phase._replace(
        whitened=moved.position, log_step=log_step, acceptance=moved.acceptance, accepted=moved.accepted
    )
