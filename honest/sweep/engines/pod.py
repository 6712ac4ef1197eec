"""python -m honest.sweep.engines.pod FOLDER LIST: trains the members of this pod, by its index in an Indexed Job.

LIST is a file of `honest.sweep.engines.kubernetes`; the index is JOB_COMPLETION_INDEX, which Kubernetes sets.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

INDEX = "JOB_COMPLETION_INDEX"


def names_of(listed: Path, index: int) -> tuple[str, ...]:
    """The members on line `index` (from 0) of the list."""
    return tuple(listed.read_text(encoding="utf-8").splitlines()[index].split("\t"))


def main(folder: str, listed: str) -> int:
    from honest.sweep.run_member import run_members

    return run_members(Path(folder), names_of(Path(listed), int(os.environ[INDEX])))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
