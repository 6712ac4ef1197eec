"""What a benchmark is: a suite file, and the runs (members) that it stands for, all of them checked beforehand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from honest.config import MethodName, RunConfig
from honest.config_fields import Seed, Strict, Text, require
from honest.config_io import ConfigError, Place, Problem, load_config, load_sections
from honest.config_io.document import Document, KeyPath
from honest.config_tasks import TableTask, WorldTask
from honest.errors import UserError
from honest.run import Tasks
from honest.train.shared_trunk import other_settings
from honest.train.stage import helped_task

OWN_KEYS = ("name", "seed", "task.seed", "methods")  # of a member, which the suite's own keys say
OWN_OVERRIDES = 4  # at most, of a member: after those of its task and entry
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # of a task or an entry: it becomes a folder
Overrides = list[Text]  # each "key.path=YAML value", as after --set


class SuiteTask(Strict):
    config: Text  # relative to the suite file's folder unless absolute
    set: Overrides
    skip: list[MethodName]  # methods that this task leaves out of every entry


class SuiteEntry(Strict):
    methods: Annotated[list[MethodName], Field(min_length=1)]
    set: Overrides


class Suite(Strict):
    """The first entry trains the trunk of each task and seed; the others take it from there."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    new_data_per_seed: bool  # each seed draws its own (task.seed = seed), or all have the config's
    tasks: Annotated[dict[str, SuiteTask], Field(min_length=1)]
    entries: Annotated[dict[str, SuiteEntry], Field(min_length=1)]

    @model_validator(mode="after")
    def names_and_seeds(self):
        twice = sorted({seed for seed in self.seeds if self.seeds.count(seed) > 1})
        names = [(section, name) for section in ("tasks", "entries") for name in getattr(self, section)]
        what = "is no name for a folder: letters, digits, _ and -, the first a letter or digit"
        sets = {
            f"{kind}.{name}.set": each.set
            for kind in ("tasks", "entries")
            for name, each in getattr(self, kind).items()
        }
        taken = [(f"{at}.{i}", text) for at, texts in sets.items() for i, text in enumerate(texts)]
        require(
            (not twice, "seeds", f"names {', '.join(map(str, twice))} more than once"),
            *((bool(NAME.fullmatch(name)), f"{section}.{name}", what) for section, name in names),
            *(
                (
                    text.split("=")[0].strip() not in OWN_KEYS,
                    at,
                    f"{text}: the suite's own seeds, methods and names set it",
                )
                for at, text in taken
            ),
        )
        return self


@dataclass(frozen=True)
class Member:
    """One run: its config file, the overrides that make it what it is, and the config that results."""

    task: str
    seed: int
    entry: str
    source: Path
    overrides: tuple[str, ...]
    config: RunConfig
    trunk: str | None  # the entry whose run lends its trunk; None for that entry itself

    @property
    def group(self) -> str:
        """Members of one group share a trunk."""
        return f"{self.task}/seed_{self.seed}"

    @property
    def name(self) -> str:
        return f"{self.group}/{self.entry}"


@dataclass(frozen=True)
class LoadedSuite:
    suite: Suite
    path: Path
    members: tuple[Member, ...]  # by task and seed; the one that trains the trunk before those that take it over


def load_suite(path: Path) -> LoadedSuite:
    """Reads a suite and the config of every member. Raises `ConfigError` with every mistake found in any of them."""
    suite = load_sections(path, Suite)
    places = Document(Suite)
    places.read_file(path)
    members: list[Member] = []
    problems: dict[Problem, None] = {}
    for task, seed, entry in combinations(suite):
        if not methods_of(suite, task, entry):
            continue
        try:
            members.append(_member(path, suite, task, seed, entry))
        except ConfigError as error:
            keys = _override_keys(suite, task, entry)
            keys += [("entries", entry, "methods")] * OWN_OVERRIDES
            problems |= dict.fromkeys(
                places.told_at(problem, keys, ("tasks", task, "config")) for problem in error.problems
            )
    problems.update(dict.fromkeys(_misfits(suite, members, places)))
    if problems:
        raise ConfigError(list(problems))
    if not members:
        raise UserError(f"{path}: every task skips every method; there is nothing to run")
    return LoadedSuite(suite, path, tuple(members))


def chosen(suite: LoadedSuite, patterns: Sequence[str]) -> tuple[Member, ...]:
    """Members whose TASK/seed_S or TASK/seed_S/ENTRY matches a shell pattern, and those that lend them their trunk.

    All without any pattern. UserError: one that nothing matches.
    """
    wanted: set[str] = set()
    for pattern in patterns:
        found = [m for m in suite.members if fnmatchcase(m.group, pattern) or fnmatchcase(m.name, pattern)]
        if not found:
            there = ", ".join(dict.fromkeys(f"{member.task}/seed_…" for member in suite.members))
            seeds, entries = ", ".join(map(str, suite.suite.seeds)), ", ".join(suite.suite.entries)
            raise UserError(
                f"--only {pattern}: no TASK/seed_S or TASK/seed_S/ENTRY of {suite.path} matches. "
                f"There are {there}, seeds {seeds}, entries {entries}"
            )
        wanted |= {name for m in found for name in (m.name, f"{m.group}/{m.trunk or m.entry}")}
    return tuple(member for member in suite.members if not patterns or member.name in wanted)


def methods_of(suite: Suite, task: str, entry: str) -> list[MethodName]:
    """The entry's methods, but for those that the task skips."""
    return [name for name in suite.entries[entry].methods if name not in suite.tasks[task].skip]


def combinations(suite: Suite) -> Iterator[tuple[str, int, str]]:
    """(task, seed, entry) of every member, in the order of the file."""
    for task in suite.tasks:
        for seed in suite.seeds:
            for entry in suite.entries:
                yield task, seed, entry


def _member(path: Path, suite: Suite, task: str, seed: int, entry: str) -> Member:
    first = next(iter(suite.entries))
    source = path.parent / Path(suite.tasks[task].config).expanduser()
    methods = f"methods=[{', '.join(methods_of(suite, task, entry))}]"
    data = (f"task.seed={seed}",) if suite.new_data_per_seed else ()
    own = (methods, f"seed={seed}", *data, f"name={suite.name}-{task}-{entry}-seed_{seed}")
    overrides = (*suite.tasks[task].set, *suite.entries[entry].set, *own)
    config = load_config(source, overrides).config
    return Member(task, seed, entry, source, overrides, config, None if entry == first else first)


def _override_keys(suite: Suite, task: str, entry: str) -> list[KeyPath]:
    """Where in the suite each override of a member stands, but for those that the suite adds itself."""
    lists = (("tasks", task, suite.tasks[task].set), ("entries", entry, suite.entries[entry].set))
    return [(section, name, "set", str(index)) for section, name, items in lists for index in range(len(items))]


def _misfits(suite: Suite, members: list[Member], places: Document) -> Iterator[Problem]:
    """Tasks whose files cannot be read or are too small, and entries that cannot take over the first one's trunk."""
    lenders = {member.group: member for member in members if member.trunk is None}
    tasks = Tasks()
    for member in {(member.task, member.entry): member for member in reversed(members)}.values():
        yield from _unfit(member, tasks, places.place(("tasks", member.task)))
    for member in members:
        lender = lenders.get(member.group)
        if lender is None:
            if not methods_of(suite, member.task, member.trunk or member.entry):  # else the lender's config is wrong
                what = f"skips every method of {member.trunk}, whose trunk {member.entry} takes over"
                hint = "leave it one of them, or put another entry first"
                yield Problem(places.place(("tasks", member.task)), f"tasks.{member.task}.skip", what, hint)
            continue
        changed = other_settings(lender.config, member.config)
        if changed:
            key = f"entries.{member.entry}"
            what = f"takes over the trunk of {member.trunk}, but has other settings: {'; '.join(changed)}"
            place = places.place(("entries", member.entry))
            yield Problem(place, key, what, "set these keys under tasks, or in the first entry as well")


def _unfit(member: Member, tasks: Tasks, at: Place) -> Iterator[Problem]:
    """What is wrong with a file that the task is made from, or with a prior that asks for more rows than it has."""
    section, key = member.config.task, f"tasks.{member.task}"
    if not isinstance(section, TableTask | WorldTask):
        return  # how many rows there are stands in the config
    try:
        task = tasks(section)
    except UserError as error:
        yield Problem(at, key, str(error), "name another file with task.path=FILE under set")
        return
    try:
        helped_task(member.config, task)
    except UserError as error:
        yield Problem(at, key, f"entry {member.entry}: {error}", "set it under the task or the entry")
