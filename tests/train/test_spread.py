"""Batches in parts, and what is said where devices or processes do not fit."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from honest.config import ParallelConfig
from honest.errors import UserError
from honest.model.two_head import HeadLogits
from honest.objective.predictions import Counts, Predictor, RowSets, predict
from honest.params import Params
from honest.train import hosts
from honest.train.sharding import make_mesh
from honest.train.spec import HEADS, StageSpec
from honest.train.spread import InParts, Spread
from honest.units import Quantity, example, nat

pytestmark = pytest.mark.usefixtures("quick_compilation")
ROWS, WIDTH = 256, 128


class Deep:
    """Eight layers of 128 units, so that activations are most of what a gradient holds."""

    def head_logits(self, params: Params, rows: jax.Array) -> HeadLogits:
        x_BxD = rows
        for kernel_DxD in params["trunk"]:
            x_BxD = jnp.tanh(x_BxD @ kernel_DxD)
        return HeadLogits(x_BxD[:, :2], x_BxD[:, 2:4])

    def world_logits(self, params: Params, rows: jax.Array) -> jax.Array:
        return self.head_logits(params, rows).intended_BxK[:, None, None, :]


def loss(predictor: Predictor, params: Params, rows: jax.Array) -> jax.Array:
    """Not a sum over rows: the mean is masked, and then multiplied by a function of all rows."""
    logits = predict(predictor, params, RowSets(rows, None, rows, None))
    masked = jnp.where(rows[:, 0] > 0, logits.trusted.intended_BxK[:, 0], 0.0)
    return jnp.sum(masked) / jnp.sum(rows[:, 0] > 0) * jnp.exp(jnp.mean(logits.world**2))


def inputs(rows: int) -> tuple[Params, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 9)
    params = {"trunk": [jax.random.normal(key, (WIDTH, WIDTH)) / WIDTH**0.5 for key in keys[:8]]}
    return params, jax.random.normal(keys[8], (rows, WIDTH))


@pytest.mark.parametrize(("rows", "parts"), [(12, 4), (12, 5), (13, 2), (3, 4)])
def test_parts_give_the_numbers_of_the_whole(rows, parts):
    with jax.enable_x64(True):
        params, x_BxD = inputs(rows)
        whole = jax.jit(jax.value_and_grad(lambda p: loss(Deep(), p, x_BxD)))(params)
        in_parts = jax.jit(jax.value_and_grad(lambda p: loss(InParts(Deep(), parts), p, x_BxD)))(params)
    assert in_parts[0].dtype == np.float64
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14), in_parts, whole)


def test_parts_take_less_memory():
    """Eight layers' activations of all rows are 8 · 256 · 128 floats, 1 MB, and of a part of eight 131 kB."""
    params, x_BxD = inputs(ROWS)

    def temporary(predictor: Predictor) -> int:
        gradient = jax.jit(jax.grad(lambda p: jnp.sum(predictor.head_logits(p, x_BxD).intended_BxK ** 2)))
        return gradient.lower(params).compile().memory_analysis().temp_size_in_bytes

    whole, parts = temporary(Deep()), temporary(InParts(Deep(), 8))
    assert whole > 8 * ROWS * WIDTH * 4
    assert parts < whole - 6 * ROWS * WIDTH * 4


def test_one_device_and_one_part_leave_the_stage_alone():
    spec = StageSpec("x", Deep(), HEADS, Counts(1, 0, 0, 0), 1, optax.identity(), None, None)
    assert Spread("auto", make_mesh(1), 1).spec(spec) == spec


def test_parts_are_computed_twice_only_where_their_gradients_do_not_add_up():
    """With a penalty, any function of all rows, the loss needs all logits before any cotangent is known."""
    spread = Spread("auto", make_mesh(1), 2)
    spec = StageSpec("x", Deep(), HEADS, Counts(1, 0, 0, 0), 1, optax.identity(), None, None)
    assert spread.spec(spec) == replace(spec, micro_batches=2)
    penalised = replace(spec, penalty=lambda *_: Quantity(0.0, nat / example))
    assert spread.spec(penalised) == replace(penalised, predictor=InParts(spec.predictor, 2))
    assert spread.spec(penalised).micro_batches == 1


@pytest.fixture
def outside(monkeypatch):
    """No cluster, and no word about one."""
    for name in (hosts.ADDRESS, hosts.PROCESSES, hosts.PROCESS, "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_pmap_is_of_one_process(outside):
    with pytest.raises(UserError, match=r"pmap is of one process, but parallel.hosts is detect"):
        hosts.join(ParallelConfig(devices=None, strategy="pmap", hosts="detect"))


def test_half_of_a_cluster_is_refused(outside):
    outside.setenv(hosts.PROCESS, "0")
    with pytest.raises(UserError, match="HONEST_PROCESS is set, but JAX_COORDINATOR_ADDRESS is not"):
        hosts.told()
    outside.setenv(hosts.ADDRESS, "localhost:1")
    outside.setenv(hosts.PROCESSES, "two")
    with pytest.raises(UserError, match="HONEST_PROCESSES and HONEST_PROCESS are to be integers"):
        hosts.told()


def test_one_process_stops_when_it_is_asked():
    asked = lambda: True  # noqa: E731
    assert hosts.stop_together(asked) is asked
