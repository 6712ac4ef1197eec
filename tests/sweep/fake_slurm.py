"""A SLURM cluster of one machine, for tests: sbatch, srun, squeue, sacct, scancel and scontrol, told apart by the name
that this file is called by. Jobs begin at once unless FAKE_SLURM/hold exists.

FAKE_SLURM/ID/  state, script, restarts, pids of its tasks    FAKE_SLURM/calls  a line "command arguments" a call
What it does is what SLURM's manual pages say of the options that are used.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

HOME = Path(os.environ["FAKE_SLURM"])
QUEUED = ("PENDING", "RUNNING", "COMPLETING")


def get(job: str, name: str) -> str:
    path = HOME / job / name
    return path.read_text() if path.exists() else ""


def put(job: str, name: str, text: str) -> None:
    path = HOME / job / name
    temporary = path.with_name(f"{name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def option(job: str, name: str) -> str:
    """Of the script's #SBATCH lines."""
    found = re.search(rf"^#SBATCH --{name}(?:=(.*))?$", get(job, "script"), re.M)
    return shlex.split(found[1])[0] if found and found[1] else ""


def sbatch(arguments: list[str]) -> int:
    if (HOME / "refuse").exists():
        print("sbatch: error: Invalid account or account/partition combination specified", file=sys.stderr)
        return 1
    number = 100
    while True:
        try:
            (HOME / str(number)).mkdir()
            break
        except FileExistsError:
            number += 1
    job = str(number)
    put(job, "script", Path(arguments[-1]).read_text())
    put(job, "restarts", "0")
    put(job, "state", "PENDING")
    if not (HOME / "hold").exists():
        begin(job)
    print(f"Submitted batch job {job}")
    return 0


def begin(job: str) -> None:
    null = subprocess.DEVNULL
    subprocess.Popen([__file__, "node", job], start_new_session=True, stdin=null, stdout=null, stderr=null)


def node(arguments: list[str]) -> int:
    """slurmd: runs the script, and again for as long as somebody has it requeued."""
    (job,) = arguments
    while True:
        time.sleep(0.2)  # submitit moves the job's pickle to its place once sbatch has returned
        (HOME / job / "requeue").unlink(missing_ok=True)
        put(job, "state", "RUNNING")
        nodes = option(job, "nodes") or "1"
        each = option(job, "ntasks-per-node") or "1"
        environment = {
            **os.environ,
            "SLURM_JOB_ID": job,
            "SLURM_JOB_NUM_NODES": nodes,
            "SLURM_NTASKS": str(int(nodes) * int(each)),
            "SLURM_RESTART_COUNT": get(job, "restarts"),
        }
        with open(option(job, "output").replace("%j", job), "a") as output:
            script = ["bash", str(HOME / job / "script")]
            code = subprocess.run(script, env=environment, stdout=output, stderr=output).returncode
        (HOME / job / "pids").unlink(missing_ok=True)
        if (HOME / job / "requeue").exists():
            put(job, "restarts", str(int(get(job, "restarts")) + 1))
            put(job, "state", "PENDING")
            continue
        put(job, "state", get(job, "final") or ("COMPLETED" if code == 0 else "FAILED"))
        return 0


def srun(arguments: list[str]) -> int:
    job, output, command = os.environ["SLURM_JOB_ID"], "", list(arguments)
    while command[0].startswith("--"):
        flag = command.pop(0)
        if flag in ("--output", "--error"):
            output = command.pop(0)
    tasks = []
    for number in range(int(os.environ["SLURM_NTASKS"])):
        environment = {**os.environ, "SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)}
        with open(output.replace("%j", job).replace("%t", str(number)), "a") as file:
            tasks.append(subprocess.Popen(command, env=environment, stdout=file, stderr=file))
    put(job, "pids", " ".join(str(task.pid) for task in tasks))
    return max(abs(task.wait()) for task in tasks)


def send(job: str, number: int) -> None:
    for pid in get(job, "pids").split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), number)


def scancel(arguments: list[str]) -> int:
    job, state = arguments[-1], get(arguments[-1], "state")
    assert len(arguments) == 1 or arguments[0] == "--state=PENDING" or arguments[0].startswith("--signal=")
    if "--state=PENDING" in arguments:
        if state == "PENDING":
            put(job, "state", "CANCELLED by 0")
        return 0
    asked = [argument for argument in arguments if argument.startswith("--signal=")]
    if asked:
        send(job, signal.Signals["SIG" + asked[0].split("=")[1]])
        return 0
    if state == "PENDING":
        put(job, "state", "CANCELLED by 0")
    elif state == "RUNNING":
        put(job, "final", "CANCELLED by 0")
        send(job, signal.SIGTERM)
    return 0


def scontrol(arguments: list[str]) -> int:
    command, job = arguments
    assert command == "requeue"
    put(job, "requeue", "")
    return 0


def sacct(arguments: list[str]) -> int:
    print("JobID|State|NodeList")
    for job in sorted({arguments[i + 1] for i, argument in enumerate(arguments) if argument == "-j"}):
        state = get(job, "shown") or get(job, "state")
        if state:
            print(f"{job}|{state}|here\n{job}.batch|{state}|here")
    return 0


def squeue(arguments: list[str]) -> int:
    job = arguments[arguments.index("--jobs") + 1]
    if (HOME / "squeue_fails").exists():
        print("slurm_load_jobs error: Unable to contact slurm controller", file=sys.stderr)
        return 1
    if not (HOME / job).exists():
        print("slurm_load_jobs error: Invalid job id specified", file=sys.stderr)
        return 1
    if get(job, "state") in QUEUED:
        print(f"{job} here honest {get(job, 'state')}")
    return 0


if __name__ == "__main__":
    called, rest = Path(sys.argv[0]).name, sys.argv[1:]
    if rest and rest[0] == "node":
        called, rest = rest[0], rest[1:]
    with (HOME / "calls").open("a") as calls:
        calls.write(shlex.join([called, *rest]) + "\n")
    commands = {each.__name__: each for each in (sbatch, node, srun, scancel, scontrol, sacct, squeue)}
    sys.exit(commands[called](rest))
