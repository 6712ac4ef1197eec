"""The unit table as text and as JSON: formatting alone."""

from __future__ import annotations

import math
from typing import Any

from honest.report.tables import layout
from honest.report.unit_report import DistanceCost, UnitReport, UnitRow
from honest.units import Quantity, bit, nat

TERMS = ["term", "group", "measured", "× coefficient", "= bits", "share", "with const.", "of"]
DISTANCES = ["prior", "group", "weights", "‖centre‖", "in a random direction", "in one weight", "toward zero"]


def unit_text(report: UnitReport, fields: dict[str, tuple[str, str]], state: str) -> str:
    """fields: key of the config -> (value, unit); the objective's are shown. state: whose numbers these are."""
    objective = [[key, *pair] for key, pair in fields.items() if key.startswith("objective.")]
    return "\n".join(
        [
            f"The log joint is −Σ measured × coefficient; {state}:",
            "",
            _terms(report.rows),
            "",
            "(share: of the total without the priors' constants, which move with the reference measure)",
            "",
            "What moving by 1 θ from a prior's centre costs, in bit (below 0 it saves; lowest … highest where the "
            "direction, or the weight, matters):",
            "",
            _distances(report.distances),
            "",
            "What disagreement costs:",
            "",
            layout(
                ["exchange rate", "this much", "costs, bit"],
                [[what, quantity_text(much), f"{float(worth.to(bit)):,.3f}"] for what, much, worth in report.exchange],
                "lrr",
            ),
            "",
            "The fields of the objective that have a unit, or count something:",
            "",
            layout(["key", "value", "unit"], objective, "lll"),
        ]
    )


def unit_json(report: UnitReport, fields: dict[str, tuple[str, str]], state: str) -> dict[str, Any]:
    """The same numbers unrounded, every Quantity as {value, unit}."""
    return {
        "state": state,
        "terms": [
            {
                "term": row.term,
                "group": row.group,
                "measured": _json(row.measured),
                "coefficient": None if row.coefficient is None else _json(row.coefficient),
                "of": row.note,
                "cost_bits": 0.0 - float(row.contribution.to(bit)),
                "share": without,
                "share_with_constants": share,
            }
            for row, share, without in zip(report.rows, *shares(report.rows), strict=True)
        ],
        "distances_bits_per_theta": [cost._asdict() for cost in report.distances],
        "exchange": [
            {"what": what, "this_much": _json(much), "worth_bits": float(worth.to(bit))}
            for what, much, worth in report.exchange
        ],
        "fields": {key: {"value": value, "unit": unit} for key, (value, unit) in fields.items()},
    }


def shares(rows: list[UnitRow]) -> tuple[list[float | None], list[float | None]]:
    """Each row's share of the total cost, and of that without the priors' constants; None where nothing is spent.

    The constants, and so the first of the two, depend on the reference measure u.
    """
    nats = [float(row.contribution.to(nat)) for row in rows]
    kept = [row.term != "constants" for row in rows]
    total, without = sum(nats), sum(x for x, keep in zip(nats, kept, strict=True) if keep)
    of_total = [x / total if total < 0 else None for x in nats]
    return of_total, [x / without if keep and without < 0 else None for x, keep in zip(nats, kept, strict=True)]


def number(value: float) -> str:
    value += 0.0  # no −0
    return f"{value:,.0f}" if math.isfinite(value) and value == int(value) and abs(value) < 1e12 else f"{value:.4g}"


def quantity_text(q: Quantity) -> str:
    """`0.693 nat/example`; a pure number has no unit."""
    unit = str(q.unit)
    return number(float(q.to(q.unit))) + ("" if unit == "1" else f" {unit}")


def _terms(rows: list[UnitRow]) -> str:
    lines = [
        [
            row.term,
            row.group,
            quantity_text(row.measured),
            "" if row.coefficient is None else quantity_text(row.coefficient),
            f"{0.0 - float(row.contribution.to(bit)):,.3f}",
            _percent(without),
            _percent(share),
            row.note,
        ]
        for row, share, without in zip(rows, *shares(rows), strict=True)
    ]
    bits = -sum(float(row.contribution.to(bit)) for row in rows)
    lines.append(["total", "", "", "", f"{bits:,.3f}", "", _percent(1.0 if bits > 0 else None), ""])
    return layout(TERMS, lines, "llrrrrrl")


def _distances(costs: list[DistanceCost]) -> str:
    lines = [
        [
            cost.prior,
            cost.group,
            f"{cost.weights:,}",
            f"{cost.norm:.4g} θ",
            _range(*cost.random_direction),
            _range(*cost.one_weight),
            "–" if cost.toward_zero is None else f"{cost.toward_zero:.4g}",
        ]
        for cost in costs
    ]
    return layout(DISTANCES, lines, "llrrrrr")


def _range(low: float, high: float) -> str:
    """One number where the two print alike."""
    texts = f"{low:.3g}", f"{high:.3g}"
    return texts[0] if texts[0] == texts[1] else " … ".join(texts)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share + 0.0:.1%}".replace("-0.0%", "0.0%")


def _json(q: Quantity) -> dict[str, Any]:
    return {"value": float(q.to(q.unit)), "unit": str(q.unit)}
