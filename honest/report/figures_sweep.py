"""Figures of a sweep: quantities along each parameter, parallel coordinates, and a heat map of two parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from honest.report.benchmark_table import Cell
from honest.report.figures_style import PALETTE, errors, interval_note, save, spans, wrapped
from honest.report.labels import Parameter
from honest.report.sweep import (
    HeatMap,
    Series,
    Setting,
    Sweep,
    Value,
    heat_map,
    over_seeds,
    points,
    ticks,
    value_text,
)
from honest.report.sweep_panels import Panel

LINEAR_RANGE = 30.0  # positive numbers that span more are drawn along a logarithm
MOST_TICKS = 8  # of a numeric axis that has a tick at each value
LONGEST_TICKS = 28  # characters of all ticks together, beyond which they stand aslant
LETTERS_A_CELL = 6  # that fit below a cell of a heat map
LONGEST_KEY = 20  # characters of a line of a dotted key
MOST_LINES = 6  # settings of the other parameters that are told apart by lines and markers
STYLES = (("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."), ("v", (0, (1, 3))), ("P", (0, (6, 2, 1, 2, 1, 2))))
COLOURS = "viridis"


# --- axes ----------------------------------------------------------------------------------------------------------


def is_logarithmic(sweep: Sweep, parameter: Parameter) -> bool:
    """Whether the parameter's numbers are positive, and span more than `LINEAR_RANGE` or were drawn so."""
    numbers = _numbers(parameter)
    if not parameter.numeric or min(numbers) <= 0:
        return False
    return parameter.key in sweep.logarithmic or spans(numbers, LINEAR_RANGE)


def positions(sweep: Sweep, parameter: Parameter) -> dict[Value, float]:
    """Value -> place on an axis from 0 to 1: numbers along a line or a logarithm, texts evenly spaced; None, for not
    set, beyond the end."""
    known = [value for value in ticks(parameter) if value is not None]
    if parameter.numeric:
        scale = math.log if is_logarithmic(sweep, parameter) else float
        scaled = [scale(value) for value in known if isinstance(value, float)]
        span = scaled[-1] - scaled[0] or 1.0
        placed: dict[Value, float] = {value: (x - scaled[0]) / span for value, x in zip(known, scaled, strict=True)}
    else:
        placed = {value: i / max(len(known) - 1, 1) for i, value in enumerate(known)}
    return placed | ({None: 1.2} if None in parameter.values else {})


def shown_ticks(sweep: Sweep, parameter: Parameter) -> dict[float, str]:
    """Place -> text: every value where they are few, else five numbers along the axis."""
    places = positions(sweep, parameter)
    if not parameter.numeric or len(places) <= MOST_TICKS:
        return {place: value_text(value) for value, place in places.items()}
    numbers = _numbers(parameter)
    spaced = np.geomspace if is_logarithmic(sweep, parameter) else np.linspace
    found = {i / 4: f"{x:.3g}" for i, x in enumerate(spaced(min(numbers), max(numbers), 5))}
    return found | ({places[None]: value_text(None)} if None in places else {})


def _numbers(parameter: Parameter) -> list[float]:
    return [value for value in parameter.values if isinstance(value, float)]


def scale_of(panel: Panel, values: Sequence[float]) -> Normalize:
    """Of colours and axes: the panel's own limits, or those of the values."""
    finite = [value for value in values if math.isfinite(value)]
    if panel.limits is not None:
        return Normalize(*panel.limits)
    if min(finite) > 0 and spans(finite, LINEAR_RANGE):
        return LogNorm(min(finite), max(finite))
    low, high = min(finite), max(finite)
    return Normalize(low, high) if high > low else Normalize(low - 0.5, high + 0.5)


# --- along a parameter ---------------------------------------------------------------------------------------------


def along_figure(path: Path, sweep: Sweep, index: int, panels: Sequence[Panel]) -> None:
    """All panels along the parameter of that index; settings that differ in it alone are joined by lines."""
    parameter = sweep.parameters[index]
    figure, axes = _grid(len(panels), 3.75, 3.2)
    others = _others(sweep, index)
    texts = shown_ticks(sweep, parameter)
    drawn: list[Cell] = []
    for axis, panel in zip(axes, panels, strict=True):
        cells = [_along(axis, sweep, index, panel, number, others) for number in range(len(panel.series))]
        _value_axis(axis, panel, [cell.value for line in cells for cell in line])
        _ticks_below(axis, texts, LONGEST_TICKS)
        axis.set_xlim(-0.1, 1.1 if None not in parameter.values else 1.3)
        axis.set_xlabel(parameter.label, fontsize=8.5)
        drawn += [cell for line in cells for cell in line]
    _legend_of_others(figure, others)
    figure.supylabel(interval_note(drawn), fontsize=9)
    save(figure, path)


def _ticks_below(axis: Axes, texts: Mapping[float, str], most_letters: int) -> None:
    """Aslant where they have more letters together."""
    aslant: dict[str, Any] = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"}
    long = sum(map(len, texts.values())) > most_letters
    axis.set_xticks(list(texts), list(texts.values()), fontsize=8, **(aslant if long else {}))


def _grid(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """So many axes in rows of three, each of that size in inches."""
    columns = min(3, count)
    rows = math.ceil(count / columns)
    size = (width * columns, height * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    axes: list[Axes] = list(grid.flat)
    for axis in axes[count:]:
        axis.axis("off")
    return figure, axes[:count]


def _others(sweep: Sweep, index: int) -> dict[Setting, Any]:
    """What the other parameters are -> (marker, line); empty where they are too many to be told apart."""
    rest = dict.fromkeys(_without(setting, index) for setting in sweep.settings)
    return dict(zip(rest, STYLES, strict=False)) if len(rest) <= MOST_LINES else {}


def _without(setting: Setting, index: int) -> Setting:
    return (*setting[:index], *setting[index + 1 :])


def _along(
    axis: Axes, sweep: Sweep, index: int, panel: Panel, number: int, others: Mapping[Setting, Any]
) -> list[Cell]:
    """Draws the panel's series of that number, beside the others at the same place, and returns what it drew."""
    series = panel.series[number]
    places = positions(sweep, sweep.parameters[index])
    lines: dict[Setting, list[tuple[float, Cell]]] = {}
    for point in points(sweep, index, series):
        rest = _without(point.setting, index) if others else ()
        lines.setdefault(rest, []).append((places[point.at], point.cell))
    beside = list(others) or [()]
    for rest, line in lines.items():
        marker, dashes = others[rest] if others else ("o", "none")
        slot = beside.index(rest) * len(panel.series) + number
        slots = len(beside) * len(panel.series)
        dodge = min(0.014, 0.12 / slots) * (slot - (slots - 1) / 2)
        style: dict[str, Any] = {"marker": marker, "ls": dashes, "color": PALETTE[number], "ms": 4, "lw": 1}
        cells = [cell for _, cell in line]
        x, y = [place + dodge for place, _ in line], [cell.value for cell in cells]
        axis.errorbar(x, y, yerr=errors(cells), capsize=2, elinewidth=0.8, **style)
    if len(panel.series) > 1:
        axis.plot([], [], color=PALETTE[number], lw=2, label=series.label)
        axis.legend(fontsize=7.5, framealpha=0.7)
    return [cell for line in lines.values() for _, cell in line]


def _value_axis(axis: Axes, panel: Panel, values: Sequence[float]) -> None:
    unit = f"\n({panel.unit})" if panel.unit else ""
    axis.set_title(f"{wrapped(panel.title, 42)}{unit}", fontsize=9)
    axis.tick_params(labelsize=8)
    if panel.mark is not None:
        axis.axhline(panel.mark, color="0.4", lw=1, ls=":", zorder=0)
    if panel.limits is not None:
        axis.set_ylim(panel.limits[0] - 0.03, panel.limits[1] + 0.03)
    elif isinstance(scale_of(panel, values), LogNorm):
        axis.set_yscale("log", nonpositive="clip")


def _legend_of_others(figure: Figure, others: Mapping[Setting, Any]) -> None:
    if len(others) < 2:
        return
    handles = [
        Line2D([], [], marker=marker, ls=dashes, color="0.3", ms=4, lw=1, label=", ".join(map(value_text, rest)))
        for rest, (marker, dashes) in others.items()
    ]
    below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "ncols": 3, "frameon": False}
    figure.legend(handles=handles, fontsize=8.5, **below)


# --- parallel coordinates ------------------------------------------------------------------------------------------


def parallel_figure(path: Path, sweep: Sweep, panel: Panel, series: Series) -> None:
    """A line a setting through its parameters to the mean of the series, which colours it."""
    cells = {setting: over_seeds(members, series) for setting, members in sweep.settings.items()}
    cells = {setting: cell for setting, cell in cells.items() if cell.seeds}
    scale = scale_of(panel, [cell.value for cell in cells.values()])
    count = len(sweep.parameters)
    figure, axis = plt.subplots(figsize=(min(2.4 * count + 2.6, 15), 4.2), layout="constrained")
    places = [positions(sweep, parameter) for parameter in sweep.parameters]
    for setting, cell in cells.items():
        y = [place[value] for place, value in zip(places, setting, strict=True)]
        colour = plt.get_cmap(COLOURS)(scale(cell.value))
        axis.plot([*range(count), count], [*y, scale(cell.value)], color=colour, lw=1.5, alpha=0.85)
    for i, parameter in enumerate(sweep.parameters):
        _upright(axis, i, shown_ticks(sweep, parameter))
    _colour_axis(axis, count, scale)
    names = [_broken(parameter.label) for parameter in sweep.parameters]
    axis.set_xticks(range(count + 1), [*names, wrapped(panel.name(series), 24)], fontsize=8.5)
    axis.set_aspect("auto")
    axis.set(xlim=(-0.35, count + 0.45), ylim=(-0.06, 1.06 if all(None not in place for place in places) else 1.26))
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    save(figure, path)


def _broken(key: str) -> str:
    """A dotted key over several lines, broken after its dots and before its unit."""
    lines = [""]
    for word in key.replace(".", ". ").replace("θ. ", "θ.").split():
        if (lines[-1] and len(lines[-1]) + len(word) > LONGEST_KEY) or word.startswith("("):
            lines.append("")
        lines[-1] += word
    return "\n".join(lines)


def _upright(axis: Axes, x: int, texts: Mapping[float, str]) -> None:
    axis.axvline(x, color="0.3", lw=1, zorder=3)
    for y, text in texts.items():
        axis.plot([x - 0.015, x + 0.015], [y, y], color="0.3", lw=1, zorder=3)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}
        axis.text(x - 0.04, y, text, ha="right", va="center", fontsize=8, zorder=4, bbox=box)


def _colour_axis(axis: Axes, x: int, scale: Normalize) -> None:
    """The last axis is the scale of the colours itself."""
    strip_256x1 = np.linspace(0.0, 1.0, 256)[:, None]
    axis.imshow(strip_256x1, cmap=COLOURS, extent=(x, x + 0.06, 0.0, 1.0), origin="lower", aspect="auto", zorder=3)
    for place in np.linspace(0.0, 1.0, 6):
        axis.text(x + 0.08, place, f"{float(scale.inverse(place)):.3g}", ha="left", va="center", fontsize=8)


# --- heat maps -----------------------------------------------------------------------------------------------------


def heat_figure(path: Path, sweep: Sweep, panels: Sequence[Panel]) -> None:
    """A map a series; the number in a cell is the mean over its seeds, and cells without one are hatched."""
    wanted = [(panel, series) for panel in panels for series in panel.series]
    maps = [heat_map(sweep, series) for _, series in wanted]
    width, height = 1.9 + 0.62 * len(maps[0].columns), 1.5 + 0.5 * len(maps[0].rows)
    figure, axes = _grid(len(maps), width, height)
    for axis, (panel, series), found in zip(axes, wanted, maps, strict=True):
        _heat(figure, axis, panel, series, found)
    figure.supxlabel(sweep.parameters[1].label, fontsize=9.5)
    figure.supylabel(sweep.parameters[0].label, fontsize=9.5)
    save(figure, path)


def _heat(figure: Figure, axis: Axes, panel: Panel, series: Series, found: HeatMap) -> None:
    values_RxC = np.array([[cell.value for cell, _ in line] for line in found.cells])
    scale = scale_of(panel, values_RxC.ravel().tolist())
    axis.imshow(np.ma.masked_invalid(values_RxC), cmap=COLOURS, norm=scale, aspect="auto")
    for row, line in enumerate(found.cells):
        for column, (cell, of) in enumerate(line):
            _cell(axis, column, row, panel, scale, cell.value, cell.seeds, of)
    _ticks_below(axis, dict(enumerate(map(value_text, found.columns))), LETTERS_A_CELL * len(found.columns))
    axis.set_yticks(range(len(found.rows)), map(value_text, found.rows), fontsize=8)
    axis.tick_params(length=0)
    axis.set_title(wrapped(panel.title_of(series), 34), fontsize=8.5)
    bar = figure.colorbar(ScalarMappable(scale, COLOURS), ax=axis, fraction=0.08, pad=0.03)
    bar.set_label(panel.unit or "bare number", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _cell(axis: Axes, x: int, y: int, panel: Panel, scale: Normalize, value: float, seeds: int, of: int) -> None:
    if not seeds:
        hatched: dict[str, Any] = {"hatch": "////", "facecolor": "white", "edgecolor": "0.6", "lw": 0}
        axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, **hatched))
        return
    few = f"\n{seeds} of {of}" if seeds < of else ""
    bright = float(scale(value)) > 0.6
    number = f"{value:.{panel.digits}f}{few}".replace("-", "−")
    axis.text(x, y, number, ha="center", va="center", fontsize=7.5, color="black" if bright else "white")
