"""Members trained together against one member alone, and against as many processes: ratios in one run.

    python benchmarks/members.py [--members 16 64] [--stages trunk prior] [--repeats 7] [--processes 16]

The members differ in seed, σ2, λ0 and learning rate, and are those of a sweep over configs/quickstart.yaml, smaller by
default: 2 layers of 32, batches of 64. A step of M members is one call of the compiled step that `honest sweep` makes
with `--engine vmap`; steps alone and together alternate, and the ratio of their medians is given with the middle 95 %
of 10,000 bootstrap resamples. What XLA compiles in the first three joined steps is counted.

--processes P: also the whole way, start, compilation and `--steps` steps: P processes, as many at a time as there are
cores (one on an accelerator), against one that trains P members together.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from honest.config_io import load_config
from honest.run import start_all
from honest.train.loop import compile_step
from honest.train.stage import PRIOR, TRUNK, Stage
from honest.train.stages import make_stage
from honest.train.together import join, own_buffers, rows_of

QUICKSTART = Path(__file__).resolve().parents[1] / "configs" / "quickstart.yaml"
SMALL = (
    "model.layers=2",
    "model.width=32",
    "model.head={kind: mlp, hidden: 32}",
    "task.rows={world: 4096, trusted: 1024, untrusted: 1024, validation: 64, test: 1024}",
    "objective.consistency.population=1024",
    "objective.phases.kind=points",
    "stages.trunk.batch_rows=64",
    "stages.prior.batch_rows=64",
)


def stages_of(members: int, name: str, changes: list[str]) -> list[Stage]:
    """A stage of each member, with a trunk that was not trained."""
    configs = []
    for member in range(members):
        own = [
            f"seed={member}",
            f"objective.second_prior.trunk.stddev={0.3 + 0.1 * (member % 8)} θ.trunk",
            f"objective.multiplier.initial={1 + member % 4} nat/disagreement",
            f"stages.trunk.optimizer.learning_rate={1e-3 * (1 + member % 4)}",
        ]
        configs.append(load_config(QUICKSTART, [*SMALL, *changes, *own]).config)
    runs = [run for run, _ in start_all(configs)]
    return [make_stage(run, name, {TRUNK: {"trunk": run.anchor()["trunk"]}}) for run in runs]


@contextmanager
def compilations() -> Iterator[list[float]]:
    """Seconds of every program that XLA compiles meanwhile."""
    found: list[float] = []

    def heard(event: str, seconds: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(heard)
    yield found
    jax.monitoring.unregister_event_duration_listener(heard)


class Program:
    """The compiled step of some members, and the state that it goes on from."""

    def __init__(self, stages: list[Stage]):
        self.members = len(stages)
        self.rows = rows_of(stages)
        self.state = own_buffers(join([stage.init() for stage in stages]), stages)
        self.shell: Any = compile_step(stages, stages[0].spread.mesh)
        start = time.perf_counter()
        with compilations() as self.compiled:
            self.steps(3)
        self.first_seconds = time.perf_counter() - start

    def steps(self, count: int) -> float:
        """Seconds a step."""
        start = time.perf_counter()
        for _ in range(count):
            self.state, metrics = self.shell(self.state, *self.rows)
        jax.block_until_ready((self.state, metrics))
        return (time.perf_counter() - start) / count


def ratio(together: np.ndarray, alone: np.ndarray) -> tuple[float, float, float]:
    """Of medians, with the middle 95 % of bootstrap resamples of the pairs."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(alone), (10_000, len(alone)))
    resampled = np.median(together[chosen], axis=1) / np.median(alone[chosen], axis=1)
    return float(np.median(together) / np.median(alone)), *np.quantile(resampled, (0.025, 0.975))


def compare(name: str, members: int, repeats: int, inner: int, changes: list[str]) -> None:
    stages = stages_of(members, name, changes)
    alone, together = Program(stages[:1]), Program(stages)
    times = np.array([(together.steps(max(inner // members, 1)), alone.steps(inner)) for _ in range(repeats)])
    value, low, high = ratio(times[:, 0], times[:, 1])
    both, one = 1e3 * np.median(times, axis=0)
    print(
        f"{name:>6}  {members:>3} members  {one:9.3f} ms alone  {both:9.3f} ms together  ratio {value:6.2f} "
        f"[{low:.2f}, {high:.2f}]  throughput ×{members / value:5.2f}  compiled {len(together.compiled)} program  "
        f"first steps {alone.first_seconds:.1f} s alone, {together.first_seconds:.1f} s together",
        flush=True,
    )


def worker(name: str, members: int, first: int, steps: int, changes: list[str]) -> None:
    program = Program(stages_of(first + members, name, changes)[first:])
    program.steps(steps)


def processes(name: str, count: int, steps: int, changes: list[str]) -> None:
    """Whole processes: `count` of one member, as many at a time as cores (one on an accelerator), and one of all."""
    own = [word for change in changes for word in ("--set", change)]
    command = [sys.executable, __file__, "--stages", name, "--steps", str(steps), *own, "--worker"]

    def run(first: int, members: int) -> None:
        subprocess.run([*command, str(first), str(members)], check=True)

    at_a_time = os.cpu_count() or 1 if jax.default_backend() == "cpu" else 1
    begun = time.perf_counter()
    run(0, count)
    middle = time.perf_counter()
    with ThreadPoolExecutor(at_a_time) as pool:
        list(pool.map(lambda first: run(first, 1), range(count)))
    ended = time.perf_counter()
    together, apart = middle - begun, ended - middle
    print(
        f"{name:>6}  {count} members, {steps} steps, whole processes: {together:.1f} s together, {apart:.1f} s in "
        f"{count} processes, {at_a_time} at a time: ×{apart / together:.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="*", default=[16, 64])
    parser.add_argument("--stages", nargs="+", default=[TRUNK, PRIOR])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--inner", type=int, default=64, help="steps alone between two looks at the clock")
    parser.add_argument("--processes", type=int, help="also this many whole processes")
    parser.add_argument("--steps", type=int, default=100, help="of whole processes")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--worker", type=int, nargs=2, metavar=("FIRST", "MEMBERS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.stages[0], options.worker[1], options.worker[0], options.steps, options.changes)
        return
    device = jax.devices()[0]
    print(f"{device.device_kind}, {os.cpu_count()} cores, jax {jax.__version__}, Python {platform.python_version()}")
    for name in options.stages:
        for members in options.members:
            compare(name, members, options.repeats, options.inner, options.changes)
        if options.processes:
            processes(name, options.processes, options.steps, options.changes)


if __name__ == "__main__":
    main()
