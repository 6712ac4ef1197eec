"""The training loop on a toy that remembers its rows: each has a parameter, which a batch with it moves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from honest.config_io import load_config
from honest.data.loader import indices
from honest.data.tasks import build_task
from honest.model.two_head import HeadLogits
from honest.objective.predictions import Counts, RowSets
from honest.train import loop
from honest.train.checkpoint import Checkpoints
from honest.train.events import EventLog, read_events
from honest.train.loop import Lane, compile_step, run_stage
from honest.train.sharding import make_mesh, replicate
from honest.train.spec import HEADS, Numbers, StageSpec
from honest.train.spread import Spread
from honest.train.stage import PRIOR, TRUNK, Stage, Stopped, make_run
from honest.train.stages import make_stage
from honest.train.state import Held, TrainState
from tests.conftest import write_tiny
from tests.train.test_together import MEMBERS, stage_of

TRUSTED, UNTRUSTED, BATCH, SEED = 12, 20, 4, 5
STEPS = 6  # two epochs of the trusted rows

pytestmark = pytest.mark.usefixtures("quick_compilation")


class Rows(NamedTuple):
    id_B: jax.Array
    label_B: jax.Array
    world_targets_BxLxT: jax.Array


@dataclass(frozen=True)
class Memory:
    """Each head has a logit of its own for every row."""

    def head_logits(self, params: Any, rows: Rows) -> HeadLogits:
        def logits_BxK(head: str) -> jax.Array:
            z_B = params[head]["w"][rows.id_B]
            return jnp.stack([jnp.zeros_like(z_B), z_B], axis=1)

        return HeadLogits(logits_BxK(HEADS[0]), logits_BxK(HEADS[1]))

    def world_logits(self, params: Any, rows: Rows) -> jax.Array:
        raise AssertionError("there is no world term here")


def rows(count: int) -> Rows:
    return Rows(jnp.arange(count), jnp.ones(count, jnp.int32), jnp.full((count, 1, 1), -1, jnp.int32))


def toy() -> Stage:
    """Maximum likelihood of both heads by plain gradient descent: what is not in the batch does not move."""
    spec = StageSpec(
        name="toy",
        predictor=Memory(),
        trained=HEADS,
        counts=Counts(trusted=TRUSTED, untrusted=UNTRUSTED, world_tokens=0, consistency=0),
        examples=TRUSTED + UNTRUSTED,
        optimizer=optax.sgd(1.0),
        prior=None,
        penalty=None,
    )

    def init() -> TrainState:
        params = {HEADS[0]: {"w": jnp.zeros(TRUSTED)}, HEADS[1]: {"w": jnp.zeros(UNTRUSTED)}}
        held = Held({}, {"trunk": {"unused": jnp.zeros(1)}}, None)
        step = jnp.zeros((), jnp.int32)
        state = TrainState(step, jax.random.key(0), params, spec.optimizer.init(params), held, None)
        return replicate(state, make_mesh(1))

    return Stage(
        spec=spec,
        steps=STEPS,
        offset=100,
        batch_rows=BATCH,
        seed=SEED,
        sets=replicate(RowSets(rows(TRUSTED), rows(UNTRUSTED), None, None), make_mesh(1)),
        volume=None,
        mode_optimizer=optax.identity(),
        spread=Spread("auto", make_mesh(1), 1),
        init=init,
        starts=None,
        numbers=Numbers({}, {}, {}),
        rebuild=lambda _: (spec, optax.identity()),
    )


class Recorder:
    """An evaluation that notes which rows each head has moved on since the last one."""

    def __init__(self) -> None:
        self.visited: list[tuple[set[int], set[int]]] = []
        self.before = [np.zeros(TRUSTED), np.zeros(UNTRUSTED)]

    def __call__(self, _stage: Stage, state: TrainState) -> tuple[dict[str, float], dict[str, Any]]:
        now = [np.array(state.params[head]["w"]) for head in HEADS]
        first, second = (set(np.flatnonzero(new != old).tolist()) for new, old in zip(now, self.before, strict=True))
        self.visited.append((first, second))
        self.before = now
        return {}, {}


class Died(Exception):
    """Stands for a kill."""


class DyingLog(EventLog):
    """The process dies when a checkpoint is committed and its events are about to be written."""

    def commit(self, step: int) -> None:
        raise Died


def run(stage: Stage, folder, recorder, stop=lambda: False, log=EventLog) -> TrainState:
    events = log(folder)
    checkpoints = Checkpoints(folder / "checkpoints", keep=2)
    try:
        lane = Lane(stage, checkpoints, events, recorder, log_every=2)
        return run_stage([lane], make_mesh(1), burn_in=0, checkpoint_every=4, evaluate_every=1, stop_requested=stop)[0]
    finally:
        checkpoints.close()
        events.close()


def test_batches_are_those_of_the_loader(tmp_path):
    """Every set walks a permutation of its own: four sets a stage have four seeds."""
    recorder = Recorder()
    state = run(toy(), tmp_path, recorder)
    assert int(state.step) == STEPS
    for step, (trusted, untrusted) in enumerate(recorder.visited):
        assert trusted == set(np.asarray(indices(SEED * 4, step, BATCH, TRUSTED)).tolist())
        assert untrusted == set(np.asarray(indices(SEED * 4 + 1, step, BATCH, UNTRUSTED)).tolist())
    for epoch in (recorder.visited[:3], recorder.visited[3:]):
        assert sorted(row for trusted, _ in epoch for row in trusted) == list(range(TRUSTED))
    assert recorder.visited[0][0] != recorder.visited[3][0] or recorder.visited[1][0] != recorder.visited[4][0]
    assert sorted(row for _, rows in recorder.visited[:5] for row in rows) == list(range(UNTRUSTED))


def test_one_update_is_that_of_gradient_descent(tmp_path):
    """By hand: a row's nll is log 2 at logit 0, its gradient −½ (label 1). A batch of B rows stands for N, over
    N_total examples: Δw = ½ · N/B / N_total for a row in the batch."""
    recorder = Recorder()
    run(replace(toy(), steps=1), tmp_path, recorder)
    for w, count in zip(recorder.before, (TRUSTED, UNTRUSTED), strict=True):
        moved = w[w != 0]
        assert len(moved) == BATCH
        np.testing.assert_allclose(moved, 0.5 * count / BATCH / (TRUSTED + UNTRUSTED), rtol=1e-6)


def test_a_stop_is_saved_and_resumed_at_the_next_batch(tmp_path):
    whole, parts = Recorder(), Recorder()
    expected = run(toy(), tmp_path / "whole", whole)
    with pytest.raises(Stopped, match="stopped in stage toy at step 3"):
        run(toy(), tmp_path / "parts", parts, stop=lambda: len(parts.visited) == 2)
    assert len(parts.visited) == 3
    resumed = run(toy(), tmp_path / "parts", parts)
    assert parts.visited == whole.visited
    for head in HEADS:
        np.testing.assert_array_equal(resumed.params[head]["w"], expected.params[head]["w"])
    finished = run(toy(), tmp_path / "parts", parts)  # nothing is left to do
    assert len(parts.visited) == STEPS and int(finished.step) == STEPS
    assert scalars(tmp_path / "whole") == scalars(tmp_path / "parts") != []


def test_a_stop_ends_the_burn_in_between_two_steps(tmp_path, monkeypatch):
    stage = replace(stage_of("chains", MEMBERS[0], "float32"), starts=dict)
    steps: list[int] = []

    def shell(state, _sets, _volume):
        steps.append(int(state.step))
        return state, {}

    monkeypatch.setattr(loop, "compile_step", lambda *_: shell)
    checkpoints, events = Checkpoints(tmp_path / "checkpoints", keep=2), EventLog(tmp_path)
    lane = Lane(stage, checkpoints, events, Recorder(), log_every=1)
    with pytest.raises(Stopped, match=f"stopped in stage {stage.spec.name} at step 0"):
        run_stage(
            [lane],
            make_mesh(1),
            burn_in=5,
            checkpoint_every=1,
            evaluate_every=1,
            stop_requested=lambda: len(steps) == 2,
        )
    assert len(steps) == 2 and checkpoints.latest() is None
    events.close()


def test_events_of_a_process_that_died_are_written_by_the_next(tmp_path):
    run(toy(), tmp_path / "whole", Recorder())
    with pytest.raises(Died):
        run(toy(), tmp_path / "parts", Recorder(), log=DyingLog)
    assert not scalars(tmp_path / "parts")
    run(toy(), tmp_path / "parts", Recorder())
    assert scalars(tmp_path / "whole") == scalars(tmp_path / "parts")


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    rows = (
        (value.tag, event.step, value.simple_value) for event in read_events(folder) for value in event.summary.value
    )
    return sorted(rows)


def test_metrics_are_logged_at_their_steps_under_the_stage(tmp_path):
    run(toy(), tmp_path, Recorder())
    steps: dict[str, list[int]] = {}
    for event in read_events(tmp_path):
        for value in event.summary.value:
            steps.setdefault(value.tag, []).append(event.step)
    assert steps["toy/objective/loss_nats_per_example"] == [102, 104, 106]  # every second step, after the offset


def test_a_second_trace_of_the_step_is_an_error():
    stage, mesh = toy(), make_mesh(1)
    shell = compile_step([stage], mesh)
    state, _ = shell(stage.init(), stage.sets, None)
    state, _ = shell(state, stage.sets, None)
    assert int(state.step) == 2
    longer = stage.sets._replace(
        untrusted=replicate(rows(UNTRUSTED + 1), mesh)
    )  # another shape, so that jit traces again
    with pytest.raises(AssertionError, match="traced > 1 times"):
        shell(state, longer, None)


def test_runs_of_other_seeds_share_the_step_s_program(tmp_path):
    """Else a compilation cache would not serve the seeds of a benchmark."""
    changes = ("precision=float32",)

    def programs(seed: int) -> dict[str, str]:
        config = load_config(
            write_tiny(tmp_path / f"{seed}.yaml", *changes, f"seed={seed}", f"task.seed={seed}")
        ).config
        mesh = make_mesh(1)
        run = make_run(config, build_task(config.task), mesh)
        results = {TRUNK: {"trunk": run.anchor()["trunk"]}}
        found = {}
        for name in (TRUNK, "plain_heads", PRIOR):
            stage = make_stage(run, name, results)
            shell = compile_step([stage], mesh)
            arguments = jax.eval_shape(stage.init), stage.sets, stage.volume
            found[name] = shell.func.lower(*arguments, **shell.keywords).as_text()
        return found

    one, other = programs(0), programs(1)
    assert {name: one[name] == other[name] for name in one} == dict.fromkeys(one, True)


def test_every_stage_may_compile_its_step_once():
    for _ in range(2):
        stage = toy()
        state, _ = compile_step([stage], make_mesh(1))(stage.init(), stage.sets, None)
        assert int(state.step) == 1


def test_the_loop_forbids_transfers_from_the_host(tmp_path):
    """Row sets that lie on the host would be sent over at every step."""
    stage = toy()
    on_host = replace(stage, sets=jax.tree.map(np.asarray, stage.sets))
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        run(on_host, tmp_path, Recorder())


def test_the_step_donates_its_state():
    stage = toy()
    state = stage.init()
    compile_step([stage], make_mesh(1))(state, stage.sets, None)
    assert state.params[HEADS[0]]["w"].is_deleted()
