"""Throughput of a training step, as ratios of what runs side by side in one process.

    python benchmarks/throughput.py [--sections peers heads log_z pipeline compile] [--repeats 7]
    python benchmarks/throughput.py --gpu [--seconds 120]

Sections (the steps are defined in steps.py, the peers in peers.py):

    peers      our single-head step, on a CPU also with its batch in 8 parts, against GPT-2 in PyTorch eager and a plain
               Flax decoder (which are given parts, too), three CPU shapes: how many times as many tokens/s as the peer
    heads      a step with two heads against the single-head step, the same shapes: time ratio; on a CPU both also in
               8 parts
    log_z      the full objective against the data terms alone: `points`, `laplace` by the volume's rows of each of its
               four sets (refreshed in every fourth step), `chains` by number, by how many stage one asks, and by
               `move_every`: time ratio, of four steps in a row, or of the 32 in which chains measure one move
    compile    seconds to trace, lower and compile each step, and what the compiled one allocates; the device's peak,
               where it says
    pipeline   which rows a step sees (`honest.train.loop.batch_at`) alone, as a share of the single-head step

Contenders of a table take turns, in an order that alternates; the first two turns of each are thrown away. `wall` are
ratios of medians of wall time, `cpu` of this process's CPU time, which other processes disturb less; intervals are the
middle 95 % of 10,000 bootstrap resamples of the turns. Pin the process (`taskset -c 0`) to measure one core.

`--gpu`: the large shape in bfloat16 with peers and heads, and model FLOPs utilisation: 6 FLOP a token and parameter of
a matrix (the embedding is gathered and has none) and 6·N·L·D a token for causal attention, over the rate of a large
bfloat16 matmul in the same run. After `--seconds` no further turn is begun.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import peers
from benchmarks.steps import Prepared, Shape, data_step, full_step, make_rows, single_head
from honest.config import ComputeConfig
from honest.objective.predictions import RowSets
from honest.run import set_precision
from honest.train.phases import MEASURED_EVERY

CPU_SHAPES = (Shape(256, 32, 128, 4, 4, 64), Shape(32, 128, 256, 8, 6, 256), Shape(64, 64, 64, 4, 2, 32))
GPU_SHAPE = Shape(64, 512, 768, 12, 12, 32768)
PARTS = 8  # of a batch
EVERY = 4  # steps between refreshes of the Laplace volume, and between moves of the chains that rest
WARM_UP = 2
Steps = dict[str, Callable[[], Any]]


def take_turns(steps: Steps, repeats: int, deadline: float) -> dict[str, np.ndarray]:
    """(turns, 2) seconds of wall and of CPU time by contender; at least two turns, fewer than asked at the deadline."""
    found: dict[str, list] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    for turn in range(repeats):
        if turn >= 2 and time.perf_counter() > deadline:
            break
        for name in list(steps) if turn % 2 else reversed(list(steps)):
            wall, cpu = time.perf_counter(), time.process_time()
            steps[name]()
            found[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: np.array(turns) for name, turns in found.items()}


def ratio(above: np.ndarray, below: np.ndarray) -> str:
    """Ratio of medians with its bootstrap interval, from the turns of each side, (turns,)."""
    chosen = np.random.default_rng(0).integers(len(above), size=(10_000, len(above)))
    resampled = np.median(above[chosen], axis=1) / np.median(below[chosen], axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return f"{np.median(above) / np.median(below):6.2f} [{low:.2f}, {high:.2f}]"


def table(found: dict[str, np.ndarray], base: str, tokens: int, speed: bool) -> None:
    """A line for each contender: its time over the base's, or with `speed` how many times as fast the base is."""
    for name, turns in found.items():
        line = f"  {name:<30} {tokens / np.median(turns[:, 0]):10,.0f} tokens/s"
        if name != base:
            # `speed`: the peer's time over ours is our speed over the peer's, the same quotient as a time ratio
            what = f"{base} is times as fast" if speed else f"times the time of {base}"
            line += (
                f"   wall {ratio(turns[:, 0], found[base][:, 0])}  cpu {ratio(turns[:, 1], found[base][:, 1])}  {what}"
            )
        print(line, flush=True)


def several(step: Callable[[], Any], count: int) -> Callable[[], Any]:
    def run() -> None:
        for _ in range(count):
            step()

    return run


def peers_section(shape: Shape, compute: ComputeConfig, repeats: int, deadline: float) -> None:
    bfloat16 = compute.dtype == "bfloat16"
    steps: Steps = {"single head": single_head(shape, compute).step}
    bases = ["single head"]
    if not bfloat16:
        bases.append(f"single head, {PARTS} parts")
        steps[bases[1]] = single_head(shape, in_parts(compute)).step
        steps["plain Flax decoder"] = peers.flax_decoder(shape, 1)
        steps[f"plain Flax decoder, {PARTS} parts"] = peers.flax_decoder(shape, PARTS)
    if peers.has_torch():
        steps["GPT-2, PyTorch eager"] = peers.torch_gpt2(shape, bfloat16, 1)
        if not bfloat16:
            steps[f"GPT-2, PyTorch eager, {PARTS} parts"] = peers.torch_gpt2(shape, bfloat16, PARTS)
    else:
        print(f"  {peers.MISSING}")
    found = take_turns(steps, repeats, deadline)
    for base in bases:
        table(found, base, shape.tokens, speed=True)


def in_parts(compute: ComputeConfig) -> ComputeConfig:
    return compute.model_copy(update={"micro_batches": PARTS})


def heads_section(shape: Shape, compute: ComputeConfig, repeats: int, deadline: float) -> None:
    rows = shape.rows
    ways = {"": compute} if compute.dtype == "bfloat16" else {"": compute, f", {PARTS} parts": in_parts(compute)}
    for suffix, way in ways.items():
        steps: Steps = {
            f"single head{suffix}": single_head(shape, way).step,
            f"two heads{suffix}": data_step(shape, way, rows // 2, rows // 4, rows // 4).step,
            f"two heads on top{suffix}": data_step(shape, way, rows, rows // 2, rows // 2).step,
        }
        table(take_turns(steps, repeats, deadline), f"single head{suffix}", shape.tokens, speed=False)


def full_steps(shape: Shape, compute: ComputeConfig) -> dict[str, Callable[[], Prepared]]:
    """What is compared with the step without log Z, by name; made when asked for."""
    make = partial(full_step, shape, compute)
    found: dict[str, Callable[[], Prepared]] = {
        "points": partial(make, "points", chains=1, asked=1, move_every=1, volume_rows=1)
    }
    for rows in (32, 64, 128, 256):
        name = f"laplace, {rows} rows a set"
        found[name] = partial(make, "laplace", chains=1, asked=1, move_every=1, volume_rows=rows)
    for chains, asked, every in ((2, 2, 1), (2, 2, EVERY), (8, 8, 1), (8, 8, EVERY), (8, 2, EVERY), (8, 1, EVERY)):
        name = f"{chains} chains, {asked} asked, moved {1 if every == 1 else f'1/{every}'}"
        found[name] = partial(make, "chains", chains=chains, asked=asked, move_every=every, volume_rows=1)
    return found


def log_z_section(shape: Shape, compute: ComputeConfig, repeats: int, deadline: float) -> None:
    base = data_step(shape, compute, shape.rows, shape.rows, shape.rows).step
    for name, make in full_steps(shape, compute).items():  # one after another: the volumes are large
        # Whole cycles: one move of so many costs more, as its energy error is measured.
        steps = EVERY * MEASURED_EVERY if "chains" in name else EVERY
        found = take_turns({"no log Z": several(base, steps), name: several(make().step, steps)}, repeats, deadline)
        table(found, "no log Z", steps * shape.tokens, speed=False)


def made(shape: Shape, compute: ComputeConfig) -> dict[str, Callable[[], Prepared]]:
    rows = shape.rows
    return {
        "single head": lambda: single_head(shape, compute),
        "two heads": lambda: data_step(shape, compute, rows // 2, rows // 4, rows // 4),
        **full_steps(shape, compute),
    }


def compile_section(shape: Shape, compute: ComputeConfig, repeats: int, deadline: float) -> None:
    for name, make in made(shape, compute).items():
        prepared = make()
        used = prepared.compiled.memory_analysis()
        temporary, arguments = (size / 2**20 for size in (used.temp_size_in_bytes, used.argument_size_in_bytes))
        print(
            f"  {name:<30} {prepared.seconds:6.1f} s   {temporary:9.1f} MiB temporary {arguments:9.1f} MiB arguments",
            flush=True,
        )
    peak()


def peak() -> None:
    stats = jax.devices()[0].memory_stats()
    if stats is not None:
        print(f"  device's peak so far           {stats['peak_bytes_in_use'] / 2**20:9.1f} MiB")


def pipeline_section(shape: Shape, compute: ComputeConfig, repeats: int, deadline: float) -> None:
    """Of 8,192 rows on the device."""
    from honest.train.loop import batch_at

    rows = make_rows(shape, 8192, 0, labelled=False)
    sets = RowSets(None, None, rows, None)
    program = jax.jit(lambda seed, sets, step: batch_at(shape.rows, seed, sets, step))
    seed, number = jnp.uint32(7), jnp.int32(3)
    steps: Steps = {
        "single head": single_head(shape, compute).step,
        "batch_at": lambda: jax.block_until_ready(program(seed, sets, number)),
    }
    found = take_turns(steps, repeats, deadline)
    share = np.median(found["batch_at"], axis=0) / np.median(found["single head"], axis=0)
    print(f"  batch_at: wall {share[0]:.4f} and cpu {share[1]:.4f} of the single-head step")


SECTIONS = {
    "peers": (peers_section, CPU_SHAPES),
    "heads": (heads_section, CPU_SHAPES),
    "log_z": (log_z_section, CPU_SHAPES[2:]),
    "pipeline": (pipeline_section, CPU_SHAPES[:1]),
    "compile": (compile_section, CPU_SHAPES[2:]),
}


def matmul_rate(size: int, dtype: Any, count: int) -> float:
    """FLOP/s of `count` products of square matrices in one program."""
    x = jnp.asarray(np.random.default_rng(0).normal(0.0, size**-0.5, (size, size)), dtype)
    program = jax.jit(lambda x: jax.lax.fori_loop(0, count, lambda _, y: y @ x, x))
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        program(x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return count * 2 * size**3 / best


def flop_a_token(shape: Shape) -> float:
    matrices = 12 * shape.layers * shape.width**2 + shape.width * shape.vocabulary
    return 6.0 * (matrices + shape.layers * shape.length * shape.width)


def gpu(repeats: int, deadline: float) -> None:
    compute = ComputeConfig(dtype="bfloat16", rematerialise=False, micro_batches=1)
    peak_rate = matmul_rate(8192, jnp.bfloat16, 20)
    print(f"bfloat16 matmul of 8,192: {peak_rate / 1e12:.0f} TFLOP/s\n{GPU_SHAPE}", flush=True)
    prepared = single_head(GPU_SHAPE, compute)
    print(f"  compiled in {prepared.seconds:.1f} s; {prepared.compiled.memory_analysis()}", flush=True)
    turns = take_turns({"single head": prepared.step}, repeats, deadline)["single head"]
    rate = flop_a_token(GPU_SHAPE) * GPU_SHAPE.tokens / np.median(turns[:, 0])
    print(
        f"  {GPU_SHAPE.tokens / np.median(turns[:, 0]):,.0f} tokens/s, {rate / peak_rate:.1%} of the peak", flush=True
    )
    peak()
    del prepared
    for section in (peers_section, heads_section):
        if time.perf_counter() < deadline:
            section(GPU_SHAPE, compute, repeats, deadline)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--shapes", nargs="+", type=int, help="indices of the CPU shapes, in place of each section's")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no further turn is begun after these")
    parser.add_argument("--gpu", action="store_true")
    arguments = parser.parse_args()
    set_precision("float32")
    deadline = time.perf_counter() + arguments.seconds
    device = jax.devices()[0]
    print(f"python {platform.python_version()}, jax {jax.__version__}, {device.platform} ({device.device_kind})")
    if arguments.gpu:
        gpu(arguments.repeats, deadline)
        return
    print(f"float32 matmul of 1,024: {matmul_rate(1024, jnp.float32, 10) / 1e9:.0f} GFLOP/s")
    compute = ComputeConfig(dtype="parameters", rematerialise=False, micro_batches=1)
    for name in arguments.sections:
        section, shapes = SECTIONS[name]
        for shape in shapes if arguments.shapes is None else [CPU_SHAPES[i] for i in arguments.shapes]:
            print(f"{name}: {shape}", flush=True)
            section(shape, compute, arguments.repeats, deadline)


if __name__ == "__main__":
    main()
