"""What is compared along a sweep: each panel is one quantity in one unit, of both heads or of the run as a whole."""

from __future__ import annotations

from typing import NamedTuple

from honest.report.methods import PRIOR, TRUTH
from honest.report.sweep import DIVERGENCE_BITS, OVER_TOLERANCE, Series, Sweep

# An unordered pair has no intended head: what somebody who cannot tell its heads apart would answer stands for both.
HEADS = ("intended", "instrumental", "mean (blind choice)")


class Panel(NamedTuple):
    """unit: "" for a bare number; limits: of its axis, where it has natural ones; mark: a value that a line shows."""

    title: str
    unit: str
    digits: int
    limits: tuple[float, float] | None
    mark: float | None
    series: tuple[Series, ...]

    def title_of(self, series: Series) -> str:
        """Of a series among those of all panels, without its unit."""
        alone = len(self.series) == 1 and series.label not in HEADS
        return self.title if alone else f"{series.label}: {self.title}"

    def name(self, series: Series) -> str:
        return f"{self.title_of(series)} ({self.unit})" if self.unit else self.title_of(series)


def _of_heads(metric: str) -> tuple[Series, ...]:
    return tuple(Series(head, f"{PRIOR}: {head}", metric) for head in HEADS)


LOG_Z = tuple(
    Series(label, "", f"objective/log_partition_{side}_nats")
    for side, label in (("claim", "claimed"), ("lower", "lower bound"), ("upper", "upper bound"))
)
PANELS = (
    Panel("right by the truth, fooled rows", "share of rows", 2, (0.0, 1.0), None, _of_heads(TRUTH)),
    Panel(
        "answered as the person would, fooled rows", "share of rows", 2, (0.0, 1.0), None, _of_heads("person_fooled")
    ),
    Panel(
        "Jensen–Shannon divergence of the heads, fooled rows",
        "bit/row",
        4,
        None,
        None,
        (Series("both heads", "", DIVERGENCE_BITS),),
    ),
    Panel(
        "λ at the end",
        "nat/disagreement",
        2,
        None,
        None,
        (Series("λ", "", "constraint/lambda_nats_per_disagreement"),),
    ),
    Panel("C̄/ε at the end, whole population", "", 2, None, 1.0, (Series("C̄/ε", "", OVER_TOLERANCE),)),
    Panel("log Z", "nat", 1, None, None, LOG_Z),
)


def known_panels(sweep: Sweep) -> list[Panel]:
    """Those panels and series of which any member has a number."""
    have = {key for member in sweep.members for key, score in member.scores.items() if score.value == score.value}
    panels = [panel._replace(series=tuple(s for s in panel.series if (s.head, s.metric) in have)) for panel in PANELS]
    return [panel for panel in panels if panel.series]
