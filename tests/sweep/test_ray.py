"""The engine ray on a Ray that is started here, with a stub in the place of training."""

import importlib.util
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from honest.errors import UserError
from honest.jobs.pool import Job, Pool, failures
from honest.sweep.engines import ray as engine_module
from honest.sweep.engines.ray import RayOptions, ray_engine
from tests.sweep.stub import run_members

OPTIONS = {"address": "local", "slots": 3, "cpus_per_job": 1.0, "gpus_per_job": 0.0, "local_cpus": 2}
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray (the extra ray) is not installed")


def waited(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def job_of(folder: Path, name: str, *members: str) -> Job:
    members = members or (name,)
    done = [folder / f"{member}.done" for member in members]
    return Job(name, members, folder, folder / "log" / f"{name}.txt", None, partial(all_exist, done))


def all_exist(paths):
    return all(path.exists() for path in paths)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """One Ray for all tests: to start it takes seconds."""
    with ray_engine(RayOptions(**OPTIONS), run_members, tmp_path_factory.mktemp("compiled")) as engine:
        yield engine


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "log").mkdir()
    return tmp_path


def ended(handle) -> int:
    waited(lambda: handle.poll() is not None)
    return handle.poll()


def tries(folder: Path, member: str) -> list[str]:
    path = folder / f"{member}.tries"
    return path.read_text().splitlines() if path.exists() else []


@needs_ray
def test_members_are_trained_each_job_in_a_process_of_its_own(engine, folder):
    jobs = [job_of(folder, "a"), job_of(folder, "pair", "b", "c")]
    outcome = Pool(jobs, engine, 0, lambda _: None, lambda: None).run()
    assert (sorted(outcome.done), outcome.failed, outcome.stopped) == (["a", "pair"], {}, False)
    processes = {name: tries(folder, name)[0].split()[0] for name in "abc"}
    assert processes["a"] != processes["b"] == processes["c"]
    waited(lambda: not any(Path("/proc", process).exists() for process in processes.values()))  # and its memory free
    assert "compiled" in tries(folder, "a")[0]
    lines = [line for line in jobs[1].log.read_text().splitlines() if line[0] in "bc"]
    assert lines == ["b begins", "b from a child", "c begins", "c from a child"]


@needs_ray
def test_failures_have_their_exit_code_and_last_lines(engine, folder):
    jobs = [job_of(folder, name) for name in ("once-a", "die-b")]
    told = []
    outcome = Pool(jobs, engine, 1, told.append, lambda: None).run()
    assert outcome.done == ["once-a"]
    assert list(outcome.failed) == ["die-b"]
    assert [len(tries(folder, job.name)) for job in jobs] == [2, 2]
    assert "once-a: failed with exit code 3, and is tried again" in told
    assert "once-a went wrong" in jobs[0].log.read_text()
    assert "Ray: " in failures(jobs, outcome.failed)


@needs_ray
def test_a_job_that_runs_saves_and_one_that_waits_is_dropped(engine, folder):
    """Two CPUs, a job each: the third one waits. Ctrl-C; then the same again."""
    jobs = [job_of(folder, name) for name in ("slow-a", "slow-b", "slow-c")]

    def stop():
        waited(lambda: tries(folder, "slow-a") and tries(folder, "slow-b"))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=stop)
    thread.start()
    outcome = Pool(jobs, engine, 1, lambda _: None, lambda: None).run()
    thread.join()
    assert (outcome.done, outcome.failed, outcome.stopped) == ([], {}, True)
    assert [len(tries(folder, job.name)) for job in jobs] == [1, 1, 0]
    for name in ("slow-a", "slow-b"):
        assert f"{name} saved" in (folder / "log" / f"{name}.txt").read_text()
    again = Pool(jobs[:2], engine, 0, lambda _: None, lambda: None).run()
    assert sorted(again.done) == ["slow-a", "slow-b"]


@needs_ray
def test_a_second_stop_kills(engine, folder):
    job = job_of(folder, "slow-a")
    handle = engine.start(job, 0)
    waited(lambda: tries(folder, "slow-a"))
    handle.kill()
    assert ended(handle) != 0
    assert "saved" not in job.log.read_text()


@needs_ray
def test_no_ray_at_the_address(tmp_path):
    options = RayOptions(**{**OPTIONS, "address": "no such address"})
    with (
        pytest.raises(UserError, match=r"engine\.ray\.address is no such address"),
        ray_engine(options, run_members, tmp_path),
    ):
        pass


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(engine_module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'honest\[ray\]'"):
        engine_module.check_ray()
