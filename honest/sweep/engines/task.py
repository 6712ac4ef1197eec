"""What every engine runs at the other end: the function that trains a job's members, its output added to the log."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from honest.jobs.pool import FAILED
from honest.process import STOPPED

RunMembers = Callable[[Path, Sequence[str]], int]  # (the sweep's folder, names of members) -> exit code


def run_logged(run: RunMembers, folder: Path, names: Sequence[str], log: Path) -> int:
    """The exit code of `run`; 1 where it raised an exception, 130 where it was interrupted before it could save."""
    with output_to(log):
        try:
            return run(folder, names)
        except KeyboardInterrupt:  # before `run` could catch the signal: there was nothing to save yet
            return STOPPED
        except Exception:
            traceback.print_exc()
            return FAILED


@contextmanager
def output_to(log: Path) -> Iterator[None]:
    """What this process and its children print is added to `log`, XLA's own messages too: file descriptors 1 and 2."""
    log.parent.mkdir(parents=True, exist_ok=True)
    _flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    with log.open("ab") as output:
        for number in (1, 2):
            os.dup2(output.fileno(), number)
    try:
        yield
    finally:
        _flush()
        for number, copy in kept:
            os.dup2(copy, number)
            os.close(copy)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def note(log: Path, text: str) -> None:
    """Adds what happened around a process to the log that its own output goes to."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{text.rstrip()}\n")
