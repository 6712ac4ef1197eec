"""What submitit runs on a node. It imports nothing that imports JAX before it is called."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from honest.process import STOPPED
from honest.sweep.engines.task import RunMembers, run_logged


class SlurmTask:
    """Unpickled by each task of a job, and again each time that the job is requeued."""

    def __init__(self, run: RunMembers, folder: Path, names: Sequence[str], log: Path):
        self.run, self.folder, self.names, self.log = run, folder, tuple(names), log

    def __call__(self) -> int:
        """The exit code, or no return: where SLURM, or submitit's handler, decides whether the job runs again."""
        import submitit

        environment = submitit.JobEnvironment()
        stop = stop_file(Path(environment.paths.folder), environment.job_id)
        if stop.exists():  # asked between leaving the queue and this line, when no signal reaches it
            return STOPPED
        asked: list[int] = []

        def ask(number: int, _frame: object) -> None:
            asked.append(number)
            # A second interrupt would not wait for the first one's save: `run` leaves the default action to it.
            if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
                signal.raise_signal(signal.SIGINT)

        warning = signal.Signals[f"SIG{environment.USR_SIG}"]
        requeue = signal.signal(warning, ask)
        # The other tasks of a job print to submitit's files: a log that several hosts add to loses lines.
        log = self.log if environment.global_rank == 0 else environment.paths.stdout
        code = run_logged(self.run, self.folder, self.names, log)
        signal.signal(warning, requeue)
        if code != STOPPED or stop.exists():
            return code
        if asked and callable(requeue):
            requeue(asked[0], None)  # submitit's: requeues and exits, or raises after too many time limits
        sys.exit(STOPPED)  # without a result, which would say that the job has ended

    def checkpoint(self) -> Any:
        """submitit's: what runs after a requeue. The run directories hold all that was reached."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def stop_file(folder: Path, job_id: str) -> Path:
    return folder / f"{job_id}.stop"
