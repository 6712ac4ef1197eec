"""Two processes train one run together, stop together, and go on; against `tiny_run`, which one process made."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.conftest import WAIT_SECONDS, Runner, free_port, write_tiny
from tests.test_resume import begun, committed, scalars, stop_when

STAGES = ("trunk", "single_head")  # the first two of `tiny_run`
ALONE = ("parallel.hosts=one", "parallel.devices=1")


def start_two(runner: Runner, *command: str | Path) -> list[subprocess.Popen]:
    """The same command twice, with one device each."""
    address = f"localhost:{free_port()}"
    return [
        runner.start(*command, JAX_COORDINATOR_ADDRESS=address, HONEST_PROCESSES="2", HONEST_PROCESS=str(index))
        for index in range(2)
    ]


def ends(processes: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of each; both have to be read at a time."""
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda process: process.communicate(timeout=WAIT_SECONDS), processes))
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def leaves(directory: Path, stage: str) -> tuple[list, dict[str, np.ndarray]]:
    """The newest checkpoint as numpy arrays, whatever devices it was saved from, without the project's code."""
    path = directory / "checkpoints" / stage / str(committed(directory, stage)[-1])
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        described = reader.restore(path / "leaves")
    with warnings.catch_warnings(action="ignore"), ocp.PyTreeCheckpointer() as reader:
        tree = dict(reader.metadata(path / "state").item_metadata.tree)
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return described, reader.restore(path / "state", restore_args=as_numpy)


def assert_the_same_run(directory: Path, whole: Path) -> None:
    for stage in STAGES:
        assert committed(directory, stage)[-1] == committed(whole, stage)[-1]
        (described, several), (expected, one) = leaves(directory, stage), leaves(whole, stage)
        assert described == expected and several.keys() == one.keys()
        for key, leaf in several.items():
            np.testing.assert_allclose(leaf, one[key], rtol=1e-8, atol=1e-10, err_msg=described[int(key)]["path"])
    events = [row for row in scalars(whole) if row[0].startswith(STAGES)]
    found = [row for row in scalars(directory) if row[0].startswith(STAGES)]
    assert [row[:2] for row in found] == [row[:2] for row in events] and len(events) > 40
    np.testing.assert_allclose([row[2] for row in found], [row[2] for row in events], rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def stopped(runner) -> tuple[Path, Path, list[tuple[int, str, str]]]:
    """Config and directory of a run of two processes, of which the second one alone was asked to stop."""
    changes = ("methods=[single_head]", "parallel.hosts=detect", "parallel.devices=null", "parallel.strategy=fsdp")
    config, directory = write_tiny(runner.folder / "hosts.yaml", *changes), runner.folder / "hosts"
    first, second = start_two(runner, "train", config, "--workdir", directory)
    with ThreadPoolExecutor(1) as pool:
        said_first = pool.submit(first.communicate, timeout=WAIT_SECONDS)
        said = stop_when(second, lambda: begun(directory, STAGES[0]), signal.SIGTERM)
        stdout, stderr = said_first.result()  # the end of the first process, too
        return config, directory, [(first.returncode, stdout, stderr), (second.returncode, *said)]


def test_processes_stop_together(stopped):
    """They agree every ten steps: the trunk's six, and four of the next stage."""
    _, directory, said = stopped
    for code, _, stderr in said:
        assert code == 130, stderr
        assert "stopped in stage single_head at step 4; everything up to there is saved" in stderr
    assert "stopping after this step" in said[1][2] and "stopping after this step" not in said[0][2]
    assert f"new run in {directory}" in said[0][1] and "new run" not in said[1][1]  # process 0 alone prints
    assert committed(directory, STAGES[1])[-1] == 4


def test_two_processes_or_one_go_on_to_the_same_end(runner, stopped, tiny_run):
    config, directory, _ = stopped
    alone = runner.folder / "hosts-alone"
    shutil.copytree(directory, alone)
    for code, _, stderr in ends(start_two(runner, "train", config, "--workdir", directory)):
        assert code == 0, stderr
    done = runner("train", config, "--workdir", alone, *(text for change in ALONE for text in ("--set", change)))
    assert done.returncode == 0, done.stderr
    for finished in (directory, alone):
        assert_the_same_run(finished, tiny_run.directory)
        assert json.loads((finished / "summary.json").read_text(encoding="utf-8"))["scores"]
    changed = json.loads((alone / "environment.resumed-1.json").read_text(encoding="utf-8"))
    assert len(changed["changed"]) == 2 and changed["processes"] == 1


def test_a_cluster_that_is_not_there_is_refused(runner):
    config = write_tiny(runner.folder / "nowhere.yaml", "parallel.hosts=detect")
    done = runner("train", config, "--workdir", runner.folder / "nowhere")
    assert done.returncode == 2
    assert "parallel.hosts is detect, but no cluster was detected or joined" in done.stderr
    assert not (runner.folder / "nowhere").exists()
