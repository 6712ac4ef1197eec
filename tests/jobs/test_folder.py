"""A folder of runs where the disk is full: it is told, and nothing is left that hinders the next call."""

import errno
import os
from pathlib import Path

import pytest

from honest.errors import UserError
from honest.jobs.folder import Plan, prepared, replace

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/results.csv")


@pytest.fixture
def plan(tmp_path):
    source = tmp_path / "mine.yaml"
    source.write_text("name: mine")
    return Plan("honest sweep", "a sweep", tmp_path / "out", source, "sweep.yaml", "runs/*", {})


def test_what_a_user_can_put_right_is_told(plan):
    said = r"^out/results\.csv: No space left on device\. .* the same command goes on"
    with pytest.raises(UserError, match=said), prepared(plan):
        raise FULL
    with prepared(plan):
        pass


def test_another_error_is_no_mistake_of_the_user(plan):
    with pytest.raises(BrokenPipeError), prepared(plan):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_a_folder_that_could_not_be_begun_can_be(plan, monkeypatch):
    def full(*_):
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(UserError, match="cannot be written"), prepared(plan):
            pass
    with prepared(plan):
        assert sorted(path.name for path in plan.folder.iterdir()) == [".lock", "log", "sweep.yaml"]


def test_a_file_that_could_not_be_replaced_is_as_it_was(tmp_path, monkeypatch):
    def half(path, text, **_):
        with path.open("w") as file:
            file.write(text[:2])
        raise FULL

    (tmp_path / "results.csv").write_text("before")
    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="No space"):
        replace(tmp_path / "results.csv", "after")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("results.csv", "before")]
