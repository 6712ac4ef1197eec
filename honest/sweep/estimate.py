"""How long a member may take on this machine's processors, guessed from operation counts before anything has run.

A guess: good to a factor of two or so. As members finish, the pool's own times take its place.
"""

from __future__ import annotations

import time

import jax
import numpy as np

from honest.config import RunConfig
from honest.data.batch import Task
from honest.params import dimension
from honest.train.stage import PRIOR, TRUNK, Run, order, stage_config

TRAINING = 6  # operations a parameter and token: two forward, four backward
EFFICIENCY = 0.15  # of a large matrix product's rate, that whole steps reach (notes/performance.md)
COMPILATION = {TRUNK: 8.0, PRIOR: 40.0}  # seconds on one core, evaluation included
HEADS_COMPILATION = 5.0
STEP_SECONDS = 2e-3  # of a stage on a frozen trunk, whose heads are small


def operations_per_second() -> float:
    """Of a float32 matrix product of side 1,024 on all cores, the best of five."""
    a = np.random.default_rng(0).standard_normal((1024, 1024), dtype=np.float32)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(times)


def member_seconds(run: Run, rate: float) -> float:
    """rate: operations a second that the member has for itself."""
    trunk = dimension(jax.eval_shape(run.model.init, jax.random.key(0))["trunk"])
    pass_of_row = TRAINING * trunk * run.task.max_length / (EFFICIENCY * rate)
    seconds = 0.0
    for name in order(run.config):
        stage = stage_config(run.config, name)
        if name == TRUNK:
            seconds += stage.steps * stage.batch_rows * pass_of_row + COMPILATION[TRUNK]
        elif name == PRIOR:
            rows = stage.steps * rows_per_step(run) + run.config.objective.phases.burn_in_steps * burn_in_rows(run)
            seconds += rows * pass_of_row + COMPILATION[PRIOR]
        else:
            seconds += stage.steps * STEP_SECONDS + HEADS_COMPILATION
    return seconds


def rows_per_step(run: Run) -> float:
    """Rows that pass forward and back through the trunk in a step under the prior.

    Those of the batches (the consistency set's twice, in both phases), and of what the phases need.
    """
    config, phases = run.config, run.config.objective.phases
    rows = float(batch_rows(config))
    if phases.kind == "laplace":  # a gradient a row, of which the volume's force is the derivative
        rows += 2 * parts(config) * phases.volume_rows / phases.volume_every
    if phases.kind == "chains":
        rows += burn_in_rows(run) / phases.move_every
        rows += phases.asked * batch_rows(config) / 3  # forward alone
    return rows


def burn_in_rows(run: Run) -> float:
    """The same of a step of burn-in: a move of every chain, or a step of the modes from both starts."""
    config, phases = run.config, run.config.objective.phases
    if phases.kind != "chains":
        return 2.0 * batch_rows(config)
    moved = whole_rows(run.task, config.objective.consistency.population) if phases.adjusted else batch_rows(config)
    return float(phases.chains * (phases.leapfrog_steps + (1 if phases.adjusted else 0)) * moved)


def parts(config: RunConfig) -> int:
    """Sets of rows that both phases ask about; the consistency set counts twice."""
    return 4 if config.objective.supervision.instrumental == "none" else 5


def batch_rows(config: RunConfig) -> int:
    return parts(config) * config.stages.prior.batch_rows


def whole_rows(task: Task, population: int) -> int:
    """All rows that accept decisions of both phases sum over."""
    parts = (task.splits.trusted, task.splits.untrusted, task.splits.world)
    return sum(part.label_B.shape[0] for part in parts) + 2 * population


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
