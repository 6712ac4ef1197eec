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
from honest.objective.log_partition.moves import LogWeight, Move, hamiltonian_move, unmeasured_move
from honest.objective.parameter_prior import Gaussian
from honest.objective.predictions import RowSets, predict
from honest.params import Params, Tree, over_particles, resample
from honest.train.spec import PriorSpec, StageSpec
from honest.train.state import Held, PhaseState
from honest.units import Quantity, disagreement, nat

ADAPTATION_POWER = 0.6  # Robbins–Monro gain of the log step size: (1 + step)^−0.6, which vanishes
MEASURED_EVERY = 8  # of unadjusted moves: one of so many takes the gradient more that tells its energy error


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


def asked(whitened: Tree, prior: PriorSpec, step: jax.Array) -> Tree:
    """The chains that stage one asks in this step, (asked_chains, …): neighbours, which take turns.

    Every cycle begins with other chains than the one before, so that what is logged in every so many steps, or asked so
    many steps after a move, is not always of the same ones.
    """
    chains, some = prior.phases.chains, prior.phases.asked_chains
    if some == chains:
        return whitened
    turns = chains // some
    first = (step + step // turns) % turns * some
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, some), whitened)


def chain_step(phase: PhaseState, key: jax.Array, target: LogWeight, step: jax.Array, prior: PriorSpec) -> PhaseState:
    """One move of every chain, with its key taken by chain index, and a vanishing adaptation of its step size.

    step: the number of the step after this one. Unadjusted chains keep the acceptance that was measured last.
    """
    settings = prior.phases
    chains = phase.log_step.shape[0]
    keys_C = jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.arange(chains))
    measured = jnp.ones((), bool) if settings.adjusted else (step - 1) // settings.move_every % MEASURED_EVERY == 0

    def move(chain: tuple[jax.Array, Tree, jax.Array]) -> Move:
        chain_key, u, log_step = chain
        arguments = (chain_key, u, target, jnp.exp(log_step), settings.leapfrog_steps)
        if settings.adjusted:
            return hamiltonian_move(*arguments, adjusted=True)
        return jax.lax.cond(
            measured, lambda: hamiltonian_move(*arguments, adjusted=False), lambda: unmeasured_move(*arguments)
        )

    moved = over_particles(move, (keys_C, phase.whitened, phase.log_step), prior.batch_particles)
    if settings.adjusted:
        gain = (1.0 + step.astype(phase.log_step.dtype)) ** -ADAPTATION_POWER
        # 0 is one radian: beyond it a rotation brings nothing more.
        log_step = jnp.minimum(phase.log_step + gain * (moved.acceptance - settings.target_accept), jnp.zeros(()))
    else:
        log_step = phase.log_step
    acceptance = jnp.where(measured, moved.acceptance, phase.acceptance)
    return phase._replace(whitened=moved.position, log_step=log_step, acceptance=acceptance, accepted=moved.accepted)
