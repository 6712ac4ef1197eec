"""A folder of many runs: made for one file of the user's, gone on with, and never mixed up with another's.

DIR/NAME.yaml   the file as it was last given     DIR/NAME.before-1.yaml …   what it was before
DIR/log/        what each run's process printed    DIR/.lock                   one process at a time
"""

from __future__ import annotations

import difflib
import errno
import fcntl
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from honest.config import RunConfig
from honest.errors import UserError
from honest.train.run_directory import CONFIG, LOCK, SUMMARY, RunDirectory

REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)  # what a user can put right


@dataclass(frozen=True)
class Plan:
    """What a folder is to hold.

    command, kind: what the user typed, and what the folder is then, such as "a benchmark". source: the user's file;
    name: what its copy is called. pattern: of run directories below `folder`. configs: what each run is to be.
    """

    command: str
    kind: str
    folder: Path
    source: Path
    name: str
    pattern: str
    configs: Mapping[Path, RunConfig]


def check(plan: Plan) -> bool:
    """Whether the folder holds runs that this plan goes on with; writes nothing.

    A plan may have grown since. UserError: it no longer has a run that is there, or asks another config of one; or the
    folder holds files of something else. What differs is named.
    """
    folder = plan.folder
    if (folder / plan.name).is_file():
        runs = sorted({path.parent for name in (CONFIG, SUMMARY) for path in folder.glob(f"{plan.pattern}/{name}")})
        if lost := [str(run.relative_to(folder)) for run in runs if run not in plan.configs]:
            there, given = (text.splitlines() for text in _texts(plan))
            changed = difflib.unified_diff(there, given, n=0, lineterm="")
            raise UserError(
                f"{folder} holds runs that are no members of {plan.source}: {', '.join(lost)}. Nothing was changed."
                + "".join(f"\n  {line}" for line in list(changed)[2:])
                + "\nName another --workdir, give a file that has them to go on with it, or move them elsewhere."
            )
        for run in runs:
            if (run / CONFIG).exists():
                RunDirectory(run).check(plan.configs[run])
        return True
    if folder.exists() and (not folder.is_dir() or any(path.name != LOCK for path in folder.iterdir())):
        raise UserError(
            f"{folder} is not {plan.kind}: it is a file, or has files but no {plan.name}. Name another --workdir"
        )
    return False


def _texts(plan: Plan) -> tuple[str, str]:
    """The user's file as the folder has it, and as it is given now."""
    there = (plan.folder / plan.name).read_text("utf-8", errors="replace")
    return there, plan.source.read_text(encoding="utf-8")


def prepare(plan: Plan) -> None:
    """Makes the folder, or checks that it is this plan's. UserError: see `check`; or it cannot be made."""
    folder, name = plan.folder, Path(plan.name)
    begun = check(plan)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there, given = _texts(plan) if begun else (None, plan.source.read_text(encoding="utf-8"))
        if begun and there != given:
            names = (f"{name.stem}.before-{n}{name.suffix}" for n in itertools.count(1))
            shutil.copyfile(folder / name, next(path for each in names if not (path := folder / each).exists()))
        if there != given:
            replace(folder / name, given)  # first of all: without it the folder is nobody's
        (folder / "log").mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error}). Name another --workdir") from error


def replace(path: Path, text: str) -> None:
    """The file as a whole, or as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def prepared(plan: Plan) -> Iterator[None]:
    """The folder, made or gone on with; one process at a time runs its members and writes its table.

    UserError: see `check`; it cannot be written, now or while the runs are at work; or another process is there.
    """
    check(plan)  # before the lock file is put there
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        handle = (plan.folder / LOCK).open("w")
    except OSError as error:
        raise UserError(f"{plan.folder} cannot be written ({error}). Name another --workdir") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{plan.folder}: another `{plan.command}` is at work there; wait for it, or stop it"
            ) from error
        prepare(plan)
        try:
            yield
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            raise UserError(
                f"{error.filename or plan.folder}: {error.strerror}. Runs that were at work there were stopped; put "
                "this right, and the same command goes on"
            ) from error
