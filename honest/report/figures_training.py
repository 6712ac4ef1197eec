"""Figure of the prior stage over its steps: how far the heads are apart, and how the constraint is held."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from honest.report.figures_style import legend_below, look, save, spans
from honest.report.training import DIVERGENCE, LAMBDA, VIOLATION, Curves, mean_curve

BIT = math.log(2.0)  # nat
DECADE = 10.0
PANELS = (  # tag, title, divisor, logarithmic
    (DIVERGENCE[0], "Jensen–Shannon divergence of the heads,\nfooled rows (bit/row)", BIT, False),
    (DIVERGENCE[1], "Jensen–Shannon divergence of the heads,\ntrusted rows (bit/row)", BIT, False),
    (DIVERGENCE[2], "fooled rows that the heads\nanswer differently (share)", 1.0, False),
    (LAMBDA, "λ (nat/disagreement)", 1.0, True),
    (VIOLATION, "C̄/ε of the batch (1: just feasible)", 1.0, True),
)


def training_figure(path: Path, entries: Mapping[str, Sequence[Curves]]) -> None:
    """entries: what to call each entry -> the curves of its seeds, drawn thin; their mean is drawn thick."""
    figure, grid = plt.subplots(2, 3, figsize=(11, 6.2), layout="constrained")
    axes: list[Axes] = list(grid.flat)
    for axis, (tag, title, divisor, logarithmic) in zip(axes, PANELS, strict=False):
        for index, (name, seeds) in enumerate(entries.items()):
            curves = [
                {step: value / divisor for step, value in run[tag].items() if math.isfinite(value)}
                for run in seeds
                if tag in run
            ]
            _seeds(axis, curves, name, index)
        drawn = [value / divisor for seeds in entries.values() for run in seeds for value in run.get(tag, {}).values()]
        if logarithmic and spans(drawn, DECADE):
            axis.set_yscale("log", nonpositive="mask")
        axis.set_title(title, fontsize=9.5)
        axis.tick_params(labelsize=8.5)
        if tag == VIOLATION:
            axis.axhline(1.0, color="0.4", lw=1, ls=":", zorder=0)
        elif not logarithmic:
            axis.set_ylim(bottom=0.0)
        axis.set_xlabel("step of the run (prior stage)", fontsize=8.5)
    axes[-1].axis("off")
    legend_below(figure, axes[0], 2)
    save(figure, path)


def _seeds(axis: Axes, curves: list[dict[int, float]], name: str, index: int) -> None:
    if not curves:
        return
    style = look(index)
    steps, mean = mean_curve(curves)
    marker = "o" if len(steps) < 15 else None  # few evaluations: each one shows
    if len(curves) > 1:
        for curve in curves:
            axis.plot(list(curve), list(curve.values()), lw=0.6, alpha=0.45, **style)
        name = f"{name} (mean of {len(curves)} seeds; each thin)"
    axis.plot(steps, mean, lw=1.9, marker=marker, ms=3.5, label=name, **style)
