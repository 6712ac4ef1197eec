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

A stands in memory tensor by tensor, as the gradients of its rows do, and its rows come in parts (`Factor`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from honest.model.two_head import HeadLogits
from honest.objective.consistency import FISHER_SCALE
from honest.objective.data_loss import log_odds
from honest.objective.predictions import Counts, Predictor, Rows, RowSets, size
from honest.params import Params
from honest.units import Quantity, nat

Tree = Any
Place = Callable[[Tree], Params]  # whitened coordinates u -> the parameters they stand for
Factor = list[Tree]  # A's rows in parts: trees like u, each leaf with a leading axis of rows


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


class Direction(NamedTuple):
    """Per row, which residual r = a f₊ + b f₋ of the two heads' logits it has, and the logits that its H is taken at.

    All leaves (rows,). scale: √(weight · N/n).
    """

    at_intended: jax.Array
    at_instrumental: jax.Array
    intended: jax.Array  # a
    instrumental: jax.Array  # b
    scale: jax.Array


def _pulled(logits_of: Callable[[Tree, Any], Any], columns_of: Callable[..., Any], u: Tree, *per_row: Any) -> Tree:
    """Every row's v · ∂(logits)/∂u for each of its columns v: a tree like u with leaves (rows · M, …).

    logits_of(u, row) -> logits; columns_of(logits, *row's arguments) -> cotangents of them with a last axis M. One
    forward pass a row gives the columns and the derivatives; the columns are fixed while u is differentiated.
    """

    def of_row(*row: Any) -> Tree:
        logits, pull = jax.vjp(lambda v: logits_of(v, row[0]), u)
        return jax.vmap(lambda column: pull(column)[0], in_axes=-1)(columns_of(logits, *row))

    rows = jax.vmap(of_row)(*per_row)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rows)


def _alone(row: Rows) -> Rows:
    return jax.tree.map(lambda leaf: leaf[None], row)


def head_factor(
    predictor: Predictor,
    place: Place,
    u: Tree,
    sets: RowSets,
    counts: Counts,
    multiplier: jax.Array,
    divergence: str,
    with_data: bool,
) -> Tree:
    """A's rows that come from the heads: agreement, and for the positive phase the labels.

    (a, b) = (1, −1) for agreement, whose H is taken at the logits' midpoint, (1, 0) for the intended head's labels and
    (0, 1) for the instrumental head's: one pass over the rows of all sets serves them all.
    """
    asked, directions = [], []

    def add(rows: Rows, weight: jax.Array | float, at: tuple[float, float], a: float, b: float) -> None:
        scale = jnp.sqrt(jnp.asarray(weight / size(rows), multiplier.dtype))
        values = (jnp.asarray(value, multiplier.dtype) for value in (*at, a, b))
        asked.append(rows)
        directions.append(Direction(*(jnp.broadcast_to(value, size(rows)) for value in (*values, scale))))

    add(sets.consistency, multiplier * FISHER_SCALE[divergence] * counts.consistency, (0.5, 0.5), 1.0, -1.0)
    if with_data and sets.trusted is not None:
        add(sets.trusted, counts.trusted, (1.0, 0.0), 1.0, 0.0)
    if with_data and sets.untrusted is not None:
        add(sets.untrusted, counts.untrusted, (0.0, 1.0), 0.0, 1.0)

    def logits_of(v: Tree, row: Rows) -> HeadLogits:
        return jax.tree.map(lambda logits_1xK: logits_1xK[0], predictor.head_logits(place(v), _alone(row)))

    def columns_of(logits: HeadLogits, _: Rows, to: Direction) -> HeadLogits:
        at_K = to.at_intended * logits.intended_BxK + to.at_instrumental * logits.instrumental_BxK
        columns_KxM = (to.scale * fisher_columns(at_K)).astype(at_K.dtype)
        return HeadLogits(to.intended * columns_KxM, to.instrumental * columns_KxM)

    together = lambda parts: jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)  # noqa: E731
    return _pulled(logits_of, columns_of, u, together(asked), together(directions))


def comparison_factor(predictor: Predictor, place: Place, u: Tree, pairs: Any, comparisons: int) -> Tree:
    """A's rows that come from the chosen pairs: √(N/n) √(p(1 − p)) ∂(z_better − z_worse)/∂u of the intended head."""
    scale = (comparisons / size(pairs)) ** 0.5

    def margin(v: Tree, pair: Any) -> jax.Array:
        better, worse = (predictor.head_logits(place(v), _alone(row)).intended_BxK for row in pair)
        return (log_odds(better) - log_odds(worse))[0]

    def root(z: jax.Array, _: Any) -> jax.Array:
        return scale * jnp.exp(0.5 * (jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z)))[None]

    return _pulled(margin, root, u, pairs)


def world_factor(predictor: Predictor, place: Place, u: Tree, chosen: VolumeRows, world_tokens: int) -> Tree:
    """A's rows that come from the chosen world tokens."""
    world = chosen.sets.world
    assert world is not None and chosen.uniform_n is not None
    scale = (world_tokens / size(world)) ** 0.5
    tokens = {"row": world, "position": chosen.position_n, "channel": chosen.channel_n, "uniform": chosen.uniform_n}

    def logits_of(v: Tree, token: dict[str, Any]) -> jax.Array:
        return predictor.world_logits(place(v), _alone(token["row"]))[0, token["position"], token["channel"]]

    def column_of(logits_V: jax.Array, token: dict[str, Any]) -> jax.Array:
        return scale * sampled_column(logits_V, token["uniform"])

    return _pulled(logits_of, column_of, u, tokens)


def factor(
    predictor: Predictor,
    place: Place,
    u: Tree,
    chosen: VolumeRows,
    counts: Counts,
    multiplier: jax.Array,
    divergence: str,
    with_data: bool,
) -> Factor:
    """A at whitened coordinates u; `with_data` for the positive phase. λ in nat/disagreement, bare.

    The columns v are fixed while u is differentiated, but stay differentiable in the heads.
    """
    parts = [head_factor(predictor, place, u, chosen.sets, counts, multiplier, divergence, with_data)]
    if with_data and chosen.sets.compared is not None:
        parts.append(comparison_factor(predictor, place, u, chosen.sets.compared, counts.compared))
    if with_data and chosen.sets.world is not None:
        parts.append(world_factor(predictor, place, u, chosen, counts.world_tokens))
    return parts


def volume_nats(factor: Factor) -> Quantity:
    """−½ log|I + A Aᵀ| in nat: at most 0. A is dimensionless (whitened), so the determinant may be logged."""
    return Quantity(-0.5 * log_determinant(factor), nat)


def log_determinant(factor: Factor) -> jax.Array:
    """log|I + A Aᵀ|, bare."""
    return _log_determinant([[leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(part)] for part in factor])


def _one_plus_gram(parts: list[list[jax.Array]]) -> jax.Array:
    """I + A Aᵀ, (rows, rows), its blocks of two parts taken once."""

    def block(i: int, j: int) -> jax.Array:
        products = [x @ y.T for x, y in zip(parts[i], parts[j])]
        return sum(products[1:], start=products[0])

    count = range(len(parts))
    lower = {(i, j): block(i, j) for i in count for j in range(i + 1)}
    gram = jnp.block([[lower[i, j] if j <= i else lower[j, i].T for j in count] for i in count])
    return jnp.eye(gram.shape[0], dtype=gram.dtype) + gram


@jax.custom_jvp
def _log_determinant(parts: list[list[jax.Array]]) -> jax.Array:
    """Of parts whose leaves are matrices (rows, size of the leaf)."""
    return jnp.linalg.slogdet(_one_plus_gram(parts))[1]


@partial(_log_determinant.defjvp, symbolic_zeros=True)
def _log_determinant_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    """d log|I + A Aᵀ| = 2 ⟨(I + A Aᵀ)⁻¹ A, dA⟩, for the parts that have a dA.

    Autodiff of the product would take Aᵀ times a symmetric matrix twice and for every part: more than the rest of the
    volume's derivative together, as A Aᵀ costs rows² · D.
    """
    (parts,), (changes,) = primals, tangents
    inner = _one_plus_gram(parts)
    inverse = jnp.linalg.inv(inner)
    inverse = 0.5 * (inverse + inverse.T)  # half the rounding; no Cholesky, which fails where λ is large in float32
    ends = np.cumsum([part[0].shape[0] for part in parts])[:-1]
    change = jnp.zeros((), inner.dtype)
    for rows, part_changes in zip(jnp.split(inverse, ends), changes):
        by_part = jnp.split(rows, ends, axis=1)
        for leaf, d in enumerate(part_changes):
            if not isinstance(d, SymbolicZero):
                dual = sum(block @ part[leaf] for block, part in zip(by_part, parts))
                change = change + 2.0 * jnp.vdot(dual, d)
    return jnp.linalg.slogdet(inner)[1], change
