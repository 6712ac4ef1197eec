"""Runs a benchmark's members, each in a process of its own; finished ones are skipped, and a stop loses nothing.

DIR/suite.yaml   the suite as it was last given      DIR/runs/TASK/seed_S/ENTRY/   one run directory a member
DIR/results.csv, results.md   of all finished members  DIR/log/TASK-seed_S-ENTRY.txt   what its process printed
"""

from __future__ import annotations

import difflib
import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from honest.benchmark.suite import LoadedSuite, Member
from honest.errors import UserError
from honest.report.sources import SUITE
from honest.train.run_directory import CONFIG, LOCK, SUMMARY, RunDirectory

POLL_SECONDS = 0.2
LAST_LINES = 8  # of a failed member's log, shown at the end
Command = Callable[[Member, Path, Path | None], list[str]]  # (member, its run directory, the trunk's) -> arguments


class Outcome(NamedTuple):
    """Members by name. stopped: Ctrl-C came before all were tried."""

    done: list[str]
    failed: list[str]
    stopped: bool


class Started(NamedTuple):
    member: Member
    process: subprocess.Popen
    log: IO[str]
    began: float


def train_command(member: Member, directory: Path, trunk: Path | None) -> list[str]:
    """`honest train` of the member, its trunk taken over where another one's is given."""
    overrides = [word for override in member.overrides for word in ("--set", override)]
    taken = [] if trunk is None else ["--trunk-from", str(trunk)]
    config = [str(member.source), *overrides, "--workdir", str(directory), *taken]
    return [sys.executable, "-m", "honest.cli", "train", *config]


def run_folder(folder: Path, member: Member, entry: str | None = None) -> Path:
    return folder / "runs" / member.task / f"seed_{member.seed}" / (entry or member.entry)


def log_file(folder: Path, member: Member) -> Path:
    return folder / "log" / f"{member.name.replace('/', '-')}.txt"


def finished(folder: Path, member: Member) -> bool:
    return (run_folder(folder, member) / SUMMARY).exists()


def check(folder: Path, suite: LoadedSuite) -> bool:
    """Whether the folder holds a benchmark that this suite goes on with; writes nothing.

    A suite may have grown since (seeds, tasks, entries). UserError: it no longer has a run that is there, or asks
    another config of one; or the folder holds files of something else. What differs is named.
    """
    if (folder / SUITE).is_file():
        members = {run_folder(folder, member): member for member in suite.members}
        runs = sorted({path.parent for name in (CONFIG, SUMMARY) for path in folder.glob(f"runs/*/seed_*/*/{name}")})
        if lost := [str(run.relative_to(folder)) for run in runs if run not in members]:
            there, given = (text.splitlines() for text in _texts(folder, suite))
            changed = difflib.unified_diff(there, given, n=0, lineterm="")
            raise UserError(
                f"{folder} holds runs that are no members of {suite.path}: {', '.join(lost)}. Nothing was changed."
                + "".join(f"\n  {line}" for line in list(changed)[2:])
                + "\nName another --workdir, give a suite that has them to go on with it, or move them elsewhere."
            )
        for run in runs:
            if (run / CONFIG).exists():
                RunDirectory(run).check(members[run].config)
        return True
    if folder.exists() and (not folder.is_dir() or any(path.name != LOCK for path in folder.iterdir())):
        raise UserError(
            f"{folder} is not a benchmark: it is a file, or has files but no {SUITE}. Name another --workdir"
        )
    return False


def _texts(folder: Path, suite: LoadedSuite) -> tuple[str, str]:
    """The suite's text as the folder has it, and as it is given now."""
    return (folder / SUITE).read_text("utf-8", errors="replace"), suite.path.read_text(encoding="utf-8")


def prepare(folder: Path, suite: LoadedSuite) -> None:
    """Makes the benchmark's folder, or checks that it is this suite's. UserError: see `check`; or it cannot be made."""
    begun = check(folder, suite)
    try:
        (folder / "log").mkdir(parents=True, exist_ok=True)
        if begun:
            there, given = _texts(folder, suite)
            if there == given:
                return
            before = next(path for n in itertools.count(1) if not (path := folder / f"suite.before-{n}.yaml").exists())
            shutil.copyfile(folder / SUITE, before)
        replace(folder / SUITE, suite.path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error}). Name another --workdir") from error


def replace(path: Path, text: str) -> None:
    """The file as a whole, or as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


@contextmanager
def prepared(folder: Path, suite: LoadedSuite) -> Iterator[None]:
    """The benchmark's folder, made or gone on with; one process at a time runs its members and writes its table.

    UserError: see `check`; it cannot be written; or another process is at work there.
    """
    check(folder, suite)  # before the lock file is put there
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / LOCK).open("w")
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error}). Name another --workdir") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder}: another `honest benchmark` is at work there; wait for it, or stop it"
            ) from error
        prepare(folder, suite)
        yield


class Pool:
    """At most `jobs` members at a time; one whose trunk is another's waits for that one, and fails with it.

    told: called with a line of text whenever a member begins or ends. ended: called after each end.
    """

    def __init__(
        self,
        folder: Path,
        members: Sequence[Member],
        jobs: int,
        told: Callable[[str], None],
        ended: Callable[[], None],
        command: Command = train_command,
    ):
        self.folder, self.members, self.jobs = folder, members, jobs
        self.told, self.ended, self.command = told, ended, command
        self.waiting = [member for member in members if not finished(folder, member)]
        self.done = [member.name for member in members if finished(folder, member)]
        self.failed: dict[str, int] = {}
        self.seconds: list[float] = []
        self.running: list[Started] = []
        self.stopping = False

    def run(self) -> Outcome:
        """Until nothing is left that can run, or Ctrl-C: then the children are asked once to save and stop."""
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while self.running or (self.waiting and not self.stopping):
                self._start_those_ready()
                self._collect()
                time.sleep(POLL_SECONDS)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return Outcome(self.done, list(self.failed), self.stopping)

    def _stop(self, _number: int, _frame: object) -> None:
        if self.stopping:  # a second one stops at once
            for started in self.running:
                started.process.kill()
            return
        self.stopping = True
        self.told("stopping: the members that run save first; once more stops at once")
        for started in self.running:
            started.process.send_signal(signal.SIGINT)

    def _lender(self, member: Member) -> str | None:
        return None if member.trunk is None else f"{member.group}/{member.trunk}"

    def _start_those_ready(self) -> None:
        for member in list(self.waiting):
            lender = self._lender(member)
            if lender in self.failed:
                self.waiting.remove(member)
                self.failed[member.name] = self.failed[lender]
                with log_file(self.folder, member).open("a", encoding="utf-8") as log:
                    log.write(f"not run: {lender}, whose trunk it takes over, failed\n")
                self.told(f"{member.name}: not run, as {lender} failed")
            elif len(self.running) < self.jobs and not self.stopping and (lender is None or lender in self.done):
                self.waiting.remove(member)
                self._start(member)

    def _start(self, member: Member) -> None:
        trunk = None if member.trunk is None else run_folder(self.folder, member, member.trunk)
        log = log_file(self.folder, member).open("a", encoding="utf-8")
        environment = {
            **os.environ,
            # What does not hold a seed is compiled once for all seeds of a task; the train step's program holds it.
            "JAX_COMPILATION_CACHE_DIR": str((self.folder / "compiled").resolve()),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1",
        }
        process = subprocess.Popen(
            self.command(member, run_folder(self.folder, member), trunk),
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches it once, through `_stop`
        )
        self.running.append(Started(member, process, log, time.monotonic()))
        if self.stopping:  # the signal came while the process was being made
            process.send_signal(signal.SIGINT)
        self.told(f"{member.name}: started")

    def _collect(self) -> None:
        for started in list(self.running):
            code = started.process.poll()
            if code is None:
                continue
            self.running.remove(started)
            started.log.close()
            name, took = started.member.name, time.monotonic() - started.began
            if code == 0 and finished(self.folder, started.member):
                self.done.append(name)
                self.seconds.append(took)
                self.ended()
                self.told(f"{name}: done in {took:.0f} s; {self.progress()}")
            elif not self.stopping:
                self.failed[name] = code
                self.told(f"{name}: failed with exit code {code}; {self.progress()}")

    def progress(self) -> str:
        """How many are done, and how long those left may take, from those done in this call."""
        left = len(self.waiting) + len(self.running)
        text = f"{len(self.done)} of {len(self.members)} done, {len(self.failed)} failed"
        if not self.seconds or not left:
            return text
        minutes = left * sum(self.seconds) / len(self.seconds) / min(self.jobs, left) / 60
        return f"{text}, about {minutes:.0f} min left"


def failures(folder: Path, members: Sequence[Member], failed: Sequence[str]) -> str:
    """The last lines of each failed member's log."""
    by_name: Mapping[str, Member] = {member.name: member for member in members}
    parts = []
    for name in failed:
        path = log_file(folder, by_name[name])
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        parts.append("\n".join([f"{name} failed ({path}):", *(f"    {line}" for line in lines)]))
    return "\n".join(parts)
