"""What runs are called by what differs between their configs, and the numeric key along which they can be drawn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

ERROR_RATE = "task.error_rate"
NAMES = ("name", "seed", "task.seed")  # differ between runs of one experiment
# Where and how it ran, not what.
MACHINE = ("parallel.", "checkpoint.", "compute.rematerialise", "compute.micro_batches")


class Parameter(NamedTuple):
    """What differs between runs. key: dotted, of the config; unit: of its numbers, "" for bare ones and for texts.

    values: of each run, either numbers or texts; None where its config has no such number, or no such key.
    """

    key: str
    unit: str
    values: tuple[float | str | None, ...]

    @property
    def numeric(self) -> bool:
        return not any(isinstance(value, str) for value in self.values)

    @property
    def label(self) -> str:
        return f"{self.key} ({self.unit})" if self.unit else self.key


class Along(NamedTuple):
    """The one numeric parameter along which runs can be drawn, and what the panel of each run is called."""

    parameter: Parameter
    panels: list[str]


def differing(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Dotted keys in which the flat configs differ, names, seeds and machine apart, in the order of the configs."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return [
        key
        for key in keys
        if key not in NAMES and not key.startswith(MACHINE) and len({repr(config.get(key)) for config in configs}) > 1
    ]


def label_runs(configs: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """(task, entry) of each run: the kind of task and all else that differs in its section; the other differences.

    The error rate of the labels is a treatment of a task, not a task of its own.
    """
    changed = differing(configs)
    of_task = [key for key in changed if key.startswith("task.") and key not in (ERROR_RATE, "task.kind")]
    of_entry = [key for key in changed if not key.startswith("task.") or key == ERROR_RATE]
    labels = []
    for config in configs:
        task = ", ".join([str(config.get("task.kind", "task")), *_stated(config, of_task)])
        entry = ", ".join(_stated(config, of_entry)) or str(config.get("name", "run"))
        labels.append((task, entry))
    return labels


def _stated(config: dict[str, Any], keys: Sequence[str]) -> list[str]:
    """key=value, by the key's last two words (of the task: without that word), which tell it apart in these configs."""
    return [f"{'.'.join(key.removeprefix('task.').split('.')[-2:])}={config[key]}" for key in keys if key in config]


def natural(text: str) -> list[tuple[float, str]]:
    """Sorts texts by the numbers in them."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)", text)
    return [(float(part), "") if i % 2 else (-1.0, part) for i, part in enumerate(parts)]


def find_along(configs: Sequence[dict[str, Any]], tasks: Sequence[str]) -> Along | None:
    """Along the labels' error rate where it differs; else along the one numeric key in which runs of a task differ.

    tasks: of each run. None: nothing was swept. Runs whose other keys differ stand in panels of their own.
    """
    rates = {config.get(ERROR_RATE) for config in configs} - {None}  # tasks without such a key beside one with it
    key = ERROR_RATE if len(rates) > 1 else _single(configs, tasks)
    if key is None:
        return None
    numbers = [number_and_unit(config.get(key)) for config in configs]
    if len({number[1] for number in numbers if number}) != 1:
        return None
    others = [other for other in differing(configs) if other != key]
    unit = next(number[1] for number in numbers if number)
    values = tuple(number[0] if number else None for number in numbers)
    in_benchmark = len(set(tasks)) > 1 and key != ERROR_RATE
    panels = [
        task if in_benchmark else ", ".join(_stated(config, others))
        for config, task in zip(configs, tasks, strict=True)
    ]
    return Along(Parameter(key, unit, values), panels)


def _single(configs: Sequence[dict[str, Any]], tasks: Sequence[str]) -> str | None:
    found: set[tuple[str, ...]] = set()
    for task in set(tasks):
        found.add(tuple(differing([c for c, of in zip(configs, tasks, strict=True) if of == task])))
    keys = {key for group in found for key in group}
    return keys.pop() if len(keys) == 1 and all(len(group) == 1 for group in found) else None


def number_and_unit(value: Any) -> tuple[float, str] | None:
    """3 -> (3, ""); "0.01 nat" -> (0.01, "nat"); None for what is no number."""
    if isinstance(value, bool) or value is None:
        return None
    number, _, unit = str(value).partition(" ")
    try:
        return float(number), unit
    except ValueError:
        return None
