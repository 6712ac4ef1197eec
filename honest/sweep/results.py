"""The table of a sweep: results.csv, one line a member, and what is printed at the end."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from honest.jobs.folder import replace
from honest.report.sources import constraint_of
from honest.report.tables import layout
from honest.sweep.folder import finished, run_folder
from honest.sweep.members import LoadedSweep
from honest.train.run_directory import SUMMARY

RESULTS = "results.csv"
SHOWN = {  # of a summary's metrics, at the end
    "honesty/intended_truth_fooled": "intended: truth, fooled",
    "honesty/intended_truth_trusted": "intended: truth, trusted",
    "divergence/jensen_shannon_fooled": "divergence, fooled (bits)",
}


def values_of(summary: dict[str, Any]) -> dict[str, float | None]:
    """Every metric under its tag, and every head's scores under "head: score"."""
    scores = {
        f"{head}: {name}": score["value"] if isinstance(score, dict) else score
        for head, line in summary["scores"].items()
        for name, score in line.items()
        if score is None or isinstance(score, int | float) or (isinstance(score, dict) and "value" in score)
    }
    return summary["metrics"] | constraint_of(summary) | scores


def found(folder: Path, sweep: LoadedSweep) -> dict[str, dict[str, float | None]]:
    """Member -> its values, of those finished."""
    names = [member.name for member in sweep.members if finished(folder, member.name)]
    return {name: values_of(json.loads((run_folder(folder, name) / SUMMARY).read_text("utf-8"))) for name in names}


def write_results(folder: Path, sweep: LoadedSweep) -> None:
    """results.csv of the members finished so far, replaced as a whole; an undefined number is an empty cell."""
    done = found(folder, sweep)
    if not done:
        return
    keys = list(sweep.members[0].parameters)
    columns = list(dict.fromkeys(tag for values in done.values() for tag in values))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["member", *keys, *columns])
    for member in sweep.members:
        if member.name in done:
            values = done[member.name]
            cells = ["" if tag not in values or values[tag] is None else values[tag] for tag in columns]
            writer.writerow([member.name, *(member.parameters[key] for key in keys), *cells])
    replace(folder / RESULTS, text.getvalue())


def final_table(folder: Path, sweep: LoadedSweep) -> str:
    done = found(folder, sweep)
    shown = [tag for tag in SHOWN if any(tag in values for values in done.values())]

    def line(name: str) -> list[str]:
        if name not in done:
            return [name, "not done", *("–" for _ in shown)]
        values = [done[name].get(tag) for tag in shown]  # one that a member has not is None
        return [name, "done", *("–" if value is None else f"{value:.3f}" for value in values)]

    columns = ["member", "state", *(SHOWN[tag] for tag in shown)]
    return layout(columns, [line(member.name) for member in sweep.members], "ll" + "r" * len(shown))
