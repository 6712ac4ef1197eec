"""Whether two runs of one sweep have the same results.csv, number by number.

    python launch/same_table.py runs/engines-vmap runs/engines-local [--tolerance 1e-8]

Prints how many numbers there are and the largest differences, |a − b| / max(|a|, |b|, 1); exit code 1 where one of
them is above the tolerance, 2 where the tables are empty, or have other members or columns.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from pathlib import Path

SHOWN = 5


def read(directory: Path) -> dict[tuple[str, str], str]:
    """(member, column) -> what the table says."""
    with (directory / "results.csv").open(newline="", encoding="utf-8") as file:
        return {(row["member"], column): value for row in csv.DictReader(file) for column, value in row.items()}


def difference(a: str, b: str) -> float:
    """0 for equal texts, infinite where only one of them is a number, or another text."""
    if a == b:
        return 0.0
    try:
        x, y = float(a), float(b)
    except ValueError:
        return math.inf
    if math.isnan(x) or math.isnan(y):
        return 0.0 if math.isnan(x) and math.isnan(y) else math.inf
    if math.isinf(x) or math.isinf(y):
        return 0.0 if x == y else math.inf
    return abs(x - y) / max(abs(x), abs(y), 1.0)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-8)
    given = parser.parse_args(arguments)
    for directory in (given.first, given.second):
        if not (directory / "results.csv").is_file():
            print(
                f"{directory}: there is no results.csv; give the folders of two sweeps that have ended", file=sys.stderr
            )
            return 2
    first, second = read(given.first), read(given.second)
    if not first or first.keys() != second.keys():
        alone = ", ".join(map(" ".join, sorted(first.keys() ^ second.keys())[:SHOWN])) or "both are empty"
        print(f"the tables have no members, or others, or other columns: {alone}", file=sys.stderr)
        return 2
    worst = sorted(((difference(first[key], second[key]), *key) for key in first), reverse=True)
    above = sum(not size <= given.tolerance for size, *_ in worst)
    members = len({member for member, _ in first})
    print(f"{len(worst)} values of {members} members; {above} differ by more than {given.tolerance:g}")
    for size, member, column in worst[:SHOWN]:
        key = member, column
        print(f"  {size:.1e}  {member}  {column}: {first[key]} and {second[key]}")
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
