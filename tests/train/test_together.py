"""Members trained together in one program have the numbers that each has alone."""

from __future__ import annotations

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from honest.train import multiplier as multipliers
from honest.train import together
from honest.train.loop import compile_step
from honest.train.optimizer import OptimizerSettings
from honest.train.sharding import make_mesh, replicate
from honest.train.spec import StageSpec, numbers_of, program_of, with_numbers
from honest.train.spread import Spread
from honest.train.stage import Stage
from honest.train.state import TrainState
from honest.train.together import join, parts, read, rows_of
from tests.priors import gaussian_priors
from tests.train.test_zero_cost import full_problem

STEPS = 20
# Seed, learning rate, λ0, ε, σ1 and σ2, step size or modes' learning rate of each member.
MEMBERS = ((3, 0.02, 2.0, 0.02, 0.7, 0.8, 0.2), (4, 0.05, 9.0, 0.001, 0.3, 1.5, 0.3))

pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64"),  # by `problem`, whose λ is float32 then
]


def stage_of(kind: str, member: tuple[float, ...], dtype: str) -> Stage:
    """The toy of test_zero_cost with a member's numbers, data position and draws, in `dtype`."""
    seed, learning_rate, initial, tolerance, first, second, step_size = member
    spec, state, inputs = full_problem(kind)
    assert spec.prior is not None
    rule = replace(spec.prior.multiplier, initial=initial, tolerance=tolerance, rate=0.1)
    phases = replace(spec.prior.phases, step_size=step_size, learning_rate=0.1 * step_size)
    settings = OptimizerSettings(learning_rate, 0.0, 2, "cosine", 10.0)
    prior = replace(spec.prior, multiplier=rule, phases=phases)
    spec = replace(spec, prior=prior)
    spec = with_numbers(spec, settings, STEPS, numbers_of(settings, prior))
    params = {**state.held.start, **state.params}
    held = state.held._replace(priors=gaussian_priors(params, prior.trained, prior.resampled, first, second))
    multiplier = multipliers.init(rule, jnp.result_type(float))
    state = state._replace(
        key=jax.random.key(int(seed)),
        held=held,
        optimizer=spec.optimizer.init(state.params),
        prior=state.prior._replace(multiplier=multiplier),
    )

    def cast(leaf: jax.Array) -> jax.Array:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    def rebuild(numbers):
        made = with_numbers(spec, settings, STEPS, numbers)
        return made, optax.adam(made.prior.phases.learning_rate)

    return Stage(
        spec=spec,
        steps=STEPS,
        offset=0,
        batch_rows=8,
        seed=int(seed),
        sets=jax.tree.map(cast, inputs.population),
        volume=jax.tree.map(cast, inputs.volume),
        mode_optimizer=optax.adam(phases.learning_rate),
        spread=Spread("auto", make_mesh(1), 1),
        init=lambda: replicate(jax.tree.map(cast, state), make_mesh(1)),
        starts=None,
        numbers=numbers_of(settings, prior),
        rebuild=rebuild,
    )


@functools.cache
def alone(kind: str, member: tuple[float, ...], dtype: str) -> tuple[dict[str, np.ndarray], TrainState]:
    (series,), (state,) = follow([stage_of(kind, member, dtype)])
    return series, state


def follow(stages: list[Stage]) -> tuple[list[dict[str, np.ndarray]], list[TrainState]]:
    """Each member's metrics and accept decisions by step, and its last state."""
    shell, (sets, volume) = compile_step(stages, make_mesh(1)), rows_of(stages)
    state = jax.tree.map(jnp.copy, join([stage.init() for stage in stages]))
    found: list[dict[str, list]] = [{} for _ in stages]
    for _ in range(STEPS):
        state, metrics = shell(state, sets, volume)
        own = parts(state, len(stages))
        for member, series, values in zip(own, found, read(metrics, len(stages)), strict=True):
            accepted = {name: np.asarray(getattr(member.prior, name).accepted) for name in ("positive", "negative")}
            for tag, value in {**values, **accepted}.items():
                series.setdefault(tag, []).append(value)
    return [{tag: np.stack(values) for tag, values in series.items()} for series in found], parts(state, len(stages))


def tolerance_of(kind: str, dtype: str, in_a_batch: bool) -> float:
    """Of metrics, relative to the largest number of a series.

    One is wider than the rest: batched products round other than one member's, and in float32 the chains' moves make
    up to 3.8e-5 of it within these steps with jax 0.10.2 and 1.1e-4 with 0.11.2 (in an acceptance probability, a
    constraint's cost and the gradient's norm; no decision differs). In turn, chains have every bit of λ, acceptance and
    parameters.
    """
    if dtype == "float64":
        return 1e-8
    return 2e-4 if kind == "chains" and in_a_batch else 1e-5


@pytest.mark.parametrize("in_a_batch", [True, False], ids=["vmap", "in turn"])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("chains", "float64"),
        ("laplace", "float64"),
        ("points", "float32"),
        ("laplace", "float32"),
        ("chains", "float32"),
    ],
)
def test_members_have_the_numbers_that_they_have_alone(kind, dtype, in_a_batch, monkeypatch):
    monkeypatch.setattr(together, "batched", lambda: in_a_batch)
    exact = 1e-8 if dtype == "float64" else 1e-5
    with jax.enable_x64(dtype == "float64"):
        stages = [stage_of(kind, member, dtype) for member in MEMBERS]
        joined, states = follow(stages)
        for index, member in enumerate(MEMBERS):
            series, state = alone(kind, member, dtype)
            for tag, expected in series.items():
                if expected.dtype == bool:
                    np.testing.assert_array_equal(joined[index][tag], expected)
                else:
                    atol = tolerance_of(kind, dtype, in_a_batch) * max(np.max(np.abs(expected)), 1e-6)
                    np.testing.assert_allclose(joined[index][tag], expected, rtol=0, atol=atol, err_msg=tag)
            for ours, expected in zip(jax.tree.leaves(states[index]), jax.tree.leaves(state), strict=True):
                assert ours.dtype == expected.dtype and ours.shape == expected.shape
            for ours, expected in zip(
                jax.tree.leaves(states[index].params), jax.tree.leaves(state.params), strict=True
            ):
                np.testing.assert_allclose(ours, expected, rtol=0, atol=exact * min(1.0, np.max(np.abs(expected))))
    losses = np.stack([series["objective/loss_nats_per_example"][-1] for series in joined])
    assert len({f"{loss:.6f}" for loss in losses}) == len(MEMBERS)  # they are three members, not one
    if kind == "chains":
        decisions = np.concatenate([series["positive"] for series in joined])
        assert 0 < decisions.mean() < 1


def test_rows_are_shared_where_they_are_equal():
    stages = [stage_of("points", member, "float32") for member in MEMBERS]
    sets, volume = rows_of(stages)
    assert sets.shared and volume.shared and sets.tree is stages[0].sets
    other = jax.tree.map(lambda leaf: leaf, stages[1].sets)
    other = other._replace(trusted=other.trusted._replace(label_B=1 - other.trusted.label_B))
    sets, _ = rows_of([stages[0], replace(stages[1], sets=other)])
    assert not sets.shared and sets.tree.trusted.label_B.shape == (2, 12)
    np.testing.assert_array_equal(
        sets.of_member(jax.tree.map(lambda leaf: leaf[1], sets.each())).trusted.label_B, other.trusted.label_B
    )


def test_evaluations_are_compiled_for_all_members_at_once():
    def program(kind: str, member: tuple[float, ...]) -> StageSpec:
        return replace(program_of(stage_of(kind, member, "float32").spec), predictor=None)  # the toy's has no equality

    assert program("laplace", MEMBERS[0]) == program("laplace", MEMBERS[1]) != program("points", MEMBERS[0])
    assert hash(program("laplace", MEMBERS[0])) == hash(program("laplace", MEMBERS[1]))
