"""`honest report DIR`: reads what is there, draws, and writes the page, its Markdown twin, the numbers, the figures."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from honest.errors import UserError
from honest.report.benchmark_table import TaskTable, task_tables
from honest.report.content import CSV_HEADER, NOTES, Content, Section, csv_lines, facts, scores_table, whole_table
from honest.report.drawn import Drawing, slugs
from honest.report.figures_style import SIGNATURE
from honest.report.findings import beats, sides, warnings
from honest.report.page import MARK, html_page, markdown_page
from honest.report.sources import Source, read_source
from honest.report.sweep import Sweep, read_sweep
from honest.report.sweep_section import sweep_lines, sweep_section
from honest.report.training import read_curves

HTML, MARKDOWN, NUMBERS, FIGURES = "report.html", "report.md", "report.csv", "figures"
KINDS = {"run": "run", "runs": "folder of runs", "benchmark": "benchmark", "sweep": "sweep"}
MOST_SETTINGS = 8  # of a sweep, whose heads are drawn one by one
TOO_MANY = (
    f"Figures of every head are not drawn for more than {MOST_SETTINGS} settings; honest report on a member's own "
    "directory draws them."
)
HEAD_BYTES = 4096  # of a file, where its maker is named


def write_report(directory: Path) -> Path:
    """Makes the report anew and returns the page's path.

    UserError: no results are there; or a file of a name that the report needs was made by somebody else, and then
    nothing is written at all.
    """
    source = read_source(directory)
    if not os.access(directory, os.W_OK):
        raise UserError(f"{directory} cannot be written to; copy it to a place that can")
    refuse_foreign(directory, [Path(name) for name in (HTML, MARKDOWN, NUMBERS)])  # before anything is drawn
    with tempfile.TemporaryDirectory(prefix=".report-", dir=directory) as folder:
        figures = Path(folder) / FIGURES
        figures.mkdir()
        tables = task_tables(source.scores)
        sweep = read_sweep(source) if source.kind == "sweep" else None
        content = contents(source, tables, sweep, figures)
        made = {
            HTML: html_page(content),
            MARKDOWN: markdown_page(content),
            NUMBERS: _csv_text([*csv_lines(tables), *([] if sweep is None else sweep_lines(sweep))]),
        }
        for name, text in made.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        _move(Path(folder), directory)
    return directory / HTML


def contents(source: Source, tables: list[TaskTable], sweep: Sweep | None, figures: Path) -> Content:
    """Everything that the report says; draws the figures into the folder `figures`."""
    curves = {run.path: read_curves(run.path) for run in source.runs}
    drawing = Drawing(figures, source, curves)
    short = slugs([table.task for table in tables])
    sections = [] if sweep is None else [sweep_section(sweep, figures)]
    for table in tables:
        many = sweep is not None and len(table.whole) > MOST_SETTINGS
        drawn, missing = ([], [TOO_MANY]) if many else drawing.of_task(table, short[table.task])
        shown = [scores_table(table), *([] if (whole := whole_table(table)) is None else [whole])]
        sections.append(Section(table.task, missing, shown, drawn))
    swept = drawing.sweep()
    if swept:
        sections.append(
            Section(
                "Along the one number that differs", ["Read from the runs' configs.", *_own_words(source)], [], swept
            )
        )
    return Content(
        title=f"{source.path.resolve().name}: report of a {KINDS[source.kind]}",
        facts=facts(source, tables),
        sides=[line for table in tables for line in sides(table)],
        warnings=warnings(source, tables, curves),
        beats=[line for table in tables for line in beats(table)],
        sections=sections,
        notes=NOTES,
    )


def _own_words(source: Source) -> Iterator[str]:
    seeds = len({run.seed for run in source.runs})
    yield f"{len(source.runs)} runs of {seeds} seed{'s' if seeds > 1 else ''}."


def _csv_text(lines: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    writer.writerows(lines)
    return text.getvalue()


def is_ours(path: Path) -> bool:
    """Whether an earlier report made the file."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if path.suffix == ".png":
        return SIGNATURE in head
    if path.suffix == ".csv":
        return head.split(b"\n")[0].strip() == ",".join(CSV_HEADER).encode()
    return MARK.encode() in head


def refuse_foreign(directory: Path, names: Sequence[Path]) -> None:
    """UserError: one of these files is there and was made by somebody else."""
    for name in names:
        target = directory / name
        if target.exists() and not (target.is_file() and is_ours(target)):
            raise UserError(
                f"{target} was not made by honest report, and is not overwritten; nothing was written. Move it away"
            )


def _move(made: Path, directory: Path) -> None:
    """All files of `made` to their places, once it is sure that none replaces a file of somebody else."""
    names = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    refuse_foreign(directory, names)
    (directory / FIGURES).mkdir(exist_ok=True)
    for name in names:
        os.replace(made / name, directory / name)
