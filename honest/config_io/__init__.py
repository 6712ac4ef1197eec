"""Configs as files: YAML 1.2 and ``--set`` overrides in, a `RunConfig` or all mistakes at once out.

A file is first made a plain mapping that remembers where each key was given (`document`); pydantic then
checks the mapping against the models of `config`, and its findings are told in the words of `messages`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from honest.config import RunConfig
from honest.config_io.document import ConfigError, Document, Place, Problem
from honest.config_io.messages import told
from honest.config_io.walk import differences, unit_fields, unit_table
from honest.config_io.wording import closest, did_you_mean
from honest.config_priors import FileScales
from honest.config_tasks import TableTask, WorldTask

__all__ = [
    "ConfigError",
    "LoadedConfig",
    "Place",
    "Problem",
    "differences",
    "dump_config",
    "load_config",
    "load_kind",
    "load_sections",
    "unit_fields",
    "unit_table",
]


M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class LoadedConfig:
    config: RunConfig
    path: Path


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> LoadedConfig:
    """Read a run's config; each override is ``key.path=YAML value``, and the last one of a key holds.

    A relative ``task.path`` is taken from the config file's folder, and is absolute in the result.
    Raises `ConfigError` with every mistake found.
    """
    path = Path(path)
    return LoadedConfig(_with_absolute_path(load_sections(path, RunConfig, overrides), path.parent), path)


def load_sections(path: Path, model: type[M], overrides: Sequence[str] = ()) -> M:
    """Any YAML file of `model`'s sections, strictly. Raises `ConfigError` with every mistake found."""
    document = Document(model)
    document.read_file(path)
    for number, override in enumerate(overrides, start=1):
        document.apply_override(number, override)
    if () not in document.places:  # no mapping was read, so that every key would be reported missing
        raise ConfigError(document.problems)
    try:
        loaded = model.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError([*document.problems, *told(error, document)]) from None
    if document.problems:
        raise ConfigError(document.problems)
    return loaded


def load_kind(path: Path, models: Mapping[str, type[M]], default: str) -> M:
    """A YAML file of one of several models, which its key `kind` names; without that key, of the default's.

    Raises `ConfigError` with every mistake found, of which an unknown kind is one.
    """
    document = Document(models[default])
    document.read_file(path)
    kind = document.data.get("kind", default)
    if str(kind) in models:
        return load_sections(path, models[str(kind)])
    advice = did_you_mean(closest(str(kind), list(models))) or f"give one of {', '.join(models)}"
    document.fail(document.place(("kind",)), ("kind",), f"there is no kind {kind!r} of world", advice)
    raise ConfigError(document.problems)


def _with_absolute_path(config: RunConfig, folder: Path) -> RunConfig:
    """Paths of tables, worlds and scales are meant from the config file's folder."""

    def absolute(section: Any) -> Any:
        if isinstance(section, TableTask | WorldTask | FileScales):
            return section.model_copy(update={"path": os.path.abspath(folder / Path(section.path).expanduser())})
        if not isinstance(section, BaseModel):
            return section
        return section.model_copy(update={name: absolute(value) for name, value in section})

    return absolute(config)


def dump_config(config: RunConfig) -> str:
    """YAML text of every field, which `load_config` reads back as an equal config."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 10**6
    text = StringIO()
    yaml.dump(config.model_dump(), text)
    return text.getvalue()
