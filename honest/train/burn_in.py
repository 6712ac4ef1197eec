"""The phases' burn-in, before the first step of the full objective: they move, and stage one and λ stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from honest.objective.log_partition.moves import whitened_energy
from honest.objective.predictions import RowSets
from honest.params import Params
from honest.train import phases
from honest.train.prior_stage import settling, with_particles
from honest.train.progress import StageProgress
from honest.train.spec import StageSpec
from honest.train.stage import Stage, Stopped
from honest.train.state import Held, PhaseState, TrainState
from honest.train.together import Shell, join, mean_over_members, own_buffers, parts, read, rows_of

BURN_IN = 1  # folded into the stage's key


def settle(
    stages: Sequence[Stage],
    mesh: Mesh,
    steps: int,
    compiled: Callable[..., Shell],
    stop_requested: Callable[[], bool],
) -> TrainState:
    """The members' first states, joined, their phases burnt in for `steps` steps with stage one and λ frozen.

    compiled: makes the shell that is stepped, such as `compile_step`. stop_requested: asked after every step. Raises
    `Stopped`: nothing of a burn-in is saved, and it begins again.

    Modes are followed from both starts (the priors' centre and the trained trunk), and each phase keeps the start that
    reached the lower energy over the whole sets: both phases are treated alike. Chains just move.
    """
    states = [stage.init() for stage in stages]
    prior = stages[0].spec.prior
    if prior is None or stages[0].starts is None or steps == 0:
        return join(states)
    modes = prior.phases.kind != "chains"
    frozen = [settling(stage) for stage in stages]
    burning = join([unsettled(*each, modes) for each in zip(frozen, states, strict=True)])
    burning = own_buffers(burning, frozen)
    shell = compiled(frozen, mesh)
    sets, volume = rows_of(frozen)
    with StageProgress("burn-in", steps, 0, len(stages)) as progress:
        for step in range(steps):
            burning, metrics = shell(burning, sets, volume)
            progress.show(step + 1, mean_over_members(read(metrics, len(stages))))
            if stop_requested():
                raise Stopped(stages[0].spec.name, 0)
    burnt = parts(burning, len(stages))
    return join([settled(*each, modes) for each in zip(stages, states, burnt, strict=True)])


def unsettled(frozen: Stage, state: TrainState, modes: bool) -> TrainState:
    """The state to burn in: modes from both starts, and no optimiser of stage one."""
    assert state.prior is not None and frozen.starts is not None
    burning = state._replace(
        optimizer=frozen.spec.optimizer.init(state.params), prior=state.prior._replace(volume=None)
    )
    if modes:
        burning = with_particles(burning, frozen.starts(), frozen)
    # Keys of its own: training starts at step 0 again, and must not repeat the draws that shaped the burnt-in chains.
    return frozen.spread.place(burning._replace(key=jax.random.fold_in(state.key, BURN_IN)))


def settled(stage: Stage, state: TrainState, burnt: TrainState, modes: bool) -> TrainState:
    """The first state with the burnt-in phases."""
    assert burnt.prior is not None and state.prior is not None
    positive, negative = burnt.prior.positive, burnt.prior.negative
    if modes:
        positive = state.prior.positive._replace(whitened=best_particle(stage, burnt, positive, True))
        negative = state.prior.negative._replace(whitened=best_particle(stage, burnt, negative, False))
    return stage.spread.place(state._replace(prior=state.prior._replace(positive=positive, negative=negative)))


def best_particle(stage: Stage, state: TrainState, phase: PhaseState, with_data: bool) -> Params:
    """The particle of lowest energy over the whole sets, with a leading axis of 1."""
    assert state.prior is not None
    held, weight = state.held._replace(start={}), state.prior.multiplier.value
    particles = phase.log_step.shape[0]

    def energy_of(particle: int) -> jax.Array:
        u = jax.tree.map(lambda leaf: leaf[particle], phase.whitened)
        return energy(stage.program, with_data, state.params, held, weight, stage.sets, u)

    best = int(jnp.argmin(jnp.stack([energy_of(particle) for particle in range(particles)])))
    return jax.tree.map(lambda leaf: leaf[best][None], phase.whitened)


@partial(jax.jit, static_argnums=(0, 1))
def energy(
    spec: StageSpec, with_data: bool, params: Params, held: Held, weight: jax.Array, sets: RowSets, u: Params
) -> jax.Array:
    """½|u|² − w(u) in nat over the whole sets."""
    target = phases.log_weight(spec, params, held, weight, sets, with_data=with_data, whole=True)
    return whitened_energy(u) - target(u)
