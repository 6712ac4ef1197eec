"""Jobs in the queue of a SLURM cluster, through submitit.

DIR/slurm/jobs/NAME.json    which SLURM job a job of the sweep was given to, so that another call picks it up again
DIR/slurm/submitit/         submission files, results and what was printed outside a job's own log
DIR/slurm/submitit/ID.stop  the sweep asked this SLURM job to stop, so that it is not put in the queue again

What ends a job before it is done, and what becomes of it:

  the time limit, a preemption that sends SIGUSR2    saved, put in the queue again by submitit's handler, at most
                                                     `requeues` times for time limits
  SIGTERM (a preemption, scancel)                    saved; SLURM says whether it runs again or has ended
  the sweep is stopped (Ctrl-C)                      a job that waits is cancelled, one that runs saves and ends
  the sweep's own process is killed                  jobs stay in the queue; the next call waits for them
"""

from __future__ import annotations

import importlib.util
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from honest.config import RunConfig
from honest.config_fields import Count, Positive, Strict, Text
from honest.errors import UserError
from honest.jobs.local import compiled_once
from honest.jobs.pool import FAILED, Handle, Job
from honest.process import STOPPED
from honest.sweep.engines.hosts import trained_on
from honest.sweep.engines.slurm_queue import Queue, Record, Records, Waits
from honest.sweep.engines.slurm_task import SlurmTask, stop_file
from honest.sweep.engines.task import RunMembers, note

COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol")
Natural = Annotated[int, Field(ge=0)]


class SlurmOptions(Strict):
    """What each job asks of the cluster; what is null is left to it."""

    slots: Count  # jobs at a time in the queue, waiting or running
    partition: Text | None
    account: Text | None
    timeout_minutes: Count  # a job that needs longer saves and goes on, up to `requeues` times
    requeues: Natural
    save_seconds: Count  # how long before the time limit a job is asked to save
    nodes: Count
    tasks_per_node: Count  # nodes x tasks_per_node processes train a member together (parallel.hosts: detect)
    cpus_per_task: Count
    gpus_per_node: Natural
    memory_gb: Positive | None  # of a node
    setup: list[Text]  # lines of shell that come before the program, e.g. "module load cuda"
    sbatch: dict[Text, Text]  # further options of sbatch, e.g. {qos: long}

    @property
    def tasks(self) -> int:
        return self.nodes * self.tasks_per_node


class SlurmHandle:
    """A job in the queue, or one that has ended; `submitted` is submitit's."""

    def __init__(self, submitted: Any, job: Job, queue: Queue, records: Records):
        self.submitted, self.job, self.queue, self.records = submitted, job, queue, records
        self.interrupted = False

    def poll(self) -> int | None:
        ended = self.queue.ended(self.submitted, hurry=self.interrupted)
        if ended is None:
            return None
        self.records.remove(self.job.name)
        return self._result() if ended.has_result else self._died(ended.state)

    def _result(self) -> int:
        from submitit.core.utils import UncompletedJobError

        try:
            return max(self.submitted.results())
        except UncompletedJobError as error:  # raised where no more time limits are allowed
            note(self.job.log, str(error))
            return FAILED

    def _died(self, state: str) -> int:
        note(self.job.log, self.submitted.stdout() or "")
        note(self.job.log, f"SLURM job {self.submitted.job_id} ended without a result: {state}")
        return STOPPED if self.interrupted else FAILED

    def interrupt(self) -> None:
        """Cancels it if it waits, has it save and stop if it runs."""
        self.interrupted = True
        stop_file(self.submitted.paths.folder, self.submitted.job_id).touch()
        self.queue.cancel(self.submitted.job_id, "--state=PENDING")
        self.queue.cancel(self.submitted.job_id, "--signal=INT")  # to its steps, not to the shell around them

    def kill(self) -> None:
        self.interrupted = True
        self.queue.cancel(self.submitted.job_id)


class NotSubmitted:
    """A job that sbatch refused."""

    def poll(self) -> int | None:
        return FAILED

    def interrupt(self) -> None: ...

    def kill(self) -> None: ...


class SlurmEngine:
    """One SLURM job a job. `run` has to be importable on every node, and the sweep's folder the same there.

    UserError: submitit or a command of SLURM is missing; or see `check_slurm`.
    """

    def __init__(self, options: SlurmOptions, folder: Path, run: RunMembers, cache: Path, waits: Waits):
        check_slurm()
        import submitit

        self.slots, self.tasks, self.run = options.slots, options.tasks, run
        self.records = Records(folder / "slurm" / "jobs")
        self.queue = Queue(waits)
        self.executor = submitit.SlurmExecutor(
            folder=(folder / "slurm" / "submitit").resolve(), max_num_timeout=options.requeues
        )
        self.executor.update_parameters(**parameters(options, cache))

    def check(self, jobs: Sequence[Job]) -> None:
        """UserError where a SLURM job of an earlier call trains members of `jobs` together with others."""
        wanted = {job.name: job for job in jobs if not job.finished()}
        for name, record in self.records.all():
            same = name in wanted and wanted[name].members == record.members
            sharing = [job.name for job in wanted.values() if set(job.members) & set(record.members)]
            if sharing and not same and self.queue.holds(record.job_id):
                raise UserError(
                    f"SLURM job {record.job_id} of an earlier call still trains {', '.join(record.members)}, which "
                    f"{sharing[0]} would train as well: wait for it, or stop it with scancel {record.job_id}"
                )

    def start(self, job: Job, slot: int) -> Handle:
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        record = self.records.read(job.name)
        if record is not None and record.members == job.members and self.queue.holds(record.job_id):
            submitted: Any = submitit.SlurmJob(self.executor.folder, record.job_id, tasks=tuple(range(record.tasks)))
            note(job.log, f"SLURM job {record.job_id} of an earlier call is waited for")
            return SlurmHandle(submitted, job, self.queue, self.records)
        self.executor.update_parameters(job_name=f"{job.folder.name}-{job.name}")
        task = SlurmTask(self.run, job.folder.resolve(), job.members, job.log.resolve())
        try:
            submitted = self.executor.submit(task)
        except (FailedJobError, FailedSubmissionError) as error:
            note(job.log, f"sbatch: {error}")
            return NotSubmitted()
        self.records.write(job.name, Record(submitted.job_id, self.tasks, job.members))
        return SlurmHandle(submitted, job, self.queue, self.records)


def parameters(options: SlurmOptions, cache: Path) -> dict[str, Any]:
    """submitit's parameters of sbatch."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in compiled_once(cache.resolve()).items()]
    stated = {
        "partition": options.partition,
        "account": options.account,
        "time": options.timeout_minutes,
        "nodes": options.nodes,
        "ntasks_per_node": options.tasks_per_node,
        "cpus_per_task": options.cpus_per_task,
        "gpus_per_node": options.gpus_per_node or None,
        "mem": None if options.memory_gb is None else f"{round(options.memory_gb * 1024)}M",
    }
    return {name: value for name, value in stated.items() if value is not None} | {
        "signal_delay_s": options.save_seconds,
        "stderr_to_stdout": True,
        "setup": [*options.setup, *exports],
        "additional_parameters": {"requeue": True, **options.sbatch},
    }


def check_slurm() -> None:
    """UserError where submitit or a command of SLURM is missing."""
    if importlib.util.find_spec("submitit") is None:
        raise UserError(
            "the engine slurm needs the package submitit: pip install 'honest[slurm]', or choose another --engine"
        )
    if missing := [name for name in COMMANDS if shutil.which(name) is None]:
        raise UserError(f"the engine slurm runs on a SLURM cluster's login node: {', '.join(missing)} not on PATH")


def check_hosts(options: SlurmOptions, configs: Mapping[str, RunConfig]) -> None:
    """UserError where several tasks would each train a member that is to be trained on one host."""
    alone = trained_on("one", configs)
    if options.tasks > 1 and alone:
        raise UserError(
            f"engine.slurm asks for {options.tasks} tasks a job (nodes {options.nodes} x tasks_per_node "
            f"{options.tasks_per_node}), but {alone[0]} has parallel.hosts: one, so each task would train it for "
            "itself. Set parallel.hosts: detect, or nodes and tasks_per_node to 1"
        )
