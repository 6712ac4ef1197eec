"""What `honest sweep` does: checks every member, says how many and how long, runs them, and writes the table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax

from honest.errors import UserError
from honest.jobs.folder import check, prepared
from honest.jobs.local import visible_accelerators
from honest.jobs.pool import Engine, Job
from honest.jobs.shown import exit_code, run_shown
from honest.report.tables import layout
from honest.report.tensorboard import write_hparams
from honest.run import Tasks, set_precision
from honest.sweep.choice import HERE, engine_of, options_of, write_manifest
from honest.sweep.estimate import duration, member_seconds, operations_per_second
from honest.sweep.folder import finished, log_file, plan_of, write_members
from honest.sweep.grouping import groups_of, program_key
from honest.sweep.members import LoadedSweep, Member, load_sweep
from honest.sweep.results import final_table, write_results
from honest.train.sharding import make_mesh
from honest.train.stage import Run, make_run


def sweep(path: Path, workdir: Path | None, engine: str, jobs: int, together: int, retries: int, dry_run: bool) -> int:
    """Exit code: 0, 1 if a member failed, 130 after Ctrl-C. Errors: see `load_sweep`, `check_members`, `prepared`.

    jobs: processes at a time. together: members that `vmap` trains in one program, at most. retries: of a failed one.
    """
    for name, value, least in (("--jobs", jobs, 1), ("--together", together, 1), ("--retries", retries, 0)):
        if value < least:
            raise UserError(f"{name} is {value}; it must be at least {least}")
    loaded = load_sweep(path)
    folder = workdir or Path("runs") / loaded.sweep.name
    jax.config.update("jax_platforms", "cpu")  # this process trains nothing, and takes no accelerator's memory
    options = options_of(loaded, engine)
    runs = check_members(loaded)
    groups = [[member] for member in loaded.members]
    if engine == "vmap":
        groups = groups_of(loaded.members, [program_key(run) for run in runs], together)
    if engine in HERE:
        print(guess(folder, loaded, runs, jobs), flush=True)
    if dry_run:
        check(plan_of(folder, loaded))
        print(members_table(folder, loaded, groups))
        return 0
    with prepared(plan_of(folder, loaded)):
        write_members(folder, loaded)
        asked = jobs_of(folder, groups)
        if engine == "kubernetes":
            print(write_manifest(loaded, options, folder, asked))
            return 0
        slots = max(1, min(jobs, sum(not job.finished() for job in asked)))  # fewer jobs share all cores out
        with engine_of(engine, options, folder, asked, slots) as running:
            return _run(folder, loaded, asked, running, retries)


def check_members(sweep: LoadedSweep) -> list[Run]:
    """What no config alone can tell: that files can be read, and patterns and populations fit the model and the data.

    UserError: the first member that cannot be run. Members that ask for the same task share it.
    """
    tasks, runs = Tasks(), []
    for member in sweep.members:
        try:
            set_precision(member.config.precision)
            runs.append(make_run(member.config, tasks(member.config.task), make_mesh(1)))
        except UserError as error:
            raise UserError(f"{sweep.path}: member {member.name}: {error}") from error
    return runs


def guess(folder: Path, sweep: LoadedSweep, runs: Sequence[Run], jobs: int) -> str:
    """How long the members that are left may take, `jobs` at a time."""
    left = [run for member, run in zip(sweep.members, runs, strict=True) if not finished(folder, member.name)]
    if not left:
        return "nothing is left to run"
    if visible_accelerators():
        return "how long members take is said once the first one is done (there is an accelerator)"
    share = operations_per_second() / jobs
    total = sum(member_seconds(run, share) for run in left) / min(jobs, len(left))
    return f"{len(left)} members to run, about {duration(total)} on these processors (a guess from operation counts)"


def jobs_of(folder: Path, groups: Sequence[Sequence[Member]]) -> list[Job]:
    """One job a group. Its log is that of its first member."""
    return [
        Job(
            name=group[0].name if len(group) == 1 else f"{group[0].name} and {len(group) - 1} more",
            members=tuple(member.name for member in group),
            folder=folder,
            log=log_file(folder, group[0].name),
            after=None,
            finished=partial(all_finished, folder, [member.name for member in group]),
        )
        for group in groups
    ]


def all_finished(folder: Path, names: Sequence[str]) -> bool:
    return all(finished(folder, name) for name in names)


def _run(folder: Path, sweep: LoadedSweep, jobs: Sequence[Job], engine: Engine, retries: int) -> int:
    def ended() -> None:
        write_results(folder, sweep)
        write_hparams(folder)

    ended()
    done = sum(finished(folder, member.name) for member in sweep.members)
    shared = "" if len(jobs) == len(sweep.members) else f" in {len(jobs)} program{'' if len(jobs) == 1 else 's'}"
    left_out = f" ({sweep.left_out} more break a constraint)" if sweep.left_out else ""
    count = f"{len(sweep.members)} members{left_out}{shared}"
    print(f"{folder}: {count}, {done} of them done already, {engine.slots} at a time", flush=True)
    outcome, progress = run_shown(jobs, engine, retries, ended)
    results = (
        f"\n{final_table(folder, sweep)}\n\nResults: {folder / 'results.csv'}\n"
        f"A page with figures: honest report {folder}   TensorBoard: tensorboard --logdir {folder / 'runs'}"
    )
    return exit_code(jobs, outcome, progress, results)


def members_table(folder: Path, sweep: LoadedSweep, groups: Sequence[Sequence[Member]]) -> str:
    """One line a member: its program's number where members share one, its parameters, and whether it is done."""
    keys = list(sweep.members[0].parameters)
    lines = [
        [member.name, str(number), "done" if finished(folder, member.name) else "to do"]
        + [str(member.parameters[key]) for key in keys]
        for number, group in enumerate(groups, start=1)
        for member in group
    ]
    table = layout(["member", "process", "state", *keys], lines, "lrl" + "l" * len(keys))
    left_out = f"; {sweep.left_out} more break a constraint" if sweep.left_out else ""
    processes = "one process" if len(groups) == 1 else f"{len(groups)} processes"
    return f"{table}\n{len(lines)} members in {folder}, in {processes}{left_out}"
