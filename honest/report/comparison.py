"""`honest exact --compare`: every way to spend bits against the exact answer, worlds of both kinds in one table."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from honest.inference.enumeration import Solution
from honest.inference.ledger import Account, Ledger
from honest.report.tables import layout
from honest.report.worlds import LEDGER_ROWS, NATS_PER_BIT, finite_or_none, ledger_json, number

HEADER = ["world", "solver", *LEDGER_ROWS, "log evidence", "ledger off", "evidence off", "answers off", "evaluations"]
NOTES = """\
Ledger: mean contributions to the log joint under what the solver takes for the posterior, in nat; a finite world's
priors are whole log probabilities, a continuous one's leave the Gaussians' constants out. Log evidence: what the solver
claims of log p(data | the heads agree), which cannot exceed 0; – where it claims none. Off: distances from the exact
answer, in nat (ledger: summed over its rows) and in total variation (answers). milp, gradient and lbfgs are points:
they put the best state in the place of every sum. Evaluations are states; nodes of branch and bound for milp; joint
densities with their gradients for the solvers of a continuous world."""


class Row(NamedTuple):
    """One solver on one world, in nat. Distances from the exact answer: Σ|row − row| of the ledger, |difference| of the
    log evidence (NaN where none is claimed), and in total variation of the answers: of the pairs' posterior in a finite
    world, of the intended head's answer to the worst question in a continuous one.

    log_z_error, log_z_data_error: of a finite world's sums, the largest over pairs of readers; NaN in a continuous one.
    """

    world: str
    solver: str
    ledger: Ledger
    log_evidence: float
    ledger_distance: float
    evidence_error: float
    answer_distance: float
    evaluations: int
    log_z_error: float = math.nan
    log_z_data_error: float = math.nan


def _row(world: str, solver: str, exact: Account, found: Account, answer_distance: float) -> Row:
    difference = np.abs(np.array(found.ledger) - np.array(exact.ledger))
    return Row(
        world=world,
        solver=solver,
        ledger=found.ledger,
        log_evidence=found.log_evidence,
        ledger_distance=float(np.sum(difference)),
        evidence_error=_largest(np.array(found.log_evidence), np.array(exact.log_evidence)),
        answer_distance=answer_distance,
        evaluations=found.evaluations,
    )


def compare_finite(world: str, solver: str, exact: tuple[Account, Solution], other: tuple[Account, Solution]) -> Row:
    (truth, true_sums), (found, sums) = exact, other
    distance = float(0.5 * np.sum(np.abs(found.answers - truth.answers)))
    return _row(world, solver, truth, found, distance)._replace(
        log_z_error=NATS_PER_BIT * _largest(sums.log2_z_RxR, true_sums.log2_z_RxR),
        log_z_data_error=NATS_PER_BIT * _largest(sums.log2_joint_RxR, true_sums.log2_joint_RxR),
    )


def compare_continuous(world: str, solver: str, exact: Account, found: Account) -> Row:
    return _row(world, solver, exact, found, float(np.max(np.abs(found.answers - exact.answers))))


def _largest(found: np.ndarray, true: np.ndarray) -> float:
    """Largest |difference|; two equal infinities do not differ."""
    with np.errstate(invalid="ignore"):
        difference = np.where(found == true, 0.0, np.abs(found - true))
    return float(np.max(difference))


def comparison_text(rows: list[Row], as_markdown: bool = False) -> str:
    lines = [
        [
            row.world,
            row.solver,
            *(number(value, 3) for value in (*row.ledger, *row[3:7])),
            str(row.evaluations),
        ]
        for row in rows
    ]
    table = layout(HEADER, lines, "ll" + "r" * (len(HEADER) - 2), as_markdown)
    return table if as_markdown else f"{table}\n\n{NOTES}"


def comparison_json(rows: list[Row]) -> list[dict[str, Any]]:
    return [
        {
            key: finite_or_none(value) if isinstance(value, float) else value
            for key, value in (row._asdict() | {"ledger": ledger_json(row.ledger)}).items()
        }
        for row in rows
    ]
