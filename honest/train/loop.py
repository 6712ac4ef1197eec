"""Runs one stage: dispatches steps, reads metrics one step late, evaluates, checkpoints, and can be stopped anywhere.

The compiled step is a thin shell around the pure `train_step`: it takes the batch of rows that the state's step names,
and donates the state. Nothing in the loop waits for the device but the reading of a finished step's metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from honest.data.loader import indices
from honest.objective.log_partition.moves import whitened_energy
from honest.objective.predictions import RowSets, size
from honest.params import Params
from honest.train import phases
from honest.train.checkpoint import Checkpoints
from honest.train.events import EventLog
from honest.train.prior_stage import settling, with_particles
from honest.train.progress import StageProgress
from honest.train.sharding import replicate
from honest.train.spec import StageSpec
from honest.train.stage import Stage
from honest.train.state import Held, PhaseState, TrainState
from honest.train.step import Inputs, train_step

Evaluate = Callable[[Stage, TrainState], tuple[dict[str, float], dict[str, Any]]]  # scalars, histograms
Shell = Callable[[TrainState, RowSets, Any], tuple[TrainState, dict[str, jax.Array]]]


ROW_SETS = 4  # permutations of a stage; a fifth one's seed is another stage's, and stages' seeds are hashes
BURN_IN = 1  # folded into the stage's key


class Stopped(Exception):
    """The user asked to stop; what was done up to `step` of `stage` is in a committed checkpoint."""

    def __init__(self, stage: str, step: int):
        super().__init__(f"stopped in stage {stage} at step {step}")
        self.stage, self.step = stage, step


def batch_at(batch_rows: int, seed: jax.typing.ArrayLike, sets: RowSets, step: jax.Array) -> RowSets:
    """The rows of each set at a data position: every set walks its own permutation. seed: uint32, the stage's."""
    first = jnp.asarray(seed, jnp.uint32) * jnp.uint32(ROW_SETS)

    def rows_at(index: int, part: Any) -> Any:
        if part is None:
            return None
        chosen = indices(first + jnp.uint32(index), step, batch_rows, size(part))
        return jax.tree.map(lambda leaf: leaf[chosen], part)

    return RowSets(*(rows_at(index, part) for index, part in enumerate(sets)))


def compile_step(stage: Stage, mesh: Mesh) -> partial:
    """The jitted, donating shell around `train_step`; traced once, or it is an error.

    The stage's seed is an argument of the program, so that runs that differ in their seed alone share one, which a
    compilation cache on disk then serves to all of them. The program itself is the partial's `func`.
    """
    spec = stage.spread.spec(stage.spec)

    def shell(
        state: TrainState, sets: RowSets, volume: Any, seed: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        batch = stage.spread.batch(batch_at(stage.batch_rows, seed, sets, state.step), stage.spec)
        return train_step(spec, stage.mode_optimizer, state, Inputs(batch, sets, volume))

    chex.clear_trace_counter()  # chex counts by source text, and every stage compiles this one
    program = stage.spread.compile(chex.assert_max_traces(shell, n=1))
    return partial(program, seed=replicate(jnp.asarray(stage.seed, jnp.uint32), mesh))


def settle(stage: Stage, mesh: Mesh, steps: int, compiled: Callable[[Stage, Mesh], Shell]) -> TrainState:
    """The stage's first state, its phases burnt in for `steps` steps with stage one and λ frozen.

    compiled: makes the shell that is stepped, such as `compile_step`.

    Modes are followed from both starts (the priors' centre and the trained trunk), and each phase keeps the start that
    reached the lower energy over the whole sets: both phases are treated alike. Chains just move.
    """
    state = stage.init()
    prior = stage.spec.prior
    if prior is None or state.prior is None or stage.starts is None or steps == 0:
        return state
    frozen = settling(stage)
    burning = state._replace(
        optimizer=frozen.spec.optimizer.init(state.params), prior=state.prior._replace(volume=None)
    )
    modes = prior.phases.kind != "chains"
    if modes:
        burning = with_particles(burning, stage.starts(), stage)
    # Keys of its own: training starts at step 0 again, and must not repeat the draws that shaped the burnt-in chains.
    burning = burning._replace(key=jax.random.fold_in(state.key, BURN_IN))
    burning = stage.spread.place(burning)
    shell = compiled(frozen, mesh)
    with StageProgress("burn-in", steps, 0) as progress:
        for step in range(steps):
            burning, metrics = shell(burning, stage.sets, None)
            progress.show(step + 1, read(metrics))
    assert burning.prior is not None
    positive, negative = burning.prior.positive, burning.prior.negative
    if modes:
        positive = state.prior.positive._replace(whitened=best_particle(stage, burning, positive, True))
        negative = state.prior.negative._replace(whitened=best_particle(stage, burning, negative, False))
    settled = state._replace(prior=state.prior._replace(positive=positive, negative=negative))
    return stage.spread.place(settled)


def best_particle(stage: Stage, state: TrainState, phase: PhaseState, with_data: bool) -> Params:
    """The particle of lowest energy over the whole sets, with a leading axis of 1."""
    assert state.prior is not None
    held, weight = state.held._replace(start={}), state.prior.multiplier.value
    particles = phase.log_step.shape[0]

    def energy_of(particle: int) -> jax.Array:
        u = jax.tree.map(lambda leaf: leaf[particle], phase.whitened)
        return energy(stage.spec, with_data, state.params, held, weight, stage.sets, u)

    best = int(jnp.argmin(jnp.stack([energy_of(particle) for particle in range(particles)])))
    return jax.tree.map(lambda leaf: leaf[best][None], phase.whitened)


@partial(jax.jit, static_argnums=(0, 1))
def energy(
    spec: StageSpec, with_data: bool, params: Params, held: Held, weight: jax.Array, sets: RowSets, u: Params
) -> jax.Array:
    """½|u|² − w(u) in nat over the whole sets."""
    target = phases.log_weight(spec, params, held, weight, sets, with_data=with_data, whole=True)
    return whitened_energy(u) - target(u)


def read(metrics: dict[str, jax.Array]) -> dict[str, float]:
    """Device scalars to host floats; the one place in the loop that waits."""
    return {tag: float(value) for tag, value in jax.device_get(metrics).items()}


def run_stage(
    stage: Stage,
    mesh: Mesh,
    checkpoints: Checkpoints,
    events: EventLog,
    *,
    burn_in: int,
    checkpoint_every: int,
    evaluate_every: int,
    log_every: int,
    evaluate: Evaluate,
    stop_requested: Callable[[], bool],
) -> TrainState:
    """Runs the stage to its end, from its newest committed checkpoint if there is one. Raises `Stopped`."""
    latest = checkpoints.latest()
    if latest is not None:
        state, pending = checkpoints.restore(latest, stage.spread.awaited(jax.eval_shape(stage.init)))
        events.recover(pending)
        if latest == stage.steps:
            return state
    else:
        state = settle(stage, mesh, burn_in, compile_step)
    state = stage.spread.place(state)
    first = 0 if latest is None else latest
    shell = compile_step(stage, mesh)
    record = partial(record_metrics, events, stage, log_every)
    unsaved: int | None = None
    last: tuple[int, dict[str, jax.Array]] | None = None
    with StageProgress(stage.spec.name, stage.steps, first) as progress:
        for step in range(first + 1, stage.steps + 1):
            with jax.transfer_guard("disallow"):
                state, metrics = shell(state, stage.sets, stage.volume)
            if last is not None:
                progress.show(step - 1, record(*last))
            last = (step, metrics)
            stopping = stop_requested()
            due = step % checkpoint_every == 0 or step == stage.steps or stopping
            if step % evaluate_every == 0 or step == stage.steps:
                scalars, histograms = evaluate(stage, state)
                for tag, value in scalars.items():
                    events.scalar(stage_tag(stage, tag), value, stage.offset + step)
                for tag, values in histograms.items():
                    events.histogram(stage_tag(stage, tag), values, stage.offset + step)
            if due:
                progress.show(step, record(*last))
                last = None
                if unsaved is not None:
                    checkpoints.wait()
                    events.commit(stage.offset + unsaved)
                checkpoints.save(step, state, events.pending())
                unsaved = step
            if stopping and step < stage.steps:
                checkpoints.wait()
                events.commit(stage.offset + step)
                raise Stopped(stage.spec.name, step)
    checkpoints.wait()
    events.commit(stage.offset + stage.steps)
    return state


def record_metrics(
    events: EventLog, stage: Stage, log_every: int, step: int, metrics: dict[str, jax.Array]
) -> dict[str, float]:
    """Reads a finished step's metrics; every `log_every`-th step's, and the last one's, become events."""
    values = read(metrics)
    if step % log_every == 0 or step == stage.steps:
        for tag, value in values.items():
            events.scalar(stage_tag(stage, tag), value, stage.offset + step)
    return values


def stage_tag(stage: Stage, tag: str) -> str:
    """The full objective logs under the plain tags; the stages before it under their own names."""
    return tag if stage.spec.prior is not None else f"{stage.spec.name}/{tag}"
