"""Draws the figures of a report, those that its numbers allow, and says of the others why they are missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from honest.report.benchmark_table import GAP, Cell, TaskTable, cell
from honest.report.content import Figure
from honest.report.figures_calibration import Bins, calibration_figure
from honest.report.figures_ledger import ledger_figure, ledger_rows
from honest.report.figures_scores import SweepPanel, gap_figure, scores_figure, sweep_figure
from honest.report.figures_training import training_figure
from honest.report.labels import find_along
from honest.report.methods import BETTER, TRUTH, WORSE, Method
from honest.report.sources import RunFiles, Score, Source
from honest.report.training import LAMBDA, Curves

LONGEST_SLUG = 80  # file systems allow 255 bytes for a name


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower())[:LONGEST_SLUG].strip("_") or "task"


def slugs(names: list[str]) -> dict[str, str]:
    """A file name's part for each name, no two alike."""
    made: dict[str, str] = {}
    for name in names:
        short = slug(name)
        made[name] = short if short not in made.values() else f"{short}_{len(made)}"
    return made


class Drawing:
    """Figures of one report into one folder. paths: where the figures made so far lie."""

    def __init__(self, folder: Path, source: Source, curves: Mapping[Path, Curves]):
        self.folder, self.source, self.curves = folder, source, curves

    def of_task(self, table: TaskTable, short: str) -> tuple[list[Figure], list[str]]:
        """The figures of a task, and a sentence for each one that could not be drawn."""
        runs = [run for run in self.source.runs if run.task == table.task]
        drawn = (
            self._scores(table, short),
            self._gap(table, short),
            self._training(table, runs, short),
            self._calibration(table, runs, short),
            self._ledger(table, short),
        )
        return [x for x in drawn if isinstance(x, Figure)], [x for x in drawn if isinstance(x, str)]

    def _scores(self, table: TaskTable, short: str) -> Figure | str:
        path = self.folder / f"scores_{short}.png"
        scores_figure(path, table)
        return Figure(
            path,
            f"{table.task}: shares of trusted and of fooled rows that agree with the truth and with the person, and "
            "that are answered True. The dashed line is what always answering False gets against the truth.",
        )

    def _gap(self, table: TaskTable, short: str) -> Figure | str:
        if not any(cells[GAP].seeds for cells in table.cells.values()):
            return "No gap recovered: it needs a single head and a truth-trained ceiling that differ."
        path = self.folder / f"honest_gap_{short}.png"
        gap_figure(path, table)
        return Figure(
            path,
            f"{table.task}: honest gap recovered by method, from the single head (0) to the truth-trained ceiling (1). "
            "Dashed, or marked in each row: what always answering False recovers; intervals are cut at −1 and 2.",
        )

    def _training(self, table: TaskTable, runs: list[RunFiles], short: str) -> Figure | str:
        entries: dict[str, list[Curves]] = {entry: [] for entry in table.whole}  # colours as in the ledger
        for run in runs:
            if LAMBDA in self.curves.get(run.path, {}):
                entries.setdefault(run.entry, []).append(self.curves[run.path])
        entries = {entry: curves for entry, curves in entries.items() if curves}
        if not entries:
            return "No curves over training: there are no runs with events of a prior stage here."
        path = self.folder / f"training_{short}.png"
        training_figure(path, entries)
        return Figure(
            path,
            "The prior stage: how far the heads are apart, the multiplier λ, and the batch's constraint over its "
            "tolerance, C̄/ε. Every seed thin, the mean over seeds thick.",
        )

    def _calibration(self, table: TaskTable, runs: list[RunFiles], short: str) -> Figure | str:
        methods = {method.name: method_bins(method, runs) for method in table.methods}
        methods = {name: seeds for name, seeds in methods.items() if seeds}
        if not methods:
            return "No reliability diagram: there are no runs here whose summary has calibration_bins."
        path = self.folder / f"calibration_{short}.png"
        calibration_figure(path, methods)
        return Figure(
            path,
            "Reliability: of the rows in each bin of confidence (15 equal bins of [0, 1]), the share right by the "
            "truth. On the diagonal a head is as right as it is sure; below it is surer than right.",
        )

    def _ledger(self, table: TaskTable, short: str) -> Figure | str:
        if not ledger_rows(table.whole):
            return "No ledger: the results have no ledger/…_bits."
        path = self.folder / f"ledger_{short}.png"
        ledger_figure(path, table.whole)
        return Figure(
            path,
            "The ledger of the log joint by term and group. Negative: bits that the term costs; positive (−log Z): "
            "bits recovered. The priors' constants are the same for all parameters and have an axis apart.",
        )

    def sweep(self) -> list[Figure]:
        """A figure a panel, if the runs differ in one numeric key of their config."""
        runs = self.source.runs
        found = find_along([run.config for run in runs], [run.task for run in runs])
        if found is None:
            return []
        figures = []
        label = found.parameter.label
        values = {i: x for i, x in enumerate(found.parameter.values) if isinstance(x, float)}
        names = slugs(sorted({found.panels[i] for i in values}))
        for panel, short in names.items():
            chosen = {i: x for i, x in values.items() if found.panels[i] == panel}
            lines = self._lines({(runs[i].task, runs[i].seed, runs[i].entry): x for i, x in chosen.items()})
            path = self.folder / f"sweep_{short}.png"
            sweep_figure(path, SweepPanel(panel, label, lines))
            figures.append(
                Figure(path, f"{panel + ': ' if panel else ''}along {label}; the dashed line: always False.")
            )
        return figures

    def _lines(self, runs: Mapping[tuple[str, int, str], float]) -> dict[str, dict[float, dict[str, Cell]]]:
        """head -> value of the swept key -> metric -> cell, of the runs (task, seed, entry) -> value."""
        found: dict[str, dict[float, dict[str, dict[int, Score]]]] = {}
        for score in self.source.scores:
            if score[:3] in runs and score.head and score.metric in (TRUTH, "acceptance_fooled"):
                at = found.setdefault(score.head, {}).setdefault(runs[score[:3]], {})
                at.setdefault(score.metric, {})[score.seed] = score
        return {
            head: {x: {metric: cell(of) for metric, of in metrics.items()} for x, metrics in points.items()}
            for head, points in found.items()
        }


def method_bins(method: Method, runs: list[RunFiles]) -> dict[int, Bins]:
    """Seed -> the method's bins; none for a pair without an order, whose bins have no name over seeds."""
    if method.head.endswith((BETTER, WORSE)):
        return {}
    found: dict[int, Any] = {}
    for run in runs:
        bins = run.summary.get("calibration_bins", {}).get(method.head)
        if bins and run.entry in method.entries:
            found.setdefault(run.seed, bins)
    return found
