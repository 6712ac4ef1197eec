"""The Gaussian prior N(c, Σ): isotropic by group or tensor, diagonal, or with a Kronecker-factored curvature.

    log N(θ | c, Σ) = − ½ Σ_i (1 nat)/σ_i² · d_i² − Σ_i ½ log(2π σ_i²/u²),     d = Lᵀ (θ − c) R

(1 nat)/σ² is the one place where a squared distance becomes information. L and R rotate a matrix into the eigenbasis of
its curvature (a vector has L alone); without them d is θ − c. The same map whitens the second stage, θ = c + L (σ·u) Rᵀ
with u ~ N(0, I), so that Z, modes, volumes and chains never see which metric it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from honest.config import GROUP_UNITS
from honest.objective.parameter_prior.coordinates import family, gaussian_constant
from honest.params import Params, Tree, difference
from honest.units import Quantity, Unit, assert_unit, nat, total


def precision(stddev: Quantity) -> Quantity:
    """(1 nat)/σ², in nat/θ_g²."""
    return Quantity(1.0, nat) / stddev**2


@family
@dataclass(frozen=True)
class TensorScale:
    """σ of one tensor in θ_g, broadcast to its shape in the rotated basis; rotations (bare, orthogonal) or None."""

    stddev: Quantity
    left: jax.Array | None = None
    right: jax.Array | None = None

    def rotate(self, d: jax.Array) -> jax.Array:
        """Lᵀ d R."""
        d = d if self.left is None else self.left.T @ d
        return d if self.right is None else d @ self.right

    def rotate_back(self, d: jax.Array) -> jax.Array:
        """L d Rᵀ."""
        d = d if self.left is None else self.left @ d
        return d if self.right is None else d @ self.right.T


def _is_scale(node: Any) -> bool:
    return isinstance(node, TensorScale)


@family
@dataclass(frozen=True)
class Gaussian:
    """tensors: a `TensorScale` for each tensor of the group, in the group's tree."""

    tensors: Tree

    def _map(self, function: Any, tree: Tree) -> Tree:
        return jax.tree.map(function, self.tensors, tree, is_leaf=_is_scale)

    def _pairs(self, tree: Tree) -> list[tuple[TensorScale, jax.Array]]:
        return list(zip(jax.tree.leaves(self.tensors, is_leaf=_is_scale), jax.tree.leaves(tree), strict=True))

    def colour(self, u: Tree) -> Tree:
        """L (σ·u) Rᵀ: whitened coordinates u to displacements, bare, in θ_g."""
        return self._map(lambda scale, x: scale.rotate_back(scale.stddev.to(scale.stddev.unit) * x), u)

    def whiten(self, displacement: Tree) -> Tree:
        """(Lᵀ d R)/σ: the inverse of `colour`."""
        return self._map(lambda scale, d: scale.rotate(d) / scale.stddev.to(scale.stddev.unit), displacement)

    def cost(self, displacement: Tree, unit: Unit) -> Quantity:
        """½ Σ precision · d² in nat, a scalar; the displacement is in `unit`. UnitError for a σ in another."""
        cost = Quantity(0.0, nat)
        for scale, d in self._pairs(displacement):
            squared = Quantity(scale.rotate(d), unit) ** 2
            # A σ shared by the tensor multiplies the sum once, one of its own each coordinate.
            shared = scale.stddev.shape == ()
            weighted = precision(scale.stddev) * (total(squared) if shared else squared)
            cost = cost + 0.5 * total(assert_unit(weighted, nat, "precision·d²"))
        return cost

    def nats(self, params: Params, anchor: Params, group: str) -> Quantity:
        return -self.cost(difference(params[group], anchor[group]), GROUP_UNITS[group])

    def constant(self, anchor: Params, group: str, measure: Quantity) -> Quantity:
        """− Σ_i ½ log(2π σ_i²/u²); rotations do not change it."""
        terms = [
            total(gaussian_constant(x.size / math.prod(scale.stddev.shape), scale.stddev, measure))
            for scale, x in self._pairs(anchor[group])
        ]
        return sum(terms, start=Quantity(0.0, nat))


def isotropic(group: Tree, stddevs: Sequence[Quantity]) -> Gaussian:
    """One σ a tensor: `stddevs` has a scalar in θ_g for each leaf of the group's tree."""
    leaves, structure = jax.tree.flatten(group)
    scales = [
        TensorScale(Quantity(jnp.asarray(s.to(s.unit), x.dtype), s.unit)) for s, x in zip(stddevs, leaves, strict=True)
    ]
    return Gaussian(jax.tree.unflatten(structure, scales))
