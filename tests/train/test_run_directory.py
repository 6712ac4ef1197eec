"""What a run records about itself."""

from __future__ import annotations

import shlex
import sys

from honest.train.run_directory import environment


def test_the_command_can_be_typed_again(monkeypatch):
    arguments = ["train", "my config.yaml", "--set", "task.people=[{name: Ann, threshold: 1.0}]"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/honest", *arguments])
    assert shlex.split(environment()["command"]) == ["honest", *arguments]
