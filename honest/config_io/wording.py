"""The words for a config's values and for what a field expects, read off the types in `config`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from honest.config_fields import InUnit

TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
LONGEST_SHOWN = 60  # characters of a value in a message


class ValueType(NamedTuple):
    """A field's type without its ``Annotated`` and ``| None`` wrappings, and what those said."""

    core: Any
    metadata: list[Any]
    nullable: bool


def value_type(info: FieldInfo) -> ValueType:
    core: Any = info.annotation
    metadata, nullable = list(info.metadata), False
    if get_origin(core) in (Union, UnionType) and type(None) in get_args(core):
        nullable = True
        core = Union[tuple(option for option in get_args(core) if option is not type(None))]  # noqa: UP007
    if get_origin(core) is Annotated:
        core, *extra = get_args(core)
        for item in extra:
            metadata.extend(item.metadata if isinstance(item, FieldInfo) else [item])
    return ValueType(core, metadata, nullable)


def entry(info: FieldInfo) -> FieldInfo | None:
    """What a mapping with free keys holds under each of them, and a list at each index; None for other fields."""
    core = value_type(info).core
    return FieldInfo.from_annotation(get_args(core)[-1]) if get_origin(core) in (dict, list) else None


def section_models(info: FieldInfo) -> list[type[BaseModel]]:
    """The models that a field may hold: none for a plain value, several for a union."""
    core = value_type(info).core
    options = get_args(core) if get_origin(core) in (Union, UnionType) else (core,)
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]


def kinds(info: FieldInfo) -> dict[str, type[BaseModel]]:
    """The models of a union by the word that chooses between them, e.g. by ``kind``."""
    by_word = {}
    for model in section_models(info):
        if isinstance(info.discriminator, str):
            by_word.update(dict.fromkeys(get_args(model.model_fields[info.discriminator].annotation), model))
    return by_word


def choices(info: FieldInfo) -> tuple[Any, ...]:
    """The values that a ``Literal`` field allows."""
    core = value_type(info).core
    return get_args(core) if get_origin(core) is Literal else ()


def unit_of(info: FieldInfo) -> str:
    """The unit that a text field must be in, empty for other fields."""
    return "".join(str(item.unit) for item in value_type(info).metadata if isinstance(item, InUnit))


def expectation(info: FieldInfo) -> str:
    """What the field takes, e.g. "a whole number ≥ 1 or null"."""
    core, metadata, nullable = value_type(info)
    if unit_of(info):
        text = f"a positive number and its unit, e.g. 1.0 {unit_of(info)}"
    elif kinds(info):
        text = f"a section whose {info.discriminator} is {one_of(kinds(info))}"
    elif section_models(info):
        text = f"a section with the keys {', '.join(section_models(info)[0].model_fields)}"
    elif choices(info):
        text = one_of(choices(info))
    elif (each := entry(info)) is not None:
        container = "a list" if get_origin(core) is list else "a section"
        text = f"{container} whose values are each {expectation(each)}"
    else:
        text = " ".join([TYPE_NAMES[core], *_bounds(metadata)])
    return text + " or null" if nullable else text


def _bounds(metadata: Iterable[Any]) -> list[str]:
    bounds = []
    for item in metadata:
        match item:
            case Ge(ge=low):
                bounds.append(f"≥ {low}")
            case Gt(gt=low):
                bounds.append(f"> {low}")
            case Le(le=high):
                bounds.append(f"≤ {high}")
            case Lt(lt=high):
                bounds.append(f"< {high}")
            case MinLen(min_length=length):
                bounds.append(f"of length ≥ {length}")
            case _ if hasattr(item, "pattern"):
                bounds.append(f"of the form {item.pattern}")
    return [" and ".join(bounds)] if bounds else []


def one_of(words: Iterable[Any]) -> str:
    return "one of " + ", ".join(repr(word) for word in words)


def closest(word: Any, words: Iterable[str]) -> list[str]:
    """The one of `words` that `word` may be a misspelling of, or an empty list."""
    return difflib.get_close_matches(str(word), list(words), n=1)


def did_you_mean(words: Iterable[str]) -> str:
    """`words` as a question, or nothing where there are none."""
    asked = " or ".join(map(repr, words))
    return f"did you mean {asked}?" if asked else ""


def as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def shown(value: Any) -> str:
    """A value as a person would write it in YAML, shortened."""
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):  # whole: two that differ must not read alike
        return f"[{', '.join(item if isinstance(item, str) else shown(item) for item in value)}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"
