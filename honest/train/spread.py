"""How a stage's program uses several devices, and one device's memory: strategies, and batches in parts.

A strategy is how a predictor shares the rows that it is asked about out to the devices, and how the state lies on them.
The train step stays one pure function: losses, the multiplier, priors, penalties and accept decisions are computed from
the logits of the whole batch, exactly as on one device; a loss that is a sum over rows also from those of its parts.

    auto   jit over a mesh; the rows of each call are split over its axis `data`, and XLA adds up what they contribute.
    fsdp   as auto, and the state is split, too: every tensor along one of its axes, gathered where it is used
           (Rajbhandari et al. 2020, ZeRO, stage 3). Chains whose number divides into the devices, as that of those
           asked in a step does, are split in the rows' place: every device then moves its own chains on all rows.
    pmap   one program a device, written out: each computes the logits of its part of the rows and gathers the others'.

Rows whose number does not divide into the devices are computed on every device: the last rows of an evaluation, the
single rows behind the Laplace volume's Jacobian.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from honest.objective.predictions import Predictor, Rows, RowSets, size
from honest.params import Params, Tree
from honest.train.micro_batches import collect, deal
from honest.train.sharding import AXIS, put, shard_rows
from honest.train.spec import StageSpec
from honest.train.state import TrainState

Logits = Any  # HeadLogits, or world logits: leaves with a leading axis of rows
Ask = Callable[[Params, Rows], Logits]
Shell = Callable[[TrainState, RowSets, Any, jax.Array], tuple[TrainState, dict[str, jax.Array]]]


@dataclass(frozen=True)
class Asked(ABC):
    """A predictor that asks `inner` in its own way, `ask`."""

    inner: Predictor

    def head_logits(self, params: Params, rows: Rows) -> Any:
        return self.ask(self.inner.head_logits, params, rows)

    def world_logits(self, params: Params, rows: Rows) -> jax.Array:
        return self.ask(self.inner.world_logits, params, rows)

    @abstractmethod
    def ask(self, call: Ask, params: Params, rows: Rows) -> Logits:
        """`call`'s logits of all the rows."""


@dataclass(frozen=True)
class OverMesh(Asked):
    """Inside jit: the rows are split over the mesh. gather: parameters, which may be split, are gathered first."""

    mesh: Mesh
    gather: bool

    def ask(self, call: Ask, params: Params, rows: Rows) -> Logits:
        if self.gather:
            params = jax.lax.with_sharding_constraint(params, NamedSharding(self.mesh, PartitionSpec()))
        if size(rows) % self.mesh.size == 0:
            rows = shard_rows(rows, self.mesh)
        return call(params, rows)


@jax.custom_jvp
def replica(leaf: jax.Array) -> jax.Array:
    """Inside pmap: a parameter that is the same on every device, whose cotangents are averaged over the devices.

    The identity, with a tangent of `pmean`: all derivatives of any order are JAX's own, and a pass without derivatives
    says nothing to the other devices.
    """
    return leaf


@replica.defjvp
def _replica_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return replica(primals[0]), jax.lax.pmean(tangents[0], AXIS)


@dataclass(frozen=True)
class OverAxis(Asked):
    """Inside pmap: every device computes its part of the rows and gathers the logits of all.

    The transpose of `all_gather` adds up the cotangents of n equal losses, and so gives a device n times its part of
    the gradient; the mean in `replica` makes the whole gradient of it, on every device.
    """

    devices: int

    def ask(self, call: Ask, params: Params, rows: Rows) -> Logits:
        count = size(rows)
        if count % self.devices:
            return call(params, rows)
        part = count // self.devices
        first = jax.lax.axis_index(AXIS) * part
        own = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, part), rows)
        logits = call(jax.tree.map(replica, params), own)
        return jax.lax.all_gather(logits, AXIS, tiled=True)


@dataclass(frozen=True)
class InParts(Asked):
    """Rows pass through the network in `parts` equal parts, with one part's activations in memory at a time.

    Backwards, each part is computed again and adds its gradient to the sum. Not the sum of the parts' own gradients
    (`added_up`), which needs no second pass: the multiplier has to see the whole batch's violation before it weights
    the gradient, and penalties are no sums over rows. The logits of all parts are put together, and the loss is the
    whole batch's. Rows are dealt out as `deal` says; fewer rows than parts are not split.
    """

    parts: int

    def ask(self, call: Ask, params: Params, rows: Rows) -> Logits:
        count = size(rows)
        if count < self.parts:
            return call(params, rows)
        dealt, _ = deal(rows, self.parts)
        return collect(jax.lax.map(jax.checkpoint(partial(call, params)), dealt), count)


@dataclass(frozen=True)
class Mapped:
    """A shell under `jax.pmap`, called and lowered as the jitted one is. State, sets and metrics are replicated."""

    program: Any
    ranks: jax.Array  # pmap needs one argument that differs

    def __call__(self, state: TrainState, sets: RowSets, volume: Any, *, seed: jax.Array) -> Any:
        return self.program(self.ranks, state, sets, volume, seed)

    def lower(self, state: TrainState, sets: RowSets, volume: Any, *, seed: jax.Array) -> Any:
        return self.program.lower(self.ranks, state, sets, volume, seed)


@dataclass(frozen=True)
class Spread:
    """mesh: its one axis is `data`. micro_batches: parts of a batch, see `added_up` and `InParts`."""

    strategy: Literal["auto", "pmap", "fsdp"]
    mesh: Mesh
    micro_batches: int

    def spec(self, spec: StageSpec) -> StageSpec:
        """The stage as its compiled step asks its predictor; everything else reads the stage's own."""
        predictor = spec.predictor
        if self.strategy == "pmap":
            predictor = OverAxis(predictor, self.mesh.size)
        elif self.mesh.size > 1 and not self.splits_chains(spec):
            predictor = OverMesh(predictor, self.mesh, gather=self.strategy == "fsdp")
        if spec.adds_up:
            return replace(spec, predictor=predictor, micro_batches=self.micro_batches)
        if self.micro_batches > 1:
            predictor = InParts(predictor, self.micro_batches)
        prior = spec.prior
        if prior is not None and self.splits_chains(spec):
            prior = replace(prior, batch_particles=True)  # taken in turn, they would not be on all devices at once
        return replace(spec, predictor=predictor, prior=prior)

    def splits_chains(self, spec: StageSpec) -> bool:
        """Whether devices share the chains out, instead of the rows."""
        if self.strategy != "fsdp" or spec.prior is None or spec.prior.phases.kind != "chains":
            return False
        phases = spec.prior.phases
        return phases.chains % self.mesh.size == 0 and phases.asked_chains % self.mesh.size == 0

    def batch(self, batch: RowSets, spec: StageSpec) -> RowSets:
        """Inside the shell: the batch's rows, where they are to lie."""
        return batch if self.strategy == "pmap" or self.splits_chains(spec) else shard_rows(batch, self.mesh)

    def layout(self, state: TrainState) -> TrainState:
        """The sharding of every leaf of a state (arrays, or their shapes)."""

        def of(tree: Tree, chains: bool) -> Tree:
            return jax.tree.map(lambda leaf: NamedSharding(self.mesh, self._split(leaf.shape, chains)), tree)

        shardings = of(state, False)
        if state.prior is None:
            return shardings
        positive, negative = of(state.prior.positive, True), of(state.prior.negative, True)
        return shardings._replace(prior=shardings.prior._replace(positive=positive, negative=negative))

    def _split(self, shape: tuple[int, ...], chains: bool) -> PartitionSpec:
        """Chains along their first axis if it divides; else the largest axis that divides, the first of equals."""
        dividing = [axis for axis, length in enumerate(shape) if length and length % self.mesh.size == 0]
        if self.strategy != "fsdp" or not dividing:
            return PartitionSpec()
        axis = 0 if chains and 0 in dividing else max(dividing, key=lambda axis: shape[axis])
        return PartitionSpec(*[None] * axis, AXIS)

    def place(self, state: TrainState) -> TrainState:
        """The state where it is to lie, in buffers of its own: the shell donates them."""
        return jax.tree.map(jnp.copy, put(state, self.layout(state)))

    def awaited(self, shapes: TrainState) -> TrainState:
        """The shapes of a state with its layout, for a checkpoint of any other layout to be restored to."""
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            self.layout(shapes),
        )

    def compile(self, shell: Shell) -> Any:
        """The program of a pure shell, donating its state; its seed is a keyword argument.

        The state comes out where it went in, so that it can be donated again.
        """
        if self.strategy == "pmap":
            devices = list(self.mesh.devices.flat)
            ranks = put(jnp.arange(len(devices)), NamedSharding(self.mesh, PartitionSpec(AXIS)))
            of_rank = lambda _, *arguments: shell(*arguments)  # noqa: E731
            axes = (0, None, None, None, None)
            program = jax.pmap(of_rank, axis_name=AXIS, in_axes=axes, out_axes=None, devices=devices, donate_argnums=1)
            return Mapped(program, ranks)

        def laid_out(state: TrainState, sets: RowSets, volume: Any, *, seed: jax.Array) -> Any:
            new, metrics = shell(state, sets, volume, seed)
            if self.mesh.size > 1:
                new = jax.lax.with_sharding_constraint(new, self.layout(new))
            return new, metrics

        return jax.jit(laid_out, donate_argnums=0)
