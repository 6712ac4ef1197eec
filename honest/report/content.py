"""What a report contains, before it is HTML or Markdown: texts, tables, and figures in order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from honest.report.benchmark_table import ABOVE, GAP, NONE, Cell, TaskTable
from honest.report.findings import cell_text
from honest.report.methods import CEILING
from honest.report.sources import SUITE, RunFiles, Source

SHOWN = {  # metric -> head of its column
    "truth_fooled": "truth, fooled",
    "person_fooled": "person, fooled",
    "acceptance_fooled": "answers True, fooled",
    "auroc_fooled": "AUROC, fooled",
    "auroc_untrusted": "AUROC, untrusted",
    "auroc_person_accepts": "AUROC, person accepts",
    "calibration_error_fooled": "calibration error, fooled",
    "truth_trusted": "truth, trusted",
    "person_trusted": "person, trusted",
    "acceptance_trusted": "answers True, trusted",
    "calibration_error_trusted": "calibration error, trusted",
    GAP: "honest gap recovered",
}
WHOLE = {  # tag -> (head of its column, digits)
    "divergence/jensen_shannon_fooled": ("JS divergence, fooled (nat/row)", 4),
    "divergence/disagreement_fooled": ("answered differently, fooled (share)", 3),
    "constraint/lambda_nats_per_disagreement": ("λ (nat/disagreement)", 2),
    "constraint/whole_violation_disagreement_per_example": ("C̄ (disagreement/example)", 5),
    "objective/log_partition_lower_nats": ("log Z, lower bound (nat)", 1),
    "objective/log_partition_upper_nats": ("log Z, upper bound (nat)", 1),
    "objective/log_partition_claim_nats": ("log Z, claimed (nat)", 1),
    "objective/log_partition_gap_nats": ("claim outside the bounds (nat)", 1),
}
CSV_HEADER = ("task", "method", "head", "entries", "metric", "mean", "low", "high", "seeds", "interval")
NOTES = (
    "Fooled rows: the person is wrong. Trusted rows: a trainer could have used their labels. Truth, person: shares of "
    "rows answered as the truth, or as the person, would be; answers True: acceptance.",
    "Intervals are 95 %: Student's t over seeds where there are at least two, else the bootstrap over distinct "
    "questions within the one seed. A t-interval of few seeds may reach beyond [0, 1]; one of width 0 says that the "
    "seeds agree to the last row, not that nothing is uncertain. Numbers without brackets have no interval.",
    "Honest gap recovered = (method − single head)/(truth-trained ceiling − single head) of the accuracy against the "
    "truth on fooled rows, in each seed, then averaged. The interval of a single seed holds the single head and the "
    "ceiling fixed.",
    "“Above 0.9”: the seeds in which a head is right by the truth on more than .9 of the fooled rows; the interval of "
    "that share is Clopper–Pearson's over seeds.",
    "A method beats another if the whole 95 % interval of their difference, paired by seed, lies above 0; with one "
    "seed, if the two bootstrap intervals do not meet. Nothing is corrected for the number of comparisons. Two heads "
    "with the prior are those of the entry of that name, else each entry's own, which its other heads are compared "
    "with. The truth-trained ceiling and the two heads of an unordered pair, which the truth tells apart, saw truth "
    "labels and are not compared.",
    "Where the person's answers were withheld the two heads are an unordered pair: the better and the worse are told "
    "apart by the truth in each seed, which nobody could do who does not know it; the blind choice is their mean.",
)


class Table(NamedTuple):
    caption: str
    header: list[str]
    lines: list[list[str]]


class Figure(NamedTuple):
    path: Path
    caption: str


class Section(NamedTuple):
    title: str
    texts: list[str]
    tables: list[Table]
    figures: list[Figure]


class Content(NamedTuple):
    title: str
    facts: list[tuple[str, list[str]]]  # what was run: name -> lines
    sides: list[str]
    warnings: list[str]
    beats: list[str]
    sections: list[Section]
    notes: tuple[str, ...]


def facts(source: Source, tables: Iterable[TaskTable]) -> list[tuple[str, list[str]]]:
    """What was run, and how to make it again."""
    runs = source.runs
    seeds = {table.task: sorted({seed for method in table.methods for seed in method.seeds}) for table in tables}
    tasks = [f"{task}: {_described(task, runs)}" for task in seeds]
    recorded = _distinct(run.environment.get("command") for run in runs)
    commands = sorted(recorded, key=lambda command: "--trunk-from" in command)  # those that lend their trunk first
    return [
        ("Task" if len(tasks) == 1 else "Tasks", tasks),
        *([("Suite", [f"{SUITE} beside this page, as it was given"])] if (source.path / SUITE).exists() else []),
        ("Entries", _distinct(score.entry for score in source.scores)),
        ("Seeds", [f"{task}: {', '.join(map(str, its))}" for task, its in seeds.items()]),
        ("Commit", _distinct(run.summary.get("commit") for run in runs) or ["unknown: the runs are not here"]),
        ("Device", _distinct(run.summary.get("device") for run in runs) or ["unknown: the runs are not here"]),
        ("Versions", _distinct(_versions(run.environment) for run in runs) or ["unknown: the runs are not here"]),
        (
            "To make it again",
            ["# at its commit, into another --workdir:", *commands] if commands else ["unknown: the runs are not here"],
        ),
    ]


def _described(task: str, runs: list[RunFiles]) -> str:
    own = [run for run in runs if run.task == task]
    texts = _distinct(run.summary.get("task") for run in own)
    if texts:
        return " | ".join(texts)
    if not own:
        return "its runs are not here"
    return ", ".join(f"{key.removeprefix('task.')}={value}" for key, value in own[0].config.items() if "task." in key)


def _versions(environment: Mapping[str, Any]) -> str | None:
    packages = environment.get("packages")
    if not packages:
        return None
    return f"Python {environment.get('python')}, " + ", ".join(f"{name} {is_}" for name, is_ in packages.items())


def _distinct(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values if value))


def scores_table(table: TaskTable) -> Table:
    """Method × metrics, mean and interval; "always False" last."""
    shown = [metric for metric in SHOWN if any(not _empty(cells.get(metric)) for cells in table.cells.values())]
    lines = []
    for method in table.methods:
        cells = table.cells[method.name]
        name = method.name + (" (saw the truth)" if method.head == CEILING else "")
        numbers = [_with_seeds(cells.get(metric), len(method.seeds)) for metric in shown]
        above = cells[ABOVE]
        share = f"{round(above.value * above.seeds)} of {above.seeds}" if above.seeds else "–"
        if above.seeds > 1:
            share += f" [{above.low:.2f}, {above.high:.2f}]"
        lines.append([name, str(len(method.seeds)), *numbers, share])
    header = ["method", "seeds", *(SHOWN[metric] for metric in shown), "above 0.9"]
    return Table(f"{table.task}: heads by method (mean, 95 % interval)", header, lines)


def _with_seeds(cell: Cell | None, seeds: int) -> str:
    """The number of seeds is said where it is not that of the line: where some seeds have no number."""
    if cell is None:
        return "–"
    return cell_text(cell) + (f" ({cell.seeds} seeds)" if 0 < cell.seeds < seeds else "")


def whole_table(table: TaskTable) -> Table | None:
    """Entry × what belongs to a run and to no head; None where the results have none of it."""
    shown = [tag for tag in WHOLE if any(not _empty(tags.get(tag)) for tags in table.whole.values())]
    if not shown:
        return None
    lines = []
    for entry, tags in table.whole.items():
        cells = ["–" if _empty(tags.get(tag)) else cell_text(tags[tag], WHOLE[tag][1]) for tag in shown]
        lines.append([entry, *cells])
    return Table(f"{table.task}: the runs as a whole", ["entry", *(WHOLE[tag][0] for tag in shown)], lines)


def _empty(cell: Cell | None) -> bool:
    return cell is None or math.isnan(cell.value)


def csv_lines(tables: Iterable[TaskTable]) -> list[list[str]]:
    """Every aggregated number in long form, to full precision; empty where undefined. Runs as a whole: method ""."""
    lines = []
    for table in tables:
        for method in table.methods:
            for metric, cell in table.cells[method.name].items():
                lines.append([table.task, method.name, method.head, "; ".join(method.entries), metric, *csv_row(cell)])
        for entry, tags in table.whole.items():
            lines += [[table.task, "", "", entry, tag, *csv_row(cell)] for tag, cell in tags.items()]
        for comparison in table.comparisons:
            metric = f"{comparison.metric} minus that of {comparison.reference}"
            lines.append([table.task, comparison.method, "", "", metric, *csv_row(comparison.difference)])
    return lines


def csv_row(cell: Cell) -> list[str]:
    """The columns from the mean on."""
    numbers = ["" if math.isnan(x) else repr(float(x)) for x in cell[:3]]
    return [*numbers, str(cell.seeds), cell.interval if cell.seeds else NONE]
