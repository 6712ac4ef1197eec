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
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from honest.benchmark.suite import LoadedSuite, Member
from honest.errors import UserError
from honest.jobs.pool import Job
from honest.report.sources import SUITE
from honest.train.run_directory import CONFIG, LOCK, SUMMARY, RunDirectory

Command = Callable[[Member, Path, Path | None], list[str]]  # (member, its run directory, the trunk's) -> arguments


def jobs_of(folder: Path, members: Sequence[Member]) -> list[Job]:
    """One job a member; one that takes over a trunk waits for its lender, and fails with it."""
    return [
        Job(
            name=member.name,
            members=(member.name,),
            folder=folder,
            log=log_file(folder, member),
            after=None if member.trunk is None else f"{member.group}/{member.trunk}",
            finished=partial(finished, folder, member),
        )
        for member in members
    ]


def commands_of(folder: Path, members: Sequence[Member], command: Command) -> Callable[[Job], list[str]]:
    """What starts each job of `jobs_of`."""
    by_name = {member.name: member for member in members}

    def of(job: Job) -> list[str]:
        member = by_name[job.name]
        trunk = None if member.trunk is None else run_folder(folder, member, member.trunk)
        return command(member, run_folder(folder, member), trunk)

    return of


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
