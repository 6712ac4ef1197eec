"""`honest report` on made-up benchmarks, on a real run, and on folders of its copies."""

import base64
import csv
import hashlib
import json
import re
import shutil
import struct
from html.parser import HTMLParser

import pytest

from honest.cli import main
from honest.errors import UserError
from honest.report import figures_style
from honest.report.benchmark_table import task_tables
from honest.report.drawn import Drawing, slugs
from honest.report.figures_calibration import reliability
from honest.report.figures_ledger import ledger_rows
from honest.report.findings import warnings
from honest.report.labels import find_along, label_runs, natural, number_and_unit
from honest.report.sources import read_source
from honest.report.training import mean_curve, read_curves
from honest.report.write import write_report
from tests.report.made_up_results import ALWAYS, CEILING, INTENDED, SINGLE, TRUTH, lines, write

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that tags nest; collects the text, and what the page would load."""

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.loads += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def fingerprints(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """Two tasks (one with a name that HTML and file names cannot hold), two entries, three seeds; reported."""
    folder = tmp_path_factory.mktemp("benchmark")
    rival = {SINGLE: TRUTH[SINGLE], CEILING: TRUTH[CEILING], "divdis: intended": (0.6, 0.8, 0.5), ALWAYS: TRUTH[ALWAYS]}
    made = [line for task in ("sums", "a<b & c") for line in lines(task, "two heads with the prior", TRUTH)]
    write(folder, [*made, *lines("sums", "divdis", rival)])
    (folder / "suite.yaml").write_text("tasks: []\n", encoding="utf-8")
    assert main(["report", str(folder)]) == 0
    return folder


def test_page_stands_alone(benchmark):
    page = Page((benchmark / "report.html").read_text(encoding="utf-8"))
    assert page.loads and all(load.startswith("data:image/png;base64,") for load in page.loads)
    shown = {hashlib.sha256(base64.b64decode(load.partition(",")[2])).hexdigest() for load in page.loads}
    assert shown == {mark for name, mark in fingerprints(benchmark).items() if name.startswith("figures/")}
    assert "http" not in page.text and "<script" not in (benchmark / "report.html").read_text(encoding="utf-8")


def test_page_says_what_a_reader_needs_first(benchmark):
    text = Page((benchmark / "report.html").read_text(encoding="utf-8")).text
    order = [
        "What was run",
        "Whom the heads side with",
        "Warnings",
        "Does anything beat",
        "heads by method",
        "figures/",
    ]
    places = [text.index(word) for word in order]
    assert places == sorted(places)
    assert "a<b & c, two heads with the prior: on fooled rows the intended head sides with neither clearly" in text
    assert "suite.yaml beside this page" in text and "sums: 3 seeds: how results differ" in text
    assert "a<b & c, accuracy against the truth on fooled rows: the other does not beat two heads" in text
    assert "are beaten by “divdis: intended · divdis” by 0.100 [0.100, 0.100]" in text  # .1 in every seed


def test_markdown_and_csv_state_the_same(benchmark):
    markdown = (benchmark / "report.md").read_text(encoding="utf-8")
    (line,) = [line for line in markdown.splitlines() if line.startswith("| under the prior: intended · two heads")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1] == "3" and cells[2].startswith("0.53 [") and cells[-2].startswith("0.50 [")
    for figure in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", markdown):
        assert (benchmark / figure).exists()
    with (benchmark / "report.csv").open(encoding="utf-8", newline="") as file:
        rows = {(row["task"], row["method"], row["metric"]): row for row in csv.DictReader(file)}
    row = rows["a<b & c", INTENDED, "truth_fooled"]
    assert float(row["mean"]) == pytest.approx(1.6 / 3) and (row["seeds"], row["interval"]) == ("3", "t over seeds")
    assert rows["sums", "", "ledger/data_trunk_bits"]["mean"]


def test_figures_are_for_papers(benchmark):
    names = {path.name for path in (benchmark / "figures").iterdir()}
    assert names == {f"{kind}_{task}.png" for kind in ("scores", "honest_gap", "ledger") for task in ("sums", "a_b_c")}
    png = (benchmark / "figures" / "scores_sums.png").read_bytes()
    at = png.index(b"pHYs")
    assert struct.unpack(">I", png[at + 4 : at + 8])[0] == round(300 / 0.0254)  # pixels a metre


@pytest.fixture
def coarse(monkeypatch):
    """Figures of few pixels, for tests that look at other things."""
    monkeypatch.setattr(figures_style, "DPI", 30)


def test_made_anew_and_nothing_else_is_touched(tmp_path, coarse):
    write(tmp_path, lines("sums", "prior", TRUTH))
    write_report(tmp_path)
    (tmp_path / "figures" / "mine.png").write_bytes(b"mine")
    before = fingerprints(tmp_path)
    (tmp_path / "report.md").write_text("<!-- made by honest report; may be made anew -->\nold", encoding="utf-8")
    write_report(tmp_path)
    assert fingerprints(tmp_path) == before


@pytest.mark.parametrize("name", ["report.html", "report.md", "report.csv", "figures/scores_sums.png"])
def test_a_file_of_somebody_else_is_kept(tmp_path, capsys, coarse, name):
    write(tmp_path, lines("sums", "prior", {INTENDED: (0.5, 0.6), ALWAYS: (0.5, 0.5)}))
    (tmp_path / "figures").mkdir()
    (tmp_path / name).write_text("mine", encoding="utf-8")
    before = fingerprints(tmp_path)
    assert main(["report", str(tmp_path)]) == 2
    assert name in capsys.readouterr().err
    assert fingerprints(tmp_path) == before and not list(tmp_path.glob(".report-*"))


def test_no_results_says_what_was_looked_for(tmp_path, capsys):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.yaml").write_text("name: half\n", encoding="utf-8")
    assert main(["report", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in ("results.csv", "summary.json", "half is a run that is not finished"))
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert fingerprints(tmp_path).keys() == {"half/config.yaml"}


# --- runs ---------------------------------------------------------------------------------------------------------


def copy_of(tiny_run, folder, change=lambda summary: None, old="", new=""):
    """A copy of the finished run without checkpoints, with its summary and a text of its config changed."""
    shutil.copytree(tiny_run.directory, folder, ignore=shutil.ignore_patterns("checkpoints", ".lock"))
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    change(summary)
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    config = (folder / "config.yaml").read_text(encoding="utf-8")
    assert old in config
    (folder / "config.yaml").write_text(config.replace(old, new, 1), encoding="utf-8")
    return folder


def test_summary_has_the_bins_and_the_task(tiny_run):
    summary = json.loads((tiny_run.directory / "summary.json").read_text(encoding="utf-8"))
    assert "addition of 2-digit operands" in summary["task"]
    for head, scores in summary["scores"].items():
        assert not any("bins" in name for name in scores)
        for rows in ("trusted", "fooled"):
            bins = summary["calibration_bins"][head][rows]
            count = sum(one["accuracy"]["rows"] for one in bins)
            error = sum(one["accuracy"]["rows"] * abs(one["accuracy"]["value"] - one["confidence"]) for one in bins)
            assert count == 64 and error / count == pytest.approx(scores[f"calibration_error_{rows}"])


def test_report_of_a_run(tiny_run, tmp_path, coarse):
    run = copy_of(tiny_run, tmp_path / "run", lambda summary: summary["log_partition_checks"].update(above_limit=1))
    before = fingerprints(run)
    write_report(run)
    after = fingerprints(run)
    assert after.items() >= before.items()  # heads.png among them
    made = {name for name in after if name not in before}
    kinds = ("scores", "honest_gap", "training", "calibration", "ledger")
    assert made == {"report.html", "report.md", "report.csv", *(f"figures/{kind}_arithmetic.png" for kind in kinds)}
    text = Page((run / "report.html").read_text(encoding="utf-8")).text
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    for fact in (summary["task"], summary["commit"], environment["device_kind"], environment["command"]):
        assert fact in text
    assert "arithmetic, tiny, seed 0: log Z: " in text and "95 % bootstrap interval" in text
    scores = summary["scores"]["single head"]["truth_fooled"]
    assert f"{scores['value']:.2f} [{scores['low']:.2f}, {scores['high']:.2f}]" in text


def test_curves_are_those_of_the_events(tiny_run):
    curves = read_curves(tiny_run.directory)
    multiplier = curves["constraint/lambda_nats_per_disagreement"]
    assert list(multiplier) == list(range(25, 34)) and multiplier[25] == pytest.approx(10.0)
    assert list(curves["divergence/disagreement_fooled"]) == [27, 30, 33]


def test_a_folder_of_runs_is_a_sweep(tiny_run, tmp_path):
    for rate in ("0.0", "0.01"):
        for seed in (0, 1):

            def change(summary, seed=seed, rate=rate):
                summary["seed"] = seed
                summary["scores"][INTENDED]["truth_fooled"]["value"] = 0.5 + 0.1 * seed - 10 * float(rate)

            name = f"{rate}_{seed}"
            copy_of(tiny_run, tmp_path / name, change, "error_rate: 0.0", f"error_rate: {rate}")
    source = read_source(tmp_path)
    assert [(run.entry, run.seed) for run in source.runs] == [
        (f"error_rate={rate}", seed) for rate in ("0.0", "0.01") for seed in (0, 1)
    ]
    points = Drawing(tmp_path, source, {})._lines({run[1:4]: float(run.entry[11:]) for run in source.runs})[INTENDED]
    # two seeds at .5 and .6: mean .55, s/√2 = .05, t at 97.5 % with one degree of freedom 12.706
    assert points[0.0]["truth_fooled"][:3] == pytest.approx(
        (0.55, 0.55 - 0.05 * 12.7062, 0.55 + 0.05 * 12.7062), rel=1e-4
    )
    assert points[0.01]["truth_fooled"].value == pytest.approx(0.45)
    assert find_along([run.config for run in source.runs], ["arithmetic"] * 4).parameter.key == "task.error_rate"


def test_the_same_run_twice_is_no_second_seed(tiny_run, tmp_path):
    for name in ("one", "two"):
        copy_of(tiny_run, tmp_path / name)
    assert [run.entry for run in read_source(tmp_path).runs] == ["tiny (one)", "tiny (two)"]


def test_warnings_of_runs(tiny_run, tmp_path):
    def infeasible(summary):
        summary["ledger"]["violation_disagreement_per_example"] = 0.005  # ε is .001
        summary["commit"] = "abc-dirty"

    copy_of(tiny_run, tmp_path / "one", infeasible)
    copy_of(tiny_run, tmp_path / "two", old="seed: 0", new="seed: 1")
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "config.yaml").write_text("name: three\n", encoding="utf-8")
    source = read_source(tmp_path)
    flags = {run.path: {"constraint/infeasible": {1: 0.0, 2: 1.0}} for run in source.runs}
    said = "\n".join(warnings(source, task_tables(source.scores), flags))
    assert "three is not finished" in said
    assert "Each of the 2 runs: the constraint was infeasible" in said
    assert "C̄/ε is 5.0" in said and "2 different commits" in said and "abc-dirty: files differed" in said
    assert "truth-trained ceiling itself" in said and "above the single head" in said
    recovered = {run.path: {"constraint/infeasible": {1: 1.0, 2: 0.0}} for run in source.runs}
    assert "infeasible" not in "\n".join(warnings(source, [], recovered))


# --- labels, bins, curves -----------------------------------------------------------------------------------------


def test_runs_without_the_full_objective_have_no_ledger(tiny_run, tmp_path):
    """Of baselines alone: `ledger`, `sentence` and the checks of log Z are null in their summary."""

    def alone(summary):
        summary.update(ledger=None, sentence=None, log_partition_checks=None)
        summary["scores"] = {head: it for head, it in summary["scores"].items() if "prior" not in head}

    copy_of(tiny_run, tmp_path / "one", alone)
    copy_of(tiny_run, tmp_path / "two", alone, old="seed: 0", new="seed: 1")
    assert main(["report", str(tmp_path)]) == 0
    assert "under the prior: intended" not in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_labels_are_what_differs():
    base = {
        "name": "x",
        "seed": 0,
        "task.kind": "arithmetic",
        "task.trigger": "hard",
        "objective.phases.kind": "points",
    }
    other = base | {"name": "y", "seed": 1, "task.trigger": "carry", "objective.phases.kind": "chains"}
    assert label_runs([base, other]) == [
        ("arithmetic, trigger=hard", "phases.kind=points"),
        ("arithmetic, trigger=carry", "phases.kind=chains"),
    ]
    assert label_runs([base, base | {"seed": 1}]) == [("arithmetic", "x"), ("arithmetic", "x")]


def test_sweep_is_along_the_one_numeric_key():
    configs = [{"seed": i, "objective.tolerance": f"{x} nat"} for i, x in enumerate((0.1, 0.1, 0.2))]
    found = find_along(configs, ["a"] * 3)
    assert found.parameter == ("objective.tolerance", "nat", (0.1, 0.1, 0.2))
    assert find_along([{"kind": "points"}, {"kind": "chains"}], ["a", "a"]) is None
    assert find_along([{"a": 1, "b": 1}, {"a": 2, "b": 2}], ["x", "x"]) is None
    mixed = [{"task.error_rate": rate, "kind": kind} for rate in (0.0, 0.1) for kind in ("points", "chains")]
    assert set(find_along(mixed, ["a"] * 4).panels) == {"kind=points", "kind=chains"}


def test_numbers_with_units():
    assert number_and_unit("1e-3 disagreement/example") == (0.001, "disagreement/example")
    assert number_and_unit(True) is None and number_and_unit("laplace") is None
    assert sorted(["x=10", "x=9", "x=0.5"], key=natural) == ["x=0.5", "x=9", "x=10"]


def test_reliability_over_seeds_by_hand():
    """Accuracies .4 and .6 in one bin: .5 ± 12.706·.1; the bin that one seed has keeps that seed's interval."""

    def one(left, confidence, accuracy):
        return {"left": left, "confidence": confidence, "accuracy": {"value": accuracy, "low": 0.2, "high": 0.7}}

    seeds = {0: {"fooled": [one(0.6, 0.61, 0.4), one(0.8, 0.85, 0.5)]}, 1: {"fooled": [one(0.6, 0.65, 0.6)]}}
    (confidence, accuracy), (_, alone) = reliability(seeds, "fooled")
    assert confidence.value == pytest.approx(0.63)
    assert accuracy[:3] == pytest.approx((0.5, 0.5 - 1.27062, 0.5 + 1.27062), rel=1e-5)
    assert alone[:4] == (0.5, 0.2, 0.7, 1)


def test_mean_curve_is_of_the_steps_that_all_have():
    steps, mean = mean_curve([{1: 0.0, 2: 1.0, 3: 5.0}, {2: 3.0, 3: 1.0, 4: 9.0}])
    assert list(steps) == [2, 3] and list(mean) == [2.0, 3.0]


def test_ledger_rows_are_by_term_and_group(tmp_path):
    (table,) = task_tables(read_source(write(tmp_path, lines("sums", "prior", TRUTH))).scores)
    rows = ledger_rows(table.whole)
    assert list(rows) == [("data", "trunk"), ("log_partition", "heads"), ("constants", "second trunk")]
    assert rows["data", "trunk"]["prior"].value == -901.0


def test_a_task_without_error_rates_is_no_sweep_of_them():
    """Tasks of two kinds in one report, where one kind alone has the key."""
    mixed = [{"task.kind": "arithmetic", "task.error_rate": 0.0}, {"task.kind": "diamonds"}]
    assert find_along(mixed, ["arithmetic", "diamonds"]) is None


def test_slugs_fit_into_a_file_name():
    long = [f"{'rows_world=65536, ' * 40}seed {i}" for i in range(3)]
    made = slugs(long)
    assert len(set(made.values())) == 3 and max(map(len, made.values())) < 100


def test_slugs_never_meet():
    assert slugs(["a b", "a/b", "ä"]) == {"a b": "a_b", "a/b": "a_b_1", "ä": "task"}


def test_a_results_file_that_is_no_text_is_a_mistake(tmp_path):
    (tmp_path / "results.csv").write_bytes(b"\xff\xfe\x00task")
    with pytest.raises(UserError, match=r"results\.csv cannot be read"):
        read_source(tmp_path)


def test_a_summary_of_something_else_is_named(tiny_run, tmp_path):
    run = copy_of(tiny_run, tmp_path / "run", lambda summary: summary.pop("scores"))
    with pytest.raises(UserError, match=r"summary\.json: no key 'scores'"):
        read_source(run)
