"""Reliability diagrams: how often a head is right where it says how sure it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from honest.report.benchmark_table import Cell, cell
from honest.report.figures_style import errors, interval_note, legend_below, save, wrapped
from honest.report.sources import Score

COLOURS = {"trusted": "#0072b2", "fooled": "#d55e00"}
COLUMNS = 4
Bins = Mapping[str, Sequence[Mapping[str, Any]]]  # "trusted" and "fooled" -> bins as `summary.json` has them


def reliability(seeds: Mapping[int, Bins], rows: str) -> list[tuple[Cell, Cell]]:
    """(confidence, accuracy) of each bin that has rows, over the seeds that have rows there."""
    by_bin: dict[float, tuple[dict[int, Score], dict[int, Score]]] = {}
    for seed, bins in seeds.items():
        for one in bins[rows]:
            confidence, accuracy = by_bin.setdefault(one["left"], ({}, {}))
            score = Score("", seed, "", "", "", one["confidence"], math.nan, math.nan)
            confidence[seed] = score
            stated = one["accuracy"]
            accuracy[seed] = score._replace(value=stated["value"], low=stated["low"], high=stated["high"])
    return [(cell(by_bin[left][0]), cell(by_bin[left][1])) for left in sorted(by_bin)]


def calibration_figure(path: Path, methods: Mapping[str, Mapping[int, Bins]]) -> None:
    """methods: name -> seed -> bins. One panel a method; below the diagonal a head is surer than right."""
    rows = math.ceil(len(methods) / COLUMNS)
    columns = min(COLUMNS, len(methods))
    figure, grid = plt.subplots(
        rows, columns, figsize=(2.75 * columns, 2.75 * rows + 0.3), squeeze=False, sharex=True, sharey=True,
        layout="constrained",
    )  # fmt: skip
    drawn: list[Cell] = []
    every = (bins[what] for seeds in methods.values() for bins in seeds.values() for what in COLOURS)
    lowest = min((one["confidence"] for of in every for one in of), default=1.0)
    for axis, (name, seeds) in zip(grid.flat, methods.items(), strict=False):
        axis.plot([0, 1], [0, 1], color="0.7", lw=1, zorder=0)
        for what, colour in COLOURS.items():
            points = reliability(seeds, what)
            cells = [accuracy for _, accuracy in points]
            drawn += cells
            axis.errorbar(
                [confidence.value for confidence, _ in points],
                [accuracy.value for accuracy in cells],
                yerr=errors(cells),
                fmt="o-", ms=3.5, lw=1, capsize=2, color=colour, label=f"{what} rows",
            )  # fmt: skip
        axis.set(xlim=(min(0.48, lowest - 0.03), 1.02), ylim=(-0.03, 1.03))
        axis.set_title(wrapped(name, 28), fontsize=9)
    for place, axis in enumerate(grid.flat):
        axis.tick_params(labelbottom=place + columns >= len(methods))  # the lowest panel of each column
        if place >= len(methods):
            axis.axis("off")
    figure.supxlabel("mean confidence of the rows in a bin", fontsize=10)
    figure.supylabel(f"share right by the truth\n({interval_note(drawn)})", fontsize=9)
    legend_below(figure, grid.flat[0], 2)
    save(figure, path)
