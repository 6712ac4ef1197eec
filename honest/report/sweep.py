"""A sweep as data: which parameters differ between its members, and what the finished ones came to.

Members that differ in seeds alone have one *setting*; numbers are averaged over them, and seeds are no parameter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from honest.errors import UserError
from honest.report.benchmark_table import Cell, cell
from honest.report.labels import Parameter
from honest.report.sources import RUNS, Planned, RunFiles, Score, Source, scores_of, violation_over_tolerance
from honest.report.tables import NATS_PER_BIT
from honest.train.run_directory import CONFIG, UNITS
from honest.units import UnitError, parse_quantity, parse_unit

SWEEP = "sweep.yaml"
SEEDS = ("seed", "task.seed")
DONE, STARTED, WAITING = "done", "not finished", "not started"
DIVERGENCE_BITS = "divergence/jensen_shannon_fooled_bits"
OVER_TOLERANCE = "constraint/whole_violation_over_tolerance"

Value = float | str | None
Setting = tuple[Value, ...]  # a value for each parameter of the sweep


class Member(NamedTuple):
    """seeds: of the keys of `SEEDS` that the sweep varies. scores: (head, metric) -> score; empty unless done."""

    name: str
    task: str
    state: str
    setting: Setting
    seeds: dict[str, int]
    scores: dict[tuple[str, str], Score]


class Sweep(NamedTuple):
    """parameters: what differs between members beside seeds, in the order of the sweep file; logarithmic: keys that it
    draws along a logarithm."""

    parameters: list[Parameter]
    logarithmic: frozenset[str]
    members: list[Member]

    @property
    def settings(self) -> dict[Setting, list[Member]]:
        """Setting -> its members, sorted along the parameters' axes."""
        found: dict[Setting, list[Member]] = {}
        for member in self.members:
            found.setdefault(member.setting, []).append(member)
        places = [ticks(parameter) for parameter in self.parameters]

        def place(setting: Setting) -> tuple[int, ...]:
            return tuple(axis.index(value) for axis, value in zip(places, setting, strict=True))

        return {setting: found[setting] for setting in sorted(found, key=place)}


class Series(NamedTuple):
    """One number of each member, by the (head, metric) of its score; label: in a legend."""

    label: str
    head: str
    metric: str


class Point(NamedTuple):
    """A setting at one value of a parameter; cell: of one series, over its seeds."""

    at: Value
    setting: Setting
    cell: Cell


class HeatMap(NamedTuple):
    """cells[row][column]: mean over the seeds that have the number, and how many members the sweep has there."""

    rows: list[Value]
    columns: list[Value]
    cells: list[list[tuple[Cell, int]]]


def read_sweep(source: Source) -> Sweep:
    """UserError: sweep.yaml, or a member's units.json, cannot be read."""
    runs = {run.path: run for run in source.runs}
    parameters = [
        parameter
        for parameter in member_parameters(source.path, source.planned)
        if parameter.key not in SEEDS and len(set(parameter.values)) > 1
    ]
    members = []
    for i, planned in enumerate(source.planned):
        folder = source.path / RUNS / planned.name
        setting = tuple(parameter.values[i] for parameter in parameters)
        members.append(_member(planned, folder, setting, runs.get(folder)))
    return Sweep(parameters, _logarithmic(source.path / SWEEP), members)


def _member(planned: Planned, folder: Path, setting: Setting, run: RunFiles | None) -> Member:
    seeds = {key: planned.parameters[key] for key in SEEDS if key in planned.parameters}
    if run is None:
        return Member(planned.name, "", STARTED if (folder / CONFIG).exists() else WAITING, setting, seeds, {})
    scores = {(score.head, score.metric): score for score in _with_derived(run)}
    return Member(planned.name, run.task, DONE, setting, seeds, scores)


def _with_derived(run: RunFiles) -> Iterator[Score]:
    """The run's scores, the divergence in bits, and C̄/ε."""
    where = (run.task, run.seed, run.entry, "")
    for score in scores_of(run):
        yield score
        if score.metric == DIVERGENCE_BITS.removesuffix("_bits"):
            yield score._replace(metric=DIVERGENCE_BITS, value=score.value / NATS_PER_BIT)
    ratio = violation_over_tolerance(run)
    if ratio is not None:
        yield Score(*where, OVER_TOLERANCE, ratio, float("nan"), float("nan"))


# --- parameters ----------------------------------------------------------------------------------------------------


def member_parameters(path: Path, planned: Sequence[Planned]) -> list[Parameter]:
    """All keys that the members of the sweep in `path` were given, seeds among them. UserError as in `read_sweep`."""
    units = _units(path, planned)
    keys = dict.fromkeys(key for member in planned for key in member.parameters)
    return [parameter_of(key, [m.parameters.get(key) for m in planned], units.get(key)) for key in keys]


def parameter_of(key: str, given: Sequence[Any], unit: str | None) -> Parameter:
    """Numbers in `unit`, which is the field's own (None: not known, as no member has started; then the first one's);
    texts if any value is none."""
    numbers = [None if value is None else in_unit(value, unit) for value in given]
    if any(value is not None and number is None for value, number in zip(given, numbers, strict=True)):
        return Parameter(key, "", tuple(None if value is None else _text(value) for value in given))
    quantities = [value for value in given if isinstance(value, str)]
    shown = unit or (str(parse_quantity(quantities[0]).unit) if quantities else "")
    return Parameter(key, shown, tuple(numbers))


def in_unit(value: Any, unit: str | None) -> float | None:
    """3 -> 3.0; "1 bit" in nat -> 0.693…; None for what is no number, or one of another dimension."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if not isinstance(value, str):
        return float(value)
    try:
        quantity = parse_quantity(value)
        return float(quantity.to(quantity.unit if unit is None else parse_unit(unit)))
    except UnitError:
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _units(sweep: Path, planned: Sequence[Planned]) -> dict[str, str]:
    """Dotted key -> unit, of all members that have started."""
    found: dict[str, str] = {}
    for member in planned:
        path = sweep / RUNS / member.name / UNITS
        try:
            found |= json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
    return found


def _logarithmic(path: Path) -> frozenset[str]:
    """Keys that the sweep file draws along a logarithm; none where there is no such file."""
    if not path.exists():
        return frozenset()
    try:
        content = YAML(typ="safe", pure=True).load(path)
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    drawn = content.get("loguniform") if isinstance(content, dict) else None
    return frozenset(drawn) if isinstance(drawn, dict) else frozenset()


# --- what figures and tables show ----------------------------------------------------------------------------------


def ticks(parameter: Parameter) -> list[Value]:
    """The parameter's values: numbers in their order, texts as they first come; None, for not set, last."""
    values = list(dict.fromkeys(parameter.values))
    known: list[Any] = [value for value in values if value is not None]
    return [*(sorted(known) if parameter.numeric else known), *([None] if None in values else [])]


def value_text(value: Value) -> str:
    if value is None:
        return "not set"
    return f"{value:g}" if isinstance(value, float) else value


def over_seeds(members: Sequence[Member], series: Series) -> Cell:
    """Mean over the members that have the number."""
    key = (series.head, series.metric)
    return cell({i: member.scores[key] for i, member in enumerate(members) if key in member.scores})


def points(sweep: Sweep, index: int, series: Series) -> list[Point]:
    """A point a setting that has the number, along the parameter of that index."""
    found = [Point(setting[index], setting, over_seeds(members, series)) for setting, members in sweep.settings.items()]
    return [point for point in found if point.cell.seeds]


def is_grid(sweep: Sweep) -> bool:
    """Whether two parameters vary, and the members' settings fill more than half of the table of their values."""
    if len(sweep.parameters) != 2:
        return False
    rows, columns = map(ticks, sweep.parameters)
    return 2 * len(sweep.settings) > len(rows) * len(columns)


def heat_map(sweep: Sweep, series: Series) -> HeatMap:
    """Of a sweep that `is_grid`: its first parameter goes along the rows."""
    settings = sweep.settings
    rows, columns = map(ticks, sweep.parameters)

    def at(row: Value, column: Value) -> tuple[Cell, int]:
        members = settings.get((row, column), [])
        return over_seeds(members, series), len(members)

    return HeatMap(rows, columns, [[at(row, column) for column in columns] for row in rows])
