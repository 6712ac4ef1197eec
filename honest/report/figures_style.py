"""What the figures of a report share: colours, names that fit, and files that say who made them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from honest.report.benchmark_table import BOOTSTRAP, BOOTSTRAP_ALONE, OVER_SEEDS, Cell

DPI = 300
MAKER = "honest report"  # in the metadata of each PNG: such a file may be made anew
SIGNATURE = b"Software\x00" + MAKER.encode()
# Okabe & Ito's palette, which the colour-blind can tell apart.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")
LINES = ("-", "--", ":", "-.")  # after the palette's end
ALWAYS_FALSE_LINE: dict[str, Any] = {"color": "black", "lw": 1.2, "ls": (0, (4, 3)), "zorder": 1}


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DPI, bbox_inches="tight", metadata={"Software": MAKER})
    plt.close(figure)


def wrapped(name: str, width: int = 30) -> str:
    return "\n".join(textwrap.wrap(name, width, break_long_words=True)) or name


def look(index: int) -> dict[str, Any]:
    """Colour and line of the nth of several things."""
    return {"color": PALETTE[index % len(PALETTE)], "ls": LINES[index // len(PALETTE) % len(LINES)]}


def spans(values: Iterable[float], factor: float) -> bool:
    """Whether the positive ones reach over more than that factor."""
    positive = [value for value in values if 0 < value < math.inf]
    return bool(positive) and max(positive) > factor * min(positive)


def errors(cells: Iterable[Cell]) -> np.ndarray:
    """Distances from the values to the ends of their intervals, float64[2, N]; 0 where there is no interval."""
    rows = [(cell.value - cell.low, cell.high - cell.value) for cell in cells]
    return np.maximum(np.nan_to_num(np.array(rows, np.float64).reshape(-1, 2).T), 0.0)


def interval_note(cells: Iterable[Cell]) -> str:
    """What the bars of a figure are."""
    shown = [cell for cell in cells if cell.seeds]
    seeds = sorted({cell.seeds for cell in shown if cell.interval == OVER_SEEDS})
    parts = []
    if seeds:
        count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        parts.append(f"95 % t-interval over {count} seeds")
    if any(cell.interval in (BOOTSTRAP, BOOTSTRAP_ALONE) for cell in shown):
        parts.append("95 % bootstrap interval of the one seed")
    return "; ".join(parts) or "no interval"


def legend_below(figure: Figure, axis: Axes, columns: int) -> None:
    """One legend under the whole figure, outside the axes."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=columns, frameon=False)
