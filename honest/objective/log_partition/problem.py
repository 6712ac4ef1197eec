"""The integral in whitened coordinates: Z = E_{u ~ N(0, I)} [exp w(c + σu)], u a flat vector.

Parameters arrive as trees; the estimators see a vector of D numbers and a function of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from honest.units import Quantity, assert_unit, nat

Tree = Any
LogWeight = Callable[[Tree], Quantity]  # parameters -> −λ N_c C̄ in nat, a scalar, at most 0
Residuals = Callable[[Tree], Any]  # parameters -> r with w ≈ −½ |r|²: weighted residuals in √nat, a tree of arrays


class Problem(NamedTuple):
    """weight: u_D -> w in nat, bare. residuals: u_D -> r_n, or None. dimension: D. dtype: of u, w and r."""

    weight: Callable[[jax.Array], jax.Array]
    residuals: Callable[[jax.Array], jax.Array] | None
    dimension: int
    dtype: jnp.dtype

    @property
    def value_and_grad(self) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
        return jax.value_and_grad(self.weight)

    def energy(self, u_D: jax.Array) -> jax.Array:
        """½|u|² − w, whose minimum is the mode of exp(w) N(u; 0, I)."""
        return 0.5 * jnp.sum(u_D**2) - self.weight(u_D)


def whiten_problem(log_weight: LogWeight, centre: Tree, stddev: Tree, residuals: Residuals | None) -> Problem:
    """centre, stddev: trees of one structure; a leaf of `stddev` has its parameter's shape or is a scalar.

    u is float32 at least, whatever the parameters are: sums of w in bfloat16 would be good to three digits.
    ValueError: the trees do not match, or σ is negative or not finite (where it can be seen: not under a
    transformation). TypeError: parameters that are not floats. UnitError: `log_weight` does not return nat.
    """
    wide = jax.tree.map(_widen, centre, stddev)
    centre_D, to_tree = ravel_pytree(centre)
    dtype = jnp.promote_types(centre_D.dtype, jnp.float32)
    stddev_D = ravel_pytree(wide)[0].astype(dtype)

    def place(u_D: jax.Array) -> Tree:
        return to_tree((centre_D.astype(dtype) + stddev_D * u_D).astype(centre_D.dtype))

    def weight(u_D: jax.Array) -> jax.Array:
        value = assert_unit(log_weight(place(u_D)), nat, what="log_weight").to(nat)
        if jnp.shape(value):
            raise ValueError(f"log_weight returned shape {jnp.shape(value)}; it has to be one number in nat")
        return jnp.asarray(value, dtype)

    def flat_residuals(u_D: jax.Array) -> jax.Array:
        assert residuals is not None
        return ravel_pytree(residuals(place(u_D)))[0].astype(dtype)

    return Problem(weight, None if residuals is None else flat_residuals, centre_D.shape[0], dtype)


def flat_problem(log_weight: Callable[[Tree], jax.Array], like: Tree) -> Problem:
    """The same integral for a weight that is whitened already: u -> w(u) in nat, bare, u a tree like `like`."""
    like_D, to_tree = ravel_pytree(like)
    return Problem(lambda u_D: log_weight(to_tree(u_D)), None, like_D.shape[0], like_D.dtype)


def flat_positions(positions: Tree) -> jax.Array:
    """Trees with a leading axis C in every leaf, as vectors (C, D) in the order of `flat_problem`."""
    return jax.vmap(lambda u: ravel_pytree(u)[0])(positions)


def _widen(centre: jax.Array, stddev: jax.Array) -> jax.Array:
    shape, kind = jnp.shape(centre), jnp.result_type(centre)
    if not jnp.issubdtype(kind, jnp.floating):
        raise TypeError(f"a parameter of {kind} has no density; keep it out of centre, inside log_weight")
    seen = not isinstance(stddev, jax.core.Tracer)
    if seen and not np.all((np.asarray(stddev) >= 0) & np.isfinite(np.asarray(stddev))):
        raise ValueError(f"a leaf of stddev is {stddev}; σ has to be finite and 0 or more")
    if jnp.shape(stddev) not in ((), shape):
        raise ValueError(f"a leaf of stddev has shape {jnp.shape(stddev)}; its parameter has {shape}")
    return jnp.broadcast_to(jnp.asarray(stddev, jnp.promote_types(kind, jnp.float32)), shape)
