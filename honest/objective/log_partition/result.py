"""What an estimate of log Z is: a value, two bounds, how it was obtained, and what else was tried."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp

from honest.units import Quantity, nat

RELIABLE_GAP_NATS = 10.0  # the widest upper − lower that `reliable` allows
ABOVE_ZERO_NATS = 0.1  # how far rounding may lift w = −λ N_c C̄ above 0; the bounds are cut at 0 and so miss no more


@dataclass(frozen=True)
class Rung:
    """One estimator that was tried: its value and bounds, bare nat, and why it was taken or left."""

    log_z: jax.Array
    lower: jax.Array
    upper: jax.Array
    method: str = field(metadata={"static": True})
    why: str = field(metadata={"static": True})


@dataclass(frozen=True)
class LogPartition:
    """log Z in nat. A pytree of scalars (of seeds, under vmap); `method` and `rungs`' words are static.

    log_z: the method's best estimate. lower, upper: each holds with probability 0.99 (or as the caller asked) under the
    conditions that the method states; −inf and 0 where it offers no bound (0 is certain, as w ≤ 0). standard_error: of
    log_z, in nat, bare; NaN where the method has none. ess: effective number of independent particles; NaN likewise.
    reliable: upper − lower is under `RELIABLE_GAP_NATS`, the value lies between them and, with auto, the bounds of the
    other sampler meet them. log_z, lower and upper are all NaN where `log_weight` was seen to be NaN or above 0.
    """

    log_z: Quantity
    lower: Quantity
    upper: Quantity
    standard_error: jax.Array
    ess: jax.Array
    reliable: jax.Array
    rungs: tuple[Rung, ...]
    method: str = field(metadata={"static": True})


for _class in (Rung, LogPartition):
    _static = [name for name, item in _class.__dataclass_fields__.items() if item.metadata.get("static")]
    _traced = [name for name in _class.__dataclass_fields__ if name not in _static]
    jax.tree_util.register_dataclass(_class, data_fields=_traced, meta_fields=_static)


def log_partition(
    method: str,
    log_z: jax.Array,
    lower: jax.Array | float,
    upper: jax.Array | float,
    *,
    standard_error: jax.Array | float,
    ess: jax.Array | float,
    highest: jax.Array,
    why: str,
) -> LogPartition:
    """From bare nat; both bounds and the value are cut at the certain limit log Z ≤ 0. One rung: its own.

    highest: the largest w that was seen, in nat. Above 0, or NaN, there is no such limit, and nothing is claimed. A
    bound that is NaN for another reason (no particle was left with a weight) is no bound: −inf or 0.
    """
    number = lambda x: jnp.asarray(x, log_z.dtype)  # noqa: E731
    lower, upper = number(lower), number(upper)
    lower, upper = jnp.where(jnp.isnan(lower), -jnp.inf, lower), jnp.where(jnp.isnan(upper), 0.0, upper)
    sound = highest <= ABOVE_ZERO_NATS
    log_z, lower, upper = (jnp.where(sound, jnp.minimum(x, 0.0), jnp.nan) for x in (log_z, lower, upper))
    tight = upper - lower < RELIABLE_GAP_NATS
    return LogPartition(
        log_z=Quantity(log_z, nat),
        lower=Quantity(lower, nat),
        upper=Quantity(upper, nat),
        standard_error=number(standard_error),
        ess=number(ess),
        reliable=tight & (lower <= log_z) & (log_z <= upper),
        rungs=(Rung(log_z, lower, upper, method, why),),
        method=method,
    )


def after(earlier: tuple[Rung, ...], taken: LogPartition) -> LogPartition:
    """`taken`, with the rungs that were tried before it."""
    return replace(taken, rungs=(*earlier, *taken.rungs))
