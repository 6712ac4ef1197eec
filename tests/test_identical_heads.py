"""The study of identical heads: its combinations, its world, and tables from runs and from the committed results."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from honest.config_io import load_config

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "notes" / "results"


def launched(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "launch" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


study, report = launched("identical_heads"), launched("identical_heads_report")


def test_every_combination_is_there_once():
    named = [tuple(sorted(cell.words.items())) for cell in study.cells({})]
    assert len(named) == len(set(named)) == 3 * 2 * 3 * 2 * 2 + 4 + 8  # the factorial, long chains, narrow ties
    for words in itertools.product(
        ("points", "laplace", "chains"),
        ("untrusted", "none"),
        ("gaussian", "tied", "sparse"),
        ("included", "omitted"),
        ("init", "trained"),
    ):
        axes = ("phases", "person", "prior", "log_partition", "anchor")
        assert tuple(sorted(zip(axes, words, strict=True))) in named


def test_every_combination_is_a_config_of_its_own():
    configs = [load_config(study.CONFIG, cell.overrides).config for cell in study.cells({})]
    assert len({config.model_dump_json() for config in configs}) == len(configs)
    for cell, config in zip(study.cells({}), configs, strict=True):
        assert config.objective.log_partition == cell.words["log_partition"]
        assert config.objective.anchor == cell.words["anchor"]
        assert config.objective.supervision.instrumental == cell.words["person"]
        assert cell.words["phases"].startswith(config.objective.phases.kind)
        assert cell.words["prior"].startswith(config.objective.first_prior.instrumental_head.kind)


def test_only_keeps_to_what_is_asked():
    assert list(study.cells({"prior": "sparse", "phases": "chains, long"})) == []
    assert {cell.words["prior"] for cell in study.cells({"prior": "sparse"})} == {"sparse"}
    assert len(list(study.cells({"phases": "chains, long"}))) == 4


def test_a_half_written_line_is_cut_off(tmp_path):
    path = tmp_path / "results-a.jsonl"
    path.write_text('{"cell": "x", "seed": 0}\n{"cell": "x", "se')
    assert study.finished(path) == [{"cell": "x", "seed": 0}]
    assert path.read_text() == '{"cell": "x", "seed": 0}\n'


def test_the_committed_world_is_what_the_command_writes(tmp_path):
    study.write_world(tmp_path / "world.csv")
    assert (tmp_path / "world.csv").read_bytes() == study.WORLD.read_bytes()


# --- report -------------------------------------------------------------------------------------------------


def line(log_z: str, seed: int, distance: float, labels: float) -> dict:
    return {
        "cell": "unused",
        "phases": "points",
        "person": "untrusted",
        "prior": "gaussian",
        "log_partition": log_z,
        "anchor": "init",
        "seed": seed,
        "seconds": 1.0,
        "head_distance_bits": distance,
        "divergence/jensen_shannon_fooled": 0.6931471805599453,
        "divergence/disagreement_fooled": 0.5,
        "intended_truth_fooled": 0.25,
        "instrumental_truth_fooled": 0.0,
        "log_z_lower": -6.931471805599453,
        "log_z_upper": 0.0,
        "ledger": {
            "data_trunk": -69.31471805599453,
            "data_intended_head": -labels,
            "first_prior_intended_head": 0.0,
            "first_prior_instrumental_head": 0.6931471805599453,
            "second_prior_trunk": -1.3862943611198906,
            "consistency": 0.0,
            "log_partition": 0.0,
        },
    }


@pytest.fixture
def runs(tmp_path):
    """Two seeds with log Z, at distances 10 and 14 bit; the same seeds without, at 7 and 9."""
    folder = tmp_path / "runs"
    folder.mkdir()
    lines = [line("included", 0, 10, 1.0), line("included", 1, 14, 1.0), line("omitted", 1, 9, 1.0)]
    (folder / "results-a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    (folder / "results-b.jsonl").write_text(json.dumps(line("omitted", 0, 7, 1.0)) + "\n")
    return folder


def cells_of(text: str, start: str) -> list[str]:
    (found,) = [row for row in text.splitlines() if row.replace(" ", "").startswith(start.replace(" ", ""))]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_tables_by_hand(runs):
    """t at 97.5 % with one degree of freedom is 12.706; the pairs differ by 3 and 5 bit."""
    heads, rest = report.tables(report.read(runs)).split("## What log Z changes")
    effect, ledger = rest.split("## Ledger")
    assert cells_of(heads, "| points | given | init | gaussian | included |")[5:] == [
        "1.000 ± 0.000",
        "0.50 ± 0.00",
        "12.0 ± 25.4",
        "0.25 ± 0.00",
        "0.00 ± 0.00",
    ]
    assert cells_of(effect, "| points | given | init | gaussian |")[6] == "4.0 ± 12.7"
    world, labels, first, second_head, second, consistency, claim, lower, upper = cells_of(
        ledger, "| points | given | init | gaussian | included |"
    )[5:]
    assert (world, labels, first, second_head) == ("100 ± 0", "1.4 ± 0.0", "0.0 ± 0.0", "-1.0 ± 0.0")
    assert (second, consistency, claim, lower, upper) == (
        "2.0 ± 0.0",
        "0.0 ± 0.0",
        "0.0 ± 0.0",
        "-10.0 ± 0.0",
        "0.0 ± 0.0",
    )


def test_report_of_runs_equals_that_of_its_csv(runs, tmp_path):
    report.write_report(runs, tmp_path / "first")
    report.write_report(tmp_path / "first" / "results.csv", tmp_path / "second")
    for name in ("results.csv", "tables.md"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert {path.name for path in (tmp_path / "first").glob("*.png")} == {
        "distance.png",
        "divergence.png",
        "ledger.png",
    }


def test_mistakes_are_told_and_nothing_is_overwritten(runs, tmp_path, capsys, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "foreign.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty.csv").write_text("a,b\n")
    twice = tmp_path / "twice"
    twice.mkdir()
    for name in ("a", "b"):
        (twice / f"results-{name}.jsonl").write_text(json.dumps(line("omitted", 0, 7, 1.0)) + "\n")
    for source, out, said in (
        (runs, tmp_path / "there", "nothing is overwritten"),
        (tmp_path / "there", tmp_path / "new", "has no runs"),
        (tmp_path / "empty.csv", tmp_path / "new", "has no runs"),
        (tmp_path / "foreign.csv", tmp_path / "new", "have no phases"),
        (twice, tmp_path / "new", "is there 2 times"),
    ):
        monkeypatch.setattr(sys, "argv", ["report", str(source), "--out", str(out)])
        assert report.main() == 2
        assert said in capsys.readouterr().err
    assert list((tmp_path / "there").iterdir()) == []
    assert not (tmp_path / "new").exists()


def test_the_committed_tables_are_those_of_the_committed_runs():
    rows = report.read(RESULTS / "identical_heads.csv")
    assert report.tables(rows) == (RESULTS / "identical_heads.md").read_text(encoding="utf-8")
    counts = {len(found) for words, found in report.cells(rows).items() if words[0] != "chains, long"}
    assert counts == {5}
