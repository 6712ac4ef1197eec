"""One file a task; `build_task` turns the task section of a config into a `Task`."""

from __future__ import annotations

from honest.config_tasks import ArithmeticTask, DiamondsTask, TableTask, WorldTask
from honest.data.batch import Task
from honest.data.tasks.arithmetic import build_arithmetic
from honest.data.tasks.diamonds import build_diamonds
from honest.data.tasks.finite_world import build_world
from honest.data.tasks.table import build_table


def build_task(config: ArithmeticTask | TableTask | DiamondsTask | WorldTask) -> Task:
    """The task on the host (numpy arrays), a deterministic function of its config; or DataError."""
    if isinstance(config, ArithmeticTask):
        return build_arithmetic(config)
    if isinstance(config, DiamondsTask):
        return build_diamonds(config)
    if isinstance(config, WorldTask):
        return build_world(config)
    return build_table(config)
