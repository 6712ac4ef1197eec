"""The unit table: rows against hand arithmetic and the ledger, costs of 1 θ against closed forms, and its text."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from honest.cli import main
from honest.config_io import load_config, unit_fields
from honest.data.tasks import build_task
from honest.objective.consistency import jensen_shannon
from honest.report.ledger_values import LedgerReader
from honest.report.unit_report import UnitRow, described, unit_report
from honest.report.unit_text import number, quantity_text, shares, unit_json, unit_text
from honest.run import marked_unused
from honest.train.sharding import make_mesh
from honest.train.stage import PRIOR, TRUNK, make_run
from honest.train.stages import make_stage
from honest.units import Quantity, bit, disagreement, displacement, example, nat, one, parse_unit, token
from tests.conftest import write_tiny

pytestmark = pytest.mark.usefixtures("quick_compilation")
HEAD, WORLD = displacement("head"), displacement("trunk")
LN2 = math.log(2)
LOG_Z = -2.5
SIGMAS = (
    "precision=float32",
    "objective.first_prior.intended_head.stddev=2.0 θ.head",
    "objective.first_prior.instrumental_head={kind: laplace, scale: 0.5 θ.head}",
    "objective.second_prior.trunk={kind: diagonal, scales: {source: fisher, stddev: 3.0 θ.trunk, examples: 0,"
    " rows: 8}}",
    "objective.reference_measure.head=2.0 θ.head",
)


def made(folder, *changes):
    """The tiny config's prior stage, every weight of both heads moved by .1 θ and every whitened offset by .5."""
    folder.mkdir(exist_ok=True)
    config = load_config(write_tiny(folder / "config.yaml", *changes)).config
    run = make_run(config, build_task(config.task), make_mesh(1))
    stage = make_stage(run, PRIOR, {TRUNK: {"trunk": run.anchor()["trunk"]}})
    start = stage.init()
    positive = start.prior.positive
    whitened = jax.tree.map(lambda leaf: leaf + 0.5, positive.whitened)
    state = start._replace(
        params=jax.tree.map(lambda leaf: leaf + 0.1, start.params),
        prior=start.prior._replace(positive=positive._replace(whitened=whitened)),
    )
    return SimpleNamespace(config=config, stage=stage, state=state, start=start)


@pytest.fixture(scope="module")
def moved(tmp_path_factory, quick_compilation):
    each = made(tmp_path_factory.mktemp("moved"), *SIGMAS)
    each.report = unit_report(each.stage, each.state, each.config.objective, LOG_Z)
    return each


def row_of(report, term, group) -> UnitRow:
    (found,) = [row for row in report.rows if (row.term, row.group) == (term, group)]
    return found


def test_rows_are_the_ledgers(moved):
    ledger = LedgerReader(moved.stage)(moved.state, LOG_Z)
    rows = {(row.term, row.group): float(row.contribution.to(nat)) for row in moved.report.rows}
    assert rows == pytest.approx({(row.term, row.group): row.nats for row in ledger.rows})
    assert sum(rows.values()) == pytest.approx(ledger.total, rel=1e-6)


def test_every_linear_row_multiplies_out(moved):
    linear = [row for row in moved.report.rows if row.coefficient is not None]
    assert len(linear) == len(moved.report.rows) - 2  # laplace, and the diagonal metric
    for row in linear:
        product = row.measured * row.coefficient
        assert float(product.to(nat)) == pytest.approx(-float(row.contribution.to(nat)), rel=1e-4, abs=1e-6), row


@pytest.mark.parametrize(
    ("term", "group", "measured", "coefficient"),
    [
        ("data", "trunk", "nat/token", "token"),
        ("data", "intended_head", "nat/example", "example"),
        ("data", "instrumental_head", "nat/example", "example"),
        ("first_prior", "intended_head", "θ.head²", "nat/θ.head²"),
        ("constants", "first intended_head", "1", "nat"),
        ("constants", "second trunk", "1", "nat"),
        ("consistency", "heads", "disagreement/example", "nat·example/disagreement"),
        ("log_partition", "heads", "nat", "1"),
    ],
)
def test_units_of_the_rows(moved, term, group, measured, coefficient):
    row = row_of(moved.report, term, group)
    assert (row.measured.unit, row.coefficient.unit) == (parse_unit(measured), parse_unit(coefficient))


def test_priors_by_hand(moved):
    """145 weights of a head, each moved by .1 θ: ½ d² = .725 θ², at σ = 2 θ worth .18125 nat; by laplace 14.5/.5."""
    size = 16 * 8 + 8 + 8 * 1 + 1
    assert row_of(moved.report, "constants", "first intended_head").measured.to(one) == size
    gaussian = row_of(moved.report, "first_prior", "intended_head")
    assert float(gaussian.measured.to(HEAD**2)) == pytest.approx(0.5 * size * 0.01, rel=1e-4)
    assert float(gaussian.coefficient.to(nat / HEAD**2)) == pytest.approx(0.25)
    laplace = row_of(moved.report, "first_prior", "instrumental_head")
    assert laplace.coefficient is None
    assert float(laplace.measured.to(HEAD)) == pytest.approx(0.1 * math.sqrt(size), rel=1e-4)
    assert float(laplace.contribution.to(nat)) == pytest.approx(-0.1 * size / 0.5, rel=1e-4)
    assert laplace.note == "d; laplace, scale 0.5 θ.head"


def test_constants_are_for_each_weight_relative_to_u(moved):
    """σ = u = 2 θ: ½ log 2π a weight. Laplace of scale .5 θ: log(2·.5/2)."""
    gaussian = row_of(moved.report, "constants", "first intended_head").coefficient
    assert float(gaussian.to(nat)) == pytest.approx(0.5 * math.log(2 * math.pi), rel=1e-5)
    laplace = row_of(moved.report, "constants", "first instrumental_head").coefficient
    assert float(laplace.to(nat)) == pytest.approx(math.log(0.5), rel=1e-5)


def test_what_one_theta_costs(moved):
    """From the densities: ½/σ² nat in every direction; |d|₁/b nat for laplace, whatever the way; at θ = c, not now."""
    intended, instrumental, trunk = moved.report.distances
    assert (intended.prior, intended.group, trunk.prior, trunk.group) == (
        "first_prior",
        "intended_head",
        "second_prior",
        "trunk",
    )
    for low_high in (intended.random_direction, intended.one_weight):
        assert low_high == pytest.approx((0.125 / LN2, 0.125 / LN2), rel=1e-4)
    assert intended.toward_zero == pytest.approx(0.125 / LN2, rel=1e-4)
    assert instrumental.one_weight == pytest.approx((2 / LN2, 2 / LN2), rel=1e-4)
    centre = np.concatenate([np.ravel(x) for x in jax.tree.leaves(moved.state.held.anchor["instrumental_head"])])
    assert instrumental.norm == pytest.approx(np.linalg.norm(centre), rel=1e-5)
    l1 = np.abs(centre).sum() / np.linalg.norm(centre)
    assert instrumental.toward_zero == pytest.approx(2 * l1 / LN2, rel=1e-4)
    typical = 2 * math.sqrt(2 * centre.size / math.pi) / LN2  # E|d|₁ of a random unit vector
    assert instrumental.random_direction == pytest.approx((typical, typical), rel=0.15)
    assert instrumental.random_direction[0] < instrumental.random_direction[1]
    # No examples: the empirical Fisher information adds nothing, and σ = 3 θ in every direction.
    assert trunk.random_direction == pytest.approx((1 / 18 / LN2, 1 / 18 / LN2), rel=1e-3)


def test_a_metric_and_a_direction_show(tmp_path):
    """toward_zero: cheaper toward zero than elsewhere. Fisher: a weight that the data feel costs more."""
    each = made(
        tmp_path,
        "precision=float32",
        "objective.first_prior.intended_head={kind: toward_zero, stddev: 0.5 θ.head, per: tensor}",
        "objective.second_prior.trunk={kind: diagonal, scales: {source: fisher, stddev: 1.0 θ.trunk, examples: 100,"
        " rows: 32}}",
        "objective.phases.kind=chains",
    )
    report = unit_report(each.stage, each.start, each.config.objective, -3.0)
    intended, _, trunk = report.distances
    assert intended.toward_zero < 0.5 * intended.random_direction[0]
    assert trunk.one_weight[1] > 2 * trunk.one_weight[0]
    assert trunk.one_weight[0] >= 0.5 / LN2 * 0.999  # never below 1 nat/σ²
    row = row_of(report, "log_partition", "heads")
    assert (float(row.contribution.to(nat)), row.note) == (3.0, "log Z: its sampled upper bound")
    assert row_of(report, "first_prior", "intended_head").measured.unit == HEAD
    assert float(row_of(report, "second_prior", "trunk").measured.to(WORLD)) == 0.0  # θ2 starts at the centre


def test_exchange_rates(moved):
    """λ = 10 nat/disagreement; ε N_c = .001 · 64 disagreement; JS of contradicting heads is ln 2: exactly 10 bit."""
    (what, first, worth), (_, tolerated, allowed), (_, most, dear) = moved.report.exchange
    assert what == "λ: one disagreement (1 nat of Jensen–Shannon divergence)"
    assert (float(most.to(disagreement)), float(dear.to(bit))) == pytest.approx((LN2, 10.0))
    apart = jnp.array([[50.0, -50.0]]), jnp.array([[-50.0, 50.0]])
    assert float(jensen_shannon(*apart)[0]) == pytest.approx(LN2)
    assert (float(first.to(disagreement)), float(worth.to(bit))) == pytest.approx((1.0, 10 / LN2))
    assert (float(tolerated.to(disagreement)), float(allowed.to(bit))) == pytest.approx((0.064, 0.64 / LN2))


def test_a_section_in_one_line(moved):
    section = moved.config.objective.second_prior.trunk
    assert described(section) == "diagonal, fisher, stddev 3.0 θ.trunk, examples 0, rows 8"
    tensors = moved.config.objective.first_prior.intended_head.model_copy(update={"tensors": {"a/*": "0.5 θ.head"}})
    assert described(tensors) == "gaussian, stddev 2.0 θ.head, a/* 0.5 θ.head"


# --- text ---------------------------------------------------------------------------------------------------


def planted(term, nats):
    return UnitRow(term, "g", Quantity(-nats, nat), Quantity(1.0, one), "", Quantity(nats, nat))


def test_shares_by_hand():
    rows = [planted("data", -6.0), planted("constants", -2.0), planted("log_partition", 3.0)]
    of_total, without = shares(rows)
    assert of_total == pytest.approx([6 / 5, 2 / 5, -3 / 5])
    assert (without[0], without[1], without[2]) == (pytest.approx(2.0), None, pytest.approx(-1.0))
    assert shares([planted("data", 0.0)]) == ([None], [None])
    assert shares([planted("data", -1.0), planted("constants", 5.0)]) == ([None, None], [1.0, None])


@pytest.mark.parametrize(
    ("quantity", "text"),
    [
        (Quantity(8192, example), "8,192 example"),
        (Quantity(0.69314718, nat / token), "0.6931 nat/token"),
        (Quantity(-0.0, nat), "0 nat"),
        (Quantity(1089, one), "1,089"),
    ],
)
def test_quantities_as_text(quantity, text):
    assert quantity_text(quantity) == text


def test_numbers_as_text():
    assert [number(x) for x in (1e13, 12.0, 0.00012346)] == ["1e+13", "12", "0.0001235"]


def test_text_and_json_hold_every_row(moved):
    fields = unit_fields(moved.config)
    text = unit_text(moved.report, fields, "as planted")
    assert "The log joint is −Σ measured × coefficient; as planted:" in text
    assert "objective.multiplier.tolerance" in text
    assert "stages.prior.steps" not in text
    terms = text.split("What moving by 1 θ")[0].splitlines()
    for row in moved.report.rows:
        (line,) = [x for x in terms if x.startswith(f"{row.term} ") and f" {row.group} " in x]
        assert quantity_text(row.measured) in line
        assert f"{-float(row.contribution.to(bit)):,.3f}" in line
    content = json.loads(json.dumps(unit_json(moved.report, fields, "as planted")))
    assert sum(row["share_with_constants"] for row in content["terms"]) == pytest.approx(1.0)
    assert sum(row["share"] or 0.0 for row in content["terms"]) == pytest.approx(1.0)
    assert content["fields"]["stages.prior.steps"] == {"value": "9", "unit": "step"}
    assert content["fields"]["objective.first_prior.intended_head.stddev"]["unit"] == "θ.head"
    total = next(line for line in text.splitlines() if line.startswith("total"))
    bits = sum(row["cost_bits"] for row in content["terms"])
    assert f"{bits:,.3f}" in total


def test_priors_without_a_stage_are_marked(moved):
    fields = marked_unused(unit_fields(moved.config), moved.stage.spec.prior)
    assert fields["objective.first_prior.trunk.stddev"] == (
        "1.0 θ.trunk  (not used: staging is heads_then_trunk)",
        "θ.trunk",
    )
    assert fields["objective.second_prior.intended_head.stddev"][0].endswith("heads_then_trunk)")
    assert fields["objective.first_prior.intended_head.stddev"][0] == "2.0 θ.head"
    assert fields["objective.second_prior.trunk.scales.rows"][0] == "8"


# --- mistakes of the command --------------------------------------------------------------------------------


def test_command_refuses(tmp_path, capsys):
    config = write_tiny(tmp_path / "tiny.yaml")
    there = tmp_path / "there.json"
    there.write_text("kept")
    half = tmp_path / "half"
    half.mkdir()
    (half / "config.yaml").write_text(config.read_text())
    for arguments, said in (
        (["units", str(tmp_path / "none.yaml")], "none.yaml"),
        (["units", str(tmp_path)], "is not a run directory"),
        (["units", str(tmp_path), "--set", "seed=1"], "--set is for a YAML file"),
        (["units", str(config), "--json", str(there)], "exists already; nothing is overwritten"),
        (["units", str(half)], "units.json cannot be read"),
        (["units", str(config), "--json", str(tmp_path / "no" / "x.json")], "there is no folder"),
        (
            ["units", str(config), "--set", "objective.first_prior.trunk.stddev=1e-30 θ.trunk"],
            "between 1e-12 and 1e+12",
        ),
        (["units", str(config), "--set", "objective.multiplier.initial=3 nat"], "has unit nat, not nat/disagreement"),
    ):
        assert main(arguments) == 2
        assert said in capsys.readouterr().err
    assert there.read_text() == "kept"
