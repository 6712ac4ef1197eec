"""Trains members of a sweep in this process: what every engine starts, wherever it does.

    python -m honest.sweep.run_member FOLDER NAME [NAME …]

Several members are trained together, in one program; they differ in numbers alone (`grouping`).
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from honest.config_io import load_config
from honest.errors import UserError
from honest.process import STOPPED, StopSignal, keep_freed_memory
from honest.sweep.folder import config_file, finished, member_names, position, run_folder
from honest.train import hosts
from honest.train.run_directory import RunDirectory


def run_members(folder: Path, names: Sequence[str]) -> int:
    """Exit code: 0, 2 for a mistake of the user's, 130 if it was asked (by SIGINT or SIGTERM) to save and stop.

    Finished members are skipped; the others go on from where they stand. Members that were killed while they saved may
    stand at two steps: then those of one step are trained together, and after them those of the other.
    """
    keep_freed_memory()
    try:
        unknown = sorted({*names} - {*member_names(folder)})
        if unknown:
            raise UserError(f"{folder} has no member {', '.join(unknown)}")
        return _train(folder, [name for name in names if not finished(folder, name)])
    except UserError as error:
        print(f"honest: {error}", file=sys.stderr)
        return 2


def again(folder: Path, name: str) -> str:
    """What makes a member again by itself, or goes on with it."""
    return shlex.join(["honest", "train", str(config_file(folder, name)), "--workdir", str(run_folder(folder, name))])


def _train(folder: Path, names: Sequence[str]) -> int:
    configs = {name: load_config(config_file(folder, name)).config for name in names}
    for config in configs.values():
        hosts.join(config.parallel)  # before the imports below, of which blackjax's computes something
    from honest.train.stage import Stopped
    from honest.training import Asked, train

    groups: dict[object, list[str]] = {}
    for name in names:
        groups.setdefault(position(folder, name), []).append(name)
    stop = StopSignal()
    try:
        for number, group in enumerate(groups.values(), start=1):
            places = {name: RunDirectory(run_folder(folder, name)) for name in group}
            asked = [Asked(configs[name], place, None, again(folder, name)) for name, place in places.items()]
            # Once the last ones are saved, a stop need not wait for their reports.
            train(asked, stop.requested, stop.release if number == len(groups) else lambda: None)
    except Stopped as stopped:
        print(f"\n{stopped}; everything up to there is saved", file=sys.stderr)
        return STOPPED
    return 0


if __name__ == "__main__":
    sys.exit(run_members(Path(sys.argv[1]), sys.argv[2:]))
