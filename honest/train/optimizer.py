"""Adam with decoupled weight decay, warm-up, an optional cosine decay and clipping by global norm (optax)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax


@dataclass(frozen=True)
class OptimizerSettings:
    """learning_rate: θ per step (Adam's update has the parameter's unit). clip_norm: of the gradient per example."""

    learning_rate: float
    weight_decay: float
    warmup_steps: int
    schedule: Literal["constant", "cosine"]
    clip_norm: float


def learning_rate(settings: OptimizerSettings, steps: int) -> optax.Schedule:
    warmup = optax.linear_schedule(0.0, settings.learning_rate, max(settings.warmup_steps, 1))
    rest = max(steps - settings.warmup_steps, 1)
    after = (
        optax.cosine_decay_schedule(settings.learning_rate, rest)
        if settings.schedule == "cosine"
        else optax.constant_schedule(settings.learning_rate)
    )
    if settings.warmup_steps == 0:
        return after
    return optax.join_schedules([warmup, after], [settings.warmup_steps])


def build(settings: OptimizerSettings, steps: int) -> optax.GradientTransformation:
    schedule = learning_rate(settings, steps)

    def rate(count: jax.typing.ArrayLike) -> jax.Array:
        # Of an integer count optax makes a float32 rate, also in a float64 run.
        return schedule(jnp.asarray(count, jnp.result_type(float)))

    return optax.chain(
        optax.clip_by_global_norm(settings.clip_norm),
        optax.adamw(rate, weight_decay=settings.weight_decay),
    )
