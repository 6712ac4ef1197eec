"""What `honest benchmark` does: checks every member, runs them with progress, and writes the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from honest.benchmark.results import write_results
from honest.benchmark.runner import commands_of, finished, jobs_of, plan_of, train_command
from honest.benchmark.suite import LoadedSuite, Member, chosen, load_suite
from honest.config_io import differences
from honest.errors import UserError
from honest.jobs.folder import check, prepared
from honest.jobs.local import COMPILED, LocalEngine
from honest.jobs.shown import exit_code, run_shown
from honest.report.tables import layout


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
        check(plan_of(folder, suite))
        print(members_table(folder, members))
        return 0
    with prepared(plan_of(folder, suite)):
        return _run(folder, suite, members, jobs)


def _run(folder: Path, suite: LoadedSuite, members: Sequence[Member], jobs: int) -> int:
    write_results(folder, suite)
    done = sum(finished(folder, member) for member in members)
    print(f"{folder}: {_count(members, suite)}, {done} of them done already, {jobs} at a time", flush=True)
    engine = LocalEngine(jobs, commands_of(folder, members, train_command), folder / COMPILED)
    runs = jobs_of(folder, members)
    outcome, progress = run_shown(runs, engine, 0, lambda: write_results(folder, suite))
    results = f"Results: {folder / 'results.md'}, {folder / 'results.csv'}\nA page with figures: honest report {folder}"
    return exit_code(runs, outcome, progress, results)


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
