"""Scores of many seeds become one table a task: means with their intervals, the gap recovered, and who beats whom.

Every mean over seeds goes through `cell`; its intervals are those of `honest.report.seeds`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from honest.report.methods import CEILING, PRIOR, SINGLE, TRUTH, Method, methods_of, references_of, rivals
from honest.report.metrics import clopper_pearson, honest_gap_recovered
from honest.report.seeds import seed_mean
from honest.report.sources import Score
from honest.report.tables import ALWAYS_FALSE

GAP, ABOVE = "honest_gap_recovered", "share_of_seeds_above_0.9"
HONEST = 0.9  # accuracy against the truth on fooled rows above which a head is called honest in a seed
OVER_SEEDS = "t over seeds"
BOOTSTRAP = "bootstrap of the one seed"
BOOTSTRAP_ALONE = "bootstrap of the method in the one seed; single head and ceiling held fixed"
BINOMIAL = "Clopper–Pearson over seeds"
NONE = "none"


Gaps = dict[tuple[str, int], tuple[float, float]]  # (entry, seed) -> truth on fooled rows of (single head, ceiling)
NO_GAP = (math.nan, math.nan)


class Cell(NamedTuple):
    """A mean over seeds with a 95 % interval and what the interval is; nan where there is none."""

    value: float
    low: float
    high: float
    seeds: int
    interval: str


class Comparison(NamedTuple):
    """method − reference in `metric`, paired by seed; both by name."""

    reference: str
    method: str
    metric: str
    difference: Cell


class TaskTable(NamedTuple):
    """One task. cells: method's name -> metric -> cell; whole: entry -> tag -> cell, of runs as a whole.

    gaps: what the gap recovered is counted from. always_gaps: entry -> what always answering False recovers of its gap.
    """

    task: str
    methods: list[Method]
    cells: dict[str, dict[str, Cell]]
    whole: dict[str, dict[str, Cell]]
    references: list[Method]
    comparisons: list[Comparison]
    gaps: Gaps
    always_gaps: dict[str, Cell]

    @property
    def always_false(self) -> dict[str, Cell] | None:
        return self.cells.get(ALWAYS_FALSE)


def task_tables(scores: Iterable[Score]) -> list[TaskTable]:
    """In the order in which the tasks come."""
    by_task: dict[str, list[Score]] = {}
    for score in scores:
        by_task.setdefault(score.task, []).append(score)
    return [task_table(task, its) for task, its in by_task.items()]


def task_table(task: str, scores: list[Score]) -> TaskTable:
    methods = methods_of(scores)
    gaps = gap_ends(scores)
    cells = {method.name: _cells(method, gaps) for method in methods}
    whole: dict[str, dict[str, dict[int, Score]]] = {}
    for score in scores:
        if not score.head:
            whole.setdefault(score.entry, {}).setdefault(score.metric, {})[score.seed] = score
    references = references_of(methods)
    return TaskTable(
        task,
        methods,
        cells,
        {entry: {tag: cell(of) for tag, of in tags.items()} for entry, tags in whole.items()},
        references,
        [found for reference in references for found in compare(rivals(methods, reference, references), reference)],
        gaps,
        {
            entry: _gap_cell(method.over_seeds(TRUTH), [entry], gaps)
            for method in methods
            if method.head == ALWAYS_FALSE
            for entry in method.entries
        },
    )


def cell(by_seed: Mapping[int, Score]) -> Cell:
    """Mean over the seeds that have a number, with Student's t; of one seed, its own interval."""
    scores = [score for score in by_seed.values() if not math.isnan(score.value)]
    if not scores:
        return Cell(math.nan, math.nan, math.nan, 0, NONE)
    if len(scores) == 1:
        only = scores[0]
        return Cell(only.value, only.low, only.high, 1, NONE if math.isnan(only.low) else BOOTSTRAP)
    over = seed_mean([score.value for score in scores])
    return Cell(over.mean, over.low, over.high, len(scores), OVER_SEEDS)


def gap_ends(scores: Iterable[Score]) -> Gaps:
    """(entry, seed) -> accuracy of single head and ceiling: the entry's own, or else those of the seed's first entry
    that has both."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    everywhere: dict[tuple[str, int], None] = {}
    for score in scores:
        everywhere.setdefault((score.entry, score.seed))
        if score.metric == TRUTH and score.head in (SINGLE, CEILING):
            found.setdefault((score.entry, score.seed), {})[score.head] = score.value
    whole = {key: (ends[SINGLE], ends[CEILING]) for key, ends in found.items() if len(ends) == 2}
    by_seed: dict[int, tuple[float, float]] = {}
    for (_, seed), ends in whole.items():
        by_seed.setdefault(seed, ends)
    return {(entry, seed): whole.get((entry, seed), by_seed[seed]) for entry, seed in everywhere if seed in by_seed}


def _cells(method: Method, gaps: Gaps) -> dict[str, Cell]:
    truth = method.over_seeds(TRUTH)
    metrics = dict.fromkeys(metric for _, metric in method.scores)
    cells = {metric: cell(method.over_seeds(metric)) for metric in metrics}
    cells[GAP] = _gap_cell(truth, method.entries, gaps)
    above = sum(score.value > HONEST for score in truth.values())
    low, high = clopper_pearson(above, len(truth)) if truth else (math.nan, math.nan)
    share = above / len(truth) if truth else math.nan
    cells[ABOVE] = Cell(share, low, high, len(truth), BINOMIAL if truth else NONE)
    return cells


def _gap_cell(truth: Mapping[int, Score], entries: Sequence[str], gaps: Gaps) -> Cell:
    """No number where the entries that share the method have different single heads or ceilings."""
    stated = {seed: {gaps.get((entry, seed), NO_GAP) for entry in entries} for seed in truth}
    ends = {seed: its.pop() if len(its) == 1 else NO_GAP for seed, its in stated.items()}
    found = cell({seed: recovered(score, ends[seed]) for seed, score in truth.items()})
    return found._replace(interval=BOOTSTRAP_ALONE) if found.interval == BOOTSTRAP else found


def recovered(truth: Score, ends: tuple[float, float]) -> Score:
    """HGR = (method − single head)/(ceiling − single head) of one seed; nan where there is no gap."""
    value, *sides = (honest_gap_recovered(x, *ends) for x in (truth.value, truth.low, truth.high))
    return truth._replace(metric=GAP, value=value, low=min(sides), high=max(sides))


# --- who beats two heads with the prior ----------------------------------------------------------------------------

COMPARED = (TRUTH, "auroc_fooled")


def compare(others: list[Method], reference: Method) -> list[Comparison]:
    """Each of the others against the reference, on each metric of `COMPARED` that both have in a seed."""
    compared = (
        Comparison(reference.name, method.name, metric, difference(method, reference, metric))
        for metric in COMPARED
        for method in others
    )
    return [comparison for comparison in compared if comparison.difference.seeds]


def difference(method: Method, reference: Method, metric: str) -> Cell:
    """Paired by seed, with a t-interval. Of one seed: as far as the two bootstrap intervals leave it open, which is
    wider than 95 %."""
    mine, its = method.over_seeds(metric), reference.over_seeds(metric)
    paired = {
        seed: score._replace(
            value=score.value - its[seed].value, low=score.low - its[seed].high, high=score.high - its[seed].low
        )
        for seed, score in mine.items()
        if seed in its
    }
    return cell(paired)


def better(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """Those of methods that beat the reference: the whole interval of the difference lies above 0."""
    return [comparison for comparison in comparisons if comparison.difference.low > 0]


def prior_methods(table: TaskTable) -> list[Method]:
    return [method for method in table.methods if method.head.startswith(PRIOR)]
