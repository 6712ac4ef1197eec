"""Text and JSON of `honest exact`: the pairs of a finite world, and every solver against the exact answer."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from honest.inference.enumeration import Pair, Posterior, Solution
from honest.report.tables import layout

NATS_PER_BIT = math.log(2)
PAIR_HEADER = [
    "intended",
    "instrumental",
    "log2 prior",
    "bits recovered",
    "log2 evidence",
    "posterior",
    "without log Z",
]
COMPARE_HEADER = [
    "solver",
    "most probable pair",
    "log2 prior",
    "bits recovered",
    "log2 evidence",
    "posterior",
    "error of log Z",
    "of log Z_D",
    "of the total",
    "TV distance",
    "evaluations",
]


def number(value: float, digits: int = 4) -> str:
    if math.isnan(value):
        return "–"
    return ("∞" if value > 0 else "−∞") if math.isinf(value) else f"{value:.{digits}f}".replace("-", "−")


def posterior_text(found: Posterior, solution: Solution, solver: str) -> str:
    rows = [[pair.intended, pair.instrumental, *map(number, pair[2:])] for pair in found.pairs]
    lines = [
        layout(PAIR_HEADER, rows, "llrrrrr"),
        "",
        f"log2 of the total evidence: {number(found.total_log2_evidence)} bit   "
        f"({solver}, {solution.evaluations} evaluations)",
    ]
    errors = np.stack([solution.log2_z_error_RxR, solution.log2_joint_error_RxR])
    if np.isfinite(errors).any() and np.nanmax(errors) > 0:
        worst = np.nanmax(np.where(np.isfinite(errors), errors, np.nan), axis=(1, 2))
        lines.append(f"largest standard errors: log2 Z {worst[0]:.2g} bit, log2 Z_D {worst[1]:.2g} bit")
    if math.isinf(found.total_log2_evidence):
        lines.append("No pair can give these labels: there is no posterior.")
    return "\n".join(lines)


def posterior_json(found: Posterior) -> dict[str, Any]:
    """pairs and total_log2_evidence: an infinite or undefined number is null, and its pair has `impossible: true`."""
    document: dict[str, Any] = {
        "pairs": [_pair_json(pair) for pair in found.pairs],
        "total_log2_evidence": _finite(found.total_log2_evidence),
    }
    return document | ({"impossible": True} if document["total_log2_evidence"] is None else {})


def _pair_json(pair: Pair) -> dict[str, Any]:
    values = {key: _finite(value) if isinstance(value, float) else value for key, value in pair._asdict().items()}
    return values | ({"impossible": True} if None in values.values() else {})


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class Comparison(NamedTuple):
    """A solver against the exact answer. Errors in nat, the largest over pairs; distance in total variation."""

    solver: str
    best: Pair
    log_z_error: float
    log_z_data_error: float
    total_error: float
    distance: float
    evaluations: int


def compare(solver: str, exact: tuple[Posterior, Solution], other: tuple[Posterior, Solution]) -> Comparison:
    (truth, true_sums), (found, sums) = exact, other
    probability = lambda posterior: np.array([pair.posterior for pair in posterior.pairs])  # noqa: E731
    return Comparison(
        solver=solver,
        best=max(found.pairs, key=lambda pair: -1.0 if math.isnan(pair.posterior) else pair.posterior),
        log_z_error=_largest(sums.log2_z_RxR, true_sums.log2_z_RxR),
        log_z_data_error=_largest(sums.log2_joint_RxR, true_sums.log2_joint_RxR),
        total_error=_largest(np.array(found.total_log2_evidence), np.array(truth.total_log2_evidence)),
        distance=float(0.5 * np.sum(np.abs(probability(found) - probability(truth)))),
        evaluations=sums.evaluations,
    )


def _largest(found: np.ndarray, true: np.ndarray) -> float:
    """Largest |difference| in nat; two equal infinities do not differ."""
    with np.errstate(invalid="ignore"):
        difference = np.where(found == true, 0.0, np.abs(found - true))
    return float(np.max(difference)) * NATS_PER_BIT


def comparison_text(rows: list[Comparison]) -> str:
    lines = [
        [
            row.solver,
            f"{row.best.intended}, {row.best.instrumental}",
            *map(number, row.best[2:6]),
            *(number(value) for value in row[2:6]),
            str(row.evaluations),
        ]
        for row in rows
    ]
    notes = (
        "Ledger of the most probable pair in bits; errors in nats, the largest over all pairs, against enumerate; "
        "TV: of the pairs' posterior.\n"
        "milp puts the most probable state in the place of each sum: what a point claims. Its evaluations are nodes "
        "of branch and bound; the others' are states."
    )
    return f"{layout(COMPARE_HEADER, lines, 'llrrrrrrrrr')}\n\n{notes}"


def comparison_json(rows: list[Comparison]) -> list[dict[str, Any]]:
    return [
        {
            key: _finite(value) if isinstance(value, float) else value
            for key, value in (row._asdict() | {"best": _pair_json(row.best)}).items()
        }
        for row in rows
    ]
