"""Parameter groups and the tree arithmetic on them.

Parameters are a dict from group name to a tree of bare arrays: `trunk`, `intended_head`, `instrumental_head`.
Units enter here: a distance of group g is in θ_g, where the two heads share θ.head so that they can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from honest.config import GROUP_UNITS
from honest.units import Quantity

Tree = Any
Params = dict[str, Tree]


def select(params: Params, groups: tuple[str, ...]) -> Params:
    return {group: params[group] for group in groups}


def dimension(tree: Tree) -> int:
    """Number of coordinates of a tree (static)."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def tensor_paths(tree: Tree) -> list[str]:
    """The path of each leaf, such as "blocks/0/mlp/in_kernel_DxF", in the order of the leaves."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return ["/".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path) for path in paths]


def squared_norm(tree: Tree) -> jax.Array:
    """Σ x², a scalar in the square of the tree's unit."""
    return sum((jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)), start=jnp.zeros(()))


def dot(a: Tree, b: Tree) -> jax.Array:
    return sum(jax.tree.leaves(jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)), start=jnp.zeros(()))


def difference(a: Tree, b: Tree) -> Tree:
    return jax.tree.map(jnp.subtract, a, b)


def squared_distance(params: Params, centre: Params, group: str) -> Quantity:
    """d²_g = Σ (θ_g − c_g)², in θ_g²."""
    return Quantity(squared_norm(difference(params[group], centre[group])), GROUP_UNITS[group] ** 2)


def head_distance(params: Params) -> Quantity:
    """Euclidean distance between the two heads, in θ.head."""
    gap = squared_norm(difference(params["intended_head"], params["instrumental_head"]))
    return Quantity(jnp.sqrt(gap), GROUP_UNITS["intended_head"])


def head_cosine(params: Params) -> jax.Array:
    """Cosine of the angle between the two heads' parameter vectors; 0 where one of them is zero."""
    a, b = params["intended_head"], params["instrumental_head"]
    scale = jnp.sqrt(squared_norm(a) * squared_norm(b))
    return jnp.where(scale > 0, dot(a, b) / jnp.where(scale > 0, scale, 1.0), 0.0)


class Metric(Protocol):
    """The map between whitened coordinates and displacements of one group, bare, in θ_g."""

    def colour(self, u: Tree) -> Tree: ...

    def whiten(self, displacement: Tree) -> Tree: ...


def resample(centre: Params, whitened: Params, metric: Mapping[str, Metric], others: Params) -> Params:
    """θ with θ_g = c_g + Σ_g^½ u_g for every resampled group (the keys of `whitened`), and `others` elsewhere."""
    moved = {group: jax.tree.map(jnp.add, centre[group], metric[group].colour(whitened[group])) for group in whitened}
    return {**others, **moved}


def whiten(params: Params, centre: Params, metric: Mapping[str, Metric], groups: tuple[str, ...]) -> Params:
    """u_g = Σ_g^−½ (θ_g − c_g), dimensionless: the inverse of `resample`."""
    return {group: metric[group].whiten(difference(params[group], centre[group])) for group in groups}


def batched() -> bool:
    """Whether sets of parameters are computed in one batch, rather than in turn.

    A batch axis on the weights turns every matmul into a batched one, which costs a CPU more than one after another
    (notes/performance.md).
    """
    return jax.default_backend() != "cpu"


def over_particles(function: Callable[[Tree], Any], particles: Tree, batch: bool) -> Any:
    """`function` of every particle (leading axis C of every leaf), results stacked; in one batch, or in turn.

    One particle alone has no batch axis in either case.
    """
    if jax.tree.leaves(particles)[0].shape[0] > 1:
        return jax.vmap(function)(particles) if batch else jax.lax.map(function, particles)
    return jax.tree.map(lambda leaf: leaf[None], function(jax.tree.map(lambda leaf: leaf[0], particles)))
