"""One mesh axis, `data`, and how arrays are put on it: the sets of a run are replicated, batches split along it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from honest.errors import UserError

AXIS = "data"


def make_mesh(devices: int | None) -> Mesh:
    """A mesh over the first `devices` devices that JAX sees (all, for None), those of all processes together.

    UserError: there are not so many, or several processes are not to use all of theirs.
    """
    available = jax.devices()
    wanted = len(available) if devices is None else devices
    if wanted > len(available):
        raise UserError(f"parallel.devices asks for {wanted} devices; JAX sees {len(available)}: {available}")
    if wanted < len(available) and jax.process_count() > 1:
        raise UserError(
            f"parallel.devices is {wanted}, but {jax.process_count()} processes have {len(available)} devices "
            "together, and each must use its own: set parallel.devices to null"
        )
    return jax.make_mesh((wanted,), (AXIS,), axis_types=(AxisType.Auto,), devices=available[:wanted])


def check_divisible(batch_rows: int, mesh: Mesh, key: str) -> None:
    """UserError where a batch cannot be split evenly."""
    if batch_rows % mesh.size:
        raise UserError(
            f"{key} is {batch_rows}, which does not divide into {mesh.size} devices; "
            f"take a multiple of {mesh.size}, or set parallel.devices"
        )


def put(tree: Any, shardings: Any) -> Any:
    """The arrays of `tree` on devices as `shardings` (a tree of equal structure, or one for all) say.

    Where there are several processes, an array that one process alone knows is taken to be the same on all of them.
    """
    if isinstance(shardings, NamedSharding):
        return jax.tree.map(lambda leaf: _put(leaf, shardings), tree)
    return jax.tree.map(_put, tree, shardings)


def _put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    own = not isinstance(leaf, jax.Array) or (not isinstance(leaf, jax.core.Tracer) and leaf.is_fully_addressable)
    if jax.process_count() == 1 or not own:
        return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def replicate(tree: Any, mesh: Mesh) -> Any:
    return put(tree, NamedSharding(mesh, PartitionSpec()))


def shard_rows(tree: Any, mesh: Mesh) -> Any:
    """Inside jit: splits the leading axis of every leaf over the devices."""
    rows = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, rows), tree)
