"""Checkpoints of the whole training state, written in the background by orbax.

A step is *committed* once orbax has renamed its temporary directory to its final name, which is atomic; a
process killed at any earlier moment leaves a temporary directory that nobody reads and that the next save
removes. The tree is stored as a flat list of leaves beside a description of each (path, shape, dtype):
NamedTuples, None and empty tuples come back from the tree given to `restore`, and nothing is cast or reshaped
on the way.
"""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from honest.errors import UserError

DISCARDED = "discarded"  # old steps are renamed into here first: a half-deleted one never looks committed
SHOWN = 6  # differences that an error lists


class Checkpoints:
    """The newest `keep` checkpoints under one directory; one process at a time may save.

    Reading (`committed_steps`, `latest`, `restore`) changes nothing on disk, so that a running training can
    be asked.
    """

    def __init__(self, directory: str | Path, keep: int):
        if keep < 1:
            raise ValueError(f"keep must be at least 1, is {keep}")
        self.directory = Path(directory).resolve()
        self.keep = keep

    def save(self, step: int, state: Any, pending: list[Any]) -> None:
        """Start to write `state` (pytree of arrays) and `pending` (JSON), once the save before is committed.

        Returns when the arrays are safe to be donated or overwritten. ValueError: `step` is not above every
        committed step (nothing is overwritten); TypeError: a leaf is not an array. An error of the save
        before is raised here.
        """
        self.wait()
        newest = self.latest()
        if newest is not None and step <= newest:
            raise ValueError(f"step {step} cannot be saved: step {newest} is committed already")
        names, leaves = _flatten(state)
        arrays = {_key(i): _storable(leaf) for i, leaf in enumerate(leaves) if leaf.size}
        items = {
            "leaves": ocp.args.JsonSave([_describe(*item) for item in zip(names, leaves, strict=True)]),
            "pending": ocp.args.JsonSave(list(pending)),
        }
        if arrays:
            items["state"] = ocp.args.StandardSave(arrays)
        self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def wait(self) -> None:
        """Block until the save under way, if any, is committed; raise the error that it met."""
        if "_manager" not in self.__dict__:  # nothing was saved by this process
            return
        self._manager.wait_until_finished()
        if jax.process_index() == 0 and (self.directory / DISCARDED).exists():
            shutil.rmtree(self.directory / DISCARDED)

    def committed_steps(self) -> list[int]:
        """Steps whose checkpoint is complete on disk, in increasing order."""
        return sorted(ocp.utils.checkpoint_steps(self.directory)) if self.directory.exists() else []

    def latest(self) -> int | None:
        """The newest committed step; None if there is none."""
        return max(self.committed_steps(), default=None)

    def restore(self, step: int, like: Any) -> tuple[Any, list[Any]]:
        """(state, pending) of a committed step, bit for bit.

        like: the tree to fill; each leaf a jax.Array or ShapeDtypeStruct (restored with its sharding, or on
        the default device if it has none) or a numpy array (restored as numpy). UserError: no such step, or
        the saved tree has other leaves, shapes or dtypes.
        """
        if step not in self.committed_steps():
            raise UserError(f"{self.directory}: no committed checkpoint of step {step}, only {self.committed_steps()}")
        names, leaves = _flatten(like)
        path = self.directory / str(step)
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            host = ocp.args.Composite(leaves=ocp.args.JsonRestore(), pending=ocp.args.JsonRestore())
            described = reader.restore(path, args=host)
            saved = described["leaves"]
            _check_same(path, saved, [_describe(*item) for item in zip(names, leaves, strict=True)])
            wanted = {_key(i): _target(leaf) for i, leaf in enumerate(leaves) if leaf.size}
            arrays = {}
            if wanted:
                tree = ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
                arrays = reader.restore(path, args=tree)["state"]
        restored = [
            _restored(arrays[_key(i)], saved[i]["key"], leaf) if leaf.size else _empty(leaf)
            for i, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(jax.tree.structure(like), restored), described["pending"]

    def close(self) -> None:
        """Wait for the save under way and stop orbax's threads."""
        self.wait()
        if "_manager" in self.__dict__:
            self._manager.close()
            del self._manager

    @cached_property
    def _manager(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(self.keep),
            todelete_subdir=DISCARDED,
            cleanup_tmp_directories=True,  # left by a killed process
            enable_async_checkpointing=True,
        )
        return ocp.CheckpointManager(self.directory, options=options)


def _key(index: int) -> str:
    return f"{index:06d}"


def _flatten(tree: Any) -> tuple[list[str], list[Any]]:
    """Paths and leaves; TypeError if one is not an array, typed key or ShapeDtypeStruct."""
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    names = [jax.tree_util.keystr(path) for path, _ in pairs]
    for name, (_, leaf) in zip(names, pairs, strict=True):
        if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct | np.ndarray | np.generic):
            raise TypeError(f"state{name} is a {type(leaf).__name__}; a checkpoint holds arrays only")
    return names, [leaf for _, leaf in pairs]


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _describe(name: str, leaf: Any) -> dict[str, Any]:
    """What must agree between a saved leaf and the leaf it is restored to; `key` is the generator of a typed
    key.
    """
    keyed = _is_key(leaf) and isinstance(leaf, jax.Array)
    generator = str(jax.random.key_impl(leaf)) if keyed else None
    return {"path": name, "shape": list(leaf.shape), "dtype": str(leaf.dtype), "key": generator}


def _storable(leaf: Any) -> Any:
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    return np.asarray(leaf) if isinstance(leaf, np.generic) else leaf


def _target(leaf: Any) -> Any:
    """The array that orbax is to read for this leaf."""
    if isinstance(leaf, np.ndarray | np.generic):
        return np.empty(leaf.shape, leaf.dtype)
    bare = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    return jax.ShapeDtypeStruct(bare.shape, bare.dtype, sharding=_sharding(leaf))


def _sharding(leaf: Any) -> jax.sharding.Sharding:
    if leaf.sharding is not None:
        return leaf.sharding
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def _restored(array: Any, generator: str | None, leaf: Any) -> Any:
    if generator is not None:
        return jax.random.wrap_key_data(array, impl=generator)
    return array[()] if isinstance(leaf, np.generic) else array


def _empty(leaf: Any) -> Any:
    """A leaf without elements, which orbax does not store."""
    empty = np.empty(leaf.shape, leaf.dtype)
    return empty if isinstance(leaf, np.ndarray) else jax.device_put(empty, _sharding(leaf))


def _check_same(path: Path, saved: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """UserError that lists the leaves by which the saved tree and the wanted one differ."""
    old, new = ({leaf["path"]: f"{leaf['dtype']}{leaf['shape']}" for leaf in side} for side in (saved, wanted))
    differences = [f"state{name}: only in the checkpoint" for name in old if name not in new]
    differences += [f"state{name}: not in the checkpoint" for name in new if name not in old]
    differences += [
        f"state{name}: {old[name]} in the checkpoint, {new[name]} expected"
        for name in old
        if name in new and old[name] != new[name]
    ]
    if not differences and list(old) != list(new):
        differences = ["the same leaves stand in another order"]
    if differences:
        more = f"\n  and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        listed = "\n  ".join(differences[:SHOWN])
        raise UserError(f"{path}: the checkpoint is of another state than the one expected\n  {listed}{more}")
