"""What the queue of a SLURM cluster says about jobs, asked for all of them at once and not too often."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

UNKNOWN_ID = "Invalid job id"  # squeue's, of a job that ended long ago


class Waits(NamedTuple):
    """Seconds. files: between looks at a job's result. states: between calls of sacct (one for all jobs), at most.
    hurried: the same while jobs are being stopped. late: that a result may need to be seen over a shared file system.
    """

    files: float
    states: int
    hurried: float
    late: float


WAITS = Waits(files=5.0, states=60, hurried=5.0, late=20.0)


class Ended(NamedTuple):
    has_result: bool
    state: str  # SLURM's word


class Queue:
    """The states of jobs, from submitit's watcher of sacct; it asks after 2 s, 4 s, 8 s … up to `waits.states`."""

    def __init__(self, waits: Waits):
        from submitit.slurm.slurm import SlurmInfoWatcher

        self.waits = waits
        self.watcher = SlurmInfoWatcher(delay_s=waits.states)
        self.asked = float("-inf")
        self.looked: dict[str, float] = {}
        self.without_result: dict[str, float] = {}

    def ended(self, submitted: Any, hurry: bool) -> Ended | None:
        """None while the job waits, runs, or may run again; a result counts once all its tasks have written theirs."""
        job_id, now = submitted.job_id, time.monotonic()
        if job_id in self.looked and now - self.looked[job_id] < self.waits.files:
            return None
        self.looked[job_id] = now
        tasks = [submitted.task(number) for number in range(submitted.num_tasks)]
        if all(task.paths.result_pickle.exists() for task in tasks):
            return Ended(True, "COMPLETED")
        state = self._state(job_id, hurry)
        if not self.watcher.is_done(job_id, mode="cache") and not state.startswith("PREEMPTED"):
            self.without_result.pop(job_id, None)
            return None
        if now - self.without_result.setdefault(job_id, now) < self.waits.late:
            return None
        if self.holds(job_id):  # SLURM put it in the queue again, after a preemption or its node's failure
            del self.without_result[job_id]
            self.watcher.clear()  # it asks no more for states that it takes to be final
            return None
        return Ended(False, state)

    def _state(self, job_id: str, hurry: bool) -> str:
        if hurry and time.monotonic() - self.asked >= self.waits.hurried:
            self.asked = time.monotonic()
            return self.watcher.get_state(job_id, mode="force")
        return self.watcher.get_state(job_id)

    def holds(self, job_id: str) -> bool:
        """Whether it waits or runs. Where squeue cannot say: yes, as a job that is submitted twice is worse."""
        asked = subprocess.run(["squeue", "--noheader", "--jobs", job_id], capture_output=True, text=True)
        return bool(asked.stdout.strip()) if asked.returncode == 0 else UNKNOWN_ID not in asked.stderr

    def cancel(self, job_id: str, *how: str) -> None:
        """scancel; that the job has ended meanwhile is no error."""
        subprocess.run(["scancel", *how, job_id], capture_output=True)


class Record(NamedTuple):
    job_id: str
    tasks: int
    members: tuple[str, ...]


class Records:
    """The SLURM jobs that have been submitted and have not been seen to end, a file each."""

    def __init__(self, folder: Path):
        self.folder = folder

    def _path(self, name: str) -> Path:
        return self.folder / f"{quote(name, safe='')}.json"

    def write(self, name: str, record: Record) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(name)
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(record._asdict()), encoding="utf-8")
        temporary.replace(path)

    def read(self, name: str) -> Record | None:
        path = self._path(name)
        if not path.exists():
            return None
        saved = json.loads(path.read_text(encoding="utf-8"))
        return Record(saved["job_id"], saved["tasks"], tuple(saved["members"]))

    def all(self) -> Iterator[tuple[str, Record]]:
        for path in sorted(self.folder.glob("*.json")):
            name = unquote(path.stem)
            record = self.read(name)
            if record is not None:
                yield name, record

    def remove(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)
