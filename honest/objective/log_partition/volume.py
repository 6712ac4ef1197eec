"""The Gauss–Newton volume of a phase: −½ log|I + A Aᵀ| around a mode, in Gram form (design §2).

Rows of A are whitened, weighted residual Jacobians, A = √(N/n) · H^½ · ∂r/∂u, one row set after another:

    consistency   r = logit difference of the heads, H = λ · (diag p − ppᵀ)·(¼ for JS, 2 for KL+KL), p at the midpoint
    labels        r = the explaining head's logits,  H = diag p − ppᵀ          (positive phase only)
    comparisons   r = z_better − z_worse,            H = p(1 − p), p = σ(r)    (positive phase only)
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
from honest.objective.data_loss import log_odds
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

    picked = RowSets(pick(sets.trusted), pick(sets.untrusted), None, pick(sets.consistency), pick(sets.compared))
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


def fisher_columns(logits_K: jax.Array) -> jax.Array:
    """V with V Vᵀ = diag p − ppᵀ, p = softmax(logits): shape (K, K), or (2, 1) for two answers.

    In log space: √p of a probability that underflows has an infinite derivative, and a saturated head would make the
    volume's gradient NaN.
    """
    log_p_K = jax.nn.log_softmax(logits_K)
    if logits_K.shape[0] == 2:
        root = jnp.exp(0.5 * (log_p_K[0] + log_p_K[1]))
        return jnp.stack([-root, root])[:, None]
    residual_KxK = jnp.eye(logits_K.shape[0], dtype=logits_K.dtype) - jnp.exp(log_p_K)[:, None]
    return jnp.exp(0.5 * log_p_K)[None, :] * residual_KxK


def sampled_column(logits_V: jax.Array, uniform: jax.Array) -> jax.Array:
    """One column v, shape (V, 1), with E[v vᵀ] = diag p − ppᵀ over the uniform; the exact one for two classes."""
    if logits_V.shape[0] == 2:
        return fisher_columns(logits_V)
    p_V = jax.nn.softmax(logits_V)
    drawn = jnp.minimum(jnp.searchsorted(jnp.cumsum(p_V), uniform.astype(p_V.dtype)), p_V.shape[0] - 1)
    return (jax.nn.one_hot(drawn, p_V.shape[0], dtype=p_V.dtype) - p_V)[:, None]


def _gradient_rows(scalar: Callable[..., jax.Array], u: Tree, *per_row: Any) -> jax.Array:
    """∂(scalar)/∂u of every row, (rows, D)."""
    gradient = jax.vmap(jax.grad(scalar), in_axes=(None, *(0 for _ in per_row)))(u, *per_row)
    count = size(per_row[0])
    return jnp.concatenate([leaf.reshape(count, -1) for leaf in jax.tree.leaves(gradient)], axis=1)


def _repeat(rows: Rows, columns_nxKxM: jax.Array) -> tuple[Rows, jax.Array]:
    """Each row once for every column: rows (n·M) and column vectors (n·M, K)."""
    n, k, m = columns_nxKxM.shape
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, m, axis=0), rows), columns_nxKxM.swapaxes(1, 2).reshape(n * m, k)


def head_factor(
    predictor: Predictor,
    place: Place,
    u: Tree,
    sets: RowSets,
    counts: Counts,
    multiplier: jax.Array,
    divergence: str,
    with_data: bool,
) -> jax.Array:
    """A's rows that come from the heads: agreement, and for the positive phase the labels.

    All are directional derivatives a·∂z₁/∂u + b·∂z₂/∂u of the two heads' logits, with (a, b) = (v, −v) for agreement,
    (v, 0) for the intended head's labels and (0, v) for the instrumental head's: one Jacobian serves them all.
    """
    asked, intended, instrumental = [], [], []

    def add(rows: Rows, columns_nxKxM: jax.Array, weight: jax.Array | float, a: float, b: float) -> None:
        repeated, vectors = _repeat(rows, columns_nxKxM * jnp.sqrt(weight / size(rows)))
        asked.append(repeated)
        intended.append(a * vectors)
        instrumental.append(b * vectors)

    parameters = place(u)
    a_nxK, b_nxK = predictor.head_logits(parameters, sets.consistency)
    columns = jax.vmap(fisher_columns)(0.5 * (a_nxK + b_nxK))
    add(sets.consistency, columns, multiplier * FISHER_SCALE[divergence] * counts.consistency, 1.0, -1.0)
    if with_data and sets.trusted is not None:
        logits_nxK = predictor.head_logits(parameters, sets.trusted).intended_BxK
        add(sets.trusted, jax.vmap(fisher_columns)(logits_nxK), counts.trusted, 1.0, 0.0)
    if with_data and sets.untrusted is not None:
        logits_nxK = predictor.head_logits(parameters, sets.untrusted).instrumental_BxK
        add(sets.untrusted, jax.vmap(fisher_columns)(logits_nxK), counts.untrusted, 0.0, 1.0)

    def directional(v: Tree, row: Rows, a_K: jax.Array, b_K: jax.Array) -> jax.Array:
        logits = predictor.head_logits(place(v), jax.tree.map(lambda leaf: leaf[None], row))
        return jnp.vdot(a_K, logits.intended_BxK[0]) + jnp.vdot(b_K, logits.instrumental_BxK[0])

    rows = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *asked)
    return _gradient_rows(directional, u, rows, jnp.concatenate(intended), jnp.concatenate(instrumental))


def comparison_factor(predictor: Predictor, place: Place, u: Tree, pairs: Any, comparisons: int) -> jax.Array:
    """A's rows that come from the chosen pairs: √(N/n) √(p(1 − p)) ∂(z_better − z_worse)/∂u of the intended head."""

    def margin(v: Tree, pair: Any) -> jax.Array:
        better, worse = (predictor.head_logits(place(v), rows).intended_BxK for rows in pair)
        return log_odds(better) - log_odds(worse)

    z_n = margin(u, pairs)
    root_n = jnp.exp(0.5 * (jax.nn.log_sigmoid(z_n) + jax.nn.log_sigmoid(-z_n)))
    scale_n = root_n * jnp.sqrt(jnp.asarray(comparisons / size(pairs), z_n.dtype))

    def directional(v: Tree, pair: Any, scale: jax.Array) -> jax.Array:
        return scale * margin(v, jax.tree.map(lambda leaf: leaf[None], pair))[0]

    return _gradient_rows(directional, u, pairs, scale_n)


def world_factor(predictor: Predictor, place: Place, u: Tree, chosen: VolumeRows, world_tokens: int) -> jax.Array:
    """A's rows that come from the chosen world tokens."""
    world = chosen.sets.world
    assert world is not None and chosen.uniform_n is not None
    count = size(world)
    logits_nxV = predictor.world_logits(place(u), world)[jnp.arange(count), chosen.position_n, chosen.channel_n]
    columns = jax.vmap(sampled_column)(logits_nxV, chosen.uniform_n)[:, :, 0]

    def directional(v: Tree, row: Rows, position: jax.Array, channel: jax.Array, column_V: jax.Array) -> jax.Array:
        logits = predictor.world_logits(place(v), jax.tree.map(lambda leaf: leaf[None], row))
        return jnp.vdot(column_V, logits[0, position, channel])

    scaled = columns * jnp.sqrt(jnp.asarray(world_tokens / count, columns.dtype))
    return _gradient_rows(directional, u, world, chosen.position_n, chosen.channel_n, scaled)


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
    """A, (rows, D), at whitened coordinates u; `with_data` for the positive phase. λ in nat/disagreement, bare.

    The columns v are fixed while u is differentiated, but stay differentiable in the heads.
    """
    heads = head_factor(predictor, place, u, chosen.sets, counts, multiplier, divergence, with_data)
    parts = [heads]
    if with_data and chosen.sets.compared is not None:
        parts.append(comparison_factor(predictor, place, u, chosen.sets.compared, counts.compared))
    if with_data and chosen.sets.world is not None:
        parts.append(world_factor(predictor, place, u, chosen, counts.world_tokens))
    return jnp.concatenate(parts)


def volume_nats(factor_nxD: jax.Array) -> Quantity:
    """−½ log|I + A Aᵀ| in nat: at most 0. A is dimensionless (whitened), so the determinant may be logged."""
    gram = factor_nxD @ factor_nxD.T
    log_determinant = jnp.linalg.slogdet(jnp.eye(gram.shape[0], dtype=gram.dtype) + gram)[1]
    return Quantity(-0.5 * log_determinant, nat)
