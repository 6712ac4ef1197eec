"""A run that is stopped anywhere and resumed is, bit for bit, the run that was never stopped.

One run is stopped by Ctrl-C while the trunk trains, killed as a checkpoint of a baseline is being written, killed again
under the full objective, and then let to its end; the uninterrupted run beside it is the session's `tiny_run`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orbax.checkpoint as ocp
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import CHAINS, WAIT_SECONDS, Runner, write_tiny

STAGES = ("trunk", "single_head", "plain_heads", "truth_ceiling", "prior")
PATIENCE = 240.0  # seconds


def stop_when(process: subprocess.Popen, ready: Callable[[], bool], number: signal.Signals) -> tuple[str, str]:
    """Sends the signal as soon as `ready`, and returns what the process printed; it must not have ended before."""
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the run never came to the moment to be stopped at"
        time.sleep(0.002)
    process.send_signal(number)
    return process.communicate(timeout=PATIENCE)


def committed(directory: Path, stage: str) -> list[int]:
    folder = directory / "checkpoints" / stage
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.exists() else []


def begun(directory: Path, stage: str) -> bool:
    """A checkpoint of this stage is on disk, or half of one."""
    folder = directory / "checkpoints" / stage
    return folder.exists() and any(folder.iterdir())


def checkpoint(directory: Path, stage: str) -> tuple[list, dict[str, np.ndarray]]:
    """The newest checkpoint, read without the project's code: paths, shapes and dtypes, and the leaves."""
    path = directory / "checkpoints" / stage / str(committed(directory, stage)[-1])
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        described = reader.restore(path / "leaves")
    with warnings.catch_warnings(action="ignore"), ocp.PyTreeCheckpointer() as reader:  # of shardings: none are needed
        arrays = {key: np.asarray(leaf) for key, leaf in reader.restore(path / "state").items()}
    assert len(arrays) > 3
    return described, arrays


def scalars(directory: Path) -> list[tuple[str, int, float]]:
    """(tag, step, value) as TensorBoard reads them; one that was written twice is there twice."""
    read = EventAccumulator(str(directory), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    read.Reload()
    rows = [(tag, event.step, event.value) for tag in read.Tags()["scalars"] for event in read.Scalars(tag)]
    return sorted(rows)


def assert_identical(resumed: Path, whole: Path) -> None:
    """Final checkpoints of every stage, all events and all results."""
    for stage in STAGES:
        assert committed(resumed, stage)[-1] == committed(whole, stage)[-1]
        (described, leaves), (expected, whole_leaves) = checkpoint(resumed, stage), checkpoint(whole, stage)
        assert described == expected and leaves.keys() == whole_leaves.keys()
        for key, leaf in leaves.items():
            assert leaf.tobytes() == whole_leaves[key].tobytes(), (stage, described[int(key)])
    events = scalars(whole)
    assert len(events) == len({row[:2] for row in events}) > 300
    # repr: a NaN equals itself, −0.0 is not 0.0, and every digit counts
    assert [repr(row) for row in scalars(resumed)] == [repr(row) for row in events]
    first, second = (json.loads((path / "summary.json").read_text(encoding="utf-8")) for path in (resumed, whole))
    for part in ("metrics", "scores", "ledger", "sentence", "log_partition_checks"):
        assert first[part] == second[part]


class Stops(NamedTuple):
    """A run's directory, and what each of its processes said, in order: (exit code, stdout, stderr)."""

    directory: Path
    said: dict[str, tuple[int, str, str]]


def stopped_run(
    runner: Runner, config: Path, directory: Path, stops: dict[str, tuple[Callable[[], bool], signal.Signals]]
) -> Stops:
    """A run that is stopped by each of these signals in turn, then resumed to its end."""
    command = ("train", config, "--workdir", directory)
    said = {}
    for name, (ready, number) in stops.items():
        process = runner.start(*command)
        stdout, stderr = stop_when(process, ready, number)
        said[name] = (process.returncode, stdout, stderr)
        assert not (directory / "summary.json").exists()  # it had not come to its end
    last = runner(*command)
    assert last.returncode == 0, last.stderr
    return Stops(directory, {**said, "end": (0, last.stdout, last.stderr)})


@pytest.fixture(scope="module", autouse=True)
def soon(runner, tiny_run, chains_soon) -> dict[str, Future[Stops]]:
    """Both stopped runs, side by side."""
    modes, chains = runner.folder / "stopped", runner.folder / "chains-stopped"
    chains_config = write_tiny(runner.folder / "chains-stopped.yaml", *CHAINS)
    return {
        "modes": runner.pool.submit(
            stopped_run,
            runner,
            tiny_run.config,
            modes,
            {
                "Ctrl-C": (lambda: begun(modes, STAGES[0]), signal.SIGINT),
                "kill in a baseline": (lambda: begun(modes, STAGES[2]), signal.SIGKILL),
                "kill under the prior": (lambda: bool(committed(modes, STAGES[4])), signal.SIGKILL),
            },
        ),
        "chains": runner.pool.submit(
            stopped_run,
            runner,
            chains_config,
            chains,
            {"kill under the prior": (lambda: bool(committed(chains, STAGES[4])), signal.SIGKILL)},
        ),
    }


@pytest.fixture
def interrupted(soon) -> Stops:
    return soon["modes"].result(WAIT_SECONDS)


def test_ctrl_c_says_how_to_go_on(interrupted):
    directory, said = interrupted
    code, _, stderr = said["Ctrl-C"]
    assert code == 130
    assert "stopping after this step" in stderr and "Traceback" not in stderr
    assert "everything up to there is saved. Go on with: honest train " in stderr and str(directory) in stderr


def test_kills_were_kills_and_the_last_process_came_to_the_end(interrupted):
    directory, said = interrupted
    assert said["kill in a baseline"][0] == said["kill under the prior"][0] == -signal.SIGKILL
    code, stdout, stderr = said["end"]
    assert code == 0, stderr
    assert stdout.startswith(f"resuming {directory}")
    assert len(list(directory.glob("environment.resumed-*.json"))) == 3


def test_resumed_run_is_bit_identical(interrupted, tiny_run):
    assert_identical(interrupted[0], tiny_run.directory)


def test_resumed_run_prints_the_same_report(interrupted, tiny_run):
    def report(stdout: str) -> str:
        return stdout[stdout.index("truth trusted") : stdout.index("Results: ")]

    assert report(interrupted.said["end"][1]) == report(tiny_run.stdout)


def test_chains_that_are_killed_resume_bit_identically(soon, chains_soon):
    """Persistent chains, with their step sizes and keys, from another process's checkpoint."""
    whole = chains_soon.result(WAIT_SECONDS)
    assert whole.returncode == 0, whole.stderr
    stops = soon["chains"].result(WAIT_SECONDS)
    assert stops.said["kill under the prior"][0] == -signal.SIGKILL
    assert_identical(stops.directory, whole.directory)
