"""Gaussian priors whose metric is the empirical Fisher information at θ0: directions that the data feel cost more.

    F = mean over rows of g gᵀ / (1 nat),  g = ∂(−log p(row))/∂θ in nat/θ_g           nat/(θ_g² · example)
    precision = (1 nat)/σ² + N·F,          N in example: how many such rows the metric is worth

The division by 1 nat is the information identity E[g gᵀ] = E[∂²(−log p)], which holds for natural logarithms alone.
F is kept as its diagonal, or for each matrix as L ⊗ R / tr with L = mean G Gᵀ and R = mean Gᵀ G, which has F's trace
(Martens & Grosse 2015 for the form; Morwani et al. 2024 for these factors); for a vector F is kept whole. The metric is
computed once and then fixed, as Z, chains and forces assume.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from honest.config import GROUP_UNITS
from honest.objective.parameter_prior.gaussian import Gaussian, TensorScale, precision
from honest.objective.predictions import Rows, size
from honest.params import Tree
from honest.units import Quantity, Unit, example, nat, strip_grad, value_and_grad

RowNll = Callable[[Tree, Rows], Quantity]  # (the group's parameters, one row with its leading axis) -> nat


class Factors(NamedTuple):
    """Sums over rows for one tensor, bare, in nat²/θ_g²; a 1-D factor is the diagonal of what would be too large."""

    left: jax.Array
    right: jax.Array | None  # None for vectors


def _mean_over_rows(nll: RowNll, group: str, theta: Tree, rows: Rows, statistic: Callable[[jax.Array], Any]) -> Any:
    """Mean over rows of `statistic` (bare, in nat²/θ_g²) of each tensor's gradient."""
    units = {group: GROUP_UNITS[group]}

    def of_row(row: Rows) -> Any:
        one_row = jax.tree.map(lambda leaf: leaf[None], row)
        _, gradient = value_and_grad(lambda params: nll(params[group], one_row), units)({group: theta})
        return [statistic(g) for g in jax.tree.leaves(strip_grad(gradient, units)[group])]

    def add(carry: Any, row: Rows) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, carry, of_row(row)), None

    first = jax.tree.map(lambda leaf: leaf[0], rows)
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(of_row, first))
    summed = jax.jit(lambda rows: jax.lax.scan(add, zero, rows)[0])(rows)
    return jax.tree.map(lambda leaf: leaf / size(rows), summed)


def _stddev(squared_gradient: jax.Array, unit: Unit, stddev: Quantity, examples: float) -> Quantity:
    """σ_i of precision (1 nat)/σ² + N·F_i, from F_i·(1 nat) in nat²/θ_g² per example."""
    fisher = Quantity(squared_gradient, nat**2 / unit**2 / example) / Quantity(1.0, nat)
    total_precision = fisher * Quantity(examples, example) + precision(stddev)
    return (Quantity(1.0, nat) / total_precision) ** Fraction(1, 2)


def _rebuild(theta: Tree, scales: list[TensorScale]) -> Gaussian:
    return Gaussian(jax.tree.unflatten(jax.tree.structure(theta), scales))


def diagonal(nll: RowNll, group: str, theta: Tree, rows: Rows, stddev: Quantity, examples: float) -> Gaussian:
    """Each weight's precision from its own empirical Fisher information. rows: leading axis B."""
    squares = _mean_over_rows(nll, group, theta, rows, jnp.square)
    return _rebuild(theta, [TensorScale(_stddev(square, GROUP_UNITS[group], stddev, examples)) for square in squares])


def _factors(largest_axis: int, g: jax.Array) -> Factors:
    def gram(matrix: jax.Array) -> jax.Array:
        return matrix @ matrix.T if matrix.shape[0] <= largest_axis else jnp.sum(matrix**2, axis=1)

    if g.ndim == 0:
        return Factors(jnp.square(g), None)
    if g.ndim < 2:
        return Factors(gram(g.reshape(-1, 1)), None)
    if g.ndim > 2:
        raise ValueError(f"a Kronecker metric needs vectors and matrices, not a tensor of shape {g.shape}")
    return Factors(gram(g), gram(g.T))


def _eigen(factor: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """Eigenvalues (not negative), and eigenvectors in columns; a diagonal factor is its own."""
    if factor.ndim < 2:
        return factor, None
    values, vectors = jnp.linalg.eigh(factor)
    return jnp.maximum(values, 0.0), vectors


def kronecker(
    nll: RowNll, group: str, theta: Tree, rows: Rows, stddev: Quantity, examples: float, largest_axis: int
) -> Gaussian:
    """A Kronecker-factored metric. Of an axis longer than `largest_axis` only the diagonal of its factor is kept."""

    unit = GROUP_UNITS[group]

    def scale(factors: Factors) -> TensorScale:
        left, left_basis = _eigen(factors.left)
        if factors.right is None:
            return TensorScale(_stddev(left, unit, stddev, examples), left_basis)
        right, right_basis = _eigen(factors.right)
        trace = jnp.sum(left)
        product = left[:, None] * right[None, :] / jnp.where(trace > 0, trace, 1.0)
        return TensorScale(_stddev(product, unit, stddev, examples), left_basis, right_basis)

    means = _mean_over_rows(nll, group, theta, rows, lambda g: _factors(largest_axis, g))
    return _rebuild(theta, [scale(factors) for factors in means])
