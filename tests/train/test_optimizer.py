"""AdamW with warm-up, decay and clipping, against updates worked out by hand."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from honest.train.optimizer import OptimizerSettings, build, learning_rate


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def settings(**changed):
    base = {"learning_rate": 0.1, "weight_decay": 0.01, "warmup_steps": 0, "schedule": "constant", "clip_norm": 1.0}
    return OptimizerSettings(**{**base, **changed})


def positions(optimizer, start, gradients):
    """Parameters after each gradient."""
    params, path = jnp.asarray(start), []
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
        path.append(np.asarray(params))
    return path


def test_two_updates_by_hand():
    """g = (3, 4) has norm 5 and is clipped to (0.6, 0.8): m̂ = g, v̂ = g², and θ loses 0.1·(1 + 0.01·θ).

    g = (0.3, 0.4) is not clipped. m̂ = (0.9·0.06 + 0.1·0.3)/0.19 = 0.442105; v̂ = (0.999·0.00036 + 0.001·0.09)/0.001999
    = 0.224932; m̂/√v̂ = 0.932179, in both coordinates. Without the clip it would be 0.740812.
    """
    first, second = positions(build(settings(), 100), [2.0, -1.0], [[3.0, 4.0], [0.3, 0.4]])
    np.testing.assert_allclose(first, [2.0 - 0.1 * 1.02, -1.0 - 0.1 * 0.99], atol=1e-8)
    np.testing.assert_allclose(second, first - 0.1 * (0.932179 + 0.01 * first), atol=1e-6)
    unclipped = positions(build(settings(clip_norm=100.0), 100), [2.0, -1.0], [[3.0, 4.0], [0.3, 0.4]])[1]
    np.testing.assert_allclose(unclipped, first - 0.1 * (0.740812 + 0.01 * first), atol=1e-6)


def test_decay_is_decoupled_from_the_gradient():
    """With no gradient θ shrinks by the factor 1 − lr·decay a step, whatever its size."""
    path = positions(build(settings(weight_decay=0.5), 100), [2.0, -100.0], [[0.0, 0.0]] * 3)
    np.testing.assert_allclose(path[2], np.array([2.0, -100.0]) * 0.95**3, rtol=1e-12)


def test_warm_up_scales_the_updates():
    """With equal gradients and no decay each update is −lr_t·sign(g): 0, 1/4, 1/2, 3/4, 1, 1 of the learning rate."""
    optimizer = build(settings(warmup_steps=4, weight_decay=0.0), 100)
    path = positions(optimizer, [0.0], [[0.5]] * 6)
    np.testing.assert_allclose(np.ravel(path), -0.1 * np.cumsum([0.0, 0.25, 0.5, 0.75, 1.0, 1.0]), rtol=1e-6)


def test_constant_schedule_without_warm_up():
    schedule = learning_rate(settings(), 100)
    assert [float(schedule(step)) for step in (0, 50, 1000)] == pytest.approx([0.1] * 3)


@pytest.mark.parametrize("warmup", [0, 20])
def test_cosine_schedule_falls_from_the_end_of_the_warm_up_to_zero(warmup):
    schedule = learning_rate(settings(schedule="cosine", warmup_steps=warmup), 100 + warmup)
    expected = {0: 1.0, 25: 0.5 * (1 + math.cos(math.pi / 4)), 50: 0.5, 100: 0.0, 150: 0.0}
    for after, share in expected.items():
        assert float(schedule(warmup + after)) == pytest.approx(0.1 * share, abs=1e-9)
    if warmup:
        assert float(schedule(10)) == pytest.approx(0.05)


def test_a_stage_shorter_than_its_warm_up_has_a_schedule():
    schedule = learning_rate(settings(schedule="cosine", warmup_steps=50), 10)
    assert [float(schedule(step)) for step in (0, 10, 25)] == pytest.approx([0.0, 0.02, 0.05])
