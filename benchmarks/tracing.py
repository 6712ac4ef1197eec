"""What units cost while JAX traces: the train step with units against its plain twin, as a ratio in one run.

    python benchmarks/tracing.py [--repeats 15] [points laplace chains]

Before every timing all of JAX's caches are cleared and the step is a new function, so that both sides trace everything,
the inner functions of jax.numpy included, as a run does once at its start. Sides alternate, and which one comes first
does too; the first pair is thrown away. Garbage is collected before each timing and not during it.

`trace` is `jax.jit(step).trace(...)`, python to jaxpr, where units are; `lower` is `.lower()`, jaxpr to StableHLO,
where they are gone. Seconds are of this process's CPU time, which other processes disturb less than wall time. The
ratio is of medians, its interval the middle 95 % of 10,000 bootstrap resamples of the pairs. The toy of tests/train has
a network of three layers, so that most of the trace is the objective: a larger network brings the ratio closer to 1.
"""

from __future__ import annotations

import argparse
import gc
import platform
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from honest.train import step as shipped
from tests.train import plain_step
from tests.train.test_zero_cost import KINDS, Step, full_problem, jitted, without_units

STAGES = ("trace", "lower", "both")


def seconds(train_step: Step, spec: Any, state: Any, inputs: Any) -> tuple[float, float, float]:
    """CPU seconds of each of STAGES."""
    step = jitted(train_step, spec)
    jax.clear_caches()
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        traced = step.trace(state, inputs)
        middle = time.process_time()
        traced.lower()
        end = time.process_time()
    finally:
        gc.enable()
    return middle - start, end - middle, end - start


def measure(kind: str, repeats: int) -> np.ndarray:
    """Seconds, (repeats, side, stage); side 0 has units."""
    spec, state, inputs = full_problem(kind)
    sides = [(shipped.train_step, state), (plain_step.train_step, without_units(state))]
    found = np.zeros((repeats + 1, 2, len(STAGES)))
    for repeat in range(repeats + 1):
        for side in (0, 1) if repeat % 2 else (1, 0):
            train_step, start = sides[side]
            found[repeat, side] = seconds(train_step, spec, start, inputs)
    return found[1:]


def interval(pairs: np.ndarray) -> tuple[float, float]:
    """95 % of the ratio of medians, by resampling the pairs (repeats, side)."""
    chosen = np.random.default_rng(0).integers(len(pairs), size=(10_000, len(pairs)))
    medians = np.median(pairs[chosen], axis=1)
    low, high = np.quantile(medians[:, 0] / medians[:, 1], [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=KINDS, help="points, laplace or chains")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)  # the toy is written for it
    device = jax.devices()[0]
    print(f"python {platform.python_version()}, jax {jax.__version__}, {device.platform} ({device.device_kind})")
    print(f"{arguments.repeats} pairs after one warm-up, heads_then_trunk, float64; medians in CPU seconds")
    print(f"{'phases':<8} {'stage':<6} {'units':>7} {'plain':>7} {'ratio':>6}  95 %")
    for kind in arguments.kinds:
        found = measure(kind, arguments.repeats)
        for index, stage in enumerate(STAGES):
            units, plain = np.median(found[:, :, index], axis=0)
            low, high = interval(found[:, :, index])
            print(
                f"{kind:<8} {stage:<6} {units:7.3f} {plain:7.3f} {units / plain:6.3f}  {low:.3f} … {high:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
