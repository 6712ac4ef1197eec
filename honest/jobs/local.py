"""Jobs as processes of this machine, its cores and accelerators shared out among them."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from honest.jobs.pool import Job

TOPOLOGY = Path("/sys/devices/system/cpu")
Command = Callable[[Job], list[str]]
COMPILED = "compiled"  # in a folder of runs: XLA's programs; what does not hold a seed is compiled once
MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"
SHARED_MEMORY = 0.9  # of an accelerator that several processes share


class Process:
    """A process in a session of its own, so that Ctrl-C reaches it once, through `interrupt`."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str], cores: Sequence[int]):
        with log.open("a", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        if cores:  # before it has imported anything that starts a thread
            with contextlib.suppress(OSError):  # cores that were taken away since: a share is for speed alone
                os.sched_setaffinity(self.process.pid, cores)

    def poll(self) -> int | None:
        return self.process.poll()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        self.process.kill()


class LocalEngine:
    """`slots` processes at a time; what does not hold a seed is compiled once for all of them.

    Each slot has its own share of the cores, whole ones where there are enough: two unpinned processes on two cores
    take turns on both, and were measured to need a fifth to a half more time than one core each. Accelerators are
    shared out alike; where there are fewer than slots, several processes share one and its memory. One slot alone has
    the whole machine.
    """

    def __init__(self, slots: int, command: Command, cache: Path):
        self.slots, self.command, self.cache = slots, command, cache

    def start(self, job: Job, slot: int) -> Process:
        environment = {
            **os.environ,
            **accelerators(slot, self.slots, visible_accelerators()),
            **compiled_once(self.cache.resolve()),
        }
        return Process(self.command(job), job.log, environment, cores(slot, self.slots))


def compiled_once(cache: Path) -> dict[str, str]:
    """The environment in which XLA's programs are kept in `cache`, for the next process that needs the same."""
    return {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1"}


def cores(slot: int, slots: int) -> list[int]:
    """The slot's share of the processors that this process may use; none (no pinning) for one slot, or too few."""
    if slots == 1 or not hasattr(os, "sched_getaffinity"):
        return []
    usable = sorted(os.sched_getaffinity(0))
    return shares(usable, {cpu: siblings(cpu, TOPOLOGY) for cpu in usable}, slots)[slot]


def shares(cpus: Sequence[int], same_core: Mapping[int, frozenset[int]], jobs: int) -> list[list[int]]:
    """Processors of each of `jobs` jobs: whole cores where there are enough, else single hyper-threads, else none.

    cpus: in ascending order. same_core: processor -> all that share its core, itself too.
    """
    by_core: dict[frozenset[int], list[int]] = {}
    for cpu in cpus:
        by_core.setdefault(same_core[cpu], []).append(cpu)
    whole = list(by_core.values())
    dealt = whole if len(whole) >= jobs else [[cpu] for cpu in cpus]
    if len(dealt) < jobs:
        return [[] for _ in range(jobs)]
    return [sorted(itertools.chain(*dealt[job::jobs])) for job in range(jobs)]


def siblings(cpu: int, topology: Path) -> frozenset[int]:
    """The processors on the core of `cpu`, such as 0 and 4 of "0,4"; itself alone where the system does not say."""
    try:
        listed = (topology / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text(encoding="ascii")
    except OSError:
        return frozenset([cpu])
    ranges = (part.split("-") for part in listed.strip().split(","))
    return frozenset(number for ends in ranges for number in range(int(ends[0]), int(ends[-1]) + 1))


def visible_accelerators() -> list[str]:
    """NVIDIA GPUs by number: those of CUDA_VISIBLE_DEVICES, else all that the driver shows. JAX is not asked: it would
    take their memory."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        named = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        return list(itertools.takewhile(lambda name: name and not name.startswith("-"), named))  # as CUDA reads it
    return sorted((path.name[6:] for path in Path("/dev").glob("nvidia[0-9]*")), key=int)


def accelerators(slot: int, slots: int, devices: Sequence[str]) -> dict[str, str]:
    """The environment that gives a slot its share of the accelerators; none where there are none to share."""
    if slots == 1 or not devices:
        return {}
    if len(devices) >= slots:
        return {"CUDA_VISIBLE_DEVICES": ",".join(devices[slot::slots])}
    sharing = -(-slots // len(devices))
    return {"CUDA_VISIBLE_DEVICES": devices[slot % len(devices)], MEMORY: f"{SHARED_MEMORY / sharing:.3f}"}
