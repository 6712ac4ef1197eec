"""The engine slurm on stub commands (tests/sweep/fake_slurm.py), with a stub in the place of training."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from honest.config_io import load_config
from honest.errors import UserError
from honest.jobs.pool import Job, Pool, failures
from honest.sweep.engines import slurm
from honest.sweep.engines.slurm import SlurmEngine, SlurmOptions, check_hosts, check_slurm
from honest.sweep.engines.slurm_queue import Queue, Record, Records, Waits
from tests.conftest import write_tiny
from tests.sweep.stub import run_members

ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).parent / "fake_slurm.py"
AT_ONCE = Waits(files=0.0, states=0, hurried=0.0, late=0.5)
OPTIONS = {
    "slots": 2,
    "partition": "long",
    "account": None,
    "timeout_minutes": 60,
    "requeues": 2,
    "save_seconds": 120,
    "nodes": 1,
    "tasks_per_node": 1,
    "cpus_per_task": 4,
    "gpus_per_node": 1,
    "memory_gb": 7.5,
    "setup": ["export FROM_SETUP=1"],
    "sbatch": {"qos": "low"},
}


def waited(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


class Cluster:
    """The fake cluster and the sweep's folder."""

    def __init__(self, home: Path, folder: Path):
        self.home, self.folder = home, folder

    def calls(self, command: str) -> list[str]:
        lines = (self.home / "calls").read_text().splitlines() if (self.home / "calls").exists() else []
        return [line.removeprefix(f"{command} ") for line in lines if line.split()[0] == command]

    def state(self, job: str) -> str:
        return (self.home / job / "state").read_text()

    def release(self, job: str) -> None:
        subprocess.run([self.home / "bin" / "sbatch", "node", job], check=True)

    def job(self, name: str, *members: str) -> Job:
        members = members or (name,)
        done = [self.folder / f"{member}.done" for member in members]
        finished = partial(all_exist, done)
        return Job(name, members, self.folder, self.folder / "log" / f"{name}.txt", None, finished)

    def engine(self, **changed) -> SlurmEngine:
        options = SlurmOptions(**{**OPTIONS, **changed})
        return SlurmEngine(options, self.folder, run_members, self.folder / "compiled", AT_ONCE)

    def tries(self, member: str) -> int:
        path = self.folder / f"{member}.tries"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def signal(self, job: str, number: int) -> None:
        """As SLURM does before a time limit or a preemption, once the member runs."""
        for pid in (self.home / job / "pids").read_text().split():
            os.kill(int(pid), number)


def all_exist(paths):
    return all(path.exists() for path in paths)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="submitit (the extra slurm) is not installed")
    home, folder = tmp_path / "cluster", tmp_path / "my sweep"
    (home / "bin").mkdir(parents=True)
    folder.mkdir()
    (folder / "log").mkdir()
    for name in slurm.COMMANDS:
        path = home / "bin" / name
        path.write_text(f"#!{sys.executable} -S\n" + FAKE.read_text())
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("FAKE_SLURM", str(home))
    monkeypatch.setenv("PATH", f"{home / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield Cluster(home, folder)
    for pids in home.glob("*/pids"):
        for pid in pids.read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def ended(handle) -> int:
    waited(lambda: handle.poll() is not None)
    return handle.poll()


def pooled(cluster, jobs, retries=0, **changed):
    lines = []
    pool = Pool(jobs, cluster.engine(**changed), retries, lines.append, lambda: None)
    return pool.run(), lines


def test_what_the_cluster_is_asked_for(cluster):
    handle = cluster.engine().start(cluster.job("a"), 0)
    assert ended(handle) == 0
    script = next((cluster.folder / "slurm" / "submitit").glob("*_submission.sh")).read_text()
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script, re.M))
    stated = {
        "job-name": "'my sweep-a'",
        "partition": "long",
        "time": "60",
        "nodes": "1",
        "ntasks-per-node": "1",
        "cpus-per-task": "4",
        "gpus-per-node": "1",
        "mem": "7680M",  # 7.5 times 1024
        "signal": "USR2@120",
        "requeue": "",
        "qos": "low",
        "open-mode": "append",
    }
    assert {key: asked[key] for key in stated} == stated
    assert "account" not in asked
    assert script.index("export FROM_SETUP=1") < script.index("srun --unbuffered")
    tries = (cluster.folder / "a.tries").read_text()
    assert str(cluster.folder / "compiled") in tries  # the compilation cache, before anything is imported


def test_members_are_trained_and_their_output_is_in_the_log(cluster):
    jobs = [cluster.job("a"), cluster.job("pair", "b", "c")]
    outcome, _ = pooled(cluster, jobs)
    assert (sorted(outcome.done), outcome.failed, outcome.stopped) == (["a", "pair"], {}, False)
    assert [cluster.tries(member) for member in "abc"] == [1, 1, 1]
    assert jobs[1].log.read_text().splitlines() == ["b begins", "b from a child", "c begins", "c from a child"]
    assert list((cluster.folder / "slurm" / "jobs").iterdir()) == []


def test_failures_have_their_exit_code_and_last_lines(cluster):
    jobs = [cluster.job("once-a"), cluster.job("die-b")]
    outcome, lines = pooled(cluster, jobs, retries=1)
    assert outcome.done == ["once-a"]
    assert list(outcome.failed) == ["die-b"]
    assert [cluster.tries(job.name) for job in jobs] == [2, 2]
    assert "once-a: failed with exit code 3, and is tried again" in lines
    assert "once-a went wrong" in jobs[0].log.read_text()
    assert re.search(r"SLURM job \d+ ended without a result: FAILED", failures(jobs, outcome.failed))


def test_a_job_that_sbatch_refuses_has_failed(cluster):
    (cluster.home / "refuse").touch()
    job = cluster.job("a")
    outcome, _ = pooled(cluster, [job])
    assert list(outcome.failed) == ["a"]
    assert "Invalid account or account/partition" in job.log.read_text()


def test_a_failing_setup_line_is_shown(cluster):
    job = cluster.job("a")
    outcome, _ = pooled(cluster, [job], setup=["echo no such module; exit 4"])
    assert list(outcome.failed) == ["a"]
    assert "no such module" in job.log.read_text()


def test_a_job_that_runs_saves_when_it_is_stopped(cluster):
    handle = cluster.engine().start(cluster.job("slow-a"), 0)
    waited(lambda: cluster.tries("slow-a") == 1)
    assert handle.poll() is None
    handle.interrupt()
    cluster.signal("100", signal.SIGUSR2)  # its time is over as well, while it saves
    assert ended(handle) == 130
    log = (cluster.folder / "log" / "slow-a.txt").read_text().splitlines()
    assert log == ["slow-a begins", "slow-a from a child", "slow-a saved"]
    assert cluster.calls("scontrol") == []
    assert ended(cluster.engine().start(cluster.job("slow-a"), 0)) == 0  # the same command goes on
    assert cluster.tries("slow-a") == 2


def test_a_job_that_waits_is_cancelled_when_it_is_stopped(cluster):
    (cluster.home / "hold").touch()
    handle = cluster.engine().start(cluster.job("a"), 0)
    assert handle.poll() is None
    handle.interrupt()
    assert ended(handle) == 130
    assert cluster.state("100") == "CANCELLED by 0"
    assert cluster.tries("a") == 0


def test_a_job_stopped_on_its_way_from_the_queue_does_not_begin(cluster):
    """No signal reaches it then: what tells it is the file."""
    (cluster.home / "hold").touch()
    handle = cluster.engine().start(cluster.job("a"), 0)
    handle.queue.cancel = lambda *_: None
    handle.interrupt()
    cluster.release("100")
    assert ended(handle) == 130
    assert cluster.tries("a") == 0


def test_a_second_stop_cancels(cluster):
    handle = cluster.engine().start(cluster.job("slow-a"), 0)
    waited(lambda: cluster.tries("slow-a") == 1)
    handle.kill()
    assert ended(handle) == 130
    assert cluster.state("100") == "CANCELLED by 0"


def test_a_time_limit_saves_and_goes_on_in_the_queue(cluster):
    handle = cluster.engine().start(cluster.job("slow-a"), 0)
    waited(lambda: cluster.tries("slow-a") == 1)
    cluster.signal("100", signal.SIGUSR2)
    time.sleep(0.2)
    cluster.signal("100", signal.SIGUSR2)  # does not cut the save short
    assert ended(handle) == 0
    assert cluster.calls("scontrol") == ["requeue 100"]
    assert cluster.tries("slow-a") == 2
    assert len(cluster.calls("sbatch")) == 1
    log = (cluster.folder / "log" / "slow-a.txt").read_text().splitlines()
    assert log.count("slow-a saved") == 1


def test_time_limits_are_counted(cluster):
    """60 minutes are over for submitit once min(48, 50) have run; with one minute each try counts at once."""
    handle = cluster.engine(requeues=0, timeout_minutes=1).start(cluster.job("slow-a"), 0)
    waited(lambda: cluster.tries("slow-a") == 1)
    cluster.signal("100", signal.SIGUSR2)
    assert ended(handle) == 1
    assert cluster.calls("scontrol") == []
    assert "timed-out too many times" in (cluster.folder / "log" / "slow-a.txt").read_text()


def test_a_preempted_job_that_slurm_requeues_is_waited_for(cluster):
    """SIGTERM: SLURM itself puts it in the queue again, and meanwhile calls it PREEMPTED or FAILED."""
    handle = cluster.engine().start(cluster.job("slow-a"), 0)
    waited(lambda: cluster.tries("slow-a") == 1)
    (cluster.home / "100" / "requeue").touch()
    (cluster.home / "100" / "shown").write_text("NODE_FAIL")
    cluster.signal("100", signal.SIGTERM)
    end = time.monotonic() + 1.2  # longer than `late`
    while time.monotonic() < end:
        assert handle.poll() in (None, 0)
    (cluster.home / "100" / "shown").unlink()
    assert ended(handle) == 0
    assert cluster.tries("slow-a") == 2
    assert (len(cluster.calls("sbatch")), cluster.calls("scontrol")) == (1, [])


def test_a_preempted_job_that_slurm_cancels_has_failed(cluster):
    handle = cluster.engine().start(cluster.job("slow-a"), 0)
    waited(lambda: cluster.tries("slow-a") == 1)
    (cluster.home / "100" / "final").write_text("PREEMPTED")
    cluster.signal("100", signal.SIGTERM)
    assert ended(handle) == 1
    assert "ended without a result: PREEMPTED" in (cluster.folder / "log" / "slow-a.txt").read_text()


def test_another_call_picks_up_the_jobs_that_still_run(cluster):
    cluster.engine().start(cluster.job("slow-a"), 0)  # whose sweep was killed
    waited(lambda: cluster.tries("slow-a") == 1)
    engine = cluster.engine()
    engine.check([cluster.job("slow-a"), cluster.job("b")])
    handle = engine.start(cluster.job("slow-a"), 0)
    assert handle.poll() is None
    cluster.signal("100", signal.SIGUSR2)
    assert ended(handle) == 0
    assert len(cluster.calls("sbatch")) == 1


def test_another_call_submits_again_what_has_ended(cluster):
    first = cluster.engine().start(cluster.job("die-a"), 0)
    waited(lambda: (cluster.home / "100").exists() and cluster.state("100") == "FAILED")
    assert first.records.read("die-a") == Record("100", 1, ("die-a",))
    cluster.engine().start(cluster.job("die-a"), 0)
    assert len(cluster.calls("sbatch")) == 2


def test_members_of_a_job_that_runs_are_not_trained_in_another_one(cluster):
    cluster.engine().start(cluster.job("group", "slow-a", "slow-b"), 0)
    waited(lambda: cluster.tries("slow-a") == 1)
    grown = cluster.job("group", "slow-a", "slow-b", "c")
    with pytest.raises(UserError, match=r"SLURM job 100 .* trains slow-a, slow-b, which group .* scancel 100"):
        cluster.engine().check([grown])
    cluster.engine().check([cluster.job("c")])


def test_several_tasks_end_together(cluster):
    handle = cluster.engine(nodes=2, tasks_per_node=2).start(cluster.job("a"), 0)
    assert ended(handle) == 0
    assert cluster.tries("a") == 4
    assert (cluster.folder / "log" / "a.txt").read_text().count("a begins") == 1  # the first task's
    record = {"job_id": "100", "tasks": 4, "members": ["a"]}
    records = Records(cluster.folder / "again")
    records.write("x/y z", Record("100", 4, ("a",)))
    assert json.loads(next(records.folder.iterdir()).read_text()) == record
    assert list(records.all()) == [("x/y z", Record("100", 4, ("a",)))]


def test_squeue_that_cannot_say_keeps_a_job(cluster):
    queue = Queue(AT_ONCE)
    (cluster.home / "7").mkdir()
    assert not queue.holds("8")  # Invalid job id
    assert not queue.holds("7")  # known, and not in the queue
    (cluster.home / "squeue_fails").touch()
    assert queue.holds("8")


def test_sacct_is_asked_for_all_jobs_at_once_and_seldom(cluster):
    (cluster.home / "hold").touch()
    engine = SlurmEngine(
        SlurmOptions(**OPTIONS), cluster.folder, run_members, cluster.folder / "compiled", AT_ONCE._replace(states=60)
    )
    handles = [engine.start(cluster.job(name), 0) for name in ("a", "b", "c")]
    for _ in range(50):
        assert [handle.poll() for handle in handles] == [None] * 3
    assert len(cluster.calls("sacct")) <= 4  # one as each job becomes known, and one after two seconds
    assert cluster.calls("sacct")[-1].count("-j") == 3


def test_several_tasks_need_several_hosts(tmp_path):
    config = load_config(write_tiny(tmp_path / "tiny.yaml")).config
    detect = config.model_copy(update={"parallel": config.parallel.model_copy(update={"hosts": "detect"})})
    two = SlurmOptions(**{**OPTIONS, "tasks_per_node": 2})
    check_hosts(two, {"a": detect})
    check_hosts(SlurmOptions(**OPTIONS), {"a": config, "b": detect})
    with pytest.raises(UserError, match=r"2 tasks a job \(nodes 1 x tasks_per_node 2\), but b has parallel.hosts: one"):
        check_hosts(two, {"a": detect, "b": config})


def test_what_is_missing_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(slurm.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(UserError, match="sbatch, srun, squeue, sacct, scancel, scontrol not on PATH"):
        check_slurm()
    monkeypatch.setattr(slurm.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'honest\[slurm\]'"):
        check_slurm()
