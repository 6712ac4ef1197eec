"""The engine that a sweep runs by, from its name and the sweep's options."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from honest.config_io.document import Document
from honest.errors import UserError
from honest.jobs.local import COMPILED, LocalEngine
from honest.jobs.pool import Engine, Job
from honest.sweep.engines.kubernetes import check_kubernetes, write_jobset
from honest.sweep.engines.ray import ray_engine
from honest.sweep.engines.slurm import SlurmEngine, check_hosts
from honest.sweep.engines.slurm_queue import WAITS
from honest.sweep.members import LoadedSweep
from honest.sweep.run_member import run_members
from honest.sweep.spec import Sweep

HERE = ("local", "vmap")


def options_of(sweep: LoadedSweep, engine: str) -> Any:
    """The engine's section of the sweep's file; None of those that run here.

    UserError: it has none; or the section of any engine does not fit the members' configs.
    """
    check_engines(sweep)
    if engine in HERE:
        return None
    section = None if sweep.sweep.engine is None else getattr(sweep.sweep.engine, engine)
    if section is None:
        raise UserError(
            f"{sweep.path}: --engine {engine} takes its options from the section engine.{engine}, which is not given"
        )
    return section


def check_engines(sweep: LoadedSweep) -> None:
    """UserError, with the line, where the section of an engine does not fit the members' configs, chosen or not."""
    given, configs = sweep.sweep.engine, {member.name: member.config for member in sweep.members}
    if given is None:
        return
    places = Document(Sweep)
    places.read_file(sweep.path)
    with at_line(places, "slurm"):
        if given.slurm is not None:
            check_hosts(given.slurm, configs)
    with at_line(places, "kubernetes"):
        if given.kubernetes is not None:
            check_kubernetes(given.kubernetes, sweep.sweep.name, configs)


@contextmanager
def at_line(places: Document, engine: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"{places.place(('engine', engine)).text}: {error}") from error


@contextmanager
def engine_of(name: str, options: Any, folder: Path, jobs: Sequence[Job], slots: int) -> Iterator[Engine]:
    """slots: processes at a time, of the engines that run here."""
    cache = folder / COMPILED
    if name == "slurm":
        slurm = SlurmEngine(options, folder, run_members, cache, WAITS)
        slurm.check(jobs)
        yield slurm
    elif name == "ray":
        with ray_engine(options, run_members, cache) as ray:
            yield ray
    else:
        yield LocalEngine(slots, member_command, cache)


def member_command(job: Job) -> list[str]:
    return [sys.executable, "-m", "honest.sweep.run_member", str(job.folder), *job.members]


def write_manifest(sweep: LoadedSweep, options: Any, folder: Path, jobs: Sequence[Job]) -> str:
    """Writes the JobSet; what to do with it."""
    written = write_jobset(folder, sweep.sweep.name, jobs, options)
    earlier = "" if written.kept is None else f"The earlier one is {written.kept}: delete its JobSets first.\n"
    return f"{earlier}Written: {written.manifest}. Nothing was submitted; run\n  {written.command}"
