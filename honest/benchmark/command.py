"""What `honest benchmark` does: checks every member, runs them with progress, and writes the table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.status import Status

from honest.benchmark.results import write_results
from honest.benchmark.runner import check, commands_of, finished, jobs_of, prepared, train_command
from honest.benchmark.suite import LoadedSuite, Member, chosen, load_suite
from honest.config_io import differences
from honest.errors import UserError
from honest.jobs.local import LocalEngine
from honest.jobs.pool import Pool, failures
from honest.report.tables import layout

FAILED, STOPPED = 1, 130  # exit codes
COMPILED = "compiled"  # XLA's programs: what does not hold a seed is compiled once for all seeds of a task


def benchmark(path: Path, workdir: Path | None, jobs: int, dry_run: bool, only: Sequence[str] = ()) -> int:
    """Exit code: 0, 1 if a member failed, 130 after Ctrl-C. Errors: see `load_suite`, `chosen`, `prepared`.

    only: shell patterns of TASK/seed_S or TASK/seed_S/ENTRY, the members to run in this call; all are checked, and
    stand in the table once they are done.
    """
    if jobs < 1:
        raise UserError(f"--jobs is {jobs}; it must be at least 1")
    suite = load_suite(path)
    members = chosen(suite, only)
    folder = workdir or Path("runs") / suite.suite.name
    if dry_run:
        check(folder, suite)
        print(members_table(folder, members))
        return 0
    with prepared(folder, suite):
        return _run(folder, suite, members, jobs)


def _run(folder: Path, suite: LoadedSuite, members: Sequence[Member], jobs: int) -> int:
    write_results(folder, suite)
    done = sum(finished(folder, member) for member in members)
    print(f"{folder}: {_count(members, suite)}, {done} of them done already, {jobs} at a time", flush=True)
    console = Console()
    with Status("", console=console) as status:

        def told(line: str) -> None:
            status.update(pool.progress())
            print(line, flush=True) if not sys.stdout.isatty() else console.print(line, highlight=False)

        engine = LocalEngine(jobs, commands_of(folder, members, train_command), folder / COMPILED)
        pool = Pool(jobs_of(folder, members), engine, 0, told, lambda: write_results(folder, suite))
        outcome = pool.run()
    if outcome.stopped:
        print(f"stopped with {pool.progress()}; the same command goes on", file=sys.stderr)
        return STOPPED
    print(f"{pool.progress()}\nResults: {folder / 'results.md'}, {folder / 'results.csv'}")
    print(f"A page with figures: honest report {folder}")
    if outcome.failed:
        print(failures(pool.jobs, outcome.failed), file=sys.stderr)
        return FAILED
    return 0


def _count(members: Sequence[Member], suite: LoadedSuite) -> str:
    all_of = "" if len(members) == len(suite.members) else f" of {len(suite.members)}"
    return f"{len(members)}{all_of} members"


def members_table(folder: Path, members: Sequence[Member]) -> str:
    """One line a member: what differs from the first one of its task and seed, and whether it is done."""
    lines = []
    firsts = {member.group: member for member in reversed(members)}
    for member in members:
        changed = differences(firsts[member.group].config, member.config)
        stated = [(line.split(":")[0], line.split("command asks ")[-1]) for line in changed]
        shown = "; ".join(f"{key}={value}" for key, value in stated if key != "name")
        state = "done" if finished(folder, member) else "to do"
        lines.append([member.name, state, shown or "–"])
    table = layout(["member", "state", "differs from its first entry in"], lines, "lll")
    return f"{table}\n{len(members)} members in {folder}"
