"""`honest sweep` for real: members trained together, stopped and gone on with, against the same run alone.

The sweep's first member is the session's `tiny_run`; what it has alone was trained there.
"""

from __future__ import annotations

import csv
import json
import shlex
import signal
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orbax.checkpoint as ocp
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from honest.cli import main
from honest.config_io import load_config
from honest.sweep.folder import position
from honest.train.run_directory import RunDirectory
from tests.conftest import write_tiny

NAMES = ["seed=0,stddev=1.0", "seed=1,stddev=0.3"]
SWEEP = """
name: pair
base: tiny.yaml
zip:
  seed: [0, 1]
  objective.second_prior.trunk.stddev: [1.0 θ.trunk, 0.3 θ.trunk]
"""
PATIENCE = 240.0


class Swept(NamedTuple):
    folder: Path
    stopped: tuple[int, str]  # exit code and stderr of the sweep that was stopped
    ended: tuple[int, str]  # exit code and stdout of the one that went on
    positions: list[tuple]  # of the members, in between


@pytest.fixture(scope="module")
def swept(runner, tiny_run) -> Swept:
    folder = runner.folder / "pair"
    write_tiny(runner.folder / "tiny.yaml")
    (runner.folder / "pair.yaml").write_text(SWEEP, encoding="utf-8")
    command = ("sweep", runner.folder / "pair.yaml", "--workdir", folder, "--engine", "vmap")
    process = runner.start(*command)
    begun = folder / "runs" / NAMES[0] / "checkpoints" / "trunk"
    deadline = time.monotonic() + PATIENCE
    while not (begun.exists() and any(path.name.isdigit() for path in begun.iterdir())):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE)
    positions = [position(folder, name) for name in NAMES]
    done = runner(*command)
    return Swept(folder, (process.returncode, stderr), (done.returncode, done.stdout + done.stderr), positions)


def leaves(directory: Path, stage: str) -> dict[str, np.ndarray]:
    place = directory / "checkpoints" / stage
    newest = max(int(path.name) for path in place.iterdir() if path.name.isdigit())
    with warnings.catch_warnings(action="ignore"), ocp.PyTreeCheckpointer() as reader:
        return {key: np.asarray(leaf) for key, leaf in reader.restore(place / str(newest) / "state").items()}


def scalars(directory: Path) -> dict[tuple[str, int], float]:
    read = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    read.Reload()
    return {(tag, e.step): e.value for tag in read.Tags()["scalars"] for e in read.Scalars(tag)}


def test_a_stop_saves_all_members_at_one_step_and_the_same_command_goes_on(swept):
    code, stderr = swept.stopped
    assert code == 130 and "the same command goes on" in stderr
    assert swept.positions[0] == swept.positions[1] != ()
    assert swept.ended[0] == 0, swept.ended[1]


def test_a_member_has_the_checkpoints_events_and_results_that_it_has_alone(swept, tiny_run):
    own = swept.folder / "runs" / NAMES[0]
    for stage in ("trunk", "single_head", "plain_heads", "truth_ceiling", "prior"):
        found, expected = leaves(own, stage), leaves(tiny_run.directory, stage)
        assert found.keys() == expected.keys() and len(found) > 3
        for key, leaf in expected.items():
            assert found[key].dtype == leaf.dtype
            scale = max(1.0, float(np.max(np.abs(leaf), initial=0.0))) if leaf.dtype.kind == "f" else 0.0
            np.testing.assert_allclose(found[key], leaf, rtol=0, atol=1e-8 * scale)
    found, expected = scalars(own), scalars(tiny_run.directory)
    assert found.keys() == expected.keys() and len(expected) > 300
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-5, abs=1e-6, nan_ok=True), key  # events are float32
    ours, alone = (json.loads((d / "summary.json").read_text(encoding="utf-8")) for d in (own, tiny_run.directory))
    for head, line in alone["scores"].items():
        assert ours["scores"][head]["truth_fooled"] == pytest.approx(line["truth_fooled"], abs=1e-7)


def test_a_member_says_how_it_is_made_by_itself(swept):
    """The command that its environment names is one that goes on with this run."""
    text = (swept.folder / "runs" / NAMES[1] / "environment.json").read_text(encoding="utf-8")
    honest, train, config, option, directory = shlex.split(json.loads(text)["command"])
    assert (honest, train, option) == ("honest", "train", "--workdir")
    assert Path(directory).name == NAMES[1] and RunDirectory(directory).check(load_config(config).config)


def test_members_are_other_runs_with_one_table(swept):
    with (swept.folder / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["member"] for row in rows] == NAMES
    assert [row["objective.second_prior.trunk.stddev"] for row in rows] == ["1.0 θ.trunk", "0.3 θ.trunk"]
    summaries = [json.loads((swept.folder / "runs" / n / "summary.json").read_text("utf-8")) for n in NAMES]
    for row, summary in zip(rows, summaries, strict=True):
        assert float(row["ledger/total_bits"]) == summary["metrics"]["ledger/total_bits"]
        assert float(row["single head: truth_fooled"]) == summary["scores"]["single head"]["truth_fooled"]["value"]
    assert rows[0]["ledger/total_bits"] != rows[1]["ledger/total_bits"]
    assert all(name in swept.ended[1] for name in NAMES) and "2 members in 1 program," in swept.ended[1]
    assert "×2" in (swept.folder / "log" / f"{NAMES[0]}.txt").read_text(encoding="utf-8")


def test_a_finished_sweep_trains_nothing_again_and_other_members_are_refused(swept, capsys, monkeypatch):
    sweep = swept.folder.parent / "pair.yaml"
    assert main(["sweep", str(sweep), "--workdir", str(swept.folder), "--engine", "local", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "nothing is left to run" in said and said.count("done") == 2
    other = sweep.with_name("other.yaml")
    other.write_text(SWEEP.replace("seed: [0, 1]", "seed: [0, 2]"), encoding="utf-8")
    assert main(["sweep", str(other), "--workdir", str(swept.folder), "--dry-run"]) == 2
    assert f"no members of {other}: runs/seed=1,stddev=0.3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--jobs", "0"], "--jobs is 0; it must be at least 1"),
        (["--together", "0"], "--together is 0"),
        (["--retries", "-1"], "--retries is -1; it must be at least 0"),
        (["--engine", "slurm"], "engine.slurm, which is not given"),
    ],
)
def test_options_are_checked_first(tmp_path, capsys, options, told):
    write_tiny(tmp_path / "tiny.yaml")
    (tmp_path / "pair.yaml").write_text(SWEEP, encoding="utf-8")
    assert main(["sweep", str(tmp_path / "pair.yaml"), "--workdir", str(tmp_path / "out"), *options]) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "out").exists()
