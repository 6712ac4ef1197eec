"""Taking over the finished trunk stage of another run, so that methods are compared on one and the same trunk."""

from __future__ import annotations

import os
import shutil

from honest.config import RunConfig
from honest.config_io import differences
from honest.errors import UserError
from honest.train.checkpoint import Checkpoints
from honest.train.run_directory import RunDirectory
from honest.train.stage import TRUNK

# All that the trunk stage's result depends on.
SHAPING = ("seed", "precision", "compute.dtype", "task.", "model.", "stages.trunk.")


def other_settings(has: RunConfig, asks: RunConfig) -> list[str]:
    """The settings by which the trunks of two configs would differ, as lines "key: run has X, command asks Y"."""
    return [line for line in differences(has, asks) if line.startswith(SHAPING)]


def check_trunk(donor: RunDirectory, config: RunConfig) -> None:
    """UserError: `donor` is no run, its trunk stage is not finished, or was trained by other settings (named)."""
    has = donor.config()
    changed = other_settings(has, config)
    if changed:
        listed = "\n  ".join(changed)
        raise UserError(f"--trunk-from {donor.path}: its trunk was trained by other settings\n  {listed}")
    latest = Checkpoints(donor.checkpoints(TRUNK), has.checkpoint.keep).latest()
    if latest != has.stages.trunk.steps:
        done = "has not begun" if latest is None else f"is at step {latest} of {has.stages.trunk.steps}"
        raise UserError(f"--trunk-from {donor.path}: its trunk stage {done}; finish that run first")


def adopt_trunk(donor: RunDirectory, own: RunDirectory) -> None:
    """Copies the donor's last trunk checkpoint, with its events, unless the run has begun its trunk stage."""
    target = own.checkpoints(TRUNK)
    if target.exists():
        return
    checkpoints = Checkpoints(donor.checkpoints(TRUNK), donor.config().checkpoint.keep)
    step = str(checkpoints.latest())
    temporary = target.with_name(f".{TRUNK}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(checkpoints.directory / step, temporary / step)
    temporary.rename(target)  # whole or not at all
