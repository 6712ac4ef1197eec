"""In the place of training: writes a file a member, and does what the first part of a member's name says."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def run_members(folder: Path, names: Sequence[str]) -> int:
    """NAME.tries gets a line a call; NAME.done is there at the end. Returns 0, 2, 3 or 130.

    slow-: runs until it is asked to stop, and is done the next time. once-: fails with 3 the first time.
    fail-: fails with 3. mistake-: 2. raise-: an exception. die-: the process is gone.
    """
    asked: list[int] = []

    def ask(number, _frame):
        asked.append(number)
        signal.signal(number, signal.SIG_DFL)  # a second one stops at once

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return max([run_member(folder, name, asked) for name in names])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_member(folder: Path, name: str, asked: list[int]) -> int:
    tries = folder / f"{name}.tries"
    first = not tries.exists()
    with tries.open("a") as file:
        file.write(f"{os.getpid()} {sorted(os.sched_getaffinity(0))} {os.environ.get('JAX_COMPILATION_CACHE_DIR')}\n")
    print(f"{name} begins")
    os.system(f"echo {name} from a child")
    kind = name.split("-")[0]
    if kind == "slow" and first:
        for _ in range(600):
            if asked:
                time.sleep(0.5)
                print(f"{name} saved")
                return 130
            time.sleep(0.05)
    if kind == "fail" or (kind == "once" and first):
        print(f"{name} went wrong", file=sys.stderr)
        return 3
    if kind == "mistake":
        return 2
    if kind == "raise":
        raise ValueError(f"{name} raises")
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / f"{name}.done").touch()
    return 0
