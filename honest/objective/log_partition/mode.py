"""The mode of exp(w(u)) N(u; 0, I), by L-BFGS on ½|u|² − w (optax)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from honest.objective.log_partition.problem import Problem

LINE_SEARCH_STEPS = 8
MEMORY = 10


def find_mode(problem: Problem, evaluations: int) -> jax.Array:
    """u_D after at most `evaluations` gradients, from u = 0 (the centre); less where the gradient vanishes."""
    optimizer = optax.lbfgs(
        memory_size=MEMORY, linesearch=optax.scale_by_zoom_linesearch(max_linesearch_steps=LINE_SEARCH_STEPS)
    )
    value_and_grad = optax.value_and_grad_from_state(problem.energy)
    small = jnp.finfo(problem.dtype).eps ** 0.5

    def more(carry: tuple) -> jax.Array:
        _, _, spent, gradient_norm = carry
        return (spent + LINE_SEARCH_STEPS + 1 <= evaluations) & (gradient_norm > small)

    def iterate(carry: tuple) -> tuple:
        u_D, state, spent, _ = carry
        value, gradient = value_and_grad(u_D, state=state)
        updates, state = optimizer.update(gradient, state, u_D, value=value, grad=gradient, value_fn=problem.energy)
        used = optax.tree.get(state, "info").num_linesearch_steps
        return optax.apply_updates(u_D, updates), state, spent + used + 1, optax.global_norm(gradient)

    u_D = jnp.zeros(problem.dimension, problem.dtype)
    start = (u_D, optimizer.init(u_D), jnp.zeros((), jnp.int32), jnp.asarray(jnp.inf, problem.dtype))
    found_D = jax.lax.while_loop(more, iterate, start)[0]
    # A line search that failed may have left for nowhere.
    better = problem.energy(found_D) <= problem.energy(u_D)
    return jnp.where(better, found_D, u_D)
