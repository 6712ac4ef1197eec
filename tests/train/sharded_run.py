"""Worker of `test_sharding`: the same short runs on one device and on all, in one process with eight fake devices.

python sharded_run.py CONFIG OUT NAME …: reads a tiny config and writes for each case and way of running it
OUT/NAME-WAY.npz with every step's metrics and the last state's leaves, and OUT/NAME.json with what else was seen.
XLA_FLAGS and PJRT_NPROC come from the environment, since they count before JAX is imported.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from honest.config import RunConfig
from honest.config_io import load_config
from honest.data.tasks import build_task
from honest.errors import UserError
from honest.train.burn_in import settle
from honest.train.loop import compile_step
from honest.train.sharding import make_mesh
from honest.train.spread import Mapped
from honest.train.stage import PRIOR, TRUNK, make_run
from honest.train.stages import make_stage

# Steps, burn-in steps and changes of the config; strategies on eight devices. Three chains do not divide into these.
CASES = {"chains": (10, 0, ("objective.phases.kind=chains",))}
STRATEGIES = ("auto", "fsdp", "pmap")
COMMUNICATION = ("all-reduce", "all-gather", "reduce-scatter")


def follow(config: RunConfig, mesh: Mesh, steps: int, burn_in: int) -> tuple[dict[str, np.ndarray], str]:
    """Metrics by step and last leaves of the full objective; the compiled step's text."""
    run = make_run(config, build_task(config.task), mesh)
    untrained = make_stage(run, TRUNK, {}).init().params
    trunk = jax.tree.map(lambda leaf: 1.25 * leaf, untrained)  # stands for a trained one: apart from the priors' centre
    stage = make_stage(run, PRIOR, {TRUNK: trunk})
    state = stage.spread.place(settle([stage], mesh, burn_in, compile_step, lambda: False))
    shell = compile_step([stage], mesh)
    program: Any = shell.func
    compiled = program.lower(state, stage.sets, stage.volume, **shell.keywords).compile()
    if isinstance(program, Mapped):
        step = lambda *inputs: compiled(program.ranks, *inputs, *shell.keywords.values())  # noqa: E731
    else:
        step = partial(compiled, **shell.keywords)
    found: dict[str, list[np.ndarray]] = {}
    for _ in range(steps):
        state, metrics = step(state, stage.sets, stage.volume)
        assert state.prior is not None
        accepted = {f"accepted/{name}": getattr(state.prior, name).accepted for name in ("positive", "negative")}
        for tag, value in {**metrics, **accepted}.items():
            found.setdefault(tag, []).append(np.asarray(value))
    series = {tag: np.stack(values) for tag, values in found.items()}
    moving = state._replace(key=jax.random.key_data(state.key))
    leaves = jax.tree_util.tree_flatten_with_path(moving)[0]
    series |= {f"state{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in leaves}
    return series, compiled.as_text()


def refusals(config: RunConfig) -> dict[str, str]:
    """What is said of rows that do not divide into the devices, and of devices that are not there."""
    said = {}
    prior = config.stages.prior.model_copy(update={"batch_rows": 12})
    uneven = config.model_copy(update={"stages": config.stages.model_copy(update={"prior": prior})})
    try:
        make_run(uneven, build_task(config.task), make_mesh(8))
    except UserError as error:
        said["uneven"] = str(error)
    try:
        make_mesh(9)
    except UserError as error:
        said["too many"] = str(error)
    return said


def main(path: str, out: str, *names: str) -> None:
    folder = Path(out)
    for name in names:
        steps, burn_in, changes = CASES[name]
        said: dict[str, object] = {"devices": len(jax.devices())}
        for devices, strategy in ((1, "auto"), *((8, strategy) for strategy in STRATEGIES)):
            config = load_config(path, [*changes, f"parallel.strategy={strategy}"]).config
            jax.config.update("jax_enable_x64", config.precision == "float64")
            series, program = follow(config, make_mesh(devices), steps, burn_in)
            np.savez(folder / f"{name}-{devices}-{strategy}.npz", allow_pickle=False, **series)
            said[f"{devices}-{strategy}"] = [word for word in COMMUNICATION if f"{word}(" in program]
        (folder / f"{name}.json").write_text(json.dumps({**said, **refusals(config)}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
