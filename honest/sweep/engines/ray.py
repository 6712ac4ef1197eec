"""Jobs as tasks of a Ray cluster, or of one that is started on this machine for as long as the sweep runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from honest.config_fields import Count, NonNegative, Positive, Strict, Text
from honest.errors import UserError
from honest.jobs.local import compiled_once
from honest.jobs.pool import FAILED, Job
from honest.process import STOPPED
from honest.sweep.engines.task import RunMembers, note, run_logged

LOCAL = "local"


class RayOptions(Strict):
    """How many members run at a time is Ray's to decide, from what each asks for; `slots` bounds it."""

    address: Text  # "local" starts Ray here; else as ray.init takes it: "auto", "HOST:PORT", "ray://HOST:PORT"
    slots: Count  # jobs at a time that Ray is given
    cpus_per_job: Positive
    gpus_per_job: NonNegative
    local_cpus: Annotated[int, Field(ge=1)] | None  # that a Ray started here shares out; null: all


class RayHandle:
    """A task, of which Ray knows the state."""

    def __init__(self, ray: Any, reference: Any, job: Job):
        self.ray, self.reference, self.job = ray, reference, job

    def poll(self) -> int | None:
        ready, _ = self.ray.wait([self.reference], timeout=0)
        if not ready:
            return None
        try:
            return self.ray.get(self.reference)
        except self.ray.exceptions.TaskCancelledError:  # before it began, or by `kill`
            return STOPPED
        except self.ray.exceptions.RayError as error:  # its process or its node died
            note(self.job.log, f"Ray: {error}")
            return FAILED

    def interrupt(self) -> None:
        self.ray.cancel(self.reference, force=False)  # as SIGINT to the process; a task that waits is dropped

    def kill(self) -> None:
        self.ray.cancel(self.reference, force=True)


class RayEngine:
    """Each job in a worker process of its own, which ends with it: JAX keeps an accelerator's memory to its end.

    Use it through `ray_engine`. `run` has to be importable on every node, and the sweep's folder the same there.
    """

    def __init__(self, ray: Any, options: RayOptions, run: RunMembers, cache: Path):
        self.ray, self.run, self.slots = ray, run, options.slots
        self.remote = ray.remote(
            num_cpus=options.cpus_per_job,
            num_gpus=options.gpus_per_job,
            max_retries=0,  # retries are the pool's
            max_calls=1,
            runtime_env={"env_vars": compiled_once(cache.resolve())},
        )(run_logged)

    def start(self, job: Job, slot: int) -> RayHandle:
        reference = self.remote.remote(self.run, job.folder.resolve(), job.members, job.log.resolve())
        return RayHandle(self.ray, reference, job)


def check_ray() -> None:
    """UserError where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise UserError("the engine ray needs the package ray: pip install 'honest[ray]', or choose another --engine")


@contextmanager
def ray_engine(options: RayOptions, run: RunMembers, cache: Path) -> Iterator[RayEngine]:
    """The engine, while this process is connected to Ray. UserError: Ray is not installed, or not at the address."""
    check_ray()
    import ray

    cpus, dashboard = (options.local_cpus, False) if options.address == LOCAL else (None, None)
    try:
        ray.init(address=options.address, num_cpus=cpus, include_dashboard=dashboard, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"engine.ray.address is {options.address}: {error}") from error
    try:
        yield RayEngine(ray, options, run, cache)
    finally:
        ray.shutdown()
