"""The Gauss–Newton volume of a phase: −½ log|I + A Aᵀ| around a mode, in Gram form (design §2).

Rows of A are whitened, weighted residual Jacobians, A = √(N/n) · H^½ · ∂r/∂u, one row set after another:

    consistency   r = logit difference of the heads, H = λ · (diag p − ppᵀ)·(¼ for JS, 2 for KL+KL), p at the midpoint
    labels        r = the explaining head's logits,  H = diag p − ppᵀ          (positive phase only)
    world tokens  r = the readout's logits,          H = diag p − ppᵀ          (positive phase only)

n of N rows stand for the whole set (a stated subset), so the value is exact only where n = N, r is linear in u and the
divergence is quadratic; else it is a Gauss–Newton–Laplace value of a subsample. H = Σ_m v_m v_mᵀ with
v_m = √p_m (e_m − p); for two answers the two columns are parallel and one, √(p(1−p)), is kept. World tokens have one
column each: exact for two classes, otherwise e_m − p with m drawn from p by a uniform number that is fixed for each
token, which leaves E[v vᵀ] = H.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from honest.objective.consistency import FISHER_SCALE
from honest.objective.predictions import Counts, Predictor, Rows, RowSets, size
from honest.params import Params
from honest.units import Quantity, nat

Tree = Any
Place = Callable[[Tree], Params]  # whitened coordinates u -> the parameters they stand for


class VolumeRows(NamedTuple):
    """The stated subset behind a volume. For world data: n tokens, each with its row, place and fixed uniform."""

    sets: RowSets
    position_n: jax.Array | None
    channel_n: jax.Array | None
    uniform_n: jax.Array | None


def choose_volume_rows(sets: RowSets, rows: int, seed: int) -> VolumeRows:
    """Draws the subset once, on the host: `rows` of each set without replacement (all where there are fewer)."""
    rng = np.random.default_rng([seed, 0x70])

    def pick(part: Rows | None) -> Rows | None:
        if part is None:
            return None
        chosen = np.sort(rng.permutation(size(part))[:rows])
        return jax.tree.map(lambda leaf: leaf[chosen], part)

    picked = RowSets(pick(sets.trusted), pick(sets.untrusted), None, pick(sets.consistency))
    if sets.world is None:
        return VolumeRows(picked, None, None, None)
    token_Nx3 = np.argwhere(np.asarray(sets.world.world_targets_BxLxT) >= 0)
    row_n, position_n, channel_n = token_Nx3[np.sort(rng.permutation(len(token_Nx3))[:rows])].T
    return VolumeRows(
        picked._replace(world=jax.tree.map(lambda leaf: leaf[row_n], sets.world)),
        jnp.asarray(position_n),
        jnp.asarray(channel_n),
        jnp.asarray(rng.uniform(size=len(row_n))),
    )


def fisher_columns(p_K: jax.Array) -> jax.Array:
    """V with V Vᵀ = diag p − ppᵀ: shape (K, K), or (2, 1) for two answers."""
    if p_K.shape[0] == 2:
        root = jnp.sqrt(p_K[0] * p_K[1])
        return jnp.stack([-root, root])[:, None]
    return jnp.sqrt(p_K) * (jnp.eye(p_K.shape[0], dtype=p_K.dtype) - p_K[:, None])


def sampled_column(p_V: jax.Array, uniform: jax.Array) -> jax.Array:
    """One column v, shape (V, 1), with E[v vᵀ] = diag p − ppᵀ over the uniform; the exact one for two classes."""
    if p_V.shape[0] == 2:
        return fisher_columns(p_V)
    drawn = jnp.minimum(jnp.searchsorted(jnp.cumsum(p_V), uniform.astype(p_V.dtype)), p_V.shape[0] - 1)
    return (jax.nn.one_hot(drawn, p_V.shape[0], dtype=p_V.dtype) - p_V)[:, None]


def _weighted_jacobian(
    residual: Callable[[Tree, Any], jax.Array], u: Tree, rows: Any, columns_nxKxM: jax.Array
) -> jax.Array:
    """Vᵀ ∂r/∂u of every row, (n·M, D). V is held fixed here, but stays differentiable in the heads outside."""

    def project(v: Tree, row: Any, columns_KxM: jax.Array) -> jax.Array:
        return columns_KxM.T @ residual(v, jax.tree.map(lambda leaf: leaf[None], row))

    jacobian = jax.vmap(jax.jacrev(project), in_axes=(None, 0, 0))(u, rows, columns_nxKxM)
    height = columns_nxKxM.shape[0] * columns_nxKxM.shape[2]
    return jnp.concatenate([leaf.reshape(height, -1) for leaf in jax.tree.leaves(jacobian)], axis=1)


def factor(
    predictor: Predictor,
    place: Place,
    u: Tree,
    chosen: VolumeRows,
    counts: Counts,
    multiplier: jax.Array,
    divergence: str,
    with_data: bool,
) -> jax.Array:
    """A, (rows, D), at whitened coordinates u; `with_data` for the positive phase. λ in nat/disagreement, bare."""
    sets, blocks = chosen.sets, []

    def block(residual: Callable, rows: Any, columns: jax.Array, weight: jax.Array | float) -> None:
        blocks.append(jnp.sqrt(weight / size(rows)) * _weighted_jacobian(residual, u, rows, columns))

    def gap(v: Tree, row: Rows) -> jax.Array:
        a_1xK, b_1xK = predictor.head_logits(place(v), row)
        return a_1xK[0] - b_1xK[0]

    a_nxK, b_nxK = predictor.head_logits(place(u), sets.consistency)
    columns = jax.vmap(fisher_columns)(jax.nn.softmax(0.5 * (a_nxK + b_nxK)))
    block(gap, sets.consistency, columns, multiplier * FISHER_SCALE[divergence] * counts.consistency)
    if not with_data:
        return blocks[0]
    labelled = ((sets.trusted, 0, counts.trusted), (sets.untrusted, 1, counts.untrusted))
    for rows, head, count in labelled:
        if rows is None:
            continue

        def answer(v: Tree, row: Rows, head: int = head) -> jax.Array:
            return predictor.head_logits(place(v), row)[head][0]

        p_nxK = jax.nn.softmax(predictor.head_logits(place(u), rows)[head])
        block(answer, rows, jax.vmap(fisher_columns)(p_nxK), count)
    if sets.world is not None and chosen.uniform_n is not None:
        places = (sets.world, chosen.position_n, chosen.channel_n)

        def token_logits(v: Tree, row: Any) -> jax.Array:
            world, position_1, channel_1 = row
            return predictor.world_logits(place(v), world)[0, position_1[0], channel_1[0]]

        logits_nxV = predictor.world_logits(place(u), sets.world)[
            jnp.arange(size(sets.world)), chosen.position_n, chosen.channel_n
        ]
        columns = jax.vmap(sampled_column)(jax.nn.softmax(logits_nxV), chosen.uniform_n)
        block(token_logits, places, columns, counts.world_tokens)
    return jnp.concatenate(blocks)


def volume_nats(factor_nxD: jax.Array) -> Quantity:
    """−½ log|I + A Aᵀ| in nat: at most 0. A is dimensionless (whitened), so the determinant may be logged."""
    gram = factor_nxD @ factor_nxD.T
    log_determinant = jnp.linalg.slogdet(jnp.eye(gram.shape[0], dtype=gram.dtype) + gram)[1]
    return Quantity(-0.5 * log_determinant, nat)
