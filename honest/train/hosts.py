"""Several processes that train one run together, each with devices of its own (`parallel.hosts: detect`).

Every process runs the same program on a mesh over all devices. Process 0 alone writes small files and prints; all take
part in checkpoints, and every process must see the run's directory. SLURM, Kubernetes, TPU pods and Open MPI are
detected by JAX; elsewhere three variables say what there is, such as for the first of two processes on one machine

    JAX_COORDINATOR_ADDRESS=localhost:12355 HONEST_PROCESSES=2 HONEST_PROCESS=0 honest train CONFIG
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from honest.config import ParallelConfig
from honest.errors import UserError
from honest.train.sharding import replicate

ADDRESS, PROCESSES, PROCESS = "JAX_COORDINATOR_ADDRESS", "HONEST_PROCESSES", "HONEST_PROCESS"
STOP_EVERY = 10  # steps between agreements on whether to stop; each one waits for the steps before it
LONGEST = 4096  # bytes of a message between processes


def join(parallel: ParallelConfig) -> None:
    """Joins the other processes, once in a process and before anything is computed; alone under `hosts: one`.

    UserError: nothing says who the others are, or they cannot be reached; or the strategy is pmap.
    """
    if parallel.hosts == "one" or jax.distributed.is_initialized():
        return
    if parallel.strategy == "pmap":
        raise UserError(
            "parallel.strategy pmap is of one process, but parallel.hosts is detect; take auto or fsdp, or hosts: one"
        )
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        jax.distributed.initialize(**told())
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"parallel.hosts is detect, but no cluster was detected or joined ({str(error).splitlines()[0]}); outside "
            f"SLURM, Kubernetes, TPU pods and Open MPI set {ADDRESS}, {PROCESSES} and {PROCESS}, or parallel.hosts=one"
        ) from error
    for number, handler in handlers.items():
        signal.signal(number, handler)  # JAX has put its own in the place of some
    if jax.default_backend() == "cpu":
        # A CPU program that comes from the cache on disk waits for ever in its first collective (jax 0.10.2: seen when
        # such a run was resumed; without the cache, or with an empty one, it goes on).
        jax.config.update("jax_enable_compilation_cache", False)


def told() -> dict[str, Any]:
    """What the environment says of this process; empty where JAX is to detect it. UserError: it says half of it."""
    named = [name for name in (PROCESSES, PROCESS) if name in os.environ]
    if not named:
        return {}
    missing = [name for name in (ADDRESS, PROCESSES, PROCESS) if name not in os.environ]
    if missing:
        raise UserError(f"{named[0]} is set, but {missing[0]} is not; a process needs all three")
    try:
        return {"num_processes": int(os.environ[PROCESSES]), "process_id": int(os.environ[PROCESS])}
    except ValueError as error:
        raise UserError(f"{PROCESSES} and {PROCESS} are to be integers: {error}") from error


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def on_first(action: Callable[[], Any]) -> None:
    """Runs `action` on process 0 alone, for whose end the others wait; its UserError is raised on all of them."""
    if jax.process_count() == 1:
        action()
        return
    said = b""
    if is_first():
        try:
            action()
        except UserError as error:
            said = str(error).encode()[:LONGEST]
    heard = multihost_utils.broadcast_one_to_all(np.frombuffer(said.ljust(LONGEST, b"\0"), np.uint8))
    message = np.asarray(heard, np.uint8).tobytes().rstrip(b"\0").decode(errors="replace")
    if message:
        raise UserError(message)


@contextlib.contextmanager
def quiet_but_first() -> Iterator[None]:
    """What the other processes would print a second time is dropped; stderr stays."""
    if is_first():
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def stop_together(asked: Callable[[], bool]) -> Callable[[], bool]:
    """`asked`, where one process's yes is the yes of all, at the same step: they agree every `STOP_EVERY` calls."""
    return asked if jax.process_count() == 1 else _StopTogether(asked)


class _StopTogether:
    """All processes call it equally often."""

    def __init__(self, asked: Callable[[], bool]):
        self.asked, self.calls, self.stop = asked, 0, False

    def __call__(self) -> bool:
        self.calls += 1
        if self.calls % STOP_EVERY == 0 and not self.stop:
            self.stop = bool(np.any(multihost_utils.process_allgather(np.asarray(self.asked()))))
        return self.stop


def own_copy(tree: Any, mesh: Mesh) -> Any:
    """The arrays of `tree`, gathered, on one device of this process: what evaluations and later stages read.

    All processes must call it together. On a mesh of one device the tree itself.
    """
    if mesh.size == 1:
        return tree
    return jax.tree.map(_first_part, replicate(tree, mesh))


def _first_part(leaf: jax.Array) -> jax.Array:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_first_part(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    return leaf.addressable_data(0)
