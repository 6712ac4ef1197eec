"""The Lagrange multiplier λ of the constraint C̄(θ2) ≤ ε (design §2).

λ is in nat/disagreement: the exchange rate between nats of data and disagreement. C̄ ≥ 0 and its gradient vanishes at
0, so ε = 0 has no finite multiplier, and the config requires ε > 0. Every rule sees the violation of the same forward
pass whose gradient it then weights, and is frozen during warm-up. With e = (C̄ − ε)/ε and λ0 the initial value:

    multiplicative        λ ← λ · exp(η · clip(ē, −1, 1)),  ē from the moving average of C̄     (default)
    additive              λ ← λ + η λ0 e                                                         (projected dual ascent)
    augmented_lagrangian  the same λ, and the gradient is weighted by λ + κ λ0 e  (Powell–Hestenes–Rockafellar)
    nupi                  λ ← λ + η λ0 e + κ λ0 (ē_t − ē_{t−1})           (Sohrabi et al. 2024, "νPI", algorithm 1)

each clipped to [λ_min, λ_max].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp


class Decay(NamedTuple):
    """Weights of a moving average, which add up to 1.

    Both are stated: where they are traced in float32, 1 − old would be off by up to 3e-8 / new of itself.
    """

    old: float
    new: float


def decay(old: float) -> Decay:
    return Decay(old, 1 - old)


SLOW = decay(0.99)  # of the averages behind the infeasible flag and the feasible fraction


@dataclass(frozen=True)
class MultiplierRule:
    """tolerance in disagreement/example; initial, minimum, maximum in nat/disagreement; the rest dimensionless."""

    update: Literal["multiplicative", "additive", "augmented_lagrangian", "nupi"]
    tolerance: float
    initial: float
    minimum: float
    maximum: float
    rate: float  # η
    proportional_rate: float  # κ
    ema: Decay
    warmup_steps: int


class MultiplierState(NamedTuple):
    """value: λ in nat/disagreement. violation: moving average of C̄ in disagreement/example, NaN before the first.

    slow_value, slow_violation, feasible: slower averages of λ, of C̄ and of [C̄ ≤ ε], for the diagnostics.
    """

    value: jax.Array
    violation: jax.Array
    slow_value: jax.Array
    slow_violation: jax.Array
    feasible: jax.Array


def init(rule: MultiplierRule, dtype: jnp.dtype) -> MultiplierState:
    start, unseen = jnp.asarray(rule.initial, dtype), jnp.asarray(jnp.nan, dtype)
    return MultiplierState(start, unseen, start, unseen, unseen)


def _average(old: jax.Array, new: jax.Array, weights: Decay) -> jax.Array:
    return jnp.where(jnp.isnan(old), new, weights.old * old + weights.new * new)


def update(
    rule: MultiplierRule, state: MultiplierState, violation: jax.Array, step: jax.Array
) -> tuple[MultiplierState, jax.Array]:
    """The next state and the weight λ of this step's consistency gradient (and of λ inside Z).

    violation: C̄ of this forward pass, disagreement/example; no gradient flows through it. step: of this stage.
    """
    violation = jax.lax.stop_gradient(violation)
    smooth = _average(state.violation, violation, rule.ema)
    # XLA would multiply by a constant's reciprocal, and a member's λ would round other than that of the run alone.
    tolerance = jax.lax.optimization_barrier(jnp.asarray(rule.tolerance, violation.dtype))
    error = (violation - tolerance) / tolerance
    smooth_error = (smooth - tolerance) / tolerance
    last_error = jnp.where(jnp.isnan(state.violation), 0.0, (state.violation - tolerance) / tolerance)
    if rule.update == "multiplicative":
        moved = state.value * jnp.exp(rule.rate * jnp.clip(smooth_error, -1.0, 1.0))
    elif rule.update == "nupi":
        proportional = rule.proportional_rate * (smooth_error - last_error)
        moved = state.value + rule.initial * (rule.rate * error + proportional)
    else:
        moved = state.value + rule.initial * rule.rate * error
    moving = step >= rule.warmup_steps
    value = jnp.where(moving, jnp.clip(moved, rule.minimum, rule.maximum), state.value)
    weight = value
    if rule.update == "augmented_lagrangian":
        penalised = jnp.clip(value + rule.initial * rule.proportional_rate * error, rule.minimum, rule.maximum)
        weight = jnp.where(moving, penalised, value)
    new = MultiplierState(
        value=value,
        violation=smooth,
        slow_value=_average(state.slow_value, value, SLOW),
        slow_violation=_average(state.slow_violation, violation, SLOW),
        feasible=_average(state.feasible, (violation <= rule.tolerance).astype(violation.dtype), SLOW),
    )
    return new, weight


def diagnostics(rule: MultiplierRule, state: MultiplierState) -> dict[str, jax.Array]:
    """What is logged under `constraint/`: the flag `infeasible` is 1 where λ sits at its cap while the constraint is
    violated, or rises while the violation does not fall."""
    violated = state.violation > rule.tolerance
    capped = state.value >= rule.maximum * (1 - 1e-6)
    rising = state.value > 1.01 * state.slow_value
    stuck = state.violation >= state.slow_violation
    return {
        "constraint/lambda_nats_per_disagreement": state.value,
        "constraint/violation_disagreement_per_example": state.violation,
        "constraint/violation_over_tolerance": state.violation / rule.tolerance,
        "constraint/slackness_nats_per_example": state.value * (state.violation - rule.tolerance),
        "constraint/feasible_fraction": state.feasible,
        "constraint/infeasible": (violated & (capped | (rising & stuck))).astype(state.value.dtype),
    }
