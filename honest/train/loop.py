"""Runs one stage: dispatches steps, reads metrics one step late, evaluates, checkpoints, and can be stopped anywhere.

The compiled step is a thin shell around the pure `train_step`: it takes the batch of rows that the state's step names,
and donates the state. Nothing in the loop waits for the device but the reading of a finished step's metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from honest.data.loader import indices
from honest.objective.predictions import RowSets, size
from honest.train.burn_in import settle
from honest.train.checkpoint import Checkpoints
from honest.train.events import EventLog
from honest.train.progress import StageProgress
from honest.train.sharding import replicate
from honest.train.spec import Numbers
from honest.train.stage import Stage, Stopped
from honest.train.state import TrainState
from honest.train.step import Inputs, train_step
from honest.train.together import (
    Metrics,
    Shell,
    Together,
    check_together,
    join,
    mean_over_members,
    over_members,
    own_buffers,
    parts,
    read,
    rows_of,
    stacked_numbers,
)

Evaluate = Callable[[Stage, TrainState], tuple[dict[str, float], dict[str, Any]]]  # scalars, histograms

ROW_SETS = 4  # permutations of a stage; a fifth one's seed is another stage's, and stages' seeds are hashes


def batch_at(batch_rows: int, seed: jax.typing.ArrayLike, sets: RowSets, step: jax.Array) -> RowSets:
    """The rows of each set at a data position: every set walks its own permutation. seed: uint32, the stage's."""
    first = jnp.asarray(seed, jnp.uint32) * jnp.uint32(ROW_SETS)

    def rows_at(index: int, part: Any) -> Any:
        if part is None:
            return None
        chosen = indices(first + jnp.uint32(index), step, batch_rows, size(part))
        return jax.tree.map(lambda leaf: leaf[chosen], part)

    return RowSets(*(rows_at(index, part) for index, part in enumerate(sets)))


def compile_step(stages: Sequence[Stage], mesh: Mesh) -> Shell:
    """The jitted, donating shell around `train_step`; traced once, or it is an error.

    It takes the members' joined state, and gives it and their metrics (of several, with a leading axis M). The stage's
    seed is an argument of the program, so that runs that differ in their seed alone share one, which a compilation
    cache on disk then serves to all of them. The program itself is the partial's `func`.
    """
    first = stages[0]
    spread = first.spread

    def alone(state: TrainState, sets: RowSets, volume: Any, seed: jax.Array) -> tuple[TrainState, Metrics]:
        batch = spread.batch(batch_at(first.batch_rows, seed, sets, state.step), first.spec)
        return train_step(spread.spec(first.spec), first.mode_optimizer, state, Inputs(batch, sets, volume))

    def together(
        state: TrainState, sets: Together, volume: Together, seed: jax.Array, numbers: Numbers
    ) -> tuple[TrainState, Metrics]:
        def one(state: TrainState, seed: jax.Array, numbers: Numbers, own_rows: Any, own_volume: Any) -> tuple:
            rows, chosen = sets.of_member(own_rows), volume.of_member(own_volume)
            spec, mode_optimizer = first.rebuild(numbers)
            batch = spread.batch(batch_at(first.batch_rows, seed, rows, state.step), spec)
            return train_step(spread.spec(spec), mode_optimizer, state, Inputs(batch, rows, chosen))

        return over_members(one, state, (seed, numbers, sets.each(), volume.each()))

    chex.clear_trace_counter()  # chex counts by source text, and every stage compiles this one
    if len(stages) == 1:
        program = spread.compile(chex.assert_max_traces(alone, n=1))
        return partial(program, seed=replicate(jnp.asarray(first.seed, jnp.uint32), mesh))
    program = jax.jit(chex.assert_max_traces(together, n=1), donate_argnums=0)
    seeds = jnp.asarray([stage.seed for stage in stages], jnp.uint32)
    return partial(program, **replicate({"seed": seeds, "numbers": stacked_numbers(stages)}, mesh))


@dataclass(frozen=True)
class Lane:
    """One member's part of a stage: what is trained, and where its results go."""

    stage: Stage
    checkpoints: Checkpoints
    events: EventLog
    evaluate: Evaluate
    log_every: int

    def restore(self, step: int) -> TrainState:
        awaited = self.stage.spread.awaited(jax.eval_shape(self.stage.init))
        state, pending = self.checkpoints.restore(step, awaited)
        self.events.recover(pending)
        return state

    def record(self, step: int, values: dict[str, float]) -> None:
        """Every `log_every`-th step's metrics, and the last one's, become events."""
        if step % self.log_every == 0 or step == self.stage.steps:
            for tag, value in values.items():
                self.events.scalar(stage_tag(self.stage, tag), value, self.stage.offset + step)

    def evaluation(self, step: int, state: TrainState) -> None:
        scalars, histograms = self.evaluate(self.stage, state)
        for tag, value in scalars.items():
            self.events.scalar(stage_tag(self.stage, tag), value, self.stage.offset + step)
        for tag, values in histograms.items():
            self.events.histogram(stage_tag(self.stage, tag), values, self.stage.offset + step)

    def save(self, step: int, state: TrainState, unsaved: int | None) -> None:
        """unsaved: the step whose save was begun before, and is committed first."""
        if unsaved is not None:
            self.commit(unsaved)
        self.checkpoints.save(step, state, self.events.pending())

    def commit(self, step: int) -> None:
        self.checkpoints.wait()
        self.events.commit(self.stage.offset + step)


def run_stage(
    lanes: Sequence[Lane],
    mesh: Mesh,
    *,
    burn_in: int,
    checkpoint_every: int,
    evaluate_every: int,
    stop_requested: Callable[[], bool],
) -> list[TrainState]:
    """Runs the members' stage to its end, from their newest committed checkpoints if there are any; their states.

    All members are at the same step. Raises `Stopped`.
    """
    stages, members = [lane.stage for lane in lanes], len(lanes)
    stage = stages[0]
    check_together(stages)
    first = common_step(lanes)
    if first == 0:
        state = settle(stages, mesh, burn_in, compile_step, stop_requested)
    else:
        restored = [lane.restore(first) for lane in lanes]
        if first == stage.steps:
            return restored
        state = join(restored)
    state = own_buffers(state, stages)
    shell = compile_step(stages, mesh)
    sets, volume = rows_of(stages)
    unsaved: int | None = None
    last: tuple[int, Metrics] | None = None
    own: list[TrainState] = []  # the members' states after the latest step, where it was evaluated or saved

    def record(step: int, metrics: Metrics) -> None:
        values = read(metrics, members)
        for lane, numbers in zip(lanes, values, strict=True):
            lane.record(step, numbers)
        progress.show(step, mean_over_members(values))

    with StageProgress(stage.spec.name, stage.steps, first, members) as progress:
        for step in range(first + 1, stage.steps + 1):
            with jax.transfer_guard("disallow"):
                state, metrics = shell(state, sets, volume)
            if last is not None:
                record(*last)
            last, own = (step, metrics), []
            stopping = stop_requested()
            due = step % checkpoint_every == 0 or step == stage.steps or stopping
            if step % evaluate_every == 0 or step == stage.steps:
                own = parts(state, members)
                for lane, member in zip(lanes, own, strict=True):
                    lane.evaluation(step, member)
            if due:
                record(*last)
                last = None
                own = own or parts(state, members)
                for lane, member in zip(lanes, own, strict=True):
                    lane.save(step, member, unsaved)
                unsaved = step
            if stopping and step < stage.steps:
                for lane in lanes:
                    lane.commit(step)
                raise Stopped(stage.spec.name, step)
    for lane in lanes:
        lane.commit(stage.steps)
    return own


def common_step(lanes: Sequence[Lane]) -> int:
    """The step of every member's newest committed checkpoint; 0 where none has any."""
    steps = {lane.checkpoints.latest() or 0 for lane in lanes}
    if len(steps) > 1:
        raise ValueError(f"members that are trained together stand at different steps: {sorted(steps)}")
    return steps.pop()


def stage_tag(stage: Stage, tag: str) -> str:
    """The full objective logs under the plain tags; the stages before it under their own names."""
    return tag if stage.spec.prior is not None else f"{stage.spec.name}/{tag}"
