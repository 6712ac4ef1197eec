"""What a report says in words: whom the heads side with, what to distrust, and who beats two heads with the prior."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from honest.report.benchmark_table import (
    ABOVE,
    BOOTSTRAP,
    COMPARED,
    GAP,
    HONEST,
    Cell,
    TaskTable,
    better,
    prior_methods,
)
from honest.report.methods import PRIOR, TRUTH, Method
from honest.report.sources import RUNS, RunFiles, Score, Source, violation_over_tolerance
from honest.report.tables import one_answer, side
from honest.report.training import INFEASIBLE, Curves
from honest.train.run_directory import CONFIG

SMALL_GAP = 0.1  # of the ceiling over the single head, below which a share of it says little
READABLE = 0.9  # accuracy of the ceiling on fooled rows below which the truth is not plainly there to be found
FEW_SEEDS = 5
COMPARED_AS = {TRUTH: "accuracy against the truth on fooled rows", "auroc_fooled": "AUROC on fooled rows"}


def cell_text(cell: Cell, digits: int = 2) -> str:
    """`0.93 [0.91, 0.95]`; a dash where there is no number, the number alone where it has no interval."""
    if math.isnan(cell.value):
        return "–"
    value, low, high = (f"{round(x, digits) + 0.0:,.{digits}f}" for x in cell[:3])  # + 0: no minus before 0
    return value if math.isnan(cell.low) else f"{value} [{low}, {high}]"


def sides(table: TaskTable) -> list[str]:
    """One sentence an entry: whom each of its heads under the prior sides with, the reference's entry first."""
    heads = prior_methods(table)
    if not heads:
        return [f"{table.task}: no entry has heads under the prior."]
    entries: dict[str, list[Method]] = {}
    for method in heads:
        entries.setdefault(", ".join(method.entries), []).append(method)
    first = ", ".join(table.references[0].entries) if table.references else ""
    return [
        f"{table.task}, {entry}: on fooled rows {'; '.join(_side_of(table, method) for method in its)}."
        + _always_false_beside(table, its[0].entries[0])
        for entry, its in sorted(entries.items(), key=lambda item: item[0] != first)
    ]


def _side_of(table: TaskTable, method: Method) -> str:
    cells, name = table.cells[method.name], method.head.removeprefix(f"{PRIOR}: ")
    name = f"the {name}{' head' if name in ('intended', 'instrumental') else ''}"
    truth = cells.get(TRUTH)
    if truth is None or math.isnan(truth.value):
        return f"{name} has no row to be judged on"
    acceptance = cells.get("acceptance_fooled")
    verdict = side(truth.low, truth.high) + ("" if acceptance is None else one_answer(acceptance.value))
    over = f"{truth.seeds} seed{'s' if truth.seeds > 1 else ''}, {interval_kind(truth)}"
    honest = round(cells[ABOVE].value * truth.seeds)
    text = f"{name} {verdict}: right on {cell_text(truth)} ({over}), above {HONEST} in {honest} of {truth.seeds}"
    return text if math.isnan(cells[GAP].value) else f"{text}, honest gap recovered {cell_text(cells[GAP])}"


def _always_false_beside(table: TaskTable, entry: str) -> str:
    always = table.always_false
    if always is None or TRUTH not in always:
        return ""
    gap = table.always_gaps.get(entry, always[GAP])
    recovered = "" if math.isnan(gap.value) else f" and recovers {cell_text(gap)}"
    return f" Always answering False is right on {always[TRUTH].value:.2f}{recovered}."


def interval_kind(cell: Cell) -> str:
    if math.isnan(cell.low):
        return "no interval"
    return "95 % bootstrap interval" if cell.interval == BOOTSTRAP else "95 % t-interval"


def beats(table: TaskTable) -> list[str]:
    """Which methods beat two heads with the prior; said also where none does."""
    if not table.references:
        return [f"{table.task}: no two heads with the prior to compare with."]
    return [line for reference in table.references for line in _beaten(table, reference.name)]


def _beaten(table: TaskTable, name: str) -> list[str]:
    lines = []
    for metric in COMPARED:
        compared = [c for c in table.comparisons if c.metric == metric and c.reference == name]
        if not compared:
            continue
        winners = better(compared)
        named = "; ".join(f"“{c.method}” by {cell_text(c.difference, 3)}" for c in winners)
        start = f"{table.task}, {COMPARED_AS[metric]}"
        if all(math.isnan(c.difference.low) for c in compared):
            lines.append(f"{start}: one seed without intervals does not tell who beats whom (“{name}”).")
        elif winners:
            lines.append(f"{start}: BEATEN. Two heads with the prior (“{name}”) are beaten by {named}.")
        else:
            methods = (
                f"none of {len(compared)} compared methods beats" if len(compared) > 1 else "the other does not beat"
            )
            lines.append(f"{start}: {methods} two heads with the prior (“{name}”).")
    return [*lines, *_always_false_wins(table, name)]


def _always_false_wins(table: TaskTable, name: str) -> list[str]:
    always, reference = table.always_false, table.cells[name].get(TRUTH)
    if always is None or TRUTH not in always or reference is None or not always[TRUTH].value > reference.value:
        return []
    return [
        f"{table.task}: always answering False ({always[TRUTH].value:.2f}) is right on more of the fooled rows than "
        f"“{name}” ({reference.value:.2f})."
    ]


# --- what to distrust ----------------------------------------------------------------------------------------------


def warnings(source: Source, tables: Iterable[TaskTable], curves: Mapping[Path, Curves]) -> list[str]:
    found = list(_left_out(source))
    where: dict[str, list[str]] = {}
    for run in source.runs:
        for text in _of_run(run, curves.get(run.path, {})):
            where.setdefault(text, []).append(f"{run.task}, {run.entry}, seed {run.seed}")
    found += [_grouped(text, names, len(source.runs)) for text, names in where.items()]
    found += _infeasible_in_results(source)
    commits = sorted({str(run.summary.get("commit", "unknown")) for run in source.runs})
    if len(commits) > 1:
        found.append(f"The runs are of {len(commits)} different commits: {', '.join(commits)}.")
    found += [f"Commit {commit}: files differed from it." for commit in commits if commit.endswith("-dirty")]
    return [*found, *(f"{table.task}: {text}" for table in tables for text in _of_table(table))]


def _left_out(source: Source) -> Iterator[str]:
    if source.kind != "sweep":
        yield from (
            f"{folder.relative_to(source.path)} is not finished and is left out." for folder in source.unfinished
        )
        return
    if source.unfinished:
        names = ", ".join(folder.name for folder in source.unfinished)
        yield f"{len(source.unfinished)} of {len(source.planned)} members are not finished and are left out: {names}."
    members = {member.name for member in source.planned}
    others = sorted(config.parent.name for config in (source.path / RUNS).glob(f"*/{CONFIG}"))
    yield from (f"{RUNS}/{name} is no member of this sweep and is left out." for name in others if name not in members)


def _grouped(text: str, runs: list[str], of: int) -> str:
    """The same said of many runs is said once."""
    if len(runs) == 1:
        return f"{runs[0]}: {text}"
    if len(runs) == of:
        return f"Each of the {of} runs: {text}"
    return f"{len(runs)} of {of} runs: {text} ({'; '.join(runs)})"


def _of_run(run: RunFiles, curves: Curves) -> list[str]:
    found = []
    checks = run.summary.get("log_partition_checks")
    if checks and checks["above_limit"]:
        found.append(f"log Z: {checks['sentence'].removeprefix('WARNING: ')}")
    flags = list(curves.get(INFEASIBLE, {}).values())
    if flags and flags[-1] > 0:
        found.append("the constraint was infeasible at the end: λ at its cap, or rising while C̄ did not fall.")
    ratio = violation_over_tolerance(run)
    if ratio is not None and ratio > 2:
        found.append(f"C̄/ε is {ratio:.1f} over the whole population at the end: not feasible.")
    return found


def _infeasible_in_results(source: Source) -> list[str]:
    """Of runs whose files are not there, what the results say of the constraint."""
    here = {(run.task, run.seed, run.entry) for run in source.runs}

    def told(score: Score) -> bool:
        return score.metric == INFEASIBLE and score.value > 0 and score[:3] not in here

    return [f"{s.task}, {s.entry}, seed {s.seed}: the constraint was infeasible." for s in source.scores if told(s)]


def _of_table(table: TaskTable) -> list[str]:
    found = []
    counts = sorted({len(method.seeds) for method in table.methods})
    if counts and counts[0] == 1:
        found.append("one seed alone: nothing is known of how results differ between seeds.")
    elif counts and counts[0] < FEW_SEEDS:
        found.append(f"{counts[0]} seeds: how results differ between seeds is hardly measured.")
    if len(counts) > 1:
        found.append(f"methods have from {counts[0]} to {counts[-1]} seeds: their means are of different seeds.")
    if table.gaps:
        smallest = min(ceiling - single for single, ceiling in table.gaps.values())
        if smallest < SMALL_GAP:
            found.append(
                f"the ceiling is only {smallest:.2f} above the single head in a seed: the gap recovered, a share of "
                "that, says little."
            )
        lowest = min(ceiling for _, ceiling in table.gaps.values())
        if lowest < READABLE:
            found.append(
                f"the truth-trained ceiling itself is right on only {lowest:.2f} of the fooled rows in a seed: the "
                "truth is not plainly readable in the trunk, so that no head could be expected to tell it."
            )
    if table.always_false is None:
        found.append("the results lack “always False”, without which accuracies on fooled rows mislead.")
    return found
