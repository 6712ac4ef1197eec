"""A pool's run as one watches it: a line whenever a job begins or ends, and a status line on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.status import Status

from honest.jobs.pool import FAILED, Engine, Job, Outcome, Pool, failures
from honest.process import STOPPED


def run_shown(jobs: Sequence[Job], engine: Engine, retries: int, ended: Callable[[], None]) -> tuple[Outcome, str]:
    """Runs the jobs; what came of them, and how many are done. ended: called after each end."""
    console = Console()
    with Status("", console=console) as status:

        def told(line: str) -> None:
            status.update(pool.progress())
            print(line, flush=True) if not sys.stdout.isatty() else console.print(line, highlight=False, markup=False)

        pool = Pool(jobs, engine, retries, told, ended)
        outcome = pool.run()
    return outcome, pool.progress()


def exit_code(jobs: Sequence[Job], outcome: Outcome, progress: str, results: str) -> int:
    """Says how a run ended, failures last; 0, 1 if a job failed, 130 after Ctrl-C. results: where they are."""
    if outcome.stopped:
        print(f"stopped with {progress}; the same command goes on", file=sys.stderr)
        return STOPPED
    print(f"{progress}\n{results}")
    if outcome.failed:
        print(failures(jobs, outcome.failed), file=sys.stderr)
        return FAILED
    return 0
