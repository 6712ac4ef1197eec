"""The exact phase diagram: its boundary is where the bits recovered make up for the extra bits spent."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest

from honest.inference.factors import Factors
from honest.inference.solvers import solve

FILE = Path(__file__).parents[1] / "launch" / "phase_diagram.py"


@pytest.fixture(scope="module")
def diagram():
    spec = importlib.util.spec_from_file_location("phase_diagram", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("recovered", [1.0, 4.0, 9.0])
@pytest.mark.parametrize("extra", [0.0, 3.0, 10.0])
def test_independent_odds_by_hand(diagram, recovered, extra):
    """R − Δ with log Z and −Δ without, up to the label noise: ε² of the wrong models against 2^−R of the right one."""
    factors = Factors(diagram.world(recovered, extra, None))
    with_z, without = diagram.odds(factors, solve(factors, "enumerate", 0, 0))
    slack = math.log2(1 + 0.001**2 * 2**recovered / 0.999**2)
    assert with_z == pytest.approx(recovered - extra, abs=2 * slack + 1e-9)
    assert without == pytest.approx(-extra, abs=2 * slack + 1e-9)


@pytest.mark.parametrize("recovered", [6.0, 9.0])
def test_tied_boundary_is_predicted(diagram, recovered):
    extra = diagram.predicted(recovered, 2.0)
    factors = Factors(diagram.world(recovered, extra, 2.0))
    with_z, _ = diagram.odds(factors, solve(factors, "enumerate", 0, 0))
    assert with_z == pytest.approx(0.0, abs=0.01)
    # ρ of the imitating reader is about 2^−6: a tied copy costs about 2 bits where a second one costs 6.4.
    assert recovered - extra == pytest.approx(4.5, abs=0.1)


def test_committed_tables_are_of_this_world(diagram):
    table = {(c.prior, c.recovered, c.extra): c for c in diagram.read(diagram.DIAGRAM, diagram.Cell)}
    assert len(table) == 2 * len(diagram.RECOVERED) * len(diagram.EXTRA)
    for (prior, recovered, extra), cell in list(table.items())[::97]:
        factors = Factors(diagram.world(recovered, extra, diagram.TIED_BITS[prior]))
        with_z, without = diagram.odds(factors, solve(factors, "enumerate", 0, 0))
        assert cell.with_log_partition == pytest.approx(with_z, abs=1e-4)
        assert cell.without == pytest.approx(without, abs=1e-4)


def test_figure_is_drawn_from_the_tables(diagram, tmp_path):
    diagram.figure(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 20_000
