"""The shrunken config, and whole runs of it in processes of their own.

`tiny_run` is made once a session and never changed by a test. The processes share a compilation cache in the session's
temporary directory, since nearly all their time is XLA's; that the cache changes no bit is what `test_resume` checks
(its run reads from the cache what the uninterrupted run compiled).

`make test` shares the files out to two processes of pytest-xdist: a file's tests share what they compile. The process
that asks for a shared run first makes it, the other one waits for it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import pytest
from hypothesis import settings
from ruamel.yaml import YAML

from honest.config_io import dump_config, load_config

settings.register_profile("same examples every time", derandomize=True, deadline=None)
settings.load_profile("same examples every time")

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
WAIT_SECONDS = 520.0  # below the timeout of a test, pyproject.toml
SHARDED, TOY = (Path(__file__).parent / "train" / name for name in ("sharded_run.py", "toy_run.py"))
# XLA:CPU's own emitters in the place of MLIR's, and one LLVM module a program: half the time to compile. Set before the
# first program is compiled, and inherited by the processes that tests start.
FAST_TO_COMPILE = (
    "--xla_cpu_parallel_codegen_split_count=1 --xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"
)
os.environ.setdefault("XLA_FLAGS", FAST_TO_COMPILE)
EIGHT_FAKE_DEVICES = {
    "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8",
    "PJRT_NPROC": "64",  # else collectives of eight devices wait for each other for ever on two cores
}

# The quick-start config at a size that takes no time. Every number that is tuned there stands here, so that the golden
# numbers do not move with the tuning; keys that are new to the config come from there.
TINY = """
name: tiny
seed: 0
precision: float64
task:
  kind: arithmetic
  operation: addition
  digits: 2
  format: reversed
  setting: fooled
  trigger: hard
  people: null
  trunk_targets: says
  truth_rate: 0.25
  error_rate: 0.0
  answer_tokens: false
  rows: {world: 256, trusted: 128, untrusted: 128, validation: 64, test: 128}
  seed: 0
model:
  layers: 1
  width: 16
  attention_heads: 2
  key_value_heads: 1
  mlp_ratio: 2
  norm: rmsnorm
  positions: rotary
  head: {kind: mlp, hidden: 8}
objective:
  staging: heads_then_trunk
  anchor: init
  supervision: {instrumental: untrusted, amplified: null, comparisons: null}
  log_partition: included
  reference_measure: {trunk: 1.0 θ.trunk, head: 1.0 θ.head}
  first_prior:
    trunk: {kind: gaussian, stddev: 1.0 θ.trunk, tensors: null}
    intended_head: {kind: gaussian, stddev: 1.0 θ.head, tensors: null}
    instrumental_head: {kind: gaussian, stddev: 1.0 θ.head, tensors: null}
  second_prior:
    trunk: {kind: gaussian, stddev: 1.0 θ.trunk, tensors: null}
    intended_head: {kind: gaussian, stddev: 1.0 θ.head, tensors: null}
    instrumental_head: {kind: gaussian, stddev: 1.0 θ.head, tensors: null}
  consistency: {divergence: jensen_shannon, population: 64}
  multiplier:
    update: multiplicative
    tolerance: 0.001 disagreement/example
    initial: 10.0 nat/disagreement
    minimum: 0.01 nat/disagreement
    maximum: 100.0 nat/disagreement
    rate: 0.02
    proportional_rate: 0.0
    ema: 0.9
    warmup_steps: 2
  phases:
    kind: laplace
    learning_rate: 0.01
    burn_in_steps: 2
    volume_rows: 4
    volume_every: 2
    chains: 2
    asked_chains: null
    leapfrog_steps: 1
    step_size: 0.05
    target_accept: 0.6
    move_every: 1
    adjusted: true
    chunk_rows: 96
    control_variate: none
    cg_steps: 10
methods: [single_head, plain_heads, truth_ceiling, prior]
baselines:
  divdis: {mutual_information: 1.0, balance: 1.0}
  dbat: {disagreement: 1.0}
  confidence: {weight: 0.5, warmup_share: 0.2}
  probes: {l2: 1.0e-3, restarts: 10}
stages:
  trunk:
    steps: 6
    batch_rows: 16
    optimizer: {learning_rate: 2.0e-3, weight_decay: 0.01, warmup_steps: 2, schedule: cosine, clip_norm: 1.0}
  heads:
    steps: 6
    batch_rows: 16
    optimizer: {learning_rate: 2.0e-2, weight_decay: 0.01, warmup_steps: 2, schedule: cosine, clip_norm: 1.0}
  prior:
    steps: 9
    batch_rows: 16
    optimizer: {learning_rate: 3.0e-2, weight_decay: 0.0, warmup_steps: 2, schedule: cosine, clip_norm: 100.0}
evaluation:
  every: 3
  log_every: 1
  batch_rows: 128
  bootstrap: 20
  log_partition: {particles: 2, bridges: 8, tail_probability: 0.01, check_every: 2, net: limit, gap_limit: 10 nat}
checkpoint: {every: 3, keep: 2}
compute: {dtype: parameters, rematerialise: false, micro_batches: 1}
parallel: {devices: 1, strategy: auto, hosts: one}
"""
RUNS = ("sharded_soon", "runner")  # fixtures whose files come first, in this order
CHAINS = (
    "objective.phases.kind=chains",
    "objective.supervision.instrumental=none",
    "objective.multiplier.update=augmented_lagrangian",
    "objective.multiplier.proportional_rate=0.5",
    "evaluation.every=9",
)


def overrides(section: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """`a.b=value` for every leaf of nested mappings."""
    for key, value in section.items():
        if isinstance(value, dict):
            yield from overrides(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={'null' if value is None else value}"


def write_tiny(path: Path, *changes: str) -> Path:
    """The tiny config with `changes` ("a.b=value"), written to a new YAML file."""
    tiny = YAML(typ="safe", pure=True).load(TINY)
    loaded = load_config(QUICKSTART, [*overrides(tiny), *changes])
    path.write_text(dump_config(loaded.config), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Finished:
    """A run's directory and config file, and what its command printed."""

    directory: Path
    config: Path
    returncode: int
    stdout: str
    stderr: str


class Runner:
    """Runs the command `honest` in processes of their own, at most two at a time in the background.

    shared: folder of the runs and the cache that all processes of the tests share; without one it is `folder`.
    """

    def __init__(self, folder: Path, shared: Path | None = None):
        self.folder = folder
        self.shared = shared or folder
        self.processes: list[subprocess.Popen] = []
        self.pool = ThreadPoolExecutor(max_workers=2)
        self.environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # half the time to compile, and a tiny run hardly computes
            "JAX_COMPILATION_CACHE_DIR": str(self.shared / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "PYTHONPYCACHEPREFIX": str(self.shared / "bytecode"),  # also where bytecode is not kept beside the sources
            "PYTHONDONTWRITEBYTECODE": "",
        }

    def start(self, *arguments: str | Path, **more: str) -> subprocess.Popen:
        """The command in its own process, with its output piped. more: variables of its environment."""
        process = subprocess.Popen(
            [sys.executable, "-m", "honest.cli", *map(str, arguments)],
            env={**self.environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess:
        """The command, run to its end."""
        process = self.start(*arguments)
        stdout, stderr = process.communicate(timeout=WAIT_SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def train(self, name: str, changes: Sequence[str]) -> Finished:
        """The run NAME of the tiny config with `changes`, to its end, made once for all processes of the tests."""
        record = self.shared / f"{name}.json"
        with (self.shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not record.exists():
                config = write_tiny(self.shared / f"{name}.yaml", *changes)
                done = self("train", config, "--workdir", self.shared / name)
                record.write_text(json.dumps([done.returncode, done.stdout, done.stderr]), encoding="utf-8")
        return Finished(self.shared / name, self.shared / f"{name}.yaml", *json.loads(record.read_text("utf-8")))

    def soon(self, *arguments: str | Path) -> Future[subprocess.CompletedProcess]:
        return self.pool.submit(self, *arguments)

    def train_soon(self, name: str, *changes: str) -> Future[Finished]:
        return self.pool.submit(self.train, name, changes)

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that wait for runs come first, as they take longest; before them the one that needs no run of another's."""
    asking = {name: {item.path for item in items if name in getattr(item, "fixturenames", ())} for name in RUNS}
    items.sort(key=lambda item: next((i for i, name in enumerate(RUNS) if item.path in asking[name]), len(RUNS)))


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    own = tmp_path_factory.mktemp("runs")
    several = "PYTEST_XDIST_WORKER" in os.environ
    made = Runner(own, tmp_path_factory.getbasetemp().parent if several else None)
    yield made
    made.close()


@pytest.fixture(scope="session", autouse=True)
def head_start(request: pytest.FixtureRequest) -> None:
    """What collected tests will wait for starts before the first test, which else would leave a core idle.

    Not in one of several processes: no core is idle there."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    for name in ("tiny_soon", "sharded_soon"):
        if any(name in getattr(item, "fixturenames", ()) for item in request.session.items):
            request.getfixturevalue(name)


@pytest.fixture(scope="session")
def tiny_soon(runner: Runner) -> Future[Finished]:
    return runner.train_soon("tiny")


@pytest.fixture(scope="session")
def sharded_soon(runner: Runner) -> list[Future[subprocess.CompletedProcess]]:
    """tests/train/sharded_run.py and toy_run.py on one and on several fake devices, into `sharded/`."""
    folder = runner.folder / "sharded"
    folder.mkdir()
    config = write_tiny(folder / "tiny.yaml", "objective.phases.chains=3", "objective.phases.chunk_rows=256")
    together = [{"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "HONEST_PROCESSES": "2"}] * 2

    def work(*command: str | Path, **more: str) -> subprocess.CompletedProcess:
        environment = {**runner.environment, **EIGHT_FAKE_DEVICES, **more}
        return subprocess.run(
            [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=WAIT_SECONDS
        )

    def two() -> subprocess.CompletedProcess:
        """The toy on two processes with one device each: both have to run at a time."""
        with ThreadPoolExecutor(2) as pool:
            pair = [
                pool.submit(work, TOY, folder, **common, HONEST_PROCESS=str(index), XLA_FLAGS=os.environ["XLA_FLAGS"])
                for index, common in enumerate(together)
            ]
        return max((future.result() for future in pair), key=lambda done: abs(done.returncode))

    return [
        runner.pool.submit(work, SHARDED, config, folder, "chains"),
        runner.pool.submit(work, TOY, folder),
        runner.pool.submit(two),
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def tiny_run(tiny_soon: Future[Finished]) -> Finished:
    """The uninterrupted run that tests share: they read it, and may not change it."""
    done = tiny_soon.result(WAIT_SECONDS)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="session")
def chains_soon(runner: Runner, tiny_run: Finished) -> Future[Finished]:
    """The same with persistent chains and exchangeable heads, in the background."""
    return runner.train_soon("chains", *CHAINS)


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """XLA without optimisation, for modules that compile much and compute little."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
