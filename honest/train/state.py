"""Everything that a stage's progress depends on, as one pytree; `train_step` is pure in it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from honest.objective.parameter_prior import Gaussian, Prior
from honest.params import Params, Tree
from honest.train.multiplier import MultiplierState
from honest.units import Quantity


class PhaseState(NamedTuple):
    """One phase: C particles (modes) or chains, as whitened offsets u = (θ − c)/σ of the resampled groups only, so
    that they move along with the centre c.

    whitened: leaves (C, …). optimizer: Adam state of the modes, () for chains. log_step: (C,) log step size of the
    chains' moves. acceptance: (C,) their latest acceptance probability (0 for modes). accepted: (C,) latest decision.
    """

    whitened: Params
    optimizer: Any
    log_step: jax.Array
    acceptance: jax.Array
    accepted: jax.Array


class VolumeState(NamedTuple):
    """The Laplace volumes at their last refresh: the loss's gradient from them (nat/θ_g, bare) and their values."""

    gradient: Params
    positive: jax.Array
    negative: jax.Array


class Priors(NamedTuple):
    """The families of both stages by group, with their scales, and the reference measure u_g of each group in θ_g."""

    first: dict[str, Prior]
    second: dict[str, Gaussian]
    measure: dict[str, Quantity]


class Held(NamedTuple):
    """Constants of a stage. anchor: the priors' centre θ0. start: where the parameters not trained are held, and
    where θ2 may start from (the trunk stage's result). priors: None in stages of maximum likelihood."""

    anchor: Params
    start: Params
    priors: Priors | None


class PriorState(NamedTuple):
    """What the full objective adds to a stage. volume: None but for Laplace phases."""

    positive: PhaseState
    negative: PhaseState
    multiplier: MultiplierState
    volume: VolumeState | None


class TrainState(NamedTuple):
    """step also is the data position. prior: None in stages of maximum likelihood."""

    step: jax.Array
    key: jax.Array
    params: Params  # the groups that this stage trains: stage one, θ1
    optimizer: Tree
    held: Held
    prior: PriorState | None
