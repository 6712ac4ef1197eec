"""The one results table of a benchmark: results.csv in long form, and results.md with means over seeds."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from honest.benchmark.runner import finished, run_folder
from honest.benchmark.suite import LoadedSuite, Member
from honest.errors import UserError
from honest.jobs.folder import replace
from honest.report.benchmark_table import task_tables
from honest.report.content import NOTES, scores_table
from honest.report.page import markdown_table
from honest.report.sources import COLUMNS, RESULTS, constraint_of, read_results
from honest.train.run_directory import SUMMARY

MARKDOWN = "results.md"
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
    for tag, value in (summary["metrics"] | constraint_of(summary)).items():
        yield (*where, "", tag, "" if value is None else value, "", "", "")


def write_results(folder: Path, suite: LoadedSuite) -> None:
    """results.csv and results.md of the members finished so far, each replaced as a whole."""
    done = [member for member in suite.members if finished(folder, member)]
    if not done:
        return
    summaries = [_summary(run_folder(folder, member) / SUMMARY) for member in done]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for member, summary in zip(done, summaries, strict=True):
        writer.writerows(rows_of(member, summary))
    replace(folder / RESULTS, text.getvalue())
    commits = sorted({summary["commit"] for summary in summaries})
    devices = sorted({summary["device"] for summary in summaries})
    replace(folder / MARKDOWN, markdown(folder, suite, done, commits, devices))


def _summary(path: Path) -> dict[str, Any]:
    try:
        summary = json.loads(path.read_text("utf-8"))
        if not {"scores", "metrics", "commit", "device"} <= set(summary):
            raise ValueError("scores, metrics, commit or device is missing")
        return summary
    except ValueError as error:
        raise UserError(f"{path} is not whole ({error}). Remove it and run again: the run makes it anew") from error


def markdown(
    folder: Path, suite: LoadedSuite, done: Sequence[Member], commits: Sequence[str], devices: Sequence[str]
) -> str:
    seeds = ", ".join(map(str, sorted({member.seed for member in done})))
    command = shlex.join(["honest", "benchmark", str(suite.path), "--workdir", str(folder)])
    tables = task_tables(read_results(folder / RESULTS))
    head = (
        f"# Benchmark {suite.suite.name}\n\n"
        f"Command: `{command}`. {len(done)} of {len(suite.members)} members; "
        f"seeds {seeds}; "
        f"commit {', '.join(commits)}; device {', '.join(devices)}.\n\n" + "\n".join(f"- {note}" for note in NOTES)
    )
    return (
        "\n\n".join([head, *(f"## {table.task}\n\n{markdown_table(scores_table(table))}" for table in tables)]) + "\n"
    )
