"""Data parallelism: one mesh axis, `data`; batches are split along it and everything else is replicated."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from honest.errors import UserError

AXIS = "data"


def make_mesh(devices: int | None) -> Mesh:
    """A mesh over the first `devices` devices that JAX sees (all, for None)."""
    available = jax.devices()
    wanted = len(available) if devices is None else devices
    if wanted > len(available):
        raise UserError(f"parallel.devices asks for {wanted} devices; JAX sees {len(available)}: {available}")
    return jax.make_mesh((wanted,), (AXIS,), axis_types=(AxisType.Auto,), devices=available[:wanted])


def check_divisible(batch_rows: int, mesh: Mesh, key: str) -> None:
    """UserError where a batch cannot be split evenly."""
    if batch_rows % mesh.size:
        raise UserError(
            f"{key} is {batch_rows}, which does not divide into {mesh.size} devices; "
            f"take a multiple of {mesh.size}, or set parallel.devices"
        )


def replicate(tree: Any, mesh: Mesh) -> Any:
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def shard_rows(tree: Any, mesh: Mesh) -> Any:
    """Inside jit: splits the leading axis of every leaf over the devices."""
    rows = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, rows), tree)
