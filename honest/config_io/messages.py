"""What pydantic found wrong with a config, told with place, key, value and what to write instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from honest.config_fields import Inconsistent
from honest.config_io.document import Document, KeyPath, Problem
from honest.config_io.wording import (
    as_number,
    choices,
    closest,
    did_you_mean,
    entry,
    expectation,
    kinds,
    one_of,
    section_models,
    shown,
    unit_of,
    value_type,
)

OUT_OF_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number")


class Finding(NamedTuple):
    """One of pydantic's errors, located in the config's own terms."""

    error: Any  # pydantic's ErrorDetails
    path: KeyPath
    section: type[BaseModel]  # the model that has, or lacks, the last key
    info: FieldInfo | None  # of the last key; None for an unknown key


def told(error: ValidationError, document: Document) -> list[Problem]:
    """A `Problem` for each of pydantic's errors; a misspelt key is not told as missing as well."""
    findings = [_located(details, document.model) for details in error.errors(include_url=False)]
    unknown = [finding for finding in findings if finding.error["type"] == "extra_forbidden"]
    misspelt = {key for finding in unknown for key in _misspelt(finding, document)}
    problems = []
    for finding in findings:
        if finding.error["type"] != "missing" or ".".join(finding.path) not in misspelt:
            problems.extend(_problems(finding, document))
    return problems


def _located(error: Any, model: type[BaseModel]) -> Finding:
    """Drops the words that pydantic adds to a location for the chosen member of a union."""
    section = model
    models: list[type[BaseModel]] = [model]
    info: FieldInfo | None = None
    path: KeyPath = ()
    steps = list(error["loc"])
    while steps:
        section = models[0]
        key = str(steps.pop(0))
        path, info = (*path, key), section.model_fields.get(key)
        if info is None:
            break
        while steps and (each := entry(info)) is not None:  # a free key, or an index
            path, info = (*path, str(steps.pop(0))), each
        models = section_models(info)
        if steps and kinds(info):
            models = [kinds(info)[steps.pop(0)]]
        if not models:
            break
    return Finding(error, path, section, info)


def _problems(finding: Finding, document: Document) -> list[Problem]:
    error, path, _, info = finding
    kind, value = error["type"], error["input"]
    cause = error["ctx"]["error"] if kind == "value_error" else None

    def problem(what: str, advice: str, key: KeyPath = path) -> Problem:
        return Problem(document.place(key), ".".join(key), what, advice)

    if isinstance(cause, Inconsistent):
        keys = [((*path, *key.split(".")), what) for key, what in cause.problems]
        return [problem(what, "change one of them", key) for key, what in keys]
    if kind == "extra_forbidden":
        return [problem(f"unknown key{_given(value)}", _advice_on_key(finding, document))]
    assert info is not None  # only an unknown key has no field
    if kind == "missing":
        return [problem("missing key", f"give it {expectation(info)}")]
    if kind.startswith("union_tag"):
        return [_wrong_kind(finding, document)]
    advice = f"expected {expectation(info)}{_on_quotes(info, value)}"
    if kind == "literal_error":
        advice = " ".join(filter(None, [did_you_mean(closest(value, map(str, choices(info)))), advice]))
    return [problem(_what(finding, cause) + _given(value), advice)]


def _what(finding: Finding, cause: Exception | None) -> str:
    kind = finding.error["type"]
    if cause is not None:
        return str(cause)
    if finding.info is not None and unit_of(finding.info) and isinstance(finding.error["input"], int | float):
        return "number without its unit"
    if kind in OUT_OF_RANGE:
        return "out of range"
    match kind:
        case "literal_error":
            return "unknown value"
        case "string_too_short":
            return "empty text"
        case "string_pattern_mismatch":
            return "not of the allowed form"
    return "wrong type"


def _wrong_kind(finding: Finding, document: Document) -> Problem:
    """A union section whose choosing key (``task.kind``) is missing or unknown."""
    info, section = finding.info, finding.error["input"]
    assert info is not None and isinstance(info.discriminator, str)
    path = (*finding.path, info.discriminator)
    allowed = one_of(kinds(info))
    key, place = ".".join(path), document.place(path)
    if info.discriminator not in section:
        return Problem(place, key, "missing key", f"give it {allowed}")
    word = section[info.discriminator]
    advice = " ".join(filter(None, [did_you_mean(closest(word, kinds(info))), f"expected {allowed}"]))
    return Problem(place, key, f"unknown value{_given(word)}", advice)


def _given(value: Any) -> str:
    return f" (value given: {shown(value)})"


def _on_quotes(info: FieldInfo, value: Any) -> str:
    """A hint where the value would be right with, or without, quotes around it."""
    core = value_type(info).core
    if core in (int, float) and isinstance(value, str) and as_number(value):
        return ", without quotes"
    if core is bool and value in ("true", "false"):
        return ", without quotes"
    if core is str and isinstance(value, int | float) and not unit_of(info):
        return ", in quotes"
    return ""


def _elsewhere(finding: Finding, document: Document) -> list[str]:
    """The dotted keys of other sections that end in the unknown key."""
    path, name = ".".join(finding.path), finding.path[-1]
    keys = dict.fromkeys(_all_keys(document.model))
    return [key for key in keys if key.rpartition(".")[2] == name and key != path]


def _misspelt(finding: Finding, document: Document) -> list[str]:
    """The dotted key of the same section that an unknown key comes closest to, if it is no key elsewhere."""
    if _elsewhere(finding, document):
        return []
    *section, name = finding.path
    return [".".join([*section, key]) for key in closest(name, finding.section.model_fields)]


def _advice_on_key(finding: Finding, document: Document) -> str:
    question = did_you_mean(_elsewhere(finding, document) or _misspelt(finding, document))
    return " ".join(filter(None, [question, f"allowed here: {', '.join(finding.section.model_fields)}"]))


def _all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        yield prefix + name
        for section in section_models(info):
            yield from _all_keys(section, f"{prefix}{name}.")
