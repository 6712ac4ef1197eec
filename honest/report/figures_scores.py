"""Figures of what heads answered: shares by method, the gap recovered, and along a swept key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from honest.report.benchmark_table import GAP, Cell, TaskTable
from honest.report.figures_style import (
    ALWAYS_FALSE_LINE,
    errors,
    interval_note,
    legend_below,
    look,
    save,
    spans,
    wrapped,
)
from honest.report.methods import TRUTH, Method
from honest.report.plots import COLOURS, LABELS
from honest.report.tables import ALWAYS_FALSE

LINEAR_RANGE = 20.0  # positive values that span more are drawn along a logarithm


class SweepPanel(NamedTuple):
    """lines: head -> value of the swept key -> metric -> cell."""

    title: str
    label: str  # of the swept key, with its unit
    lines: Mapping[str, Mapping[float, Mapping[str, Cell]]]


def scores_figure(path: Path, table: TaskTable) -> None:
    """Shares that agree with truth and person, and acceptance, on trusted and on fooled rows, by method."""
    names = [method.name for method in table.methods]
    figure, axes = plt.subplots(1, 2, figsize=(10, 0.62 * len(names) + 1.2), sharey=True, layout="constrained")
    drawn: list[Cell] = []
    for axis, rows in zip(axes, ("trusted", "fooled"), strict=True):
        for offset, (what, colour) in enumerate(COLOURS.items()):
            cells = [_cell(table, name, f"{what}_{rows}") for name in names]
            drawn += cells
            y = np.arange(len(names)) + 0.22 * (offset - 1)
            style: dict[str, Any] = {"fmt": "o", "ms": 4.5, "capsize": 2.5, "color": colour, "label": LABELS[what]}
            axis.errorbar([cell.value for cell in cells], y, xerr=errors(cells), **style)
        _always_false(axis, table, f"truth_{rows}", "always False, against the truth")
        axis.set(xlim=(-0.03, 1.03), ylim=(len(names) - 0.5, -0.5), title=f"{rows} rows")
        _bands(axis, len(names))
    axes[0].set_yticks(range(len(names)), [wrapped(name) for name in names])
    figure.supxlabel(f"share of test rows ({interval_note(drawn)})", fontsize=10)
    legend_below(figure, axes[0], 4)
    save(figure, path)


def gap_figure(path: Path, table: TaskTable) -> None:
    """Honest gap recovered by method: 0 is the single head, 1 the truth-trained ceiling; the line is always False."""
    methods = [m for m in table.methods if m.head != ALWAYS_FALSE and _cell(table, m.name, GAP).seeds]
    cells = [_cell(table, method.name, GAP) for method in methods]
    figure, axis = plt.subplots(figsize=(8, 0.48 * len(methods) + 1.4), layout="constrained")
    axis.errorbar(
        [cell.value for cell in cells], range(len(cells)), xerr=errors(cells), fmt="o", ms=5, capsize=3, color="#0072b2"
    )
    for end in (0.0, 1.0):
        axis.axvline(end, color="0.8", lw=1, zorder=0)
    always = _always_false_recovers(axis, table, methods)
    axis.set_yticks(range(len(methods)), [wrapped(method.name, 40) for method in methods])
    axis.set(ylim=(len(methods) - 0.5, -0.5), xlim=_gap_limits(cells, always))
    _bands(axis, len(methods))
    axis.set_xlabel(f"honest gap recovered ({interval_note(cells)})\n0: single head; 1: truth-trained ceiling")
    legend_below(figure, axis, 1)
    save(figure, path)


def sweep_figure(path: Path, panel: SweepPanel) -> None:
    """Truth and acceptance on fooled rows along the swept key, a line a head."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    drawn: list[Cell] = []
    all_x = sorted({x for points in panel.lines.values() for x in points})
    for axis, metric in zip(axes, (TRUTH, "acceptance_fooled"), strict=True):
        for index, (head, points) in enumerate(panel.lines.items()):
            known = {x: points[x][metric] for x in sorted(points) if metric in points[x]}
            drawn += known.values()
            style: dict[str, Any] = (
                ALWAYS_FALSE_LINE if head == ALWAYS_FALSE else {"marker": "o", "ms": 4, "capsize": 3, **look(index)}
            )
            bars = None if head == ALWAYS_FALSE else errors(known.values())
            axis.errorbar(list(known), [cell.value for cell in known.values()], yerr=bars, label=head, **style)
        _axis_along(axis, all_x)
        axis.set(ylim=(-0.03, 1.03), xlabel=panel.label)
    axes[0].set_title("right by the truth, fooled rows")
    axes[1].set_title("answers True, fooled rows")
    axes[0].set_ylabel(f"share of rows\n({interval_note(drawn)})")
    figure.suptitle(panel.title, fontsize=11)
    legend_below(figure, axes[0], 2)
    save(figure, path)


def _axis_along(axis: Axes, values: Sequence[float]) -> None:
    positive = [x for x in values if x > 0]
    if min(values) >= 0 and spans(positive, LINEAR_RANGE):
        axis.set_xscale("symlog", linthresh=min(positive))
    axis.set_xticks(values, [f"{x:g}" for x in values])
    axis.minorticks_off()


def _always_false(axis: Axes, table: TaskTable, metric: str, label: str) -> None:
    """Draws the line that every comparison must show, unless the results lack it."""
    cells = table.always_false
    if cells is not None and metric in cells and cells[metric].seeds:
        axis.axvline(cells[metric].value, label=label, **ALWAYS_FALSE_LINE)


def _cell(table: TaskTable, method: str, metric: str) -> Cell:
    nothing = Cell(float("nan"), float("nan"), float("nan"), 0, "none")
    return table.cells[method].get(metric, nothing)


def _always_false_recovers(axis: Axes, table: TaskTable, methods: Sequence[Method]) -> list[float]:
    """A line where it is the same for all entries; else a mark in each method's row, as gaps differ by entry."""
    values = [table.always_gaps[m.entries[0]].value if m.entries[0] in table.always_gaps else np.nan for m in methods]
    known = [value for value in values if value == value]
    if known and max(known) - min(known) < 1e-9:
        axis.axvline(known[0], label="always False", **ALWAYS_FALSE_LINE)
    elif known:
        axis.plot(values, range(len(values)), "k|", ms=14, mew=1.6, label="always False, of the same entry's gap")
    return known


def _gap_limits(cells: Sequence[Cell], others: Sequence[float]) -> tuple[float, float]:
    """Whole points; an interval that leaves [−1, 2] is cut there unless its point is outside, too."""
    values = [*others, *(cell.value for cell in cells if cell.value == cell.value)]
    ends = np.clip(np.nan_to_num([end for cell in cells for end in (cell.low, cell.high)]), -1.0, 2.0)
    return min(-0.05, *values, *ends) - 0.05, max(1.05, *values, *ends) + 0.05


def _bands(axis: Axes, count: int) -> None:
    for row in range(0, count, 2):
        axis.axhspan(row - 0.5, row + 0.5, color="0.96", zorder=0, lw=0)
