"""A benchmark with a stub in the place of training: order, resumption, failure, Ctrl-C, refusals and the table."""

import csv
import json
import os
import shutil
import signal
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from honest.benchmark.command import members_table
from honest.benchmark.results import write_results
from honest.benchmark.runner import commands_of, jobs_of, plan_of, train_command
from honest.benchmark.suite import LoadedSuite, load_suite
from honest.cli import main
from honest.errors import UserError
from honest.jobs import pool
from honest.jobs.folder import prepare, prepared
from honest.jobs.local import LocalEngine
from honest.jobs.pool import Pool, failures
from honest.report.sources import RESULTS, read_results
from honest.train.run_directory import RunDirectory
from tests.conftest import write_tiny

CONFIGS = Path(__file__).parents[2] / "configs"
SUITE = """
    name: small
    seeds: [0, 1]
    new_data_per_seed: true
    tasks:
      easy: {config: tiny.yaml, set: [task.trigger=hard], skip: []}
      other: {config: tiny.yaml, set: [task.trigger=carry], skip: [lda]}
    entries:
      heads: {methods: [single_head, truth_ceiling, lda], set: []}
      prior: {methods: [prior], set: [objective.phases.kind=points]}
"""
# Writes a summary in which truth on fooled rows is that of `truth`, by seed; sleeps or fails where it is told to.
STUB = """
    import json, pathlib, sys, time
    _, folder, entry, seed, trunk, mode, log = sys.argv
    folder, seed = pathlib.Path(folder), int(seed)
    with open(log, "a") as order:
        order.write(f"{folder} {trunk}\\n")
    if mode == "fail":
        print("it went wrong")
        sys.exit(3)
    if mode == "sleep":
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            print("saved")
            sys.exit(130)
    truth = {"single head": [0.0, 0.2, 0.1], "truth-trained ceiling": [1.0] * 3, "always False": [0.5] * 3}
    if entry == "prior":
        truth = {"under the prior: intended": [0.5, 0.8, 0.6], "always False": [0.5] * 3}
    share = lambda v: {"value": v, "low": v, "high": v, "rows": 10, "questions": 5}
    scores = {head: {"truth_fooled": share(values[seed]), "auroc_fooled": None} for head, values in truth.items()}
    folder.mkdir(parents=True)
    summary = {"scores": scores, "metrics": {"ledger/total_bits": -1.5}, "commit": "abc", "device": "cpu"}
    if entry == "prior":
        summary["ledger"] = {"multiplier_nats_per_disagreement": 7.0, "violation_disagreement_per_example": 0.002}
    (folder / "summary.json").write_text(json.dumps(summary))
"""


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    write_tiny(tmp_path / "tiny.yaml")
    path = tmp_path / "suite.yaml"
    path.write_text(textwrap.dedent(SUITE))
    (tmp_path / "stub.py").write_text(textwrap.dedent(STUB))
    return path


def pool_of(suite: LoadedSuite, folder: Path, mode: dict[str, str], jobs: int = 1, told=lambda _: None) -> Pool:
    home = suite.path.parent

    def command(member, directory, trunk):
        words = [directory, member.entry, member.seed, trunk, mode.get(member.name, "run"), home / "order.txt"]
        return [sys.executable, str(home / "stub.py"), *map(str, words)]

    prepare(plan_of(folder, suite))
    engine = LocalEngine(jobs, commands_of(folder, suite.members, command), folder / "compiled")
    return Pool(jobs_of(folder, suite.members), engine, 0, told, lambda: write_results(folder, suite))


def order(suite: LoadedSuite) -> list[list[str]]:
    path = suite.path.parent / "order.txt"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(pool, "POLL_SECONDS", 0.01)


def test_members_in_order_and_their_trunks(suite_file, tmp_path, quick):
    suite, folder = load_suite(suite_file), tmp_path / "out"
    outcome = pool_of(suite, folder, {}).run()
    names = [f"{t}/seed_{s}/{e}" for t in ("easy", "other") for s in (0, 1) for e in ("heads", "prior")]
    assert outcome.done == names and not outcome.failed and not outcome.stopped
    for name, (directory, trunk) in zip(names, order(suite)):
        assert directory == str(folder / "runs" / name)
        assert trunk == ("None" if name.endswith("heads") else directory.replace("prior", "heads"))
    other = next(m for m in suite.members if m.name == "other/seed_0/heads")
    assert other.config.methods == ["single_head", "truth_ceiling"] and other.config.task.trigger == "carry"
    prior = next(m for m in suite.members if m.name == "easy/seed_1/prior")
    assert prior.config.seed == prior.config.task.seed == 1 and prior.config.objective.phases.kind == "points"
    command = train_command(prior, Path("here"), Path("there"))
    assert command[-2:] == ["--trunk-from", "there"] and "seed=1" in command and "methods=[prior]" in command


def test_seeds_may_share_their_data(suite_file):
    suite_file.write_text(suite_file.read_text().replace("new_data_per_seed: true", "new_data_per_seed: false"))
    seeds = {(member.config.seed, member.config.task.seed) for member in load_suite(suite_file).members}
    assert seeds == {(0, 0), (1, 0)}  # the tiny config's task.seed is 0


def test_a_second_call_runs_nothing_and_the_table_is_the_same(suite_file, tmp_path, quick):
    suite, folder = load_suite(suite_file), tmp_path / "out"
    pool_of(suite, folder, {}).run()
    before = (folder / "results.csv").read_bytes()
    assert len(order(suite)) == 8
    assert pool_of(suite, folder, {}).run().done == [member.name for member in suite.members]
    assert len(order(suite)) == 8 and (folder / "results.csv").read_bytes() == before
    assert "8 members" in members_table(folder, suite.members) and "to do" not in members_table(folder, suite.members)


def test_the_table_is_what_the_runs_say(suite_file, tmp_path, quick):
    """HGR of the prior: (.5 − 0)/1 and (.8 − .2)/.8: mean .625; of always False .5 and .375: .4375."""
    suite, folder = load_suite(suite_file), tmp_path / "out"
    pool_of(suite, folder, {}).run()
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = [r for r in rows if r["task"] == "easy" and r["seed"] == "1" and r["head"] == "under the prior: intended"]
    assert {r["metric"]: r["value"] for r in found} == {"truth_fooled": "0.8", "auroc_fooled": ""}
    assert {r["rows"] for r in found} == {"10", ""}
    assert {r["value"] for r in rows if r["metric"] == "ledger/total_bits" and r["head"] == ""} == {"-1.5"}
    constraint = {(r["metric"], r["value"]) for r in rows if r["metric"].startswith("constraint/")}
    assert constraint == {
        ("constraint/lambda_nats_per_disagreement", "7.0"),
        ("constraint/whole_violation_disagreement_per_example", "0.002"),
    }
    assert len(read_results(folder / "results.csv")) == len(rows)
    text = (folder / "results.md").read_text()
    line = next(line for line in text.splitlines() if "intended" in line)
    assert "0.65 [-1.26, 2.56]" in line and "0.62 [-0.96, 2.21]" in line  # t(.975, 1) = 12.706 times spread/√2


def test_a_failed_member_fails_those_that_need_it_and_no_others(suite_file, tmp_path, quick):
    suite, folder = load_suite(suite_file), tmp_path / "out"
    outcome = pool_of(suite, folder, {"easy/seed_0/heads": "fail"}, jobs=2).run()
    assert list(outcome.failed) == ["easy/seed_0/heads", "easy/seed_0/prior"] and len(outcome.done) == 6
    told = failures(jobs_of(folder, suite.members), outcome.failed)
    assert "it went wrong" in told and "whose trunk it takes over, failed" in told
    again = pool_of(suite, folder, {}).run()  # the same command tries them again
    assert not again.failed and len(again.done) == 8


def test_ctrl_c_lets_members_save_and_the_same_command_goes_on(suite_file, tmp_path, quick):
    suite, folder = load_suite(suite_file), tmp_path / "out"
    mode = {"easy/seed_0/prior": "sleep"}

    def interrupt():
        for _ in range(1000):
            if len(order(suite)) == 2:
                break
            time.sleep(0.01)
        time.sleep(0.5)  # the stub is asleep by then
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    outcome = pool_of(suite, folder, mode).run()
    assert outcome.stopped and outcome.done == ["easy/seed_0/heads"] and not outcome.failed
    assert "saved" in (folder / "log" / "easy-seed_0-prior.txt").read_text()
    assert not pool_of(suite, folder, {}).run().stopped and len(order(suite)) == 9


def test_a_suite_may_grow_but_not_lose_its_runs(suite_file, tmp_path, quick):
    suite, folder = load_suite(suite_file), tmp_path / "out"
    assert len(pool_of(suite, folder, {}).run().done) == 8
    before, results = suite_file.read_text(), read_results(folder / RESULTS)
    suite_file.write_text(before.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    grown = load_suite(suite_file)
    assert len(pool_of(grown, folder, {}).run().done) == len(grown.members) == 12
    assert len(order(grown)) == len(grown.members)  # each ran once
    assert (folder / "suite.yaml").read_text() == suite_file.read_text()
    assert (folder / "suite.before-1.yaml").read_text() == before
    suite_file.write_text(before)
    with pytest.raises(UserError, match=r"(?s)easy/seed_2/heads.*-seeds: \[0, 1, 2\].*\+seeds: \[0, 1\]"):
        prepare(plan_of(folder, load_suite(suite_file)))
    assert (folder / "suite.yaml").read_text() != before and not (folder / "suite.before-2.yaml").exists()
    assert set(results) < set(read_results(folder / RESULTS))


def test_one_process_at_a_time(suite_file, tmp_path):
    suite, folder = load_suite(suite_file), tmp_path / "out"
    told = pytest.raises(UserError, match="another `honest benchmark` is at work there")
    with prepared(plan_of(folder, suite)), told, prepared(plan_of(folder, suite)):
        pass
    with prepared(plan_of(folder, suite)):
        assert (folder / "suite.yaml").read_text() == suite_file.read_text()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("")
    with pytest.raises(UserError, match="not a benchmark"), prepared(plan_of(tmp_path / "mine", suite)):
        pass
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]


def test_other_files_are_refused(suite_file, tmp_path):
    (tmp_path / "mine").mkdir()
    for place in (suite_file, suite_file / "below", Path("/proc/nowhere")):
        with pytest.raises(UserError, match="Name another --workdir"):
            prepare(plan_of(place, load_suite(suite_file)))
    (tmp_path / "mine" / "file").write_text("")
    with pytest.raises(UserError, match="not a benchmark"):
        prepare(plan_of(tmp_path / "mine", load_suite(suite_file)))


def test_runs_of_a_config_that_has_changed_since_are_refused(suite_file, tmp_path, quick, capsys):
    """They would be averaged with those of the new one."""
    suite, folder = load_suite(suite_file), tmp_path / "out"
    pool_of(suite, folder, {}).run()
    member = suite.members[0]
    run = RunDirectory(folder / "runs" / member.name)
    run.path.rename(tmp_path / "aside")
    run.prepare(member.config, "honest train")
    assert prepare(plan_of(folder, suite)) is None
    base = tmp_path / "tiny.yaml"
    base.write_text(base.read_text().replace("steps: 9", "steps: 8"))
    for command in (["--dry-run"], []):
        assert main(["benchmark", str(suite_file), "--workdir", str(folder), *command]) == 2
        assert "stages.prior.steps: run has 9, command asks 8" in capsys.readouterr().err


def test_a_summary_that_is_not_whole_is_named(suite_file, tmp_path, quick):
    suite, folder = load_suite(suite_file), tmp_path / "out"
    pool_of(suite, folder, {}).run()
    broken = folder / "runs" / suite.members[0].name / "summary.json"
    broken.write_text(broken.read_text()[:-5])
    with pytest.raises(UserError, match=rf"{broken} is not whole"):
        write_results(folder, suite)
    broken.write_text("{}")
    with pytest.raises(UserError, match=rf"{broken} is not whole.*scores"):
        write_results(folder, suite)


def test_a_table_without_the_columns_is_told_before_anything_runs(tmp_path, capsys):
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    suite = tmp_path / "suite.yaml"
    text = (CONFIGS / "benchmark" / "cities.yaml").read_text().replace("../cities", str(CONFIGS / "cities"))
    suite.write_text(text.replace("      - model.layers=2", f"      - task.path={tmp_path / 'bad.csv'}"))
    assert main(["benchmark", str(suite), "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "tasks.hemisphere" in error and "has no column 'lat'" in error and "tasks.population" in error


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("task.trigger=hard", "task.triger=hard", "suite.yaml:6: tasks.easy: --set task.triger=hard: task.triger"),
        ("phases.kind=points", "phases.kind=pints", "suite.yaml:10: entries.prior: --set objective.phases.kind=pints"),
        ("[prior]", "[priors]", "suite.yaml:10: entries.prior.methods.0"),
        ("[0, 1]", "[0, 0]", "suite.yaml:3: seeds: names 0 more than once"),
        ("tiny.yaml, set: [task.trigger=hard]", "tony.yaml, set: []", "tony.yaml: cannot be read"),
        ("[objective.phases.kind=points]", "[model.width=32]", "takes over the trunk of heads, but has other settings"),
        ("truth_ceiling, lda", "truth_ceiling, ccs", "read contrast pairs"),
        ("name: small", "nam: small", "did you mean 'name'"),
        ("skip: []", "skip: [single_head, truth_ceiling, lda]", "skips every method of heads, whose trunk prior takes"),
        ("task.trigger=hard", "task.seed=7", "tasks.easy.set.0: task.seed=7: the suite's own seeds"),
        ("task.trigger=hard", "seed=7", "tasks.easy.set.0: seed=7: the suite's own seeds"),
    ],
)
def test_mistakes_are_told_before_anything_runs(suite_file, tmp_path, capsys, old, new, told):
    text = suite_file.read_text()
    assert old in text
    suite_file.write_text(text.replace(old, new, 1))
    assert main(["benchmark", str(suite_file), "--workdir", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_mistake_in_the_first_entry_is_told_once(suite_file, capsys):
    """Not as well that the others find no trunk to take over."""
    suite_file.write_text(suite_file.read_text().replace("lda], set: []", "lda], set: [stages.heads.steps=none]", 1))
    assert main(["benchmark", str(suite_file), "--dry-run"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert "stages.heads.steps" in lines[0] and not any("skips every method" in line for line in lines)


def test_jobs_and_dry_run(suite_file, tmp_path, capsys):
    assert main(["benchmark", str(suite_file), "--workdir", str(tmp_path / "out"), "--jobs", "0"]) == 2
    assert "--jobs is 0" in capsys.readouterr().err
    assert main(["benchmark", str(suite_file), "--workdir", str(tmp_path / "out"), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = next(line for line in lines if line.startswith("easy/seed_1/prior"))
    assert found.split(maxsplit=3)[1:3] == ["to", "do"]
    assert found.split(maxsplit=3)[3] == "objective.phases.kind='points'; methods=[prior]"
    assert not (tmp_path / "out").exists()


def test_some_of_the_members(suite_file, tmp_path, capsys):
    def names(*only: str) -> list[str]:
        patterns = [word for pattern in only for word in ("--only", pattern)]
        assert main(["benchmark", str(suite_file), "--workdir", str(tmp_path / "out"), "--dry-run", *patterns]) == 0
        return [line.split()[0] for line in capsys.readouterr().out.splitlines() if "/seed_" in line]

    assert names("other/seed_[15]") == ["other/seed_1/heads", "other/seed_1/prior"]
    assert names("*/seed_0", "easy/*") == [
        *(f"easy/seed_{seed}/{entry}" for seed in (0, 1) for entry in ("heads", "prior")),
        *(f"other/seed_0/{entry}" for entry in ("heads", "prior")),
    ]
    assert names("other/seed_0/heads") == ["other/seed_0/heads"]
    assert names("*/prior") == [  # with those whose trunks they take over
        f"{task}/seed_{seed}/{entry}" for task in ("easy", "other") for seed in (0, 1) for entry in ("heads", "prior")
    ]
    command = [
        "benchmark",
        str(suite_file),
        "--workdir",
        str(tmp_path / "out"),
        "--only",
        "*/seed_0",
        "--only",
        "hard/*",
    ]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "--only hard/*" in error and "easy/seed_…, other/seed_…, seeds 0, 1, entries heads, prior" in error
    assert not (tmp_path / "out").exists()


def test_the_shipped_suites_are_valid():
    for path in sorted((CONFIGS / "benchmark").glob("*.yaml")):
        if "seeds:" in path.read_text() and path.stem != "cities":  # whose table is not part of the project
            assert load_suite(path).members, path


def test_the_cities_suite_is_valid_with_a_table(tmp_path):
    shutil.copytree(CONFIGS, tmp_path / "honest" / "configs")
    table = tmp_path / "shared" / "data" / "worldcities" / "worldcities.csv"
    table.parent.mkdir(parents=True)
    places = (
        f"{i * 37 % 180 - 90},{i * 53 % 360 - 180},{'CHN' if i % 3 else 'XXX'},{i * 977 % 60000}" for i in range(4000)
    )
    table.write_text("\n".join(["lat,lng,iso3,population", *places, ""]))
    suite = tmp_path / "honest" / "configs" / "benchmark" / "cities.yaml"
    assert len(load_suite(suite).members) == 100
    given = "objective.consistency.population=1024"
    text = suite.read_text()
    line = text[: text.index("  hemisphere:")].count("\n") + 1
    fisher = "{kind: diagonal, scales: {source: fisher, stddev: 1.0 θ.trunk, examples: 1, rows: 3999}}"
    for wrong in ("objective.consistency.population=3999", f"'objective.second_prior.trunk={fisher}'"):
        suite.write_text(text.replace(given, wrong))
        with pytest.raises(UserError, match=rf"cities.yaml:{line}: tasks.hemisphere: entry .*3999.*lower it"):
            load_suite(suite)


def test_summaries_of_real_runs_have_this_form(tiny_run):
    summary = json.loads((tiny_run.directory / "summary.json").read_text())
    assert {"scores", "metrics", "commit", "device"} <= set(summary)
    assert set(summary["scores"]["single head"]["truth_fooled"]) >= {"value", "low", "high", "rows"}
