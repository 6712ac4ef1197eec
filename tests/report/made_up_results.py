"""A benchmark's results.csv with numbers made up for the tests, small enough to aggregate by hand."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

HEADER = ("task", "seed", "entry", "head", "metric", "value", "low", "high", "rows")
SINGLE, CEILING, ALWAYS = "single head", "truth-trained ceiling", "always False"
INTENDED = "under the prior: intended"

# Truth on fooled rows by seed. Honest gap recovered of the intended head: .5, .75 and .25.
TRUTH = {
    SINGLE: (0.0, 0.1, 0.2),
    CEILING: (1.0, 0.9, 1.0),
    INTENDED: (0.5, 0.7, 0.4),
    ALWAYS: (0.5, 0.5, 0.5),
}
Line = tuple[object, ...]


def lines(task: str, entry: str, truth: dict[str, tuple[float, ...]], half_width: float = 0.05) -> list[Line]:
    """Truth, person and acceptance on both kinds of rows; on fooled rows person is 1 − truth."""
    made: list[Line] = []
    for head, by_seed in truth.items():
        accepts = 0.0 if head == ALWAYS else 0.4
        for seed, value in enumerate(by_seed):
            shares = {"truth_fooled": value, "person_fooled": 1 - value, "acceptance_fooled": accepts}
            shares |= {"truth_trusted": 0.9, "person_trusted": 0.9, "acceptance_trusted": accepts}
            for metric, share in shares.items():
                made.append((task, seed, entry, head, metric, share, share - half_width, share + half_width, 100))
            made.append((task, seed, entry, head, "auroc_fooled", value, "", "", ""))
    for seed in range(len(next(iter(truth.values())))):
        for tag, bits in (
            ("data_trunk", -900.0 - seed),
            ("log_partition_heads", 3.5),
            ("constants_second_trunk", -5e4),
        ):
            made.append((task, seed, entry, "", f"ledger/{tag}_bits", bits, "", "", ""))
    return made


def write(folder: Path, made: Iterable[Line]) -> Path:
    """`folder`, with the lines as its results.csv."""
    with (folder / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows(made)
    return folder
