"""A run directory: what it holds, and the rule that nothing in it is ever overwritten.

config.yaml       the resolved config            checkpoints/<stage>/       orbax
units.json        the unit of every field        events.out.tfevents.*      TensorBoard
environment.json  versions, device, commit       summary.json, figures/     the results, once there are any

A run that is resumed adds environment.resumed-N.json, with the keys that were given another value; these can only be
such as change nothing but rounding (`MAY_DIFFER`).
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from honest.config import RunConfig
from honest.config_io import differences, dump_config, load_config, unit_table
from honest.errors import UserError

CONFIG, UNITS, ENVIRONMENT, SUMMARY, LOCK = (
    "config.yaml",
    "units.json",
    "environment.json",
    "summary.json",
    ".lock",
)
STARTING = re.compile(r"\.lock|(units|environment)\.json|\.(units\.json|environment\.json|config\.yaml)\.\d+")
MAY_DIFFER = ("parallel.", "compute.rematerialise", "compute.micro_batches")  # how a run is computed, and on what
PACKAGES = ("honest", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorboardX")


class RunDirectory:
    """Paths and small files of one run."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def checkpoints(self, stage: str) -> Path:
        return self.path / "checkpoints" / stage

    def check(self, config: RunConfig) -> bool:
        """Whether the directory holds a run of `config`; writes nothing.

        UserError: it holds a run of another config (the keys that differ are named; those of `MAY_DIFFER` may), or
        files of something else.
        """
        if not (self / CONFIG).exists():
            self._refuse_foreign()
            return False
        changed = [line for line in differences(self.config(), config) if not line.startswith(MAY_DIFFER)]
        if changed:
            listed = "\n  ".join(changed)
            raise UserError(
                f"{self.path} holds a run of another config; nothing was changed there.\n  {listed}\n"
                "Name another --workdir, or give the run's own config to resume it."
            )
        return True

    def prepare(self, config: RunConfig, command: str) -> None:
        """Makes the directory for `config`, or notes that its run is resumed. Errors as in `check`.

        command: what makes the run again, as one can type it.
        """
        if not self.check(config):
            self.path.mkdir(parents=True, exist_ok=True)
            for name in (UNITS, ENVIRONMENT):
                (self / name).unlink(missing_ok=True)  # of a start that was killed before its config was written
            write_new(self / UNITS, json.dumps(unit_table(config), indent=2, ensure_ascii=False))
            write_new(self / ENVIRONMENT, json.dumps(environment(command), indent=2))
            write_new(self / CONFIG, dump_config(config))  # last: a directory with a config is whole
            return
        resumed = sum(1 for _ in self.path.glob("environment.resumed-*.json")) + 1
        resumption = {**environment(command), "changed": differences(self.config(), config)}
        write_new(self / f"environment.resumed-{resumed}.json", json.dumps(resumption, indent=2, ensure_ascii=False))

    def _refuse_foreign(self) -> None:
        """UserError where the directory holds anything but a run, or a start of one that was killed."""
        if (self / CONFIG).exists() or not self.path.exists():
            return
        if not self.path.is_dir():
            raise UserError(f"{self.path} is not a directory. Name another --workdir")
        foreign = sorted(item.name for item in self.path.iterdir() if not STARTING.fullmatch(item.name))
        if foreign:
            raise UserError(f"{self.path} has files but no {CONFIG} ({foreign[0]}): not a run. Name another --workdir")

    def config(self) -> RunConfig:
        """The run's config. UserError: there is no run here, or its units are not those of this version."""
        if not (self / CONFIG).exists():
            raise UserError(f"{self.path} is not a run directory: it has no {CONFIG}")
        config = load_config(self / CONFIG).config
        try:
            saved = json.loads((self / UNITS).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self / UNITS} cannot be read ({error}): {self.path} is not a whole run") from error
        current = unit_table(config)
        if saved != current:
            keys = [key for key in sorted({*saved, *current}) if saved.get(key) != current.get(key)]
            listed = "\n  ".join(f"{key}: saved {saved.get(key)}, now {current.get(key)}" for key in keys)
            raise UserError(f"{self / UNITS}: the run was saved in other units\n  {listed}")
        return config

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One process at a time may write here; UserError if another one does, or if this is no place for a run."""
        self._refuse_foreign()  # before the lock file is put there
        self.path.mkdir(parents=True, exist_ok=True)
        with (self / LOCK).open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"{self.path}: another process is training this run") from error
            yield


def write_new(path: Path, text: str) -> None:
    """Writes a file that must not exist yet, whole or not at all."""
    if path.exists():
        raise UserError(f"{path} exists already; nothing is overwritten")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.rename(path)


def typed() -> str:
    """This process's command, which can be typed again."""
    return shlex.join(["honest", *sys.argv[1:]])


def environment(command: str) -> dict[str, Any]:
    """What a reader needs to run it again: versions, device, commit and command."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": [str(device) for device in jax.devices()],
        "processes": jax.process_count(),
        "device_kind": jax.devices()[0].device_kind,
        "processors": os.cpu_count(),
        "commit": commit(),
        "command": command,
    }


def commit() -> str:
    """The source's git commit, marked if files differ from it; "unknown" outside a git checkout."""
    source = Path(__file__).resolve().parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=source,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
