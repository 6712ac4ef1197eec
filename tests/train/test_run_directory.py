"""What a run records about itself."""

from __future__ import annotations

import json
import shlex
import sys

import pytest

from honest.config_io import load_config
from honest.errors import UserError
from honest.train.run_directory import RunDirectory, environment, typed
from tests.conftest import write_tiny


def test_the_command_can_be_typed_again(monkeypatch):
    arguments = ["train", "my config.yaml", "--set", "task.people=[{name: Ann, threshold: 1.0}]"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/honest", *arguments])
    assert shlex.split(environment(typed())["command"]) == ["honest", *arguments]


def test_a_run_may_go_on_otherwise_computed_but_not_otherwise(tmp_path):
    """What changes nothing but rounding may differ, and is recorded; all else is refused."""
    directory = RunDirectory(tmp_path / "run")
    config = load_config(write_tiny(tmp_path / "tiny.yaml")).config
    directory.prepare(config, "honest train")
    changes = ("parallel.devices=2", "parallel.strategy=fsdp", "compute.micro_batches=4", "compute.rematerialise=true")
    directory.prepare(load_config(write_tiny(tmp_path / "other.yaml", *changes)).config, "honest train")
    assert directory.config() == config  # what it was begun with
    resumed = json.loads((directory / "environment.resumed-1.json").read_text(encoding="utf-8"))
    assert sorted(resumed["changed"]) == [
        "compute.micro_batches: run has 1, command asks 4",
        "compute.rematerialise: run has false, command asks true",
        "parallel.devices: run has 1, command asks 2",
        "parallel.strategy: run has 'auto', command asks 'fsdp'",
    ]
    with pytest.raises(UserError, match=r"compute.dtype: run has 'parameters', command asks 'bfloat16'") as refused:
        directory.check(load_config(write_tiny(tmp_path / "bf16.yaml", "compute.dtype=bfloat16", *changes)).config)
    assert "parallel" not in str(refused.value)
