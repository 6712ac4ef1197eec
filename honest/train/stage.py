"""What a stage is, and what all stages of a run share."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from honest.baselines import PROBES
from honest.config import RunConfig, StageConfig
from honest.data.batch import Batch, Task
from honest.data.helped import helped
from honest.errors import UserError
from honest.model.two_head import Model, build
from honest.objective.log_partition.volume import VolumeRows
from honest.objective.predictions import RowSets
from honest.params import Params
from honest.train import families
from honest.train import optimizer as optimizers
from honest.train.sharding import check_divisible, replicate
from honest.train.spec import Numbers, PriorSpec, StageSpec, numbers_of, program_of, with_numbers
from honest.train.spread import Spread
from honest.train.state import Held, PriorState, TrainState

TRUNK, PRIOR = "trunk", "prior"
Results = Mapping[str, Params]  # what each finished stage trained


class Stopped(Exception):
    """The user asked to stop; what was done up to `step` of `stage` is in a committed checkpoint, or is step 0."""

    def __init__(self, stage: str, step: int):
        super().__init__(f"stopped in stage {stage} at step {step}")
        self.stage, self.step = stage, step


def order(config: RunConfig) -> tuple[str, ...]:
    """The stages of a run in order; probes are fitted to the trunk's result when it is evaluated, and have none."""
    return (TRUNK, *(name for name in config.methods if name not in PROBES))


def stream(name: str) -> int:
    """A number of 32 bits for a stage's random streams, which other stages do not change."""
    return zlib.crc32(name.encode())


@dataclass(frozen=True)
class Stage:
    """offset: global step of its step 0. numbers: those of `spec` and `mode_optimizer`; rebuild: both of other ones."""

    spec: StageSpec
    steps: int
    offset: int
    batch_rows: int
    seed: int
    sets: RowSets
    volume: VolumeRows | None
    mode_optimizer: optax.GradientTransformation
    spread: Spread
    init: Callable[[], TrainState]
    starts: Callable[[], Params] | None  # candidate starts of the phases, whitened, leading axis
    numbers: Numbers
    rebuild: Callable[[Numbers], tuple[StageSpec, optax.GradientTransformation]]

    @property
    def program(self) -> StageSpec:
        """What evaluations are compiled for; equal for members that differ in numbers alone."""
        return program_of(self.spec)


@dataclass(frozen=True)
class Run:
    """What all stages share."""

    config: RunConfig
    task: Task
    model: Model
    mesh: Mesh

    @property
    def spread(self) -> Spread:
        return Spread(self.config.parallel.strategy, self.mesh, self.config.compute.micro_batches)

    @property
    def dtype(self) -> jnp.dtype:
        return jnp.dtype(self.config.precision)

    def key(self, name: str) -> jax.Array:
        return jax.random.fold_in(jax.random.key(self.config.seed), stream(name))

    def anchor(self) -> Params:
        """θ0 at initialisation, every group."""
        return self.model.init(self.key(TRUNK))


def make_run(config: RunConfig, task: Task, mesh: Mesh) -> Run:
    phases = config.objective.phases
    model = build(
        config.model,
        config.compute,
        vocabulary=task.vocabulary.size,
        max_length=task.max_length,
        answers=len(task.answers),
        world_channels=task.world_channels,
        world_classes=task.world_classes,
        differentiated_twice=phases.kind == "laplace" or phases.control_variate != "none",
        dtype=jnp.dtype(config.precision),
    )
    for name in ("trunk", "heads", "prior"):
        check_divisible(getattr(config.stages, name).batch_rows, mesh, f"stages.{name}.batch_rows")
    task = helped_task(config, task)
    families.check(config.objective, jax.eval_shape(model.init, jax.random.key(0)))
    return Run(config, task, model, mesh)


def helped_task(config: RunConfig, task: Task) -> Task:
    """The task with the help that the config states. UserError: the prior asks for more rows than there then are."""
    if PRIOR in config.methods:
        check_population(config, task)
    splits = helped(task.splits, config.objective.supervision, config.seed)
    world, trusted, untrusted = (rows.label_B.shape[0] for rows in (splits.world, splits.trusted, splits.untrusted))
    if wrong := config.too_many_rows(world, trusted, untrusted):
        raise UserError("; ".join(f"{key} {what}, lower it" for key, what in wrong))
    return replace(task, splits=splits)


def check_population(config: RunConfig, task: Task) -> None:
    """UserError where the consistency population is larger than the task's trusted training rows."""
    population, trusted = config.objective.consistency.population, task.splits.trusted.label_B.shape[0]
    if population > trusted:
        raise UserError(
            f"objective.consistency.population is {population}, but the task has {trusted} trusted training rows; "
            "lower it"
        )


def stage_steps(config: RunConfig, name: str) -> int:
    return stage_config(config, name).steps


def stage_config(config: RunConfig, name: str) -> StageConfig:
    return getattr(config.stages, name if name in (TRUNK, PRIOR) else "heads")  # equal budgets for all baselines


def optimizer_settings(config: StageConfig) -> optimizers.OptimizerSettings:
    settings = config.optimizer
    return optimizers.OptimizerSettings(
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup_steps,
        schedule=settings.schedule,
        clip_norm=settings.clip_norm,
    )


def stage_optimizer(config: StageConfig) -> optax.GradientTransformation:
    return optimizers.build(optimizer_settings(config), config.steps)


def labelled_rows(batch: Batch | None) -> int:
    return 0 if batch is None else int(np.sum(np.asarray(batch.label_B) >= 0))


def no_modes(_: PriorSpec | None) -> optax.GradientTransformation:
    """The optimiser of the modes of a stage that has none."""
    return optax.identity()


def assemble(
    run: Run,
    spec: StageSpec,
    sets: RowSets,
    init: Callable[[], TrainState],
    *,
    volume: VolumeRows | None = None,
    modes: Callable[[Any], optax.GradientTransformation] = no_modes,
    starts: Callable[[], Params] | None = None,
) -> Stage:
    """modes: the optimiser of the phases' modes, of the stage's prior."""
    name = spec.name
    config = stage_config(run.config, name)
    settings = optimizer_settings(config)

    def rebuild(numbers: Numbers) -> tuple[StageSpec, optax.GradientTransformation]:
        made = with_numbers(spec, settings, config.steps, numbers)
        return made, modes(made.prior)

    stages = order(run.config)
    before = stages[: stages.index(name)] if name in stages else ()  # a method of somebody's own is on no time line
    offset = sum(stage_steps(run.config, earlier) for earlier in before)
    return Stage(
        spec=spec,
        steps=config.steps,
        offset=offset,
        batch_rows=config.batch_rows,
        seed=stream(f"{run.config.seed} {name}"),
        sets=replicate(sets, run.mesh),
        init=lambda: run.spread.place(init()),
        volume=volume,
        mode_optimizer=modes(spec.prior),
        starts=starts,
        numbers=numbers_of(settings, spec.prior),
        rebuild=rebuild,
        spread=run.spread,
    )


def fresh_state(run: Run, spec: StageSpec, params: Params, held: Held, prior: PriorState | None) -> TrainState:
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=run.key(spec.name),
        params=params,
        optimizer=spec.optimizer.init(params),
        held=held,
        prior=prior,
    )
