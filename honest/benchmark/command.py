"""What `honest benchmark` does: checks every member, runs them with progress, and writes the table."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.status import Status

from honest.benchmark.results import write_results
from honest.benchmark.runner import Pool, failures, finished, prepare
from honest.benchmark.suite import LoadedSuite, load_suite
from honest.config_io import differences
from honest.errors import UserError
from honest.report.tables import layout

FAILED, STOPPED = 1, 130  # exit codes


def benchmark(path: Path, workdir: Path | None, jobs: int, dry_run: bool) -> int:
    """Exit code: 0, 1 if a member failed, 130 after Ctrl-C. Errors: see `load_suite`, `prepare`."""
    if jobs < 1:
        raise UserError(f"--jobs is {jobs}; it must be at least 1")
    suite = load_suite(path)
    folder = workdir or Path("runs") / suite.suite.name
    if dry_run:
        print(members_table(folder, suite))
        return 0
    prepare(folder, suite)
    write_results(folder, suite)
    done = sum(finished(folder, member) for member in suite.members)
    print(f"{folder}: {len(suite.members)} members, {done} of them done already, {jobs} at a time", flush=True)
    console = Console()
    with Status("", console=console) as status:

        def told(line: str) -> None:
            status.update(pool.progress())
            print(line, flush=True) if not sys.stdout.isatty() else console.print(line, highlight=False)

        pool = Pool(folder, suite.members, jobs, told, lambda: write_results(folder, suite))
        outcome = pool.run()
    if outcome.stopped:
        print(f"stopped with {pool.progress()}; the same command goes on", file=sys.stderr)
        return STOPPED
    print(f"{pool.progress()}\nResults: {folder / 'results.md'}, {folder / 'results.csv'}")
    print(f"A page with figures: honest report {folder}")
    if outcome.failed:
        print(failures(folder, suite.members, outcome.failed), file=sys.stderr)
        return FAILED
    return 0


def members_table(folder: Path, suite: LoadedSuite) -> str:
    """One line a member: what differs from the first one of its task and seed, and whether it is done."""
    lines = []
    firsts = {(member.task, member.seed): member for member in reversed(suite.members)}
    for member in suite.members:
        changed = differences(firsts[member.task, member.seed].config, member.config)
        stated = [(line.split(":")[0], line.split("command asks ")[-1]) for line in changed]
        shown = "; ".join(f"{key}={value}" for key, value in stated if key != "name")
        state = "done" if finished(folder, member) else "to do"
        lines.append([member.name, state, shown or "–"])
    table = layout(["member", "state", "differs from its first entry in"], lines, "lll")
    return f"{table}\n{len(suite.members)} members in {folder}"
