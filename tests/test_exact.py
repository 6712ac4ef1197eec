"""`honest exact` as a user types it: the table, the JSON, and specs that contradict themselves."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from honest import cli
from honest.inference.solvers import CONTINUOUS, QUADRATURE, SOLVERS

WORLDS = Path(__file__).parents[1] / "configs" / "worlds"
EXAMPLE, PLANTED = WORLDS / "example.yaml", WORLDS / "planted.yaml"


@pytest.fixture
def spec(tmp_path):
    """Writes the example, or another world, with pieces of its text replaced; returns its path."""

    def write(*replacements: tuple[str, str], of: Path = EXAMPLE) -> Path:
        text = of.read_text(encoding="utf-8")
        for old, new in replacements:
            assert text.count(old) >= 1, old
            text = text.replace(old, new, 1)
        path = tmp_path / "world.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def run(*arguments) -> int:
    return cli.main(["exact", *map(str, arguments)])


def test_the_command_knows_every_solver():
    assert set(cli.FINITE_SOLVERS) == set(SOLVERS)
    assert set(cli.CONTINUOUS_SOLVERS) == {QUADRATURE, *CONTINUOUS}


def test_table_and_json(tmp_path, capsys):
    out = tmp_path / "out.json"
    assert run(EXAMPLE, "--json", out) == 0
    printed = capsys.readouterr().out
    assert "read_belief" in printed and "3.3219" in printed  # log2 10
    document = json.loads(out.read_text(encoding="utf-8"))
    assert set(document) == {"pairs", "total_log2_evidence"}
    assert [(pair["intended"], pair["instrumental"]) for pair in document["pairs"]] == [
        ("read_fact", "read_fact"),
        ("read_fact", "read_belief"),
        ("read_belief", "read_fact"),
        ("read_belief", "read_belief"),
    ]
    mixed = document["pairs"][1]
    assert set(mixed) == {
        "intended",
        "instrumental",
        "log2_prior",
        "bits_recovered",
        "log2_evidence",
        "posterior",
        "posterior_without_log_partition",
    }
    assert mixed["bits_recovered"] == pytest.approx(math.log2(10), abs=1e-9)
    assert sum(pair["posterior"] for pair in document["pairs"]) == pytest.approx(1.0, abs=1e-12)
    before = out.read_text(encoding="utf-8")
    assert run(EXAMPLE, "--json", out) == 2
    assert "exists already" in capsys.readouterr().err and out.read_text(encoding="utf-8") == before


def test_infinities_are_null_and_said_to_be_impossible(spec, tmp_path):
    world = spec(
        ('table: "0011", bits: 5', 'table: "1111", bits: 5'), ('table: "0101", bits: 1', 'table: "0000", bits: 1')
    )
    assert run(world, "--json", tmp_path / "out.json") == 0
    pair = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["pairs"][1]
    assert pair["bits_recovered"] is None and pair["log2_evidence"] is None
    assert pair["impossible"] is True and pair["posterior"] == 0.0


def test_no_pair_can_give_the_labels(spec, tmp_path, capsys):
    world = spec(("label_noise: 0.001", "label_noise: 0.0"), ("{0: 0, 1: 0, 2: 0, 5: 1}", "{0: 1, 1: 0, 2: 0, 5: 1}"))
    assert run(world, "--json", tmp_path / "out.json") == 0
    document = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert document["total_log2_evidence"] is None and document["impossible"] is True
    assert "No pair can give these labels" in capsys.readouterr().out


@pytest.mark.parametrize("solver", ["rejection", "smc", "metropolis"])
def test_sampled_solvers_come_near(solver, tmp_path):
    assert run(EXAMPLE, "--solver", solver, "--samples", 100_000, "--seed", 3, "--json", tmp_path / "out.json") == 0
    pairs = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["pairs"]
    assert pairs[3]["posterior"] == pytest.approx(0.799, abs=0.03)  # of the exact sum, checked by loops elsewhere
    assert pairs[1]["bits_recovered"] == pytest.approx(math.log2(10), abs=0.5)


def test_compare(tmp_path, capsys):
    assert run(EXAMPLE, "--compare", "--samples", 20_000, "--json", tmp_path / "out.json") == 0
    printed = capsys.readouterr().out
    document = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [row["solver"] for row in document["solvers"]] == [name for name in SOLVERS if name in printed]
    rows = {row["solver"]: row for row in document["solvers"]}
    # A point claims max π = 1/2 · 4/5 where the sum is 1: ln 2.5 nat.
    assert rows["enumerate"]["log_z_error"] == 0.0
    assert rows["milp"]["log_z_error"] == pytest.approx(math.log(2.5), abs=1e-9)
    assert rows["milp"]["evidence_error"] > 0.5 > 0.1 > rows["rejection"]["evidence_error"]
    assert rows["enumerate"]["ledger_distance"] == 0.0 and rows["rejection"]["ledger_distance"] < 0.1


def test_a_continuous_world_and_both_kinds_in_one_table(tmp_path, capsys, monkeypatch, quick_compilation):
    # Two of the solvers, for the time it takes to compile them; each has a test of its own.
    monkeypatch.setattr("honest.exact.CONTINUOUS", {name: CONTINUOUS[name] for name in ("gradient", "nuts")})
    assert run(PLANTED, "--json", tmp_path / "exact.json") == 0
    assert "log evidence" in capsys.readouterr().out
    document = json.loads((tmp_path / "exact.json").read_text(encoding="utf-8"))
    assert document["parameters"] == 2 and document["bits_recovered"] > 0
    with_z, without = document["with_log_partition"], document["without_log_partition"]
    # Planted heads: leaving log Z out multiplies every pair's evidence by the same Z.
    gain = with_z["log_evidence_nats"] - without["log_evidence_nats"]
    assert gain == pytest.approx(document["bits_recovered"] * math.log(2), abs=1e-9)
    assert run(EXAMPLE, PLANTED, "--compare", "--samples", 3_000, "--json", tmp_path / "out.json") == 0
    printed = capsys.readouterr()
    rows = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["solvers"]
    assert [row["solver"] for row in rows if row["world"] == "example"] == list(SOLVERS)
    continuous = [row["solver"] for row in rows if row["world"] == "planted"]
    assert continuous == [QUADRATURE, f"{QUADRATURE}, no log Z", "gradient", "gradient, no log Z", "nuts"]
    nuts = next(row for row in rows if row["solver"] == "nuts")
    assert nuts["log_evidence"] is None and "honest: planted: nuts" in printed.err
    assert set(nuts["ledger"]) == {"data", "first_prior", "second_prior", "consistency", "log_partition"}


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("kind: continuous", "kind: continous", 3, "did you mean 'continuous'?"),
        ("kind: continuous", "kind: [1]", 3, "give one of finite, continuous"),
        (
            "trusted: true, label: 1}",
            "trusted: false, label: 1}",
            15,
            "beliefs.0.inputs.0.label: label is for a trusted",
        ),
        ("trusted: false, person_label: 0", "trusted: true, person_label: 0", 18, "person_label is for an untrusted"),
        ("sign: -1", "sign: 2", 16, "beliefs.0.inputs.1.sign"),
        ("label: 0}", "label: 3}", 16, "beliefs.0.inputs.1.label: out of range"),
        ("fact: -3.0", "fact: .nan", 16, "beliefs.0.inputs.1.fact"),
        ("copies: 1", "copies: 50", 12, "has 51 parameters, more than the 50"),
        ("copies: 1", "copies: 0", 13, "beliefs.0.copies: out of range"),
        ("2.0 θ.trunk", "2.0 θ.head", 11, "trunk.stddev"),
        ("fact: null, belief", "fact: 0.3, belief", 7, "heads.intended.stddev.fact"),
        ("10 nat/disagreement", "10 nat", 19, "multiplier: has unit nat, not nat/disagreement"),
        ("trunk: {stddev", "trunk: {stdev", 11, "did you mean 'trunk.stddev'?"),
    ],
)
def test_continuous_specs_are_refused_with_file_and_line(spec, capsys, old, new, line, says):
    path = spec((old, new), of=PLANTED)
    assert run(path) == 2
    message = capsys.readouterr().err
    assert f"{path}:{line}" in message and says in message and "Traceback" not in message


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ('"01010101"', '"0101010"', 7, "slots.fact.tables.1: has 7 characters, not 8"),
        ('"01010101"', '"01010102"', 7, "slots.fact.tables.1: not of the allowed form"),
        ('"01010101"', "01010101", 7, "in quotes"),
        ('"01010101"', '"00010111"', 7, "slots.fact.tables.1: is there twice"),
        ("bits: [3, 1]", "bits: [3]", 7, "slots.fact.bits: has 1 numbers for 2 tables"),
        ("bits: [3, 1]", "bits: [3, -1]", 7, "slots.fact.bits.1: out of range"),
        ("bits: [3, 1]", "bits: [3, .inf]", 7, "slots.fact.bits.1"),
        ("  belief:", "  fact:", 8, "slots.fact: duplicate key"),
        ('"0011", bits: 5', '"001", bits: 5', 10, "readers.0.table: has 3 characters, not 4"),
        ("name: read_belief", "name: read_fact", 11, "readers.1.name: 'read_fact' is the name of another reader"),
        ("5: 1}", "4: 1}", 13, "labels.4: input 4 is not a trusted input"),
        ("5: 1}", "9: 1}", 13, "labels.9: is not one of the inputs 0 … 7"),
        ("5: 1}", "05: 1, 5: 0}", 13, "input 5 has two labels"),
        ("5: 1}", "0: 1}", 13, "labels.0: duplicate key"),
        ("5: 1}", "5: 2}", 13, "labels.5: out of range"),
        ("{3: 1}", "{2: 1}", 14, "person_labels.2: input 2 is not an untrusted input"),
        ("[0, 1, 2, 5]", "[0, 1, 2, 8, 5]", 5, "trusted.3: 8 is not one of the inputs"),
        ("[0, 1, 2, 5]", "[0, 1, 2, 2, 5]", 5, "trusted.3: 2 is there twice"),
        ("label_noise: 0.001", "label_noise: 1.5", 15, "label_noise: out of range"),
        ("multiplier: .inf", "multiplier: .nan", 16, "multiplier"),
        ("multiplier: .inf", "multiplier: -1", 16, "multiplier: out of range"),
        ("multiplier: .inf", "multipler: .inf", 16, "did you mean 'multiplier'?"),
        ("tied_bits: null", "tied_bits: -1", 12, "tied_bits: out of range"),
        ("inputs: 3 ", "inputs: 40 ", 4, "inputs: out of range"),
    ],
)
def test_contradictions_are_refused_with_file_and_line(spec, capsys, old, new, line, says):
    path = spec((old, new))
    assert run(path) == 2
    message = capsys.readouterr().err
    assert f"{path}:{line}" in message and says in message and "Traceback" not in message


def test_all_contradictions_are_told_at_once(spec, capsys):
    path = spec(('"01010101"', '"0101010"'), ("5: 1}", "4: 1}"), ("name: read_belief", "name: read_fact"))
    assert run(path) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--samples", "10"], "--samples is for the sampled solvers"),
        (["--solver", "milp", "--seed", "1"], "--seed is for the sampled solvers"),
        (["--compare", "--solver", "smc"], "leave --solver out"),
        (["--solver", "smc", "--samples", "0"], "1 or more"),
        (["--solver", "smc", "--seed", "-1"], "0 or more"),
    ],
)
def test_options_that_do_not_fit_are_refused(capsys, options, says):
    assert run(EXAMPLE, *options) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("world", "options", "says"),
    [
        (PLANTED, ["--solver", "milp"], "--solver milp is not for the continuous world of"),
        (EXAMPLE, ["--solver", "nuts"], "take one of enumerate, milp, rejection, smc, metropolis"),
        (PLANTED, ["--seed", "1"], "quadrature draws nothing"),
        (PLANTED, [str(EXAMPLE)], "several worlds are for --compare"),
    ],
)
def test_solvers_belong_to_a_kind_of_world(capsys, world, options, says):
    assert run(world, *options) == 2
    assert says in capsys.readouterr().err


def test_no_such_file(capsys):
    assert run(EXAMPLE.parent / "exampel.yaml") == 2
    assert "did you mean 'example.yaml'?" in capsys.readouterr().err
