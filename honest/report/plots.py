"""Figures of a run, for the README and papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np

from honest.report.metrics import HeadScores, Interval

COLOURS = {"truth": "#1b7837", "person": "#762a83", "acceptance": "#b3b3b3"}
LABELS = {"truth": "agrees with the truth", "person": "agrees with the person", "acceptance": "answers True"}


def heads_figure(path: Path, rows: Mapping[str, HeadScores], title: str) -> None:
    """Accuracy against truth and person and acceptance on trusted and fooled rows, with 95 % intervals, by head."""
    names = list(rows)
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.55 * len(names) + 1.6), sharey=True)
    for axis, where in zip(axes, ("trusted", "fooled"), strict=True):
        for offset, (what, colour) in enumerate(COLOURS.items()):
            key = f"{what}_{where}"
            intervals: Sequence[Interval] = [rows[name][key] for name in names]  # type: ignore[literal-required]
            value = np.array([interval.value for interval in intervals])
            low = value - np.array([interval.low for interval in intervals])
            high = np.array([interval.high for interval in intervals]) - value
            y = np.arange(len(names)) + 0.22 * (offset - 1)
            axis.errorbar(
                value, y, xerr=np.maximum([low, high], 0), fmt="o", ms=5, capsize=3, color=colour, label=LABELS[what]
            )
        axis.axvline(0.5, color="0.8", lw=1, zorder=0)
        axis.set(xlim=(-0.03, 1.03), title=f"{where} rows", xlabel="share of test rows (95 % interval)")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    figure.suptitle(title, fontsize=11)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=120)
    plt.close(figure)
