"""Taking over another run's trunk: by the command, into a run of baselines alone; and what is refused."""

import json

import pytest

from honest.config_io import load_config
from honest.errors import UserError
from honest.run import ask
from honest.train.run_directory import RunDirectory
from honest.train.shared_trunk import adopt_trunk, check_trunk
from tests.conftest import Finished, write_tiny

METHODS = "methods=[dbat, confidence, lda, random]"
LINES = (
    "D-BAT: base head",
    "D-BAT: contradicting head",
    "confidence loss",
    "probe: LDA",
    "random direction",
    "always False",
)


@pytest.fixture(scope="module")
def borrowed(runner, tiny_run: Finished) -> Finished:
    """Baselines alone, on the trunk of the run that tests share."""
    config = write_tiny(runner.folder / "borrowed.yaml", METHODS)
    directory = runner.folder / "borrowed"
    done = runner("train", config, "--workdir", directory, "--trunk-from", tiny_run.directory)
    return Finished(directory, config, done.returncode, done.stdout, done.stderr)


def files_of(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_trunk_is_the_lenders_and_is_not_trained_again(borrowed, tiny_run):
    assert borrowed.returncode == 0, borrowed.stderr
    lent, taken = (files_of(run.directory / "checkpoints" / "trunk" / "6") for run in (tiny_run, borrowed))
    assert lent and lent == taken
    assert "trunk " not in borrowed.stdout.replace("Trunk-stage", "")  # no progress of that stage


def test_a_run_without_the_full_objective_reports_its_heads_alone(borrowed):
    summary = json.loads((borrowed.directory / "summary.json").read_text(encoding="utf-8"))
    assert tuple(summary["scores"]) == LINES
    assert summary["ledger"] is summary["sentence"] is summary["log_partition_checks"] is None
    assert "Ledger" not in borrowed.stdout and "log Z" not in borrowed.stdout
    with pytest.raises(UserError, match="it has no prior"):
        ask(RunDirectory(borrowed.directory), "3 + 4 = 7. Bob:")


@pytest.mark.parametrize("change", ["seed=1", "model.width=32", "task.error_rate=0.5", "stages.trunk.steps=7"])
def test_a_trunk_of_other_settings_is_refused(tiny_run, tmp_path, change):
    config = load_config(write_tiny(tmp_path / "other.yaml", change)).config
    with pytest.raises(UserError, match=f"other settings\n  {change.split('=')[0]}: run has"):
        check_trunk(RunDirectory(tiny_run.directory), config)


def test_settings_that_the_trunk_does_not_feel_may_differ(tiny_run, tmp_path):
    changes = (METHODS, "objective.phases.kind=points", "stages.heads.steps=7", "evaluation.bootstrap=7")
    check_trunk(RunDirectory(tiny_run.directory), load_config(write_tiny(tmp_path / "other.yaml", *changes)).config)


def test_an_unfinished_trunk_is_refused_and_no_run_is_no_lender(tiny_run, tmp_path):
    config = load_config(tiny_run.config).config
    for name in ("config.yaml", "units.json"):
        (tmp_path / name).write_bytes((tiny_run.directory / name).read_bytes())
    with pytest.raises(UserError, match="has not begun; finish that run first"):
        check_trunk(RunDirectory(tmp_path), config)
    with pytest.raises(UserError, match="not a run directory"):
        check_trunk(RunDirectory(tmp_path / "nowhere"), config)


def test_a_trunk_stage_that_has_begun_is_left_alone(tiny_run, tmp_path):
    own = RunDirectory(tmp_path)
    own.checkpoints("trunk").mkdir(parents=True)
    adopt_trunk(RunDirectory(tiny_run.directory), own)
    assert not list(own.checkpoints("trunk").iterdir())


def test_lists_that_differ_are_told_in_full(tiny_run, tmp_path):
    config = load_config(write_tiny(tmp_path / "other.yaml", "methods=[prior]")).config
    told = r"methods: run has \[single_head, plain_heads, truth_ceiling, prior\], command asks \[prior\]"
    with pytest.raises(UserError, match=told):
        RunDirectory(tiny_run.directory).check(config)
