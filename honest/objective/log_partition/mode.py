"""Minima by L-BFGS (optax); the mode of exp(w(u)) N(u; 0, I) is that of ½|u|² − w."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from honest.objective.log_partition.problem import Problem

LINE_SEARCH_STEPS = 8
MEMORY = 10
Energy = Callable[[jax.Array], jax.Array]  # u_D -> nat, bare


def find_mode(problem: Problem, evaluations: int) -> jax.Array:
    """u_D after at most `evaluations` gradients, from u = 0 (the centre); less where the gradient vanishes."""
    return minimise(problem.energy, jnp.zeros(problem.dimension, problem.dtype), evaluations)[0]


def minimise(energy: Energy, start_D: jax.Array, evaluations: int) -> tuple[jax.Array, jax.Array]:
    """(u_D, gradients spent) after at most `evaluations` of them from a start; never a worse point than the start."""
    optimizer = optax.lbfgs(
        memory_size=MEMORY, linesearch=optax.scale_by_zoom_linesearch(max_linesearch_steps=LINE_SEARCH_STEPS)
    )
    value_and_grad = optax.value_and_grad_from_state(energy)
    small = jnp.finfo(start_D.dtype).eps ** 0.5

    def more(carry: tuple) -> jax.Array:
        _, _, spent, gradient_norm = carry
        return (spent + LINE_SEARCH_STEPS + 1 <= evaluations) & (gradient_norm > small)

    def iterate(carry: tuple) -> tuple:
        u_D, state, spent, _ = carry
        value, gradient = value_and_grad(u_D, state=state)
        updates, state = optimizer.update(gradient, state, u_D, value=value, grad=gradient, value_fn=energy)
        used = optax.tree.get(state, "info").num_linesearch_steps
        spent = (spent + used + 1).astype(jnp.int32)  # optax counts in int64 where x64 is enabled
        return optax.apply_updates(u_D, updates), state, spent, optax.global_norm(gradient)

    start = (start_D, optimizer.init(start_D), jnp.zeros((), jnp.int32), jnp.asarray(jnp.inf, start_D.dtype))
    found_D, _, spent, _ = jax.lax.while_loop(more, iterate, start)
    # A line search that failed may have left for nowhere.
    better = energy(found_D) <= energy(start_D)
    return jnp.where(better, found_D, start_D), spent
