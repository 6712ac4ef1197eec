"""Tables and figures of the study of identical heads, from its runs or from its committed results.

    python launch/identical_heads_report.py runs/identical_heads --out runs/identical_heads_report
    python launch/identical_heads_report.py notes/results/identical_heads.csv --out runs/identical_heads_report

Writes results.csv (every run), tables.md, and three PNGs into OUT, a new folder.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from honest.errors import UserError
from honest.report.seeds import seed_mean
from honest.report.tables import layout

LN2 = math.log(2.0)
AXES = ("phases", "person", "anchor", "prior", "log_partition")
SHOWN = {"untrusted": "given", "none": "withheld"}
ORDER = {
    word: index
    for words in (
        ("points", "laplace", "chains", "chains, long"),
        ("untrusted", "none"),
        ("gaussian", "tied", "tied, narrow", "sparse"),
    )
    for index, word in enumerate(words)
}
TERMS = {  # of the ledger's figure: label -> columns, in nat
    "labels, person's answers": ("data_intended_head", "data_instrumental_head"),
    "first prior, intended": ("first_prior_intended_head",),
    "first prior, instrumental": ("first_prior_instrumental_head",),
    "second prior": ("second_prior_trunk",),
    "consistency": ("consistency",),
    "−log Z, as claimed": ("log_partition",),
}
Row = dict[str, Any]
Cells = dict[tuple[str, ...], list[Row]]


def read(source: Path) -> list[Row]:
    """Every run's numbers, to 6 digits. UserError: none, or of something else, or a run is there twice."""
    if source.is_file() and source.suffix == ".csv":
        with source.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
    else:
        lines = [line for path in sorted(source.glob("results-*.jsonl")) for line in _of_runs(path)]
    if not lines:
        raise UserError(f"{source} has no runs: give the --out of launch/identical_heads.py run, or a CSV of results")
    lacking = [name for name in (*AXES, "seed", "head_distance_bits") if name not in lines[0]]
    if lacking:
        raise UserError(f"{source}: its lines have no {lacking[0]}: these are not results of launch/identical_heads.py")
    twice = Counter((*(line[axis] for axis in AXES), line["seed"]) for line in lines).most_common(1)[0]
    if twice[1] > 1:
        raise UserError(
            f"{source}: the run {', '.join(map(str, twice[0]))} is there {twice[1]} times; keep one of them"
        )
    return [_typed(line) for line in lines]


def _of_runs(path: Path) -> list[dict[str, str]]:
    """The lines of a results file; a half-written last one (a run that was killed) is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if text.endswith("\n"):
            line = json.loads(text)
            ledger = {f"ledger_{name}_nats": nats for name, nats in line.pop("ledger").items()}
            kept = {key: value for key, value in line.items() if key not in ("cell", "seconds")}
            lines.append({key: _text(value) for key, value in {**kept, **ledger}.items()})
    return lines


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _typed(line: dict[str, str]) -> Row:
    """Words of the axes as they are, all else numbers; what a run does not have is left out."""
    return {key: value if key in AXES else float(value) for key, value in line.items() if value != ""}


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("x", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _text(value) for key, value in row.items()} for row in rows)


def cells(rows: Iterable[Row]) -> Cells:
    found: Cells = defaultdict(list)
    for row in sorted(rows, key=lambda row: ([ORDER.get(row[a], row[a]) for a in AXES], row["seed"])):
        found[tuple(row[axis] for axis in AXES)].append(row)
    return found


def nats(row: Row, names: Sequence[str]) -> float:
    return sum(row.get(f"ledger_{name}_nats", 0.0) for name in names)


# --- tables -------------------------------------------------------------------------------------------------

Column = tuple[str, Callable[[Row], float], int]
MEASURES: tuple[Column, ...] = (
    ("JS fooled, bit/row", lambda row: row["divergence/jensen_shannon_fooled"] / LN2, 3),
    ("answers differ, fooled", lambda row: row["divergence/disagreement_fooled"], 2),
    ("distance, bit", lambda row: row["head_distance_bits"], 1),
    ("intended right, fooled", lambda row: row["intended_truth_fooled"], 2),
    ("instrumental right, fooled", lambda row: row["instrumental_truth_fooled"], 2),
)
LEDGER: tuple[Column, ...] = (
    ("world data", lambda row: -nats(row, ["data_trunk"]) / LN2, 0),
    *((label, lambda row, names=names: -nats(row, names) / LN2, 1) for label, names in TERMS.items()),
    ("log Z sampled, lower", lambda row: row["log_z_lower"] / LN2, 1),
    ("log Z sampled, upper", lambda row: row["log_z_upper"] / LN2, 1),
)


def table(found: Cells, columns: Sequence[Column]) -> str:
    lines = [
        [
            *(SHOWN.get(word, word) for word in words),
            *(seed_mean([of(r) for r in runs]).text(n) for _, of, n in columns),
        ]
        for words, runs in found.items()
    ]
    header = ["phases", "person's answers", "anchor", "first prior", "log Z", *(name for name, _, _ in columns)]
    return layout(header, lines, "l" * len(AXES) + "r" * len(columns), as_markdown=True)


def effect_of_log_z(found: Cells) -> str:
    """With log Z less without, paired by seed."""
    lines = []
    for words, runs in found.items():
        other = found.get((*words[:-1], "omitted"))
        if words[-1] != "included" or other is None:
            continue
        without = {row["seed"]: row for row in other}
        pairs = [(row, without[row["seed"]]) for row in runs if row["seed"] in without]
        differences = (seed_mean([of(a) - of(b) for a, b in pairs]).text(digits) for _, of, digits in MEASURES)
        lines.append([*(SHOWN.get(word, word) for word in words[:-1]), *differences])
    header = ["phases", "person's answers", "anchor", "first prior", *(name for name, _, _ in MEASURES)]
    return layout(header, lines, "l" * (len(AXES) - 1) + "r" * len(MEASURES), as_markdown=True)


def tables(rows: Sequence[Row]) -> str:
    found = cells(rows)
    seeds = sorted({len(runs) for runs in found.values()})
    return "\n".join(
        [
            "# Identical heads: the tables",
            "",
            f"{len(rows)} runs, {len(found)} cells of {' or '.join(map(str, seeds))} seeds; means over seeds ± half "
            "the width of the 95 % t-interval. What was asked, and what is seen, is in [../identical_heads.md]"
            "(../identical_heads.md); every run is in [identical_heads.csv](identical_heads.csv).",
            "",
            "## Heads",
            "",
            table(found, MEASURES),
            "",
            "## What log Z changes",
            "",
            "With log Z in the objective less without it, paired by seed.",
            "",
            effect_of_log_z(found),
            "",
            "## Ledger",
            "",
            "Costs in bits by term (below 0: it saves), constants excluded; of chains, the first one's. Chains claim "
            "no log Z: where the columns of bounds say what it is, the claim is 0.",
            "",
            table(found, LEDGER),
            "",
        ]
    )


# --- figures ------------------------------------------------------------------------------------------------

COLOURS = {"included": "#1f5fa8", "omitted": "#d07c1c"}
MARKERS = {"init": "o", "trained": "s"}
TERM_COLOURS = ("#4d4d4d", "#1b7837", "#9970ab", "#1f5fa8", "#e08214", "#b2182b")


def grid(found: Cells, height: float, **options: Any) -> tuple[plt.Figure, dict[tuple[str, str], Axes]]:
    """An axis for each kind of phases (across) and for the person's answers given or withheld (down)."""
    kinds = list(dict.fromkeys(words[0] for words in found))
    figure, axes = plt.subplots(2, len(kinds), figsize=(3.6 * len(kinds) + 1, height), squeeze=False, **options)
    by_words = {}
    for i, person in enumerate(SHOWN):
        for j, kind in enumerate(kinds):
            by_words[kind, person] = axes[i, j]
            axes[i, j].set_title(f"{kind}; person's answers {SHOWN[person]}", fontsize=9)
    return figure, by_words


def measure_figure(path: Path, found: Cells, column: Column, title: str) -> None:
    """Every run a small mark, means with their intervals, by first prior; colour: log Z, marker: anchor."""
    name, of, _ = column
    priors = list(dict.fromkeys(words[3] for words in found))
    figure, axes = grid(found, 6.4, sharex=True, sharey=True)
    for (kind, person, anchor, prior, log_z), runs in found.items():
        axis = axes[kind, person]
        x = priors.index(prior) + 0.18 * ((anchor == "trained") * 2 + (log_z == "omitted") - 1.5)
        values = [of(row) for row in runs]
        mean, half = seed_mean(values)
        axis.plot([x] * len(values), values, MARKERS[anchor], color=COLOURS[log_z], ms=3, alpha=0.35, mew=0)
        axis.errorbar([x], [mean], yerr=[half], fmt=MARKERS[anchor], color=COLOURS[log_z], ms=5, capsize=3, lw=1.2)
    for (kind, _), axis in axes.items():
        axis.set_xticks(range(len(priors)), priors, fontsize=8)
        axis.grid(axis="y", color="0.92")
        axis.set_axisbelow(True)
        if kind == next(iter(axes))[0]:
            axis.set_ylabel(name, fontsize=9)
    handles = [
        Line2D([], [], marker=MARKERS[anchor], color=COLOURS[log_z], lw=0, label=f"anchor {anchor}, log Z {log_z}")
        for anchor in MARKERS
        for log_z in COLOURS
    ]
    finish(figure, path, title, handles)


def ledger_figure(path: Path, found: Cells, title: str) -> None:
    """Mean cost in bits by term, stacked; what saves is to the left of 0."""
    figure, axes = grid(found, 8.0)
    labels: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (kind, person, anchor, prior, log_z), runs in found.items():
        y, ends = len(labels[kind, person]), [0.0, 0.0]
        labels[kind, person].append(f"{prior}, {anchor}, {'with' if log_z == 'included' else 'no'} log Z")
        for names, colour in zip(TERMS.values(), TERM_COLOURS, strict=True):
            bits = float(np.mean([-nats(row, names) / LN2 for row in runs]))
            side = int(bits < 0)
            axes[kind, person].barh(y, bits, left=ends[side], color=colour, height=0.75)
            ends[side] += bits
    for words, axis in axes.items():
        axis.set_yticks(range(len(labels[words])), labels[words], fontsize=6)
        axis.invert_yaxis()
        axis.axvline(0, color="0.3", lw=0.8)
        axis.set_xlabel("bit", fontsize=8)
        axis.tick_params(axis="x", labelsize=7)
    handles = [Line2D([], [], color=c, lw=6, label=label) for label, c in zip(TERMS, TERM_COLOURS, strict=True)]
    finish(figure, path, title, handles)


def finish(figure: plt.Figure, path: Path, title: str, handles: list[Line2D]) -> None:
    figure.suptitle(title, fontsize=11)
    figure.legend(handles=handles, loc="lower center", ncols=min(len(handles), 6), frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.04, 1, 0.99))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_report(source: Path, out: Path) -> None:
    rows = [row for runs in cells(read(source)).values() for row in runs]
    if out.exists():
        raise UserError(f"{out} exists already; nothing is overwritten: name another --out")
    out.mkdir(parents=True)
    write_csv(out / "results.csv", rows)
    (out / "tables.md").write_text(tables(rows), encoding="utf-8")
    plain = cells(row for row in rows if row["prior"] != "tied, narrow")  # to the last digit the Gaussian's
    title = "means over seeds with 95 % t-intervals; small marks are runs"
    measure_figure(out / "distance.png", plain, MEASURES[2], f"Distance between the heads, ½d²/σ² in bit: {title}")
    measure_figure(out / "divergence.png", plain, MEASURES[0], f"Divergence of the heads on fooled rows: {title}")
    ledger_figure(out / "ledger.png", plain, "Ledger in bit, mean over seeds; world data and constants left out")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="the --out of launch/identical_heads.py run, or a CSV of results")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    options = parser.parse_args()
    try:
        write_report(options.source, options.out)
    except UserError as error:
        print(f"identical_heads_report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
