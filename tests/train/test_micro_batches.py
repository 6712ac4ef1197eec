"""The parts of a batch add up to it: loss, gradient and metrics, whatever the sets' sizes and wherever labels lie."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from honest.data.batch import Pairs
from honest.model.two_head import HeadLogits
from honest.objective.predictions import Counts, RowSets
from honest.params import Params
from honest.train.micro_batches import added_up, collect, deal
from honest.train.spec import HEADS, StageSpec
from honest.train.state import Held, TrainState
from honest.train.step import differentiate, step_metrics
from tests.planted_heads import Rows, ToyPredictor, two_answers

pytestmark = pytest.mark.usefixtures("quick_compilation")

HIDDEN = 3


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def rows(count: int, labelled: np.ndarray) -> Rows:
    rng = np.random.default_rng(count)
    label_B = np.where(labelled, rng.integers(0, 2, count), -1)
    return Rows(
        jnp.asarray(rng.normal(size=(count, 2))),
        jnp.asarray(label_B, jnp.int32),
        jnp.asarray(rng.integers(-1, 2, (count, 1, 2)), jnp.int32),
    )


def sets_of(stage: str) -> RowSets:
    """Sets of 7, 5, 11 and 4 rows; of three parts of the trusted ones, two have no label."""
    trusted, world, unlabelled = rows(7, np.arange(7) % 3 == 0), rows(11, np.zeros(11, bool)), np.zeros(4, bool)
    if stage == "single head":
        return RowSets(trusted, None, None, None)
    if stage == "trunk":
        return RowSets(None, None, world, None)
    better = rows(4, unlabelled)
    worse = better._replace(x_BxN=-2.0 * better.x_BxN[::-1])
    return RowSets(trusted, rows(5, np.arange(5) != 1), world, None, Pairs(better, worse))


def problem(sets: RowSets, trained: tuple[str, ...], micro_batches: int) -> tuple[StageSpec, TrainState]:
    keys = jax.random.split(jax.random.key(3), 5)
    shapes = {"W1": (2, HIDDEN), "b1": (HIDDEN,), "W2": (HIDDEN, HIDDEN), "b2": (HIDDEN,)}
    trunk = {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items())}
    heads = {"intended_head": [1.0, -1.0, 0.5], "instrumental_head": [-1.0, 0.3, 1.0]}
    params: Params = {"trunk": trunk, **{head: {"w": jnp.asarray(w)} for head, w in heads.items()}}
    spec = StageSpec(
        name="toy",
        predictor=ToyPredictor(jax.random.normal(keys[4], (HIDDEN, 2))),
        trained=trained,
        counts=Counts(70, 600, 5000, 0, 40),
        examples=670,
        optimizer=optax.identity(),
        prior=None,
        penalty=None,
        micro_batches=micro_batches,
    )
    own = {group: params[group] for group in trained}
    held = Held({}, {group: leaf for group, leaf in params.items() if group not in trained}, None)
    return spec, TrainState(jnp.zeros((), jnp.int32), jax.random.key(0), own, (), held, None)


@pytest.mark.parametrize(
    ("stage", "trained", "parts"),
    [
        ("two heads", ("trunk", *HEADS), 8),
        ("single head", HEADS[:1], 3),
        ("trunk", ("trunk",), 64),
    ],
)
def test_parts_have_the_numbers_of_the_whole(stage, trained, parts):
    """Sets that leave rows over or have fewer rows than parts, parts without a label, a batch of fewer than 64 rows."""
    sets, found = sets_of(stage), []
    for micro_batches in (1, parts):
        spec, state = problem(sets, trained, micro_batches)

        @jax.jit
        def answer(state: TrainState, sets: RowSets, spec: StageSpec = spec) -> tuple:
            loss, forward, gradient = differentiate(spec, state, sets)
            return step_metrics(spec, loss, forward, gradient), gradient

        found.append(answer(state, sets))
    whole, in_parts = found
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12), whole, in_parts)
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(in_parts))
    groups = {"trunk": 1, "single head": 1, "two heads": 4}[stage]
    assert sum(tag.startswith("objective/data_") for tag in in_parts[0]) == groups
    assert ("divergence/batch_untrusted" in in_parts[0]) == (stage != "trunk")
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(in_parts[1]))


class OneWeight:
    """The intended head's log-odds are w x."""

    def head_logits(self, params: Params, rows: Rows) -> HeadLogits:
        z_BxK = two_answers(params["intended_head"]["w"] * rows.x_BxN[:, 0])
        return HeadLogits(z_BxK, z_BxK)

    def world_logits(self, params: Params, rows: Rows) -> jax.Array:
        raise AssertionError("there is no world term here")


def test_a_mean_of_parts_means_is_not_the_mean():
    """p(label) is 1/2, 1/4 and 1/8 in rows 0, 2 and 3 at w = 1; row 1 has no label. Rows 0 and 2 are a part, 1 and 3.

    The mean is (1 + 2 + 3)/3 = 2 bits; of the parts' means, 1.5 and 3 bits, it would be 2.25. ∂nll/∂w = −(1 − p) x.
    """
    x_B = np.array([0.0, 5.0, -math.log(3), -math.log(7)])
    four = Rows(jnp.asarray(x_B)[:, None], jnp.array([1, -1, 1, 1]), jnp.full((4, 1, 2), -1))
    spec = StageSpec("toy", OneWeight(), HEADS[:1], Counts(30, 0, 0, 0), 30, optax.identity(), None, None, 2)  # type: ignore[arg-type]
    params = {"intended_head": {"w": jnp.ones(())}}
    state = TrainState(jnp.zeros((), jnp.int32), jax.random.key(0), params, (), Held({}, {}, None), None)
    loss, forward, gradient = jax.jit(lambda state: differentiate(spec, state, RowSets(four, None, None, None)))(state)
    metrics = step_metrics(spec, loss, forward, gradient)
    assert float(metrics["objective/data_intended_head_nats"]) == pytest.approx(-30 * 2 * math.log(2), rel=1e-14)
    assert float(metrics["objective/loss_nats_per_example"]) == pytest.approx(2 * math.log(2), rel=1e-14)
    slope = 30 / 3 * (0.75 * math.log(3) + 0.875 * math.log(7))
    assert float(gradient["intended_head"]["w"]) == pytest.approx(slope, rel=1e-14)


def test_rows_are_dealt_like_cards():
    """Row r goes to part r mod 3; the last row fills up, and is said to be none of them."""
    dealt, real = deal({"x": jnp.arange(7)}, 3)
    np.testing.assert_array_equal(dealt["x"], [[0, 3, 6], [1, 4, 6], [2, 5, 6]])
    np.testing.assert_array_equal(real, [[True, True, True], [True, True, False], [True, True, False]])
    np.testing.assert_array_equal(collect(dealt, 7)["x"], np.arange(7))


def test_one_part_s_activations_are_in_memory_at_a_time():
    """Eight layers' activations of 256 rows of 128 numbers are 2 MB in float64, and of a part of eight 0.26 MB."""
    keys = jax.random.split(jax.random.key(0), 9)
    kernels = [jax.random.normal(key, (128, 128)) / 128**0.5 for key in keys[:8]]
    sets = RowSets(
        Rows(jax.random.normal(keys[8], (256, 128)), jnp.ones(256, int), jnp.zeros((256, 1, 1), int)), *[None] * 3
    )

    def of_rows(params: Params, batch: RowSets) -> tuple:
        def loss(params: Params) -> jax.Array:
            x_BxD = batch.trusted.x_BxN
            for kernel_DxD in params["trunk"]:
                x_BxD = jnp.tanh(x_BxD @ kernel_DxD)
            return jnp.sum(x_BxD**2)

        return jax.value_and_grad(loss)(params)

    def temporary(parts: int) -> int:
        gradient = jax.jit(lambda params: added_up(lambda rows, _: of_rows(params, rows), params, sets, parts))
        return gradient.lower({"trunk": kernels}).compile().memory_analysis().temp_size_in_bytes

    activations, whole, in_parts = 8 * 256 * 128 * 8, temporary(1), temporary(8)
    assert whole > activations
    assert in_parts < whole - activations / 2
