"""What every engine runs at the other end: exit codes, and where the output goes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
from honest.sweep.engines.task import run_logged
from tests.sweep.stub import run_members
{before}
code = run_logged({run}, Path(sys.argv[1]), sys.argv[2].split(), Path(sys.argv[1], "log", "job.txt"))
print("after", flush=True)
sys.exit(code)
"""


def run(folder: Path, names: str, run: str = "run_members", before: str = ""):
    """The program's exit code, what it printed, and the log."""
    program = PROGRAM.format(run=run, before=before)
    done = subprocess.run(
        [sys.executable, "-c", program, folder, names],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr, (folder / "log" / "job.txt").read_text()


def test_output_is_added_to_the_log_in_its_order(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "job.txt").write_text("an earlier try\n")
    code, shown, log = run(tmp_path, "a fail-b")
    assert (code, shown) == (3, "after\n")
    lines = ["a begins", "a from a child", "fail-b begins", "fail-b from a child", "fail-b went wrong"]
    assert log.splitlines() == ["an earlier try", *lines]


@pytest.mark.parametrize(("names", "code"), [("a", 0), ("mistake-a", 2), ("raise-a", 1)])
def test_exit_codes(tmp_path, names, code):
    given, shown, log = run(tmp_path, names)
    assert (given, shown) == (code, "after\n")
    assert ("ValueError: raise-a raises" in log) == (names == "raise-a")


def test_interrupted_before_it_could_save(tmp_path):
    before = "def early(*_):\n    raise KeyboardInterrupt"
    assert run(tmp_path, "a", "early", before) == (130, "after\n", "")


def test_jax_is_not_imported_before_the_environment_is_there(tmp_path):
    """The compilation cache and an accelerator's share are set by then; a node also begins sooner."""
    check = "import honest.sweep.engines.slurm_task, sys; assert not {'jax', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
