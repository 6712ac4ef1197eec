"""The pool and the engine of this machine: shares by hand, tries, stops, and jobs that wait for another one."""

import errno
import os
import signal
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from honest.jobs import local
from honest.jobs.local import LocalEngine, accelerators, cores, shares, visible_accelerators
from honest.jobs.pool import Job, Pool, failures

# Notes each try and its cores; fails or waits as its first argument says; then it is done.
STUB = """
    import os, pathlib, signal, sys, time
    kind, name, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    tries = folder / f"{name}.tries"
    first = not tries.exists()
    ignore = kind == "deaf"
    if ignore:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with tries.open("a") as file:
        file.write(",".join(map(str, sorted(os.sched_getaffinity(0)))) + "\\n")
    print("cache", os.environ["JAX_COMPILATION_CACHE_DIR"], flush=True)
    if kind == "fail" or (kind == "once" and first):
        print("it went wrong")
        sys.exit(3)
    if kind in ("slow", "deaf"):
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            print("saved")
            sys.exit(130)
    (folder / f"{name}.done").touch()
"""


@pytest.fixture
def make(tmp_path):
    """Returns make(name, kind, after) -> Job, and has the engine's command in make.command."""
    stub = tmp_path / "stub.py"
    stub.write_text(textwrap.dedent(STUB))
    kinds = {}

    def job(name: str, kind: str = "ok", after: str | None = None) -> Job:
        kinds[name] = kind
        return Job(name, (name,), tmp_path, tmp_path / f"{name}.log", after, (tmp_path / f"{name}.done").exists)

    job.command = lambda job: [sys.executable, "-S", str(stub), kinds[job.name], job.name, str(tmp_path)]
    return job


def run(jobs, make, slots=1, retries=0, told=None):
    engine = LocalEngine(slots, make.command, jobs[0].folder / "compiled")
    return Pool(jobs, engine, retries, (told if told is not None else []).append, lambda: None).run()


def tries(job: Job) -> list[str]:
    path = job.folder / f"{job.name}.tries"
    return path.read_text().splitlines() if path.exists() else []


def interrupt_once_running(jobs, times=1):
    """Ctrl-C as soon as all of them have begun; the second one half a second after the first."""

    def stop():
        while not all(map(tries, jobs)):
            time.sleep(0.02)
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)

    thread = threading.Thread(target=stop)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("usable", "slots", "expected"),
    [
        ({0, 1}, 1, [[]]),  # one slot has the machine
        ({0, 1}, 2, [[0], [1]]),
        ({2, 3, 5, 7}, 2, [[2, 5], [3, 7]]),
        ({0, 1, 2, 3, 4}, 2, [[0, 2, 4], [1, 3]]),
        ({0, 1}, 3, [[], [], []]),  # too few to pin
    ],
)
def test_cores_are_shared_out(monkeypatch, usable, slots, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: usable)
    monkeypatch.setattr(local, "siblings", lambda cpu, _: frozenset([cpu]))
    assert [cores(slot, slots) for slot in range(slots)] == expected


PAIRS = [(0, 1), (2, 3), (4, 5), (6, 7)]
APART = [(0, 4), (1, 5), (2, 6), (3, 7)]


@pytest.mark.parametrize(
    ("cpus", "on_one_core", "jobs", "expected"),
    [
        (range(8), PAIRS, 2, [[0, 1, 4, 5], [2, 3, 6, 7]]),
        (range(8), APART, 2, [[0, 2, 4, 6], [1, 3, 5, 7]]),
        (range(8), APART, 3, [[0, 3, 4, 7], [1, 5], [2, 6]]),
        (range(8), PAIRS, 4, [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ([1, 2, 3, 6], PAIRS, 3, [[1], [2, 3], [6]]),  # the others are not ours
        (range(4), PAIRS, 3, [[0, 3], [1], [2]]),  # two cores for three jobs
        (range(4), PAIRS, 5, [[], [], [], [], []]),
    ],
)
def test_a_job_has_whole_cores(cpus, on_one_core, jobs, expected):
    same_core = {cpu: frozenset(core) for core in on_one_core for cpu in core}
    assert shares(cpus, same_core, jobs) == expected


def test_siblings_are_those_that_the_system_lists(tmp_path):
    for cpu, text in ((0, "0,4\n"), (1, "1-3\n"), (2, "0-1,8-9\n")):
        (tmp_path / f"cpu{cpu}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list").write_text(text)
    expected = [{0, 4}, {1, 2, 3}, {0, 1, 8, 9}, {3}]  # of the last one nothing is said
    assert [local.siblings(cpu, tmp_path) for cpu in range(4)] == expected


@pytest.mark.parametrize(
    ("devices", "slots", "visible", "memory"),
    [
        ([], 2, [None, None], None),
        (["0", "1"], 1, [None], None),
        (["0", "1"], 2, ["0", "1"], None),
        (["0", "1", "2", "3"], 2, ["0,2", "1,3"], None),
        (["4"], 2, ["4", "4"], "0.450"),  # .9 / 2
        (["0", "1"], 3, ["0", "1", "0"], "0.450"),  # two at most on one: .9 / 2
        (["0", "1"], 5, ["0", "1", "0", "1", "0"], "0.300"),  # three at most: .9 / 3
    ],
)
def test_accelerators_are_shared_out(devices, slots, visible, memory):
    shared = {} if memory is None else {"XLA_PYTHON_CLIENT_MEM_FRACTION": memory}
    expected = [{} if names is None else {"CUDA_VISIBLE_DEVICES": names, **shared} for names in visible]
    assert [accelerators(slot, slots, devices) for slot in range(slots)] == expected


def test_accelerators_that_may_be_used(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert visible_accelerators() == ["3", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_accelerators() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,-1,0")
    assert visible_accelerators() == ["2"]  # CUDA stops at the first that is none
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    found = [Path(f"/dev/nvidia{name}") for name in ("10", "2", "0")]
    monkeypatch.setattr(local.Path, "glob", lambda *_: iter(found))
    assert visible_accelerators() == ["0", "2", "10"]


def test_a_job_that_fails_once_is_tried_again(make):
    job, told = make("a", "once"), []
    assert run([job], make, retries=1, told=told) == (["a"], {}, False)
    assert len(tries(job)) == 2
    assert told[:3] == ["a: started", "a: failed with exit code 3, and is tried again", "a: started, try 2 of 2"]
    assert job.log.read_text().count("it went wrong") == 1  # the log keeps the first try's output


def test_a_job_that_always_fails_is_tried_as_often_as_asked(make):
    jobs = [make("a", "fail"), make("b")]
    assert run(jobs, make, retries=2) == (["b"], {"a": 3}, False)
    assert (len(tries(jobs[0])), len(tries(jobs[1]))) == (3, 1)
    assert "it went wrong" in failures(jobs, {"a": 3})


OUT_OF_MEMORY = "Traceback (most recent call last):\n  File\nXlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory\n"


@pytest.mark.parametrize(
    ("code", "log", "hint"),
    [
        (1, OUT_OF_MEMORY, True),
        (-9, "step 3\n", True),
        (1, f"{OUT_OF_MEMORY}Traceback (most recent call last):\nKeyError: 'a'\n", False),  # the earlier try's
        (2, f"{OUT_OF_MEMORY}honest: a mistake\n", False),
        (-11, "step 3\n", False),
    ],
)
def test_members_that_failed_together_are_told_together(tmp_path, code, log, hint):
    group = Job("a and 2 more", ("a", "b", "c"), tmp_path, tmp_path / "a.log", None, lambda: False)
    alone = Job("d", ("d",), tmp_path, tmp_path / "d.log", None, lambda: False)
    for job in (group, alone):
        job.log.write_text(log)
    first, second = (failures([group, alone], {name: code}) for name in ("a and 2 more", "d"))
    assert first.startswith(f"3 members failed together, in one program ({group.log}):\n")
    assert first.count(log.splitlines()[-1]) == 1 and "they are a; b; c" in first
    assert ("--together 1" in first) == hint
    assert second.startswith(f"d failed ({alone.log}):") and "together" not in second


def test_a_job_that_says_it_ended_well_and_is_not_done_has_failed(make, tmp_path):
    job = make("a")
    never = Job("a", ("a",), tmp_path, job.log, None, lambda: False)
    assert run([never], make) == ([], {"a": 0}, False)


def test_a_finished_job_is_not_started(make, tmp_path):
    (tmp_path / "a.done").touch()
    jobs = [make("a"), make("b", after="a")]
    assert run(jobs, make) == (["a", "b"], {}, False)
    assert (tries(jobs[0]), len(tries(jobs[1]))) == ([], 1)


def test_a_job_waits_for_the_one_before_it(make):
    jobs = [make("second", after="first"), make("first", "once")]
    told = []
    assert run(jobs, make, slots=2, retries=1, told=told) == (["first", "second"], {}, False)
    assert told.index("second: started") > next(i for i, line in enumerate(told) if line.startswith("first: done"))


def test_a_failed_job_fails_those_after_it(make):
    jobs = [make("first", "fail"), make("second", after="first"), make("third", after="second"), make("other")]
    assert run(jobs, make) == (["other"], {"first": 3, "second": 3, "third": 3}, False)
    assert tries(jobs[1]) == tries(jobs[2]) == []
    assert "not run: first" in jobs[1].log.read_text()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two slots need two cores")
def test_a_process_has_the_cores_of_its_slot_and_the_cache(make, tmp_path):
    jobs = [make("a", "slow"), make("b", "slow")]
    thread = interrupt_once_running(jobs)
    assert run(jobs, make, slots=2).stopped
    thread.join()
    own = [{int(cpu) for line in tries(job) for cpu in line.split(",")} for job in jobs]
    assert own[0] | own[1] == os.sched_getaffinity(0) and not own[0] & own[1]
    assert f"cache {tmp_path / 'compiled'}" in jobs[0].log.read_text()


def test_a_stop_saves_and_starts_nothing_more(make):
    jobs = [make("a", "slow"), make("b")]
    thread = interrupt_once_running(jobs[:1])
    handler = signal.getsignal(signal.SIGINT)
    assert run(jobs, make, retries=3) == ([], {}, True)
    thread.join()
    assert "saved" in jobs[0].log.read_text()
    assert (len(tries(jobs[0])), tries(jobs[1])) == (1, [])
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_error_of_the_pool_itself_stops_its_jobs(make):
    """The first one's end is told to a full disk."""
    jobs = [make("a"), make("b", "slow"), make("c")]
    handler = signal.getsignal(signal.SIGINT)

    def ended():
        while not tries(jobs[1]):
            time.sleep(0.02)
        time.sleep(0.2)
        raise OSError(errno.ENOSPC, "No space left on device")

    engine = LocalEngine(2, make.command, jobs[0].folder / "compiled")
    with pytest.raises(OSError, match="No space left"):
        Pool(jobs, engine, 0, lambda _: None, ended).run()
    assert jobs[1].log.read_text().endswith("saved\n") and not tries(jobs[2])  # it has ended, and none was begun
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_second_stop_kills(make):
    job = make("a", "deaf")  # the first one does not reach it
    thread = interrupt_once_running([job], times=2)
    began = time.monotonic()
    assert run([job], make) == ([], {}, True)
    thread.join()
    assert time.monotonic() - began < 50  # of the 60 s that it would take
    assert not job.finished()
