"""Units cost nothing once compiled: the StableHLO of the whole train step is that of `plain_step`, which has none.

Compared is the text of the lowered module: every operation, constant, type, argument, metric name, private function and
their order. One thing is not compared, see `SCALE_NAMES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from honest.config import GROUP_UNITS
from honest.objective.log_partition.volume import VolumeRows
from honest.objective.parameter_prior import Gaussian, TowardZero
from honest.objective.parameter_prior.gaussian import TensorScale
from honest.train import multiplier as multipliers
from honest.train import step as shipped
from honest.train.spec import StageSpec
from honest.train.state import Priors, TrainState
from honest.train.step import Inputs
from honest.units import Quantity
from tests.train import plain_step as plain
from tests.train.test_guards import problem

# The Python path of a result inside the pytree that `step` returns. The priors' scales are containers of another name
# in the twin. All other paths (metrics, parameters, phases) are compared.
SCALE_NAMES = re.compile(r'jax\.result_info = "result\[0\]\.held\.priors[^"]*"')
KINDS, STAGINGS = ("points", "laplace", "chains"), ("heads_then_trunk", "all")
Step = Callable[[StageSpec, optax.GradientTransformation, Any, Inputs], Any]


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def bare(priors: Priors) -> plain.Priors:
    """The arrays of all Quantities, in the containers of the twin and in the same order of leaves."""

    def scales(prior: Any) -> Any:
        if isinstance(prior, TowardZero):
            return plain.TowardZero(array(prior.stddev))
        assert isinstance(prior, Gaussian)
        return jax.tree.map(
            lambda scale: plain.Scale(array(scale.stddev), scale.left, scale.right),
            prior.tensors,
            is_leaf=lambda node: isinstance(node, TensorScale),
        )

    def array(quantity: Quantity) -> jax.Array:
        return quantity.to(quantity.unit)

    first, second = ({g: scales(prior) for g, prior in stage.items()} for stage in (priors.first, priors.second))
    return plain.Priors(first, second, {group: array(measure) for group, measure in priors.measure.items()})


def without_units(state: TrainState) -> Any:
    held = state.held
    return state if held.priors is None else state._replace(held=held._replace(priors=bare(held.priors)))  # type: ignore[arg-type]


def full_problem(kind: str, staging: str = "heads_then_trunk", **prior_changes: Any) -> tuple:
    """`problem` with world data, an optimizer that has a state, and populations summed in padded chunks."""
    spec, state, inputs = problem(kind, staging, data=True, chains=4)
    prior, trusted = spec.prior, inputs.batch.trusted
    assert prior is not None and trusted is not None
    world = trusted._replace(world_targets_BxLxT=jnp.stack([trusted.label_B, 1 - trusted.label_B], -1)[:, None])
    sets = inputs.batch._replace(world=world)
    volume = None
    if kind == "laplace":
        count = len(trusted.label_B)
        place = jnp.zeros(count, jnp.int32)
        volume = VolumeRows(sets, place, place + 1, jnp.linspace(0.0, 1.0, count))
    spec = replace(
        spec,
        counts=replace(spec.counts, world_tokens=2 * len(trusted.label_B)),
        examples=24,
        optimizer=optax.adam(0.01),
        prior=replace(
            prior,
            phases=replace(prior.phases, volume_every=3, chunk_rows=5),
            multiplier=replace(prior.multiplier, warmup_steps=2),
            **prior_changes,
        ),
    )
    return spec, state._replace(optimizer=spec.optimizer.init(state.params)), Inputs(sets, sets, volume)


def jitted(train_step: Step, spec: StageSpec) -> Any:
    """A new function each time, so that nothing is taken from a cache; of one name, which is the module's."""

    def step(state: Any, inputs: Inputs) -> Any:
        return train_step(spec, optax.adam(0.05), state, inputs)

    return jax.jit(step)


def lowered(train_step: Step, spec: StageSpec, state: Any, inputs: Inputs) -> str:
    text = jitted(train_step, spec).lower(state, inputs).as_text()
    return SCALE_NAMES.sub("", text)


def assert_equal_programs(spec: StageSpec, state: TrainState, inputs: Inputs) -> None:
    ours = lowered(shipped.train_step, spec, state, inputs).splitlines()
    twin = lowered(plain.train_step, spec, without_units(state), inputs).splitlines()
    assert len(ours) > 100
    for number, (a, b) in enumerate(zip(ours, twin)):
        assert a == b, f"line {number}"
    assert len(ours) == len(twin)


@pytest.mark.parametrize("staging", STAGINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_train_step_lowers_to_the_plain_one(kind, staging):
    assert_equal_programs(*full_problem(kind, staging))


@pytest.mark.parametrize("kind", KINDS)
def test_without_log_partition(kind):
    assert_equal_programs(*full_problem(kind, log_partition=False))


def test_unadjusted_chains_on_batches():
    spec, state, inputs = full_problem("chains")
    phases = replace(spec.prior.phases, adjusted=False)
    assert_equal_programs(replace(spec, prior=replace(spec.prior, phases=phases)), state, inputs)


def test_chains_that_move_every_fourth_step():
    spec, state, inputs = full_problem("chains")
    phases = replace(spec.prior.phases, move_every=4)
    assert_equal_programs(replace(spec, prior=replace(spec.prior, phases=phases)), state, inputs)


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")  # by `problem`, whose λ is float32 then
def test_in_float32():
    with jax.enable_x64(False):
        assert_equal_programs(*full_problem("laplace"))


def test_maximum_likelihood():
    spec, state, inputs = full_problem("points", "all")
    state = state._replace(held=state.held._replace(priors=None), prior=None)
    assert_equal_programs(replace(spec, prior=None), state, inputs)


def with_priors(state: TrainState, **stages: dict) -> TrainState:
    assert state.held.priors is not None
    return state._replace(held=state.held._replace(priors=state.held.priors._replace(**stages)))


def test_a_first_prior_toward_zero():
    spec, state, inputs = full_problem("points")
    family = {g: TowardZero(Quantity(jnp.asarray(0.7), GROUP_UNITS[g]), "weight") for g in spec.trained}
    assert_equal_programs(spec, with_priors(state, first=family), inputs)


def test_a_rotated_second_prior_with_a_scale_for_each_weight():
    spec, state, inputs = full_problem("laplace")

    def scale(leaf: jax.Array) -> TensorScale:
        q = lambda n: jnp.linalg.qr(jax.random.normal(jax.random.key(n), (n, n)))[0]  # noqa: E731
        stddev = Quantity(jnp.linspace(0.5, 0.9, leaf.size).reshape(leaf.shape), GROUP_UNITS["trunk"])
        return TensorScale(stddev, q(leaf.shape[0]), q(leaf.shape[1]) if leaf.ndim == 2 else None)

    metric = {"trunk": Gaussian(jax.tree.map(scale, state.held.anchor["trunk"]))}
    assert_equal_programs(spec, with_priors(state, second=metric), inputs)


def test_one_step_has_the_same_values():
    spec, state, inputs = full_problem("laplace")

    def run(train_step: Step, state: Any) -> Any:
        program = jitted(train_step, spec).lower(state, inputs)
        return program.compile({"xla_backend_optimization_level": 0})(state, inputs)  # to compile in less time

    ours, metrics = run(shipped.train_step, state)
    twin, plain_metrics = run(plain.train_step, without_units(state))
    assert metrics.keys() == plain_metrics.keys()
    assert all(jnp.isfinite(value) for value in metrics.values())
    for a, b in zip(jax.tree.leaves((ours, metrics)), jax.tree.leaves((twin, plain_metrics)), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_a_prior_counted_twice_gives_another_program(monkeypatch):
    spec, state, inputs = full_problem("points")
    same = lowered(shipped.train_step, spec, state, inputs)
    assert same == lowered(plain.train_step, spec, without_units(state), inputs)
    once = plain.gaussian_cost
    monkeypatch.setattr(plain, "gaussian_cost", lambda *args: 2.0 * once(*args))
    assert same != lowered(plain.train_step, spec, without_units(state), inputs)


def test_a_multiplier_that_is_differentiated_gives_another_program(monkeypatch):
    """λ depends on this step's violation; both stop-gradients on the way from it to the loss are taken out."""
    spec, state, inputs = full_problem("points")
    same = lowered(shipped.train_step, spec, state, inputs)
    identity = lambda x: x  # noqa: E731
    lax = SimpleNamespace(stop_gradient=identity, optimization_barrier=jax.lax.optimization_barrier)
    monkeypatch.setattr(plain, "stop_gradient", identity)
    monkeypatch.setattr(multipliers, "jax", SimpleNamespace(lax=lax))
    assert same != lowered(plain.train_step, spec, without_units(state), inputs)


def test_units_that_left_an_operation_behind_would_be_seen(monkeypatch):
    spec, state, inputs = full_problem("points")
    twin = lowered(plain.train_step, spec, without_units(state), inputs)
    out = Quantity.to
    monkeypatch.setattr(Quantity, "to", lambda self, unit: 1.0 * out(self, unit))
    assert twin != lowered(shipped.train_step, spec, state, inputs)
