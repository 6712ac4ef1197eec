"""Scales of a diagonal prior from a file: an .npz with one array a tensor, and the unit that they are in.

    np.savez(path, unit="θ.trunk", **{"embedding_VxD": σ, "blocks/0/mlp/in_kernel_DxF": σ, …})

Names are the tensors' paths; an array has the tensor's shape, or is one number for the whole tensor. `write` makes one.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from honest.errors import UserError
from honest.objective.parameter_prior.gaussian import Gaussian, TensorScale
from honest.params import Tree, tensor_paths
from honest.units import Quantity, Unit, UnitError, parse_unit

UNIT = "unit"


def write(path: Path, scales: Mapping[str, Quantity]) -> None:
    """scales: tensor path -> σ in one θ_g. FileExistsError: nothing is overwritten."""
    units = {scale.unit for scale in scales.values()}
    if len(units) != 1:
        raise UnitError(f"a file of scales has one unit, not {sorted(map(str, units))}")
    (unit,) = units
    arrays = {name: np.asarray(scale.to(unit)) for name, scale in scales.items()}
    with path.open("xb") as file:
        np.savez(file, allow_pickle=False, **{UNIT: np.asarray(str(unit)), **arrays})


def read(path: Path, group: Tree, unit: Unit, key: str) -> Gaussian:
    """The diagonal prior of a file, for a group's tree (arrays or shapes). UserError names `key`, file and tensor."""

    def fail(what: str) -> UserError:
        return UserError(f"{key}: {path}: {what}")

    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise fail(f"cannot be read as .npz ({error}); write it by np.savez, with an entry 'unit'") from None
    if UNIT not in arrays:
        raise fail(f"has no entry 'unit'; add unit={str(unit)!r}")
    given = str(arrays.pop(UNIT))
    try:
        known = parse_unit(given)
    except UnitError as error:
        raise fail(str(error)) from None
    if known != unit:
        raise fail(f"is in {given}, not {unit}")
    leaves = dict(zip(tensor_paths(group), jax.tree.leaves(group), strict=True))
    wrong = sorted(set(arrays) ^ set(leaves))
    if wrong:
        side = "has no tensor" if wrong[0] in leaves else "has an unknown tensor"
        raise fail(f"{side} {wrong[0]!r}; the group's tensors are {', '.join(leaves)}")
    for name, leaf in leaves.items():
        array = arrays[name]
        if array.shape not in ((), leaf.shape):
            raise fail(f"{name} has shape {array.shape}, expected {leaf.shape} or one number")
        with np.errstate(over="ignore", under="ignore"):
            array = array.astype(leaf.dtype) if array.dtype.kind in "fiu" else np.zeros(())
        if not (np.isfinite(array) & (array > 0)).all():
            raise fail(f"{name} must hold positive, finite numbers in {unit}")
    scales = [TensorScale(Quantity(jnp.asarray(arrays[name], leaf.dtype), unit)) for name, leaf in leaves.items()]
    return Gaussian(jax.tree.unflatten(jax.tree.structure(group), scales))
