"""The members that a sweep's file stands for, each with its config, all of them checked before one starts."""

from __future__ import annotations

import itertools
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from honest.config import RunConfig
from honest.config_io import ConfigError, Problem, load_config, load_sections
from honest.config_io.document import Document, KeyPath
from honest.data.tasks.rule import Row, Rule
from honest.data.tasks.rule_parser import parse_rule
from honest.data.vocabulary import DataError
from honest.errors import UserError
from honest.sweep.spec import SECTIONS, Sweep, number_and_unit
from honest.units import UnitError

DIGITS = 4  # significant ones of a drawn number, so that the text in the config and the name is the number
LONGEST = 150  # characters of a member's name
Values = dict[str, Any]  # dotted key -> value as in YAML


@dataclass(frozen=True)
class Member:
    """One run. parameters: what the sweep varies. overrides: as after --set, in this order."""

    name: str
    parameters: Values
    overrides: tuple[str, ...]
    config: RunConfig


@dataclass(frozen=True)
class LoadedSweep:
    sweep: Sweep
    path: Path
    members: tuple[Member, ...]
    left_out: int  # combinations that break a constraint


def load_sweep(path: Path) -> LoadedSweep:
    """Reads a sweep and the config of every member. Raises `ConfigError` with every mistake found in any of them."""
    sweep = load_sections(path, Sweep)
    places = Document(Sweep)
    places.read_file(path)
    source = path.parent / Path(sweep.base).expanduser()
    rules = constraints_of(sweep, places)
    asked = list(combinations(sweep))
    kept = [values for values in asked if all(rule.holds(_row(values, path)) for rule in rules)]
    if not kept:
        raise UserError(f"{path}: constraints: none of the {len(asked)} combinations satisfies them all")
    members: list[Member] = []
    problems: dict[Problem, None] = {}
    for name, values in zip(names(kept), kept, strict=True):
        try:
            members.append(_member(sweep, source, name, values))
        except ConfigError as error:
            keys = [*(("set", str(index)) for index in range(len(sweep.set))), *(where(sweep, key) for key in values)]
            problems |= dict.fromkeys(places.told_at(problem, keys, ("base",)) for problem in error.problems)
    if problems:
        raise ConfigError(list(problems))
    return LoadedSweep(sweep, path, tuple(members), len(asked) - len(kept))


def combinations(sweep: Sweep) -> Iterator[Values]:
    """The parameters of every member, constraints aside: samples outermost, then the zip, then the grid."""
    grid = [[(key, value) for value in values] for key, values in sweep.grid.items()]
    zipped = [list(zip(sweep.zip, row)) for row in zip(*sweep.zip.values())] or [[]]
    for drawn in draws(sweep):
        for row in zipped:
            for cell in itertools.product(*grid):
                yield {**dict(cell), **dict(row), **drawn}


def draws(sweep: Sweep) -> list[Values]:
    """`samples` draws; each key has a stream of its own, so that another key or sample changes none of them."""
    if sweep.samples is None or sweep.seed is None:
        return [{}]
    drawn: list[Values] = [{} for _ in range(sweep.samples)]
    for kind in ("choice", "uniform", "loguniform"):
        for key, values in getattr(sweep, kind).items():
            rng = np.random.default_rng([sweep.seed, zlib.crc32(key.encode())])
            for sample in drawn:
                sample[key] = _draw(kind, values, rng)
    return drawn


def _draw(kind: str, values: Sequence[Any], rng: np.random.Generator) -> Any:
    position = rng.random()
    if kind == "choice":
        return values[int(position * len(values))]
    (low, unit), (high, _) = map(number_and_unit, values)
    number = low + position * (high - low) if kind == "uniform" else low * (high / low) ** position
    text = f"{number:.{DIGITS}g}"
    return f"{text} {unit}" if unit else float(text)


def constraints_of(sweep: Sweep, places: Document) -> list[Rule]:
    """Raises `ConfigError` where one does not parse, or names what is no key of the sweep."""
    varied = {key for name in SECTIONS for key in getattr(sweep, name)}
    rules, problems = [], []
    for index, text in enumerate(sweep.constraints):
        place, key = places.place(("constraints", str(index))), f"constraints.{index}"
        try:
            rule = parse_rule(text, key, answers=False)
        except DataError as error:
            problems.append(Problem(place, key, str(error), "keys go in backticks: `objective.multiplier.initial` < 1"))
            continue
        rules.append(rule)
        unknown = [name for name in rule.columns if name not in varied]
        if unknown:
            what = f"{', '.join(unknown)}: not varied by this sweep"
            problems.append(Problem(place, key, what, f"varied are {', '.join(sorted(varied))}"))
    if problems:
        raise ConfigError(problems)
    return rules


def _row(values: Values, path: Path) -> Row:
    """Values as the cells of a table: a number with a unit counts as the number."""
    cells = {}
    for key, value in values.items():
        try:
            cells[key] = repr(number_and_unit(value)[0])
        except UnitError:
            cells[key] = str(value).lower() if isinstance(value, bool) else str(value)
    return Row(cells, {}, str(path))


def where(sweep: Sweep, key: str) -> KeyPath:
    """The section of the sweep's file that varies the key."""
    return next((name, key) for name in SECTIONS if key in getattr(sweep, name))


def names(members: Sequence[Values]) -> list[str]:
    """A name for each, made of what the sweep varies: "stddev=0.3,seed=1".

    A key is called by its shortest end that no other varied key has. Units are left out, and what is no letter, digit,
    ".", "_", "+" or "-" becomes "-". Members that would have one name get a number; a name too long for a folder is
    cut, and ends with a checksum.
    """
    keys = list(members[0])
    called = {key: shortest_end(key, keys) for key in keys}
    made = [_short(",".join(f"{called[key]}={_word(values[key])}" for key in keys)) for values in members]
    count, seen = Counter(made), Counter[str]()
    numbered = []
    for name in made:
        seen[name] += 1
        numbered.append(name if count[name] == 1 else f"{name},number={seen[name]}")
    return numbered


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}-{zlib.crc32(name.encode()):08x}"


def shortest_end(key: str, keys: Sequence[str]) -> str:
    """The end that no other key has; the whole key where it is itself another one's end (seed, beside task.seed)."""
    parts = key.split(".")
    ends = (".".join(parts[-n:]) for n in range(1, len(parts) + 1))
    others = [other for other in keys if other != key]
    return next((end for end in ends if not any(other == end or other.endswith(f".{end}") for other in others)), key)


def _word(value: Any) -> str:
    try:
        text = str(value).split(" ")[0] if number_and_unit(value)[1] else str(value)
    except UnitError:
        text = _flat(value)
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-") or "none"


def _flat(value: Any) -> str:
    """A mapping or list by its values alone."""
    if isinstance(value, Mapping):
        return "-".join(map(_flat, value.values()))
    return "-".join(map(_flat, value)) if isinstance(value, list) else str(value)


def _member(sweep: Sweep, source: Path, name: str, values: Values) -> Member:
    stated = tuple(f"{key}={_yaml(value)}" for key, value in values.items())
    overrides = (*sweep.set, *stated, f"name={sweep.name}-{_plain(name)}")
    return Member(name, values, overrides, load_config(source, overrides).config)


def _plain(name: str) -> str:
    """A member's name as part of a run's, which has no "=" and ",", and no "+"."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)


def _yaml(value: Any) -> str:
    """The value in one line, as an override has it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_yaml(key)}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)
