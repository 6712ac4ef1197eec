"""Walks over a config's fields: their units, and how two configs differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from honest.config import RunConfig
from honest.config_fields import CountOf, InUnit
from honest.config_io.wording import entry, shown, value_type


def unit_table(config: RunConfig) -> dict[str, str]:
    """Dotted key -> unit, for every field whose type names one; a plain count names what it counts."""
    units = {}
    for key, _, metadata in leaves(config):
        for marker in metadata:
            if isinstance(marker, InUnit | CountOf):
                units[key] = str(marker.unit)
    return units


def unit_fields(config: RunConfig) -> dict[str, tuple[str, str]]:
    """Dotted key -> (value as written, unit), for every field that has a unit or counts something."""
    units = unit_table(config)
    return {key: (str(value), units[key]) for key, value, _ in leaves(config) if key in units}


def differences(a: RunConfig, b: RunConfig) -> list[str]:
    """Lines "key: run has X, command asks Y" for the run's config `a` and the command's `b`.

    Fields with a unit differ by value, so that "1 θ.trunk" and "1.0 theta.trunk" are the same.
    """
    has, asks = ({key: (value, meta) for key, value, meta in leaves(config)} for config in (a, b))
    lines = []
    for key in dict.fromkeys([*has, *asks]):
        if key in has and key in asks and _comparable(*has[key]) == _comparable(*asks[key]):
            continue
        old, new = (shown(side[key][0]) if key in side else "no such key" for side in (has, asks))
        lines.append(f"{key}: run has {old}, command asks {new}")
    return lines


def _comparable(value: Any, metadata: Sequence[Any]) -> Any:
    in_unit = next((m for m in metadata if isinstance(m, InUnit)), None)
    return value if in_unit is None else in_unit.value(value)


def leaves(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, list[Any]]]:
    """(dotted key, value, what its type is annotated with) of every field that is not a section."""
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{prefix}{name}.")
        elif isinstance(value, dict) and (each := entry(info)) is not None:
            for key, item in value.items():
                yield f"{prefix}{name}.{key}", item, value_type(each).metadata
        else:
            yield prefix + name, value, value_type(info).metadata
