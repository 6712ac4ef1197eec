"""Runs a benchmark's members, each in a process of its own; finished ones are skipped, and a stop loses nothing.

DIR/suite.yaml   the suite as it was last given      DIR/runs/TASK/seed_S/ENTRY/   one run directory a member
DIR/results.csv, results.md   of all finished members  DIR/log/TASK-seed_S-ENTRY.txt   what its process printed
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from honest.benchmark.suite import LoadedSuite, Member
from honest.jobs.folder import Plan
from honest.jobs.pool import Job
from honest.report.sources import SUITE
from honest.train.run_directory import SUMMARY

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


def plan_of(folder: Path, suite: LoadedSuite) -> Plan:
    return Plan(
        command="honest benchmark",
        kind="a benchmark",
        folder=folder,
        source=suite.path,
        name=SUITE,
        pattern="runs/*/seed_*/*",
        configs={run_folder(folder, member): member.config for member in suite.members},
    )


def finished(folder: Path, member: Member) -> bool:
    return (run_folder(folder, member) / SUMMARY).exists()
