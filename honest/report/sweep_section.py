"""The part of a report that is about a sweep: its texts, tables and figures, and its lines of the CSV."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from honest.report.benchmark_table import NONE, Cell
from honest.report.content import Figure, Section, Table, csv_row
from honest.report.drawn import slug, slugs
from honest.report.figures_sweep import along_figure, heat_figure, parallel_figure
from honest.report.findings import cell_text
from honest.report.labels import Parameter
from honest.report.methods import TRUTH
from honest.report.sweep import (
    DIVERGENCE_BITS,
    DONE,
    STARTED,
    WAITING,
    Member,
    Series,
    Setting,
    Sweep,
    Value,
    heat_map,
    is_grid,
    over_seeds,
    value_text,
)
from honest.report.sweep_panels import Panel, known_panels

SETTING, MEMBER = "sweep: setting", "sweep: member"  # in place of a method
COLOURED = (TRUTH, DIVERGENCE_BITS)  # what parallel coordinates are coloured by


def sweep_section(sweep: Sweep, folder: Path) -> Section:
    """Draws the figures into `folder`."""
    panels = known_panels(sweep)
    figures = _figures(sweep, panels, folder) if panels and sweep.parameters else []
    tables = [members_table(sweep, panels)]
    if any(len(members) > 1 for members in sweep.settings.values()) and panels:
        tables.insert(0, settings_table(sweep, panels))
    return Section("Sweep", list(texts(sweep, panels)), tables, figures)


def texts(sweep: Sweep, panels: Sequence[Panel]) -> Iterator[str]:
    """What is said of the sweep as a whole."""
    counts = {state: sum(m.state == state for m in sweep.members) for state in (DONE, STARTED, WAITING)}
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    yield f"{len(sweep.members)} members of {len(sweep.settings)} settings: {said}."
    if sweep.parameters:
        yield f"Varied: {'; '.join(_varied(parameter) for parameter in sweep.parameters)}{_seeds(sweep)}."
    else:
        yield f"No parameter varies{_seeds(sweep)}."
    if not panels:
        yield "No member with heads under the prior is done yet: there is nothing to draw along the parameters."
    elif is_grid(sweep):
        yield from _empty_cells(sweep, panels)
    elif len(sweep.parameters) == 2:
        yield "No heat map: the settings fill no more than half of the table of the two parameters' values."
    yield "All members are shown alike: none is picked by its scores on fooled rows, and none should be."


def _varied(parameter: Parameter) -> str:
    values = list(dict.fromkeys(parameter.values))
    if parameter.numeric and len(values) > 8:
        numbers = [value for value in values if isinstance(value, float)]
        return f"{parameter.label}, {len(numbers)} values from {min(numbers):g} to {max(numbers):g}"
    return f"{parameter.label} = {', '.join(map(value_text, values))}"


def _seeds(sweep: Sweep) -> str:
    keys = dict.fromkeys(key for member in sweep.members for key in member.seeds)
    return f"; means are over {' and '.join(keys)}, which is no parameter" if keys else ""


def _empty_cells(sweep: Sweep, panels: Sequence[Panel]) -> Iterator[str]:
    """Which cells of the heat maps are hatched, and why."""
    found = heat_map(sweep, panels[0].series[0])
    waiting: list[str] = []
    absent: list[str] = []
    for row, line in zip(found.rows, found.cells, strict=True):
        for column, (cell, members) in zip(found.columns, line, strict=True):
            if not cell.seeds:
                (waiting if members else absent).append(f"({setting_text(sweep, (row, column))})")
    if waiting:
        yield f"Hatched in the heat maps, as none of their members has a number yet: {', '.join(waiting)}."
    if absent:
        yield f"Hatched in the heat maps, as the sweep has no such members: {', '.join(absent)}."


def setting_text(sweep: Sweep, setting: Setting) -> str:
    """The values with their keys and units."""
    pairs = zip(sweep.parameters, setting, strict=True)
    return ", ".join(f"{parameter.key}={_with_unit(parameter, value)}" for parameter, value in pairs) or "all members"


def _with_unit(parameter: Parameter, value: Value) -> str:
    return value_text(value) if value is None else f"{value_text(value)} {parameter.unit}".rstrip()


# --- tables and CSV ------------------------------------------------------------------------------------------------


def settings_table(sweep: Sweep, panels: Sequence[Panel]) -> Table:
    """A line a setting: means over its members that are done."""
    lines = []
    for setting, members in sweep.settings.items():
        done = sum(member.state == DONE for member in members)
        numbers = [cell_text(over_seeds(members, series), panel.digits) for panel, series in _columns(panels)]
        lines.append([*(map(value_text, setting) if setting else ["all"]), f"{done} of {len(members)}", *numbers])
    names = [parameter.label for parameter in sweep.parameters] or ["setting"]
    header = [*names, "members done", *(panel.name(series) for panel, series in _columns(panels))]
    return Table("Settings (mean over seeds, 95 % interval)", header, lines)


def members_table(sweep: Sweep, panels: Sequence[Panel]) -> Table:
    """A line a member, in the order of the sweep, with its own interval within the seed."""
    lines = []
    for member in sweep.members:
        seeds = [str(member.seeds[key]) if key in member.seeds else "–" for key in _seed_keys(sweep)]
        numbers = [cell_text(over_seeds([member], series), panel.digits) for panel, series in _columns(panels)]
        lines.append([member.name, member.state, *map(value_text, member.setting), *seeds, *numbers])
    names = [*(parameter.label for parameter in sweep.parameters), *_seed_keys(sweep)]
    header = ["member", "state", *names, *(panel.name(series) for panel, series in _columns(panels))]
    return Table("Members (95 % interval over questions within the seed, where there is one)", header, lines)


def _columns(panels: Sequence[Panel]) -> list[tuple[Panel, Series]]:
    return [(panel, series) for panel in panels for series in panel.series]


def _seed_keys(sweep: Sweep) -> list[str]:
    return list(dict.fromkeys(key for member in sweep.members for key in member.seeds))


def sweep_lines(sweep: Sweep) -> list[list[str]]:
    """Of the CSV: every panel's numbers by setting and by member, and whether each member is done (1) or not (0)."""
    columns = _columns(known_panels(sweep))
    lines: list[list[str]] = []
    for setting, members in sweep.settings.items():
        tasks = dict.fromkeys(member.task for member in members if member.task)
        lines += _csv(", ".join(tasks), SETTING, setting_text(sweep, setting), members, columns)
    for member in sweep.members:
        seeds = "".join(f", {key}={seed}" for key, seed in member.seeds.items())
        entry = f"{member.name}: {setting_text(sweep, member.setting)}{seeds}"
        done = Cell(float(member.state == DONE), math.nan, math.nan, 1, NONE)
        lines.append([member.task, MEMBER, "", entry, "done", *csv_row(done)])
        lines += _csv(member.task, MEMBER, entry, [member], columns)
    return lines


def _csv(
    task: str, method: str, entry: str, members: Sequence[Member], columns: Sequence[tuple[Panel, Series]]
) -> Iterator[list[str]]:
    for _, series in columns:
        cell = over_seeds(members, series)
        if cell.seeds:
            yield [task, method, series.head, entry, series.metric, *csv_row(cell)]


# --- figures -------------------------------------------------------------------------------------------------------


def _figures(sweep: Sweep, panels: Sequence[Panel], folder: Path) -> list[Figure]:
    short = slugs([parameter.key for parameter in sweep.parameters])
    figures = []
    for index, parameter in enumerate(sweep.parameters):
        path = folder / f"sweep_along_{short[parameter.key]}.png"
        along_figure(path, sweep, index, panels)
        figures.append(
            Figure(
                path, f"Along {parameter.label}. A point is a setting; lines join those that differ in nothing else."
            )
        )
    for panel in panels:
        series = panel.series[0]  # of two heads the intended one, of an unordered pair the blind choice
        if series.metric in COLOURED:
            path = folder / f"sweep_parallel_{slug(series.metric)}.png"
            parallel_figure(path, sweep, panel, series)
            caption = f"Parallel coordinates: a line is a setting, coloured by {panel.name(series)}."
            figures.append(Figure(path, caption))
    if is_grid(sweep):
        path = folder / "sweep_heat_map.png"
        heat_figure(path, sweep, panels)
        rows, columns = (parameter.label for parameter in sweep.parameters)
        caption = f"{rows} by {columns}: means over the members of a cell, “1 of 2” where not all of them are done"
        figures.append(Figure(path, f"{caption}; hatched: no number."))
    return figures
