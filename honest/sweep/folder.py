"""A sweep's folder: what it holds, and where each member's things are.

DIR/sweep.yaml     the sweep as it was last given    DIR/runs/NAME/       one run directory a member
DIR/members.json   names and parameters               DIR/log/NAME.txt     what its process printed
DIR/configs/NAME.yaml   each member's config, whole   DIR/results.csv      of the members finished so far
"""

from __future__ import annotations

import json
from pathlib import Path

from honest.config_io import dump_config
from honest.errors import UserError
from honest.jobs.folder import Plan, replace
from honest.sweep.members import LoadedSweep
from honest.train.checkpoint import Checkpoints
from honest.train.run_directory import SUMMARY

SWEEP, MEMBERS = "sweep.yaml", "members.json"


def plan_of(folder: Path, sweep: LoadedSweep) -> Plan:
    return Plan(
        command="honest sweep",
        kind="a sweep",
        folder=folder,
        source=sweep.path,
        name=SWEEP,
        pattern="runs/*",
        configs={run_folder(folder, member.name): member.config for member in sweep.members},
    )


def run_folder(folder: Path, name: str) -> Path:
    return folder / "runs" / name


def config_file(folder: Path, name: str) -> Path:
    return folder / "configs" / f"{name}.yaml"


def log_file(folder: Path, name: str) -> Path:
    return folder / "log" / f"{name}.txt"


def finished(folder: Path, name: str) -> bool:
    return (run_folder(folder, name) / SUMMARY).exists()


def write_members(folder: Path, sweep: LoadedSweep) -> None:
    """members.json and every member's config: all that `run_members` needs, wherever it runs."""
    (folder / "configs").mkdir(exist_ok=True)
    for member in sweep.members:
        replace(config_file(folder, member.name), dump_config(member.config))
    listed = [{"name": member.name, "parameters": member.parameters} for member in sweep.members]
    content = {"name": sweep.sweep.name, "members": listed}
    replace(folder / MEMBERS, json.dumps(content, indent=2, ensure_ascii=False))


def position(folder: Path, name: str) -> tuple[tuple[str, int | None], ...]:
    """Where a member's training stands: the newest committed step of each stage that it has begun."""
    stages = run_folder(folder, name) / "checkpoints"
    if not stages.is_dir():
        return ()
    return tuple((path.name, Checkpoints(path, keep=1).latest()) for path in sorted(stages.iterdir()))


def member_names(folder: Path) -> list[str]:
    """UserError: the folder is no sweep's."""
    try:
        content = json.loads((folder / MEMBERS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a sweep's folder: {MEMBERS} cannot be read ({error})") from error
    return [member["name"] for member in content["members"]]
