"""Figure of the ledger: what each term of the log joint contributes, in bits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from honest.report.benchmark_table import Cell
from honest.report.figures_style import errors, interval_note, legend_below, look, save

TERMS = ("data", "first_prior", "second_prior", "consistency", "log_partition", "constants")
SIGNS = {"log_partition": "−log Z"}
LINEAR = 10.0  # bits around 0 that are drawn to scale


def ledger_rows(whole: Mapping[str, Mapping[str, Cell]]) -> dict[tuple[str, str], dict[str, Cell]]:
    """(term, group) -> entry -> bits, in the order of the terms; the total is left out."""
    found: dict[tuple[str, str], dict[str, Cell]] = {}
    for entry, tags in whole.items():
        for tag, cell in tags.items():
            name = tag.removeprefix("ledger/").removesuffix("_bits")
            term = next((term for term in TERMS if name.startswith(f"{term}_")), None)
            if tag.startswith("ledger/") and term:
                group = name.removeprefix(f"{term}_").replace("_", " ")
                found.setdefault((term, group), {})[entry] = cell
    return dict(sorted(found.items(), key=lambda item: TERMS.index(item[0][0])))


def ledger_figure(path: Path, whole: Mapping[str, Mapping[str, Cell]]) -> None:
    """Signed bars by term and group, a colour an entry; the priors' constants, which are huge, have an axis apart."""
    rows = ledger_rows(whole)
    parts = [
        {key: cells for key, cells in rows.items() if (key[0] == "constants") is constants}
        for constants in (False, True)
    ]
    parts = [part for part in parts if part]
    heights = [len(part) * max(0.36, 0.2 * len(whole)) + 0.5 for part in parts]
    figure, grid = plt.subplots(
        len(parts), 1, figsize=(9, sum(heights) + 0.9), squeeze=False, layout="constrained",
        gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    for axis, part in zip(grid.flat, parts, strict=True):
        _bars(axis, part, list(whole))
    note = interval_note([cell for cells in rows.values() for cell in cells.values()])
    grid.flat[-1].set_xlabel(
        f"contribution to the log joint, bit ({note})\naxes linear within ±{LINEAR:g} bit, logarithmic beyond"
    )
    legend_below(figure, grid.flat[0], 2)
    save(figure, path)


def _bars(axis: Axes, part: Mapping[tuple[str, str], Mapping[str, Cell]], entries: list[str]) -> None:
    height = 0.8 / len(entries)
    axis.set_xscale("symlog", linthresh=LINEAR)
    for index, entry in enumerate(entries):
        shown = [(y, cells[entry]) for y, cells in enumerate(part.values()) if entry in cells]
        places = [y + height * (index - (len(entries) - 1) / 2) for y, _ in shown]
        cells = [cell for _, cell in shown]
        axis.barh(
            places, [cell.value for cell in cells], height * 0.9, xerr=errors(cells), capsize=2,
            color=look(index)["color"], alpha=0.85, label=entry, error_kw={"lw": 0.9},
        )  # fmt: skip
        for place, cell in zip(places, cells, strict=True):
            _state(axis, place, cell)
    axis.axvline(0.0, color="black", lw=0.8)
    axis.set_yticks(range(len(part)), [f"{SIGNS.get(term, term.replace('_', ' '))}: {group}" for term, group in part])
    axis.set_ylim(len(part) - 0.5, -0.5)
    low, high = axis.get_xlim()
    axis.set_xlim(min(low * 12, -LINEAR * 3), max(high * 12, LINEAR * 3))  # room for the numbers


def _state(axis: Axes, place: float, cell: Cell) -> None:
    """The number beside its bar, as a logarithmic bar's length says little."""
    end = min(cell.value, cell.low) if cell.value < 0 else max(cell.value, cell.high)
    end = cell.value if end != end else end
    side = -1 if cell.value < 0 else 1
    axis.annotate(
        f"{cell.value:,.1f}", (end, place), xytext=(4 * side, 0), textcoords="offset points", fontsize=8,
        ha="right" if side < 0 else "left", va="center",
    )  # fmt: skip
