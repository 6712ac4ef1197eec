"""The one results table of a benchmark: results.csv in long form, and results.md with means over seeds."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from honest.benchmark.runner import finished, run_folder
from honest.benchmark.suite import LoadedSuite, Member
from honest.report.benchmark_table import ABOVE, GAP, Cell, TaskTable, task_tables
from honest.report.sources import COLUMNS, RESULTS, read_results
from honest.report.tables import layout
from honest.train.run_directory import SUMMARY

MARKDOWN = "results.md"
SHOWN = {
    "truth_trusted": "truth trusted",
    "truth_fooled": "truth fooled",
    "person_fooled": "person fooled",
    "acceptance_fooled": "accepts fooled",
    "auroc_fooled": "AUROC fooled",
    "auroc_untrusted": "AUROC untrusted",
    "auroc_person_accepts": "AUROC person accepts",
    "calibration_error_fooled": "calibration error fooled",
    GAP: "HGR",
    ABOVE: "share of seeds > .9",
}
Row = tuple[object, ...]


def rows_of(member: Member, summary: dict[str, Any]) -> Iterator[Row]:
    """Lines of `COLUMNS`; an undefined number is an empty cell."""
    where = (member.task, member.seed, member.entry)
    for head, scores in summary["scores"].items():
        for metric, score in scores.items():
            if isinstance(score, dict):
                values = [score[key] for key in ("value", "low", "high", "rows")]
            elif score is None or isinstance(score, int | float):
                values = [score, None, None, None]
            else:
                continue
            yield (*where, head, metric, *("" if value is None else value for value in values))
    for tag, value in summary["metrics"].items():
        yield (*where, "", tag, "" if value is None else value, "", "", "")


def write_results(folder: Path, suite: LoadedSuite) -> None:
    """results.csv and results.md of the members finished so far, each replaced as a whole."""
    done = [member for member in suite.members if finished(folder, member)]
    if not done:
        return
    summaries = [json.loads((run_folder(folder, member) / SUMMARY).read_text("utf-8")) for member in done]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for member, summary in zip(done, summaries, strict=True):
        writer.writerows(rows_of(member, summary))
    replace(folder / RESULTS, text.getvalue())
    commits = sorted({summary["commit"] for summary in summaries})
    devices = sorted({summary["device"] for summary in summaries})
    replace(folder / MARKDOWN, markdown(folder, suite, len(done), commits, devices))


def replace(path: Path, text: str) -> None:
    """The file as a whole, or as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def markdown(folder: Path, suite: LoadedSuite, done: int, commits: Sequence[str], devices: Sequence[str]) -> str:
    seeds = ", ".join(map(str, suite.suite.seeds))
    head = (
        f"# Benchmark {suite.suite.name}\n\n"
        f"Command: `honest benchmark {suite.path}`. {done} of {len(suite.members)} members; seeds {seeds}; "
        f"commit {', '.join(commits)}; device {', '.join(devices)}.\n\n"
        "Means over seeds with 95 % Student t-intervals (one seed: its own bootstrap interval). HGR = (method − single "
        "head)/(truth-trained ceiling − single head) on fooled rows, by seed. The pairs named better/worse are "
        "unordered: nothing without truth labels tells which is which.\n"
    )
    return head + "".join(task_markdown(table) for table in task_tables(read_results(folder / RESULTS)))


def task_markdown(table: TaskTable) -> str:
    columns = [key for key in SHOWN if any(key in cells for cells in table.cells.values())]
    lines = [[name, *(cell_text(cells.get(key)) for key in columns)] for name, cells in table.cells.items()]
    header = ["method", *(SHOWN[key] for key in columns)]
    seeds = max((cells["truth_fooled"].seeds for cells in table.cells.values() if "truth_fooled" in cells), default=0)
    return f"\n## {table.task} ({seeds} seeds)\n\n{layout(header, lines, 'l' * len(header), as_markdown=True)}\n"


def cell_text(cell: Cell | None) -> str:
    if cell is None or cell.value != cell.value:
        return "–"
    if cell.low != cell.low:
        return f"{cell.value:.2f}"
    return f"{cell.value:.2f} [{cell.low:.2f}, {cell.high:.2f}]"
