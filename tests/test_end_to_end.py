"""Whole runs of the shrunken config, through the command line: what they leave, print, refuse and answer."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import jax
import matplotlib.image
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from honest.cli import main
from honest.config_io import load_config
from honest.errors import UserError
from honest.train.run_directory import RunDirectory
from tests.conftest import WAIT_SECONDS, Finished, write_tiny

GOLDEN = Path(__file__).parent / "golden" / "tiny.json"
STAGES = ("trunk", "single_head", "plain_heads", "truth_ceiling", "prior")
STEPS = {"trunk": 6, "single_head": 6, "plain_heads": 6, "truth_ceiling": 6, "prior": 9}
BEFORE_PRIOR = 24  # steps of the stages before it
LINES = (
    "single head",
    "plain heads: intended",
    "plain heads: instrumental",
    "truth-trained ceiling",
    "under the prior: intended",
    "under the prior: instrumental",
    "always False",
)
COLUMNS = (
    "truth_trusted",
    "person_trusted",
    "acceptance_trusted",
    "truth_fooled",
    "person_fooled",
    "acceptance_fooled",
)
TERMS = ("data", "first_prior", "second_prior", "constants", "consistency", "log_partition")
# With an exchange rate this high a mode is 9 steps from nowhere: its energy claims far too low a log Z, which would
# pay its heads bits that do not exist; and with more bridges the bounds know better.
OVERCLAIM = (
    "objective.multiplier.initial=1000.0 nat/disagreement",
    "objective.multiplier.maximum=1000.0 nat/disagreement",
    "evaluation.log_partition.bridges=40",
)
POINTS = (
    "precision=float32",
    "objective.staging=all",
    "objective.anchor=trained",
    "objective.phases.kind=points",
    "evaluation.every=9",
    *OVERCLAIM,
)


class Started(NamedTuple):
    """Processes that run beside the tests. `again` trains `copy`, a copy of the finished run; `before`: its files."""

    again: Future[subprocess.CompletedProcess]
    evaluated: Future[subprocess.CompletedProcess]
    asked: Future[subprocess.CompletedProcess]
    units: Future[subprocess.CompletedProcess]
    chains: Future[Finished]
    points: Future[Finished]
    copy: Path
    before: dict[str, str]


@pytest.fixture(scope="module", autouse=True)
def started(runner, tiny_run, chains_soon) -> Started:
    """All processes of this module, two at a time; whoever needs one waits for it."""
    copy = runner.folder / "copy"
    shutil.copytree(tiny_run.directory, copy)
    before = fingerprints(copy)
    return Started(
        again=runner.soon("train", tiny_run.config, "--workdir", copy),
        evaluated=runner.soon("evaluate", tiny_run.directory, "--json", runner.folder / "evaluated.json"),
        asked=runner.soon("ask", tiny_run.directory, "3 + 4 = 7. Bob:"),
        units=runner.soon("units", tiny_run.directory, "--json", runner.folder / "units.json"),
        chains=chains_soon,
        points=runner.train_soon("points", *POINTS),
        copy=copy,
        before=before,
    )


@pytest.fixture
def command(capsys) -> Iterator[Callable]:
    """The command `honest` in this process: (exit code, stdout, stderr)."""
    x64 = jax.config.read("jax_enable_x64")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    yield call
    jax.config.update("jax_enable_x64", x64)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def summary_of(directory: Path) -> dict:
    return json.loads((directory / "summary.json").read_text(encoding="utf-8"))


def fingerprints(directory: Path) -> dict[str, str]:
    """Digest of every file below a directory."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


def events_of(directory: Path) -> EventAccumulator:
    read = EventAccumulator(str(directory), size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
    return read.Reload()


def printed_table(stdout: str) -> dict[str, list[float]]:
    """Table line -> its shares, without the intervals."""
    lines = {}
    for line in stdout.splitlines():
        cells = re.split(r"\s{2,}", line.strip())
        if len(cells) == 7 and re.fullmatch(r"\d\.\d\d \[.*\]", cells[1]):
            lines[cells[0]] = [float(cell.split()[0]) for cell in cells[1:]]
    return lines


def printed_ledger(stdout: str) -> dict[tuple[str, str], tuple[float, float]]:
    """(term, group) -> (nats, bits)."""
    rows = {}
    for line in stdout.splitlines():
        if found := re.fullmatch(r"(\w+)\s+(.*?)\s+(-?[\d,]+\.\d{3})\s+(-?[\d,]+\.\d{3})", line):
            nats, bits = (float(found[i].replace(",", "")) for i in (3, 4))
            rows[found[1], found[2]] = nats, bits
    return rows


def assert_adds_up(ledger: dict[tuple[str, str], tuple[float, float]]) -> None:
    """The printed rows add up to the printed total (each is rounded to 0.001), and a bit is ln 2 nats."""
    rows = dict(ledger)
    total = rows.pop(("total", ""))
    assert {term for term, _ in rows} == set(TERMS)
    rounding = 0.0005 * (len(rows) + 1)
    for unit in range(2):
        assert sum(row[unit] for row in rows.values()) == pytest.approx(total[unit], abs=rounding)
    for nats, bits in ledger.values():
        assert bits * math.log(2) == pytest.approx(nats, abs=0.001)


def report_of(stdout: str) -> str:
    """The tables and the sentence; not what comes before, and not the paths that come after."""
    start = re.search(r"^head +truth trusted", stdout, re.MULTILINE)
    assert start, stdout
    return stdout[start.start() : stdout.index("accuracy against the truth lies above")]


def assert_mistake(outcome: tuple[int, str, str], *words: str) -> None:
    """Exit code 2 and one message on stderr that has these words; no traceback."""
    code, _, stderr = outcome
    assert code == 2
    assert stderr.startswith("honest: ") and "Traceback" not in stderr
    for word in words:
        assert word in stderr, stderr


# --- what a run leaves ----------------------------------------------------------------------------------------


def test_run_directory_is_whole(tiny_run):
    names = {path.name for path in tiny_run.directory.iterdir()}
    files = {"config.yaml", "units.json", "environment.json", "summary.json", "figures", "checkpoints"}
    assert files <= names
    assert {name for name in names - files if "tfevents" not in name} == {".lock"}
    assert load_config(tiny_run.directory / "config.yaml").config == load_config(tiny_run.config).config
    units = json.loads((tiny_run.directory / "units.json").read_text(encoding="utf-8"))
    assert units["objective.multiplier.tolerance"] == "disagreement/example"
    environment = json.loads((tiny_run.directory / "environment.json").read_text(encoding="utf-8"))
    assert environment["packages"]["jax"] == jax.__version__ and environment["command"].startswith("honest train ")
    picture = matplotlib.image.imread(tiny_run.directory / "figures" / "heads.png")
    assert picture.std() > 0.01  # something is drawn


def test_every_stage_is_checkpointed_to_its_end(tiny_run):
    for stage in STAGES:
        folder = tiny_run.directory / "checkpoints" / stage
        assert max(int(path.name) for path in folder.iterdir() if path.name.isdigit()) == STEPS[stage]


def test_metrics_have_their_tags_and_add_up(tiny_run):
    summary = summary_of(tiny_run.directory)
    for tag in summary["metrics"]:
        assert re.fullmatch(r"objective/\w+_nats|ledger/\w+_bits|(constraint|divergence|honesty)/\w+", tag)
    bits = {tag: value for tag, value in summary["metrics"].items() if tag.startswith("ledger/")}
    total = bits.pop("ledger/total_bits")
    assert math.fsum(bits.values()) == pytest.approx(total, rel=1e-9)
    assert summary["ledger"]["total_nats"] == pytest.approx(total * math.log(2), rel=1e-9)
    low, middle, high = (
        summary["metrics"][f"objective/log_partition_{side}_nats"] for side in ("lower", "sampled", "upper")
    )
    assert low < middle < 0 and low < high <= 0
    cap = summary["ledger"]["multiplier_nats_per_disagreement"] * 64 * math.log(2)  # C̄ ≤ ln 2 nats a row
    assert low > -cap - math.log(1 / 0.01)


def test_printed_table_states_the_scores(tiny_run):
    table, scores = printed_table(tiny_run.stdout), summary_of(tiny_run.directory)["scores"]
    assert tuple(table) == LINES == tuple(scores)
    for name, shares in table.items():
        assert shares == [round(scores[name][column]["value"], 2) for column in COLUMNS]
        # on fooled rows the person is wrong; on trusted rows right
        assert scores[name]["truth_fooled"]["value"] + scores[name]["person_fooled"]["value"] == pytest.approx(1)
        assert scores[name]["truth_trusted"]["value"] == scores[name]["person_trusted"]["value"]
    assert table["always False"][2] == table["always False"][5] == 0.0


def test_printed_ledger_adds_up(tiny_run):
    ledger = printed_ledger(tiny_run.stdout)
    assert_adds_up(ledger)
    stated = {(row["term"], row["group"]): row["nats"] for row in summary_of(tiny_run.directory)["ledger"]["rows"]}
    for key, nats in stated.items():
        assert ledger[key][0] == pytest.approx(nats, abs=0.0005)


def test_events_cover_every_step(tiny_run):
    events = events_of(tiny_run.directory)
    scalars = set(events.Tags()["scalars"])
    steps = {tag: [event.step for event in events.Scalars(tag)] for tag in scalars}
    assert steps["trunk/objective/loss_nats_per_example"] == [1, 2, 3, 4, 5, 6]
    assert steps["single_head/objective/loss_nats_per_example"] == [7, 8, 9, 10, 11, 12]
    every_step = [BEFORE_PRIOR + step for step in range(1, 10)]
    for tag in ("objective/consistency_nats", "constraint/lambda_nats_per_disagreement", "phases/net_claim_nats"):
        assert steps[tag] == every_step
    for tag in ("ledger/total_bits", "honesty/intended_truth_fooled", "divergence/disagreement_all"):
        assert steps[tag] == every_step[2::3]
    for tag in ("objective/log_partition_gap_nats", "objective/net_upper_nats", "phases/net_whole_claim_nats"):
        assert steps[tag] == [BEFORE_PRIOR + 6, BEFORE_PRIOR + 9]  # every second evaluation, and the last
    assert any("divergence" in tag for tag in events.Tags()["histograms"])
    assert "custom_scalars__config__" in events.Tags()["tensors"] and "config/text_summary" in events.Tags()["tensors"]


def test_logged_and_final_values_agree(tiny_run):
    """The last evaluation in training and the one at the end state the same (float32 in the event files)."""
    events, metrics = events_of(tiny_run.directory), summary_of(tiny_run.directory)["metrics"]
    for tag in ("divergence/jensen_shannon_all", "honesty/instrumental_acceptance_fooled", "ledger/data_trunk_bits"):
        assert events.Scalars(tag)[-1].value == pytest.approx(metrics[tag], rel=1e-6)


def test_golden_numbers(tiny_run):
    golden, summary = json.loads(GOLDEN.read_text(encoding="utf-8")), summary_of(tiny_run.directory)
    accuracies = {name: scores["truth_fooled"]["value"] for name, scores in summary["scores"].items()}
    for found, expected in ((summary["metrics"], golden["metrics"]), (accuracies, golden["truth_fooled"])):
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=golden["relative_tolerance"], abs=1e-9), name


# --- the same command again, and what is refused --------------------------------------------------------------


def test_a_finished_run_is_reported_again_and_not_changed(tiny_run, started):
    again = started.again.result(WAIT_SECONDS)
    assert again.returncode == 0, again.stderr
    after = fingerprints(started.copy)
    assert {name: after[name] for name in started.before} == started.before
    assert set(after) - set(started.before) == {"environment.resumed-1.json"}
    assert report_of(again.stdout) == report_of(tiny_run.stdout)


def test_another_config_is_refused(tiny_run, command):
    before = fingerprints(tiny_run.directory)
    change = ("--set", "stages.prior.steps=12", "--set", "objective.second_prior.trunk.stddev=2.0 θ.trunk")
    outcome = command("train", tiny_run.config, *change, "--workdir", tiny_run.directory)
    assert_mistake(outcome, "stages.prior.steps: run has 9, command asks 12", "objective.second_prior.trunk.stddev")
    assert "stages.trunk" not in outcome[2]
    assert fingerprints(tiny_run.directory) == before


def test_a_directory_of_something_else_is_refused_and_left_alone(tiny_run, command, tmp_path):
    (tmp_path / "thesis.tex").write_text("not a run")
    assert_mistake(command("train", tiny_run.config, "--workdir", tmp_path), str(tmp_path), "not a run")
    assert set(fingerprints(tmp_path)) == {"thesis.tex"}


def test_a_start_that_was_killed_before_its_config_can_begin_again(tiny_run, tmp_path):
    config = load_config(tiny_run.config).config
    for name in (".lock", "units.json", ".environment.json.123"):
        (tmp_path / name).write_text("{}")
    directory = RunDirectory(tmp_path)
    with directory.lock():
        assert directory.check(config) is False
        directory.prepare(config, "honest train")
    assert directory.config() == config


def test_one_process_at_a_time_may_train_a_run(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    with directory.lock(), pytest.raises(UserError, match="another process"), directory.lock():
        pass


# --- evaluate and ask -----------------------------------------------------------------------------------------


def test_evaluate_prints_the_report_of_the_end_of_training(tiny_run, started, runner):
    done = started.evaluated.result(WAIT_SECONDS)
    assert done.returncode == 0, done.stderr
    assert report_of(done.stdout) == report_of(tiny_run.stdout)
    again = json.loads((runner.folder / "evaluated.json").read_text(encoding="utf-8"))
    for part in ("metrics", "log_partition_checks"):
        assert again[part] == summary_of(tiny_run.directory)[part]


def test_ask_answers_with_both_heads(started):
    done = started.asked.result(WAIT_SECONDS)
    assert done.returncode == 0, done.stderr
    stdout = done.stdout
    assert re.search(r"question read as: .*3 \+ 0?4 = 0*7", stdout)
    answers = re.findall(r"(intended|instrumental) head: (True|False)  \(p = (0\.\d{4}|1\.0000)\)", stdout)
    assert [name for name, _, _ in answers] == ["intended", "instrumental"]
    # what is printed is consistent: two answers, so that the likelier one has p ≥ ½, and the bits are those of p
    p = [float(share) if answer == "True" else 1 - float(share) for _, answer, share in answers]
    assert all(float(share) >= 0.5 for _, _, share in answers)
    entropy = lambda q: -sum(x * math.log2(x) for x in (q, 1 - q) if x > 0)  # noqa: E731
    divergence = entropy(sum(p) / 2) - sum(map(entropy, p)) / 2
    stated = re.search(r"the heads are (\S+) bits apart", stdout)
    assert stated and float(stated[1]) == pytest.approx(divergence, abs=1e-4)  # p is printed to 4 digits


def test_units_of_a_run_are_its_ledger(tiny_run, started, runner):
    done = started.units.result(WAIT_SECONDS)
    assert done.returncode == 0, done.stderr
    assert f"in {tiny_run.directory} at step 9 of 9 of stage prior" in done.stdout
    content = json.loads((runner.folder / "units.json").read_text(encoding="utf-8"))
    costs = {(row["term"], row["group"]): row["cost_bits"] for row in content["terms"]}
    rows = summary_of(tiny_run.directory)["ledger"]["rows"]
    assert costs == pytest.approx({(row["term"], row["group"]): -row["nats"] / math.log(2) for row in rows})


@pytest.mark.parametrize("question", ["what is the time?", ""])
def test_a_malformed_question_is_a_mistake(tiny_run, command, question):
    assert_mistake(command("ask", tiny_run.directory, question), repr(question))


def test_nothing_of_this_changed_the_run(tiny_run, started):
    """The copy was made before the run was evaluated, asked and its units printed."""
    for process in (started.evaluated, started.asked, started.units):
        process.result(WAIT_SECONDS)
    assert fingerprints(tiny_run.directory) == started.before


def test_missing_files_are_mistakes(command, tmp_path):
    assert_mistake(command("train", tmp_path / "none.yaml"), "none.yaml")
    assert_mistake(command("evaluate", tmp_path / "none"), "none is not a run directory")
    assert_mistake(command("ask", tmp_path / "none", "3 + 4 = 7. Bob:"), "none is not a run directory")


def test_a_typo_in_a_key_is_a_mistake(runner, tmp_path):
    """In a process of its own: the exit code, and nothing but the message."""
    config = write_tiny(tmp_path / "typo.yaml")
    config.write_text(
        config.read_text(encoding="utf-8").replace("batch_rows: 16", "batch_row: 16", 1), encoding="utf-8"
    )
    done = runner("train", config, "--workdir", tmp_path / "run")
    assert_mistake((done.returncode, done.stdout, done.stderr), "typo.yaml", "batch_row", "batch_rows")
    assert not (tmp_path / "run").exists()


def test_an_unfinished_run_says_so(tiny_run, command, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_run.directory, copy, ignore=shutil.ignore_patterns("truth_ceiling", "prior"))
    assert_mistake(command("ask", copy, "3 + 4 = 7. Bob:"), "stage prior has no checkpoint yet")


# --- the other ways to run ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chains", "points"])
def test_variants_run_to_the_end(started, name):
    done = getattr(started, name).result(WAIT_SECONDS)
    assert done.returncode == 0, done.stderr
    summary = summary_of(done.directory)
    assert set(printed_table(done.stdout)) == set(summary["scores"])
    assert_adds_up(printed_ledger(done.stdout))
    events = events_of(done.directory)
    values = [event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)]
    assert len(values) > 300 and np.isfinite(values).all()
    missing = [tag for tag, value in summary["metrics"].items() if value is None]
    assert all(tag.startswith("honesty/honest_gap") for tag in missing)  # ceiling = single head: there is no gap


def test_claims_within_their_bounds_are_said_to_be(tiny_run):
    checks = summary_of(tiny_run.directory)["log_partition_checks"]
    logged = [event.value for event in events_of(tiny_run.directory).Scalars("objective/log_partition_gap_nats")]
    assert (checks["checks"], checks["above_limit"], checks["largest_gap_nats"]) == (2, 0, max(logged))
    assert checks["sentence"] in tiny_run.stdout and "WARNING" not in tiny_run.stdout
    assert "honest: warning" not in tiny_run.stderr


def test_a_run_whose_phases_overclaim_says_so(started):
    """On stderr when it is seen, in the printed report, and in summary.json; it is the claim that is too low."""
    done = started.points.result(WAIT_SECONDS)
    summary = summary_of(done.directory)
    checks, metrics = summary["log_partition_checks"], summary["metrics"]
    low, claim = (metrics[f"objective/log_partition_{what}_nats"] for what in ("lower", "claim"))
    assert claim < low - 10
    assert (checks["checks"], checks["above_limit"], checks["largest_gap_step"]) == (1, 1, 9)
    assert checks["largest_gap_nats"] == pytest.approx(low - claim, rel=1e-4)
    assert checks["sentence"].startswith("WARNING: ") and checks["sentence"] in done.stdout
    assert "honest: warning: step 9 of stage prior: the points phases' log Z is" in done.stderr


def test_staging_all_chooses_and_resamples_every_group(started):
    rows = summary_of(started.points.result(WAIT_SECONDS).directory)["ledger"]["rows"]
    for term in ("first_prior", "second_prior"):
        assert {row["group"] for row in rows if row["term"] == term} == {"trunk", "intended_head", "instrumental_head"}


def test_exchangeable_heads_are_an_unordered_pair_with_a_blind_mean(started):
    done = started.chains.result(WAIT_SECONDS)
    expected = [line.replace("intended", "first").replace("instrumental", "second") for line in LINES]
    expected.insert(expected.index("truth-trained ceiling"), "plain heads: mean (blind choice)")
    expected.insert(expected.index("always False"), "under the prior: mean (blind choice)")
    assert list(printed_table(done.stdout)) == expected


def test_chains_move_and_make_no_claim_of_log_z(started):
    events = events_of(started.chains.result(WAIT_SECONDS).directory)
    for phase in ("positive", "negative"):
        acceptance = [event.value for event in events.Scalars(f"phases/{phase}_acceptance")]
        assert len(acceptance) == 9 and 0 < np.mean(acceptance) <= 1
    assert not [tag for tag in events.Tags()["scalars"] if "claim" in tag]
