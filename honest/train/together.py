"""Members of a sweep that are trained together: one program, whose state holds every member's.

Members that differ in numbers alone (seeds, σ, λ0, ε, learning rates) have the same program but for these numbers,
which are traced. Their states are joined leaf by leaf along a leading axis M; the step is common to all. On an
accelerator the members' steps are one step with a batch axis (`vmap`). On a CPU they are taken in turn inside the
program (`lax.map`); see `honest.params.batched`.

One member alone is not joined at all: its state is its state, and its program is the plain one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from honest.errors import UserError
from honest.params import batched
from honest.train.spec import Numbers
from honest.train.stage import Stage
from honest.train.state import TrainState

MEMBERS = TrainState(step=None, key=0, params=0, optimizer=0, held=0, prior=0)  # type: ignore[arg-type]
Tree = Any
Metrics = dict[str, jax.Array]
Shell = Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]  # joined state, row sets, the volume's rows


def join(states: Sequence[TrainState]) -> TrainState:
    """One state of all members, leaves (M, …) but for the step; the state itself of one alone."""
    if len(states) == 1:
        return states[0]
    step = states[0].step
    stacked = stack([state._replace(step=None) for state in states])  # type: ignore[arg-type]
    return stacked._replace(step=step)


def parts(joined: TrainState, members: int) -> list[TrainState]:
    """The members' states."""
    if members == 1:
        return [joined]
    rest = joined._replace(step=None)  # type: ignore[arg-type]
    return [_take(rest, jnp.asarray(index))._replace(step=joined.step) for index in range(members)]


def own_buffers(state: TrainState, stages: Sequence[Stage]) -> TrainState:
    """The joined state where it is to lie, in buffers that nothing else holds: the shell donates them."""
    return stages[0].spread.place(state) if len(stages) == 1 else jax.tree.map(jnp.copy, state)


@jax.jit
def _take(joined: Tree, index: jax.Array) -> Tree:
    """Compiled once for all members."""
    return jax.tree.map(lambda leaf: leaf[index], joined)


def stack(trees: Sequence[Tree]) -> Tree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def stacked_numbers(stages: Sequence[Stage]) -> Numbers:
    """Every number of the stages, (M,), in the precision of the members' parameters."""
    dtype = jax.tree.leaves(jax.eval_shape(stages[0].init).params)[0].dtype
    return jax.tree.map(lambda *values: jnp.asarray(values, dtype), *(stage.numbers for stage in stages))


@partial(jax.tree_util.register_dataclass, data_fields=["tree"], meta_fields=["shared"])
@dataclass(frozen=True)
class Together:
    """What members read: one tree that is common to all, or theirs with leaves (M, …)."""

    tree: Tree
    shared: bool

    def each(self) -> Tree:
        """The part with a leading axis M."""
        return () if self.shared else self.tree

    def of_member(self, each: Tree) -> Tree:
        """One member's tree; each: the member's part of `each()`."""
        return self.tree if self.shared else each


def together(trees: Sequence[Tree]) -> Together:
    """Common where the members' trees are equal, number by number: data are then held once, not M times."""
    first = trees[0]
    shared = all(_equal(first, tree) for tree in trees[1:])
    return Together(first if shared else stack(trees), shared)


def _equal(a: Tree, b: Tree) -> bool:
    return all(
        x is y or np.array_equal(np.asarray(x), np.asarray(y))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def rows_of(stages: Sequence[Stage]) -> tuple[Any, Any]:
    """What the members' program reads: row sets and the volume's rows; of one member alone as they are."""
    if len(stages) == 1:
        return stages[0].sets, stages[0].volume
    return together([stage.sets for stage in stages]), together([stage.volume for stage in stages])


def over_members(
    one: Callable[..., tuple[TrainState, Tree]], state: TrainState, each: Sequence[Tree]
) -> tuple[TrainState, Tree]:
    """`one(state, *each)` of every member; trees of `each` have a leading axis M in every leaf."""
    if batched():
        return jax.vmap(one, in_axes=(MEMBERS, *(0 for _ in each)), out_axes=(MEMBERS, 0))(state, *each)

    def in_turn(member: tuple[TrainState, Sequence[Tree]]) -> tuple[TrainState, Tree]:
        return one(member[0]._replace(step=state.step), *member[1])

    new, metrics = jax.lax.map(in_turn, (state._replace(step=None), tuple(each)))  # type: ignore[arg-type]
    return new._replace(step=new.step[0]), metrics


def read(metrics: Metrics, members: int) -> list[dict[str, float]]:
    """Device scalars to host floats, a dict for each member; the one place in the loop that waits."""
    host = jax.device_get(metrics)
    return [{tag: float(np.reshape(value, -1)[index]) for tag, value in host.items()} for index in range(members)]


def mean_over_members(values: Sequence[dict[str, float]]) -> dict[str, float]:
    """What the progress bar shows of several members."""
    return {tag: sum(each[tag] for each in values) / len(values) for tag in values[0]}


def check_together(stages: Sequence[Stage]) -> None:
    """UserError where the stages are not one program but for their numbers, or not one process on replicated state."""
    first = stages[0]
    if len(stages) > 1 and (first.spread.strategy != "auto" or jax.process_count() > 1):
        raise UserError(
            f"members are trained together by one process under parallel.strategy auto, not by {jax.process_count()} "
            f"under {first.spread.strategy}. Run them with --engine local"
        )
    for stage in stages[1:]:
        same = (stage.spec.counts, stage.steps, stage.offset, stage.batch_rows)
        if same != (first.spec.counts, first.steps, first.offset, first.batch_rows):
            raise UserError(
                f"stage {first.spec.name}: members that are to be trained together have other sets of rows, steps or "
                f"batches: {first.spec.counts} and {stage.spec.counts}. Run them with --engine local"
            )
