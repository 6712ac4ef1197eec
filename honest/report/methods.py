"""Which heads of which entries are one method: what is compared, and averaged over seeds.

Scores of one task come in as a long list; they leave as {method: {(seed, metric): score}}.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from honest.baselines.method import UNORDERED
from honest.report.sources import Score
from honest.report.tables import ALWAYS_FALSE

TRUTH = "truth_fooled"
SINGLE, CEILING = "single head", "truth-trained ceiling"
PRIOR = "under the prior"
BETTER, WORSE = "better of an unordered pair", "worse of an unordered pair"
REFERENCE_ENTRIES = ("two heads with the prior", "prior")
REFERENCE_HEADS = (f"{PRIOR}: intended", f"{PRIOR}: mean (blind choice)")

BySeed = dict[tuple[int, str], Score]


class Method(NamedTuple):
    """name: unique in its task. entries: those that have it, more than one where all of them agree to the digit."""

    name: str
    head: str
    entries: tuple[str, ...]
    scores: BySeed

    def over_seeds(self, metric: str) -> dict[int, Score]:
        """By seed, where the number exists."""
        return {s: x for (s, name), x in self.scores.items() if name == metric and x.value == x.value}

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for seed, _ in self.scores})

    @property
    def sees_truth(self) -> bool:
        """Whether truth labels of fooled rows made or picked it: it bounds methods and competes with none."""
        return self.head == CEILING or self.head.endswith((BETTER, WORSE))


def methods_of(scores: Iterable[Score]) -> list[Method]:
    """The methods of one task, "always False" last. A head that several entries share is one method."""
    found: dict[str, dict[str, BySeed]] = {}
    for score in _pairs_unordered([score for score in scores if score.head]):
        found.setdefault(score.head, {}).setdefault(score.entry, {})[score.seed, score.metric] = score
    several = len({entry for entries in found.values() for entry in entries}) > 1
    methods = [method for head, entries in found.items() for method in _of_head(head, entries, several)]
    return sorted(methods, key=lambda method: method.head == ALWAYS_FALSE)


def _of_head(head: str, entries: dict[str, BySeed], several: bool) -> list[Method]:
    if not several:
        return [Method(head, head, (entry,), scores) for entry, scores in entries.items()]
    if len(entries) > 1 and _agree(list(entries.values())):
        union = {key: score for scores in entries.values() for key, score in scores.items()}
        return [Method(head, head, tuple(entries), union)]
    return [Method(f"{head} · {entry}", head, (entry,), scores) for entry, scores in entries.items()]


def _agree(entries: list[BySeed]) -> bool:
    """Whether each states a number that another one does, and no two of them different ones for a seed and metric.

    Entries of different seeds alone, which might be of different settings, say nothing of each other.
    """
    if any(not set(own) & {key for other in entries if other is not own for key in other} for own in entries):
        return False
    stated: dict[tuple[int, str], str] = {}
    return all(
        stated.setdefault(key, repr((score.value, score.low, score.high))) == repr((score.value, score.low, score.high))
        for scores in entries
        for key, score in scores.items()
    )


def _pairs_unordered(scores: list[Score]) -> list[Score]:
    """Renames first and second of each unordered pair to the better and the worse on truth, seed by seed.

    Which of them is called first differs from seed to seed, so means over seeds of "first" are of no head at all.
    """
    truth = {(s.entry, s.seed, s.head): s.value for s in scores if s.metric == TRUTH}
    renamed = []
    for score in scores:
        stem, _, which = score.head.rpartition(": ")
        if which in UNORDERED:
            first, second = (truth.get((score.entry, score.seed, f"{stem}: {x}"), 0.0) for x in UNORDERED)
            is_better = (first >= second) == (which == UNORDERED[0])
            score = score._replace(head=f"{stem}: {BETTER if is_better else WORSE}")
        renamed.append(score)
    return renamed


def references_of(methods: list[Method]) -> list[Method]:
    """Two heads with the prior, which other methods are said to beat or not; none where no entry has them.

    One, of the entry of that name (or "prior"), where there is such an entry; else each entry's own.
    """
    candidates = [method for method in methods if method.head in REFERENCE_HEADS]
    named = [m for m in candidates if any(_plain(entry) in REFERENCE_ENTRIES for entry in m.entries)]
    return named[:1] or candidates


def rivals(methods: list[Method], reference: Method, references: list[Method]) -> list[Method]:
    """What is compared with a reference: all methods that saw no truth label, "always False" apart; where each entry
    has its own reference, those of its entry and those of entries without any."""
    others = [m for m in methods if m is not reference and not m.sees_truth and m.head != ALWAYS_FALSE]
    if len(references) == 1:
        return others
    with_own = {entry for other in references for entry in other.entries}
    return [m for m in others if set(m.entries) & set(reference.entries) or not set(m.entries) & with_own]


def _plain(entry: str) -> str:
    return entry.lower().replace("_", " ").replace("-", " ")
