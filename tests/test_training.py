"""The end of whole runs: a stop comes between the reports of members, not after them all."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from honest import training
from honest.config_io import load_config
from honest.train.stage import Stopped
from tests.conftest import write_tiny


def test_a_stop_comes_before_the_next_report(tmp_path, monkeypatch):
    config = load_config(write_tiny(tmp_path / "tiny.yaml")).config
    reported: list[Path] = []
    monkeypatch.setattr(training, "Member", lambda asked, *_: made(asked.directory))
    monkeypatch.setattr(training, "start_all", lambda configs: [(run, None)] * len(configs))
    monkeypatch.setattr(training, "prepare", lambda _: None)
    monkeypatch.setattr(training, "train_stage", lambda *_: None)
    monkeypatch.setattr(training, "logged_gaps", lambda *_: {})
    monkeypatch.setattr(training, "conclude", lambda *_: None)
    monkeypatch.setattr(training, "report", lambda _final, _config, directory: reported.append(directory.path))
    run = SimpleNamespace(task=SimpleNamespace(description=""))

    def made(directory):
        events = SimpleNamespace(close=lambda: None)
        return SimpleNamespace(config=config, directory=directory, events=events, evaluator=None, stages={}, states={})

    places = [training.RunDirectory(tmp_path / name) for name in ("a", "b", "c")]
    asked = [training.Asked(config, place, None, "") for place in places]
    with pytest.raises(Stopped, match="stopped in stage prior at step 9"):
        training.train(asked, lambda: len(reported) == 1, lambda: None)
    assert reported == [tmp_path / "a"]
    training.train(asked[1:], lambda: False, lambda: None)
    assert reported == [tmp_path / name for name in ("a", "b", "c")]
