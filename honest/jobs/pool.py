"""A bounded pool of jobs: finished ones are skipped, failed ones are tried again, and a stop loses nothing.

How a job is started, and where, is an engine's: a process here (`local`), or a job of a cluster.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

POLL_SECONDS = 0.2
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: the terminal was closed
FAILED = 1  # exit code, of an exception too
LAST_LINES = 8  # of a failed job's log, shown at the end


@dataclass(frozen=True)
class Job:
    """One or several runs that one process trains.

    members: names of the runs. folder: of all of them (a sweep's or a benchmark's). log: what its process prints, added
    to at each try. after: the job that has to be done first, and whose failure is this one's too. finished: whether
    all its runs are done.
    """

    name: str
    members: tuple[str, ...]
    folder: Path
    log: Path
    after: str | None
    finished: Callable[[], bool]


class Handle(Protocol):
    """A job that was started."""

    def poll(self) -> int | None:
        """Its exit code, or None while it waits or runs."""
        ...

    def interrupt(self) -> None:
        """Asks it to save and stop."""
        ...

    def kill(self) -> None: ...


class Engine(Protocol):
    """slots: jobs at a time. A slot is free again when its job has ended."""

    slots: int

    def start(self, job: Job, slot: int) -> Handle: ...


class Outcome(NamedTuple):
    """Jobs by name; failed: with their exit codes. stopped: Ctrl-C came before all were tried."""

    done: list[str]
    failed: dict[str, int]
    stopped: bool


class Started(NamedTuple):
    job: Job
    slot: int
    handle: Handle
    began: float


class Pool:
    """At most `engine.slots` jobs at a time, each started up to 1 + `retries` times.

    told: called with a line of text whenever a job begins or ends. ended: called after each end.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        engine: Engine,
        retries: int,
        told: Callable[[str], None],
        ended: Callable[[], None],
    ):
        self.jobs, self.engine, self.retries = jobs, engine, retries
        self.told, self.ended = told, ended
        self.waiting = [job for job in jobs if not job.finished()]
        self.done = [job.name for job in jobs if job.finished()]
        self.tries: Counter[str] = Counter()
        self.failed: dict[str, int] = {}
        self.seconds: list[float] = []
        self.running: list[Started] = []
        self.stopping = False

    def run(self) -> Outcome:
        """Until nothing is left that can run, or Ctrl-C: then the jobs are asked once to save and stop.

        An error of this process, such as a full disk, stops them in the same way, and is raised once they have ended.
        """
        before = {number: signal.signal(number, self._stop) for number in STOPS}
        try:
            while self.running or (self.waiting and not self.stopping):
                self._start_those_ready()
                self._collect()
                time.sleep(POLL_SECONDS)
        except BaseException:
            self._stop_and_wait()
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return Outcome(self.done, self.failed, self.stopping)

    def _stop_and_wait(self) -> None:
        """Leaves no job running, and writes and prints nothing: that may be what failed."""
        if not self.stopping:  # a second interrupt would not let them save
            self._interrupt()
        while any(started.handle.poll() is None for started in self.running):
            time.sleep(POLL_SECONDS)

    def _stop(self, _number: int, _frame: object) -> None:
        if self.stopping:  # a second one stops at once
            for started in self.running:
                started.handle.kill()
            return
        self._interrupt()
        self.told("stopping: the members that run save first; once more stops at once")

    def _interrupt(self) -> None:
        self.stopping = True
        for started in self.running:
            try:
                started.handle.interrupt()
            except OSError:  # such as a full disk, where asking needs a file
                started.handle.kill()

    def _start_those_ready(self) -> None:
        for job in list(self.waiting):
            if job.after in self.failed:
                self.waiting.remove(job)
                self.failed[job.name] = self.failed[job.after]
                with job.log.open("a", encoding="utf-8") as log:
                    log.write(f"not run: {job.after}, whose trunk it takes over, failed\n")
                self.told(f"{job.name}: not run, as {job.after} failed")
            elif (
                len(self.running) < self.engine.slots
                and not self.stopping
                and (job.after is None or job.after in self.done)
            ):
                self.waiting.remove(job)
                self._start(job)

    def _start(self, job: Job) -> None:
        taken = {started.slot for started in self.running}
        slot = next(number for number in range(self.engine.slots) if number not in taken)
        self.tries[job.name] += 1
        handle = self.engine.start(job, slot)
        self.running.append(Started(job, slot, handle, time.monotonic()))
        if self.stopping:  # the signal came while the job was being started
            handle.interrupt()
        again = "" if self.tries[job.name] == 1 else f", try {self.tries[job.name]} of {1 + self.retries}"
        self.told(f"{job.name}: started{again}")

    def _collect(self) -> None:
        for started in list(self.running):
            code = started.handle.poll()
            if code is None:
                continue
            self.running.remove(started)
            job, took = started.job, time.monotonic() - started.began
            if code == 0 and job.finished():
                self.done.append(job.name)
                self.seconds.append(took)
                self.ended()
                self.told(f"{job.name}: done in {took:.0f} s; {self.progress()}")
            elif not self.stopping and self.tries[job.name] <= self.retries:
                self.waiting.append(job)
                self.told(f"{job.name}: failed with exit code {code}, and is tried again")
            elif not self.stopping:
                self.failed[job.name] = code
                self.ended()
                self.told(f"{job.name}: failed with exit code {code}; {self.progress()}")

    def progress(self) -> str:
        """How many members are done, and how long the jobs left may take, from those done in this call."""
        left = len(self.waiting) + len(self.running)
        members = {job.name: len(job.members) for job in self.jobs}
        done, failed = (sum(members[name] for name in names) for names in (self.done, self.failed))
        text = f"{done} of {sum(members.values())} done, {failed} failed"
        if not self.seconds or not left:
            return text
        minutes = left * sum(self.seconds) / len(self.seconds) / min(self.engine.slots, left) / 60
        return f"{text}, about {minutes:.0f} min left"


def failures(jobs: Sequence[Job], failed: Mapping[str, int]) -> str:
    """The last lines of each failed job's log, once for all the runs that it trains. failed: exit codes by name."""
    by_name = {job.name: job for job in jobs}
    parts = []
    for name, code in failed.items():
        job, many = by_name[name], len(by_name[name].members)
        text = job.log.read_text(encoding="utf-8", errors="replace")
        said = [f"    {line}" for line in text.splitlines()[-LAST_LINES:]]
        if many == 1:
            parts += [f"{name} failed ({job.log}):", *said]
            continue
        parts += [f"{many} members failed together, in one program ({job.log}):", *said]
        parts += [f"  they are {'; '.join(job.members)}"]
        if out_of_memory(code, text):
            parts += [f"  it was out of memory, or killed: try fewer of them in a program, --together {many // 2}"]
    return "\n".join(parts)


def out_of_memory(code: int, log: str) -> bool:
    """Killed, as by the system where memory runs out; or ended by XLA's own exception (exit code 1), the log's last."""
    last = log.rpartition("Traceback (most recent call last)")[2]
    return code == -signal.SIGKILL or (code == FAILED and "RESOURCE_EXHAUSTED" in last)
