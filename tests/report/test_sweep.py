"""`honest report` on the folder of a sweep, made up so that every number can be checked by hand."""

import csv
import json
import math

import pytest

from honest.cli import main
from honest.report import figures_style
from honest.report.figures_sweep import is_logarithmic, positions, scale_of, shown_ticks
from honest.report.findings import warnings
from honest.report.labels import Parameter
from honest.report.sources import read_source
from honest.report.sweep import Series, Sweep, heat_map, is_grid, parameter_of, points, read_sweep
from honest.report.sweep_panels import PANELS, known_panels
from honest.report.sweep_section import texts
from honest.report.write import write_report
from tests.report.made_up_sweep import KIND, PRIOR, SEED, WIDTH, Result, finish, start, write_list

HEADS = ("intended", "instrumental")
TRUTH = Series("intended", f"{PRIOR}: intended", "truth_fooled")
T = 12.7062047  # Student's t at 97.5 % with one degree of freedom


def member(kind, width, seed):
    return {KIND: kind, WIDTH: f"{width} θ.trunk", SEED: seed}


GRID = [member(kind, width, seed) for kind in ("points", "chains") for width in (10, 0.1) for seed in (0, 1)]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Eight members: points at both widths and chains at .1 done but for one seed, chains at 10 started or not."""
    folder = write_list(tmp_path_factory.mktemp("sweep"), GRID)
    finish(folder, member("points", 0.1, 0), Result(0.5, 0.25, 0.004), HEADS)
    finish(folder, member("points", 0.1, 1), Result(0.7, 0.75, 0.002), HEADS)
    finish(folder, member("points", 10, 0), Result(0.2, 0.1, 0.002), HEADS)
    finish(folder, member("points", 10, 1), Result(0.4, 0.1, 0.002), HEADS)
    finish(folder, member("chains", 0.1, 0), Result(0.9, 0.0, 0.001), HEADS)
    start(folder, member("chains", 0.1, 1))
    start(folder, member("chains", 10, 0))
    (folder / "results.csv").write_text("member,sigma\n", encoding="utf-8")  # of the sweep, and no benchmark's
    return folder


@pytest.fixture(scope="module")
def reported(sweep):
    """The same with its report, in figures of few pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures_style, "DPI", 30)
        assert main(["report", str(sweep)]) == 0
    return sweep


def said(folder):
    """The texts of the page about a sweep."""
    found = read_sweep(read_source(folder))
    return " ".join(texts(found, known_panels(found)))


def test_csv_has_settings_and_members(reported):
    with (reported / "report.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    settings = {(r["entries"], r["head"], r["metric"]): r for r in rows if r["method"] == "sweep: setting"}
    setting = f"{KIND}=points, {WIDTH}=0.1 θ.trunk"
    row = settings[setting, f"{PRIOR}: intended", "truth_fooled"]  # .5 and .7: s/√2 = .1
    assert [float(row[key]) for key in ("mean", "low", "high")] == pytest.approx([0.6, 0.6 - 0.1 * T, 0.6 + 0.1 * T])
    assert (row["seeds"], row["interval"], row["task"]) == ("2", "t over seeds", "sums")
    assert float(settings[setting, "", "divergence/jensen_shannon_fooled_bits"]["mean"]) == pytest.approx(0.5)
    assert float(settings[setting, "", "constraint/whole_violation_over_tolerance"]["mean"]) == pytest.approx(1.5)
    alone = settings[f"{KIND}=chains, {WIDTH}=0.1 θ.trunk", f"{PRIOR}: instrumental", "truth_fooled"]
    assert [float(alone[key]) for key in ("mean", "low", "high")] == pytest.approx([0.1, 0.05, 0.15])
    assert not any(f"chains, {WIDTH}=10" in entry for entry, _, _ in settings)
    done = {r["entries"].split(": ")[0]: float(r["mean"]) for r in rows if r["metric"] == "done"}
    assert len(done) == 8 and sum(done.values()) == 5 and done["kind=chains,stddev=0.1,seed=1"] == 0


def test_markdown_names_every_member_and_its_state(reported):
    text = (reported / "report.md").read_text(encoding="utf-8")
    lines = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("| kind=")]
    cells = {line[1]: line[2:] for line in lines}
    assert len(cells) == 8
    assert cells["kind=points,stddev=0.1,seed=1"][:5] == ["done", "points", "0.1", "1", "0.70 [0.65, 0.75]"]
    states = {name: line[0] for name, line in cells.items() if "chains" in name}
    assert states == {
        "kind=chains,stddev=10,seed=0": "not finished",
        "kind=chains,stddev=10,seed=1": "not started",
        "kind=chains,stddev=0.1,seed=0": "done",
        "kind=chains,stddev=0.1,seed=1": "not finished",
    }
    assert "8 members of 4 settings: 5 done, 2 not finished, 1 not started." in text
    unfinished = "kind=chains,stddev=10,seed=0, kind=chains,stddev=10,seed=1, kind=chains,stddev=0.1,seed=1"
    assert f"3 of 8 members are not finished and are left out: {unfinished}." in text
    assert f"none of their members has a number yet: ({KIND}=chains, {WIDTH}=10 θ.trunk)." in text


def test_figures_of_a_sweep(reported):
    kinds = ("along_objective_phases_kind", "along_objective_second_prior_trunk_stddev", "heat_map")
    kinds += ("parallel_truth_fooled", "parallel_divergence_jensen_shannon_fooled_bits")
    drawn = {path.stem for path in (reported / "figures").iterdir() if path.stem.startswith("sweep_")}
    assert drawn == {f"sweep_{kind}" for kind in kinds}
    text = (reported / "report.md").read_text(encoding="utf-8")
    assert all(f"](figures/sweep_{kind}.png)" in text for kind in kinds)


def test_heat_map_cells_by_hand(sweep):
    found = read_sweep(read_source(sweep))
    assert is_grid(found)
    cells = heat_map(found, TRUTH)
    assert (cells.rows, cells.columns) == (["points", "chains"], [0.1, 10.0])
    assert [[cell.value for cell, _ in line] for line in cells.cells] == [
        [pytest.approx(0.6), pytest.approx(0.3)],
        [0.9, pytest.approx(math.nan, nan_ok=True)],
    ]
    assert [[(cell.seeds, members) for cell, members in line] for line in cells.cells] == [
        [(2, 2), (2, 2)],
        [(1, 2), (0, 2)],
    ]


def test_points_are_settings_and_seeds_no_parameter(sweep):
    found = read_sweep(read_source(sweep))
    assert [parameter.label for parameter in found.parameters] == [KIND, f"{WIDTH} (θ.trunk)"]
    along = points(found, 1, TRUTH)
    assert [(point.at, point.setting[0], point.cell.value) for point in along] == [
        (0.1, "points", pytest.approx(0.6)),
        (10.0, "points", pytest.approx(0.3)),
        (0.1, "chains", 0.9),
    ]


def test_a_cell_that_the_sweep_leaves_out_is_said(tmp_path):
    folder = write_list(tmp_path, [one for one in GRID if (one[KIND], one[WIDTH]) != ("chains", "10 θ.trunk")])
    for one in GRID[:4]:
        finish(folder, one, Result(0.5, 0.1, 0.002), HEADS)
    assert f"as the sweep has no such members: ({KIND}=chains, {WIDTH}=10 θ.trunk)." in said(folder)


def test_drawn_parameters_are_no_grid(tmp_path):
    drawn = [{"a.x": 0.1 * i, "a.y": 0.3 + 0.01 * i * i} for i in range(1, 5)]
    assert not is_grid(read_sweep(read_source(write_list(tmp_path, drawn))))  # 4 of 16 cells


def test_a_sweep_of_which_nothing_is_done(tmp_path):
    folder = write_list(tmp_path, GRID)
    start(folder, GRID[0])
    assert main(["report", str(folder)]) == 0
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "8 members of 4 settings: 1 not finished, 7 not started." in text and "nothing to draw" in text


def test_exchangeable_heads_are_shown_as_their_blind_mean(tmp_path):
    folder = write_list(tmp_path, GRID[:2])
    for one in GRID[:2]:
        finish(folder, one, Result(0.5, 0.1, 0.002), ("first", "mean (blind choice)"))
    panels = known_panels(read_sweep(read_source(folder)))
    assert [series.label for series in panels[0].series] == ["mean (blind choice)"]


def test_many_settings_are_not_drawn_head_by_head(tmp_path):
    """Of runs without heads under the prior, so that the sweep's own figures are not drawn either."""
    widths = [member("points", width, 0) for width in range(1, 10)]
    folder = write_list(tmp_path, widths)
    for one in widths:
        summary = finish(folder, one, Result(0.5, 0.1, 0.002), ("a", "b")) / "summary.json"
        content = json.loads(summary.read_text(encoding="utf-8"))
        content |= {"metrics": {"ledger/data_trunk_bits": -1.0}, "ledger": None}
        summary.write_text(json.dumps(content), encoding="utf-8")
    write_report(folder)
    assert [path.name for path in (folder / "figures").iterdir()] == ["sweep_task.png"]  # all heads along the width
    assert "not drawn for more than 8 settings" in (folder / "report.md").read_text(encoding="utf-8")


def test_a_run_that_is_no_member_is_named(tmp_path):
    folder = write_list(tmp_path, GRID)
    start(folder, member("laplace", 3, 0))
    named = "runs/kind=laplace,stddev=3,seed=0 is no member of this sweep and is left out."
    assert named in warnings(read_source(folder), [], {})


@pytest.mark.parametrize("content", ["[]", "{", '{"members": [{"name": "a"}]}', '{"members": []}'])
def test_a_broken_list_of_members_is_a_mistake(tmp_path, capsys, content):
    (tmp_path / "members.json").write_text(content, encoding="utf-8")
    assert main(["report", str(tmp_path)]) == 2
    assert "members.json" in capsys.readouterr().err and not (tmp_path / "report.md").exists()


# --- parameters and axes ------------------------------------------------------------------------------------------


def test_numbers_are_in_the_unit_of_the_field():
    assert parameter_of("a", ["2 bit", "3 nat"], "nat") == ("a", "nat", (pytest.approx(2 * math.log(2)), 3.0))
    assert parameter_of("a", ["2 bit", "3 bit"], None) == ("a", "bit", (2.0, 3.0))
    assert parameter_of("a", [3, 1e-3], None) == ("a", "", (3.0, 0.001))
    assert parameter_of("steps", [3, None], "step") == ("steps", "step", (3.0, None))


def test_values_with_a_text_among_them_are_texts():
    assert parameter_of("a", ["auto", 3, True, None], None) == ("a", "", ("auto", "3", "true", None))
    assert parameter_of("a", ["2 nat", "3 disagreement"], "nat").values == ("2 nat", "3 disagreement")


def along(values, logarithmic=()):
    """A sweep of the parameter `a` alone, and that parameter."""
    parameter = Parameter("a", "", tuple(values))
    return Sweep([parameter], frozenset(logarithmic), []), parameter


@pytest.mark.parametrize(
    ("values", "drawn", "expected"),
    [
        ((1.0, 30.0), (), False),
        ((1.0, 31.0), (), True),
        ((1.0, 2.0), ("a",), True),
        ((0.0, 1.0, 100.0), (), False),
        (("points", "chains"), ("a",), False),
    ],
)
def test_what_is_drawn_along_a_logarithm(values, drawn, expected):
    assert is_logarithmic(*along(values, drawn)) == expected


def test_places_along_an_axis():
    assert positions(*along((10.0, 0.1, 1.0))) == {0.1: 0.0, 1.0: pytest.approx(0.5), 10.0: 1.0}
    assert positions(*along((1.0, 2.0, 5.0))) == {1.0: 0.0, 2.0: 0.25, 5.0: 1.0}
    assert positions(*along(("c", "a", "b"))) == {"c": 0.0, "a": 0.5, "b": 1.0}
    assert positions(*along((1.0, None, 2.0)))[None] > 1
    many = along([float(x) for x in range(1, 102)])  # 1 to 101: along a logarithm
    assert list(shown_ticks(*many)) == [0, 0.25, 0.5, 0.75, 1] and shown_ticks(*many)[0.5] == "10"  # √101


def test_loguniform_keys_of_the_sweep_file(tmp_path):
    folder = write_list(tmp_path, [{"a": 1.0}, {"a": 2.0}])
    (folder / "sweep.yaml").write_text("base: x.yaml\nloguniform:\n  a: [1, 2]\nsamples: 2\n", encoding="utf-8")
    assert read_sweep(read_source(folder)).logarithmic == {"a"}


def test_scale_of_colours():
    shares, bits = PANELS[0], PANELS[2]
    assert (scale_of(shares, [0.4]).vmin, scale_of(shares, [0.4]).vmax) == (0.0, 1.0)
    assert scale_of(bits, [0.01, 1.0])(0.1) == pytest.approx(0.5)  # spans 100: a logarithm
    assert scale_of(bits, [0.1, 0.3, math.nan])(0.2) == pytest.approx(0.5)
    assert scale_of(bits, [0.2])(0.2) == pytest.approx(0.5)
