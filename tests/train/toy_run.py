"""Worker of `test_sharding`: the toy of test_guards.py under every strategy, in a process with eight fake devices.

python toy_run.py OUT: for each case and way of running it writes OUT/CASE-WAY.npz with every step's metrics, the
decisions and the last state, and OUT/said.json with what else was seen. As one of several processes (the environment
says so) it runs one case on the devices of all, and process 0 writes. XLA_FLAGS and PJRT_NPROC come from there, too.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from honest.config import ParallelConfig
from honest.train import hosts
from honest.train.sharding import make_mesh, replicate
from honest.train.spread import Spread

STEPS = 12
FLOAT32_STEPS = 20
BATCH = 8  # of 12 rows; the whole sets are summed in chunks of 8 and 4
Way = tuple[int, str, int]  # devices, strategy, micro-batches
ONE: Way = (1, "auto", 1)
# Kind of the phases, chains, control variate; then the ways. Eight chains, two of which are asked in a step, are shared
# out to two devices but not to eight; a batch of eight rows has two or three parts; twelve do not divide into eight.
# Without a prior, parts' own gradients are added up: of three parts of eight rows, one is filled up.
DATA = "data"
CASES: dict[str, tuple[tuple[str, int, str], tuple[Way, ...]]] = {
    "chains": (("chains", 8, "none"), ((8, "fsdp", 1), (2, "fsdp", 3), (2, "pmap", 2))),
    "newton_stein": (("chains", 2, "newton_stein"), ((8, "auto", 1), (8, "pmap", 1))),
    "laplace": (("laplace", 1, "none"), ((2, "fsdp", 1), (8, "pmap", 1))),
    "float32": (("points", 1, "none"), ((8, "auto", 1), (2, "fsdp", 1), (8, "pmap", 1))),
    DATA: (("points", 1, "none"), ((2, "auto", 3), (2, "fsdp", 2), (2, "pmap", 3))),
}
# A run that is stopped and goes on otherwise: how, and up to which step.
RELAY: tuple[tuple[Way, int], ...] = (((8, "fsdp", 1), 3), (ONE, 6), ((2, "pmap", 2), 9), ((2, "fsdp", 3), STEPS))


def toy_stage(case: str, way: Way) -> Any:
    from honest.train.spec import Numbers
    from honest.train.stage import Stage
    from tests.train.test_guards import problem

    (kind, chains, control_variate), _ = CASES[case]
    devices, strategy, micro_batches = way
    spec, state, inputs = problem(kind, "heads_then_trunk", True, chains, control_variate)
    assert spec.prior is not None and state.prior is not None
    phases = replace(spec.prior.phases, chunk_rows=8, volume_every=2, asked_chains=min(2, chains))
    rule = replace(spec.prior.multiplier, warmup_steps=2)
    spec = replace(spec, optimizer=optax.adam(0.02), prior=replace(spec.prior, phases=phases, multiplier=rule))
    spread = Spread(strategy, make_mesh(devices), micro_batches)  # type: ignore[arg-type]
    state = state._replace(optimizer=spec.optimizer.init(state.params))
    sets = inputs.population
    if case == DATA:
        spec, state = replace(spec, prior=None), state._replace(prior=None)
        sets = sets._replace(untrusted=half_labelled(sets.untrusted), consistency=None)
    return Stage(
        spec=spec,
        steps=STEPS,
        offset=0,
        batch_rows=BATCH,
        seed=7,
        sets=replicate(sets, spread.mesh),
        volume=replicate(inputs.volume, spread.mesh),
        mode_optimizer=optax.adam(0.05),
        spread=spread,
        init=lambda: spread.place(state),
        starts=None,
        numbers=Numbers({}, {}, {}),
        rebuild=lambda _: (spec, optax.adam(0.05)),
    )


def half_labelled(rows: Any) -> Any:
    return rows._replace(label_B=jnp.where(jnp.arange(len(rows.label_B)) % 2 == 0, rows.label_B, -1))


def flat(state: Any) -> dict[str, np.ndarray]:
    moving = state._replace(key=jax.random.key_data(state.key))
    leaves = jax.tree_util.tree_leaves_with_path(moving)
    return {f"state{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in leaves}


def follow(case: str, way: Way) -> tuple[dict[str, np.ndarray], dict[str, bool]]:
    """Metrics and decisions by step, the last leaves; whether a tensor of the state is split, before and after."""
    from honest.train.loop import compile_step

    stage = toy_stage(case, way)
    mesh, state = stage.spread.mesh, stage.init()
    split = {"at first": is_split(state)}
    step = compile_step([stage], mesh)
    found: dict[str, list[np.ndarray]] = {}
    for _ in range(FLOAT32_STEPS if case == "float32" else STEPS):
        before = state
        state, metrics = step(state, stage.sets, stage.volume)
        phases = {} if state.prior is None else {"positive": state.prior.positive, "negative": state.prior.negative}
        accepted = {f"accepted/{name}": phase.accepted for name, phase in phases.items()}
        for tag, value in {**metrics, **hosts.own_copy(accepted, mesh)}.items():
            found.setdefault(tag, []).append(np.asarray(value))
    split |= {"at last": is_split(state), "donated": all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))}
    return {tag: np.stack(values) for tag, values in found.items()} | flat(hosts.own_copy(state, mesh)), split


def is_split(state: Any) -> bool:
    return not all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))


def relay(out: Path) -> Any:
    """One run by several ways in turn; every process of it would read the checkpoint of another layout."""
    from honest.train.checkpoint import Checkpoints
    from honest.train.events import EventLog
    from honest.train.loop import Lane, run_stage
    from honest.train.stage import Stopped

    for way, last in RELAY:
        stage = toy_stage("chains", way)
        checkpoints, events = Checkpoints(out / "relay", 2), EventLog(out / "relay")
        try:
            (state,) = run_stage(
                [Lane(stage, checkpoints, events, lambda *_: ({}, {}), log_every=1)],
                stage.spread.mesh,
                burn_in=0,
                checkpoint_every=100,
                evaluate_every=100,
                stop_requested=iter([False, False, True]).__next__,  # every leg has three steps
            )
        except Stopped as stopped:
            assert stopped.step == last
        finally:
            checkpoints.close()
            events.close()
    return state


def derivatives() -> dict[str, float]:
    """The largest error of each kind of derivative through `OverAxis` on eight devices, relative to the plain one's."""
    from honest.params import squared_norm
    from honest.train.sharding import AXIS
    from honest.train.spread import OverAxis
    from tests.train.test_guards import problem

    spec, state, inputs = problem("points", "all", True, 1)
    rows = jax.tree.map(lambda leaf: leaf[:8], inputs.population.trusted)
    theta, along = state.params, jax.tree.map(lambda leaf: 0.3 * leaf + 0.1, state.params)

    def every(predictor: Any, params: Any) -> dict[str, Any]:
        def loss(params: Any) -> jax.Array:
            logits = predictor.head_logits(params, rows)
            return jnp.mean(jnp.exp(-logits.intended_BxK)) * squared_norm(logits.instrumental_BxK[3:7])

        slope = lambda params: jax.jvp(loss, (params,), (along,))[1]  # noqa: E731
        return {
            "value": loss(params),
            "reverse": jax.grad(loss)(params),
            "forward": slope(params),
            "forward over reverse": jax.jvp(jax.grad(loss), (params,), (along,))[1],
            "reverse over forward": jax.grad(slope)(params),
            "rematerialised": jax.grad(jax.checkpoint(loss))(params),
        }

    plain = jax.jit(lambda params: every(spec.predictor, params))(theta)
    over_axis = jax.pmap(
        lambda _, params: every(OverAxis(spec.predictor, 8), params), axis_name=AXIS, in_axes=(0, None)
    )(jnp.arange(8), theta)  # every device's own answer, stacked

    def error(one: Any, eight: Any) -> float:
        pairs = zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True)
        return max(float(jnp.max(jnp.abs(b - a[None])) / (jnp.max(jnp.abs(a)) + 1e-9)) for a, b in pairs)

    return {name: error(plain[name], over_axis[name]) for name in plain}


def name_of(way: Way) -> str:
    return "{}-{}-{}".format(*way)


def main(folder: str) -> None:
    out = Path(folder)
    together = hosts.PROCESS in os.environ
    hosts.join(ParallelConfig(devices=None, strategy="fsdp", hosts="detect" if together else "one"))
    jax.config.update("jax_enable_x64", True)
    if together:
        series, _ = follow("chains", (len(jax.devices()), "fsdp", 1))
        if hosts.is_first():
            np.savez(out / "chains-hosts.npz", allow_pickle=False, **series)
        return
    (out / "derivatives.json").write_text(json.dumps(derivatives()), encoding="utf-8")
    said: dict[str, Any] = {}
    for case, (_, ways) in CASES.items():
        jax.config.update("jax_enable_x64", case != "float32")
        for way in (ONE, *ways):
            series, said[f"{case}-{name_of(way)}"] = follow(case, way)
            np.savez(out / f"{case}-{name_of(way)}.npz", allow_pickle=False, **series)
    jax.config.update("jax_enable_x64", True)
    np.savez(out / "relay.npz", allow_pickle=False, **flat(hosts.own_copy(relay(out), make_mesh(8))))
    (out / "said.json").write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
