"""A config's YAML text as a plain mapping that remembers where each key was given, and what was wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel
from ruamel.yaml import YAML, MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from honest.config_io.wording import closest, did_you_mean, shown
from honest.errors import UserError

KeyPath = tuple[str, ...]


class Place(NamedTuple):
    """Where a key was given; places sort in reading order, the file before the overrides."""

    source: int  # 0 is the file, n is the n-th override
    line: int
    text: str  # "configs/quickstart.yaml:12" or "--set seed=-1"


class Problem(NamedTuple):
    place: Place
    key: str  # dotted; empty for the file as a whole
    what: str
    advice: str

    def __str__(self) -> str:
        """One line, "file:line: key.path: what is wrong (value given: …); what to do"."""
        return ": ".join(part for part in (self.place.text, self.key, self.what) if part) + f"; {self.advice}"


class ConfigError(UserError):
    """Every mistake found in a config and its overrides; `str` has one line for each, in reading order."""

    def __init__(self, problems: Sequence[Problem]):
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass
class Document:
    """A config of `model` as a plain mapping, the place at which each key was given, and what was wrong so far.

    The items of a list have their indices as keys.
    """

    model: type[BaseModel]
    data: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def read_file(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            self.fail(Place(0, 0, str(path)), (), f"cannot be read ({error.strerror})", _near_files(path))
            return
        except UnicodeDecodeError as error:
            self.fail(Place(0, 0, str(path)), (), f"byte {error.start} is not UTF-8", "save it as UTF-8")
            return
        reader = _Reader(self, 0, str(path))
        node = reader.compose(text)
        if isinstance(node, MappingNode):
            self.places[()] = reader.place(node.start_mark.line)
            self.data = reader.plain(node, ())
        elif not reader.failed:
            sections = ", ".join(self.model.model_fields)
            self.fail(reader.place(0), (), "holds no keys", f"give it the keys {sections}")

    def apply_override(self, number: int, override: str) -> None:
        key, equals, text = override.partition("=")
        place = Place(number, 0, f"--set {override}")
        names = tuple(key.strip().split("."))
        if not equals or not all(names):
            self.fail(place, (), "is not of the form key.path=value", "e.g. --set stages.prior.steps=10")
            return
        reader = _Reader(self, number, f"--set {override}")
        node = reader.compose(text)
        if reader.failed:
            return
        section = self.data
        for depth, name in enumerate(names[:-1], start=1):
            if section.get(name) is None:
                section[name] = {}
                self.places[names[:depth]] = place
            section = section[name]
            if not isinstance(section, dict):
                what = f"has the value {shown(section)}, so nothing can be set below it"
                self.fail(place, names[:depth], what, "set the key itself")
                return
        self.places = {path: at for path, at in self.places.items() if path[: len(names)] != names}
        self.places[names] = place
        section[names[-1]] = None if node is None else reader.plain(node, names)

    def place(self, path: KeyPath) -> Place:
        """Where `path`, or else the innermost section around it, was given."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]

    def told_at(self, problem: Problem, overrides: Sequence[KeyPath], base: KeyPath) -> Problem:
        """A mistake in another config that this file asks for, at this file's line that made it.

        overrides: where in this file each override of that config stands. base: where the config's own file is named.
        A mistake in that file keeps its place.
        """
        source, line, text = problem.place
        if source == 0 and line > 0:
            return problem
        key = overrides[source - 1] if 1 <= source <= len(overrides) else base
        at = self.place(key)
        return problem._replace(place=Place(0, at.line, f"{at.text}: {'.'.join(key[:2])}: {text}"))

    def fail(self, place: Place, path: KeyPath, what: str, advice: str) -> None:
        self.problems.append(Problem(place, ".".join(path), what, advice))


class _Reader:
    """Turns one YAML text into plain values, noting places and problems in a `Document`."""

    def __init__(self, document: Document, source: int, name: str):
        self.document, self.source, self.name, self.failed = document, source, name, False
        self.yaml = YAML(typ="safe", pure=True)
        self.around: list[Node] = []  # the nodes that hold the one being read

    def place(self, line: int, column: int | None = None) -> Place:
        """The place of a line and column counted from 0; an override has only its own name."""
        if self.source:
            return Place(self.source, line + 1, self.name)
        tail = "" if column is None else f":{column + 1}"
        return Place(0, line + 1, f"{self.name}:{line + 1}{tail}")

    def compose(self, text: str) -> Node | None:
        try:
            return self.yaml.compose(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = self.place(mark.line, mark.column)
            what = " ".join(filter(None, [error.problem, error.context]))
        except ReaderError as error:
            before = text[: error.position]
            place = self.place(before.count("\n"), len(before) - before.rfind("\n") - 1)
            what = f"character {error.character:#x} is not allowed"
        self.failed = True
        self.document.fail(place, (), f"not YAML: {what}", "quote text with any of : # & * { } [ ]")
        return None

    def plain(self, node: Node, path: KeyPath) -> Any:
        """The node's value; `path` is its key. What is wrong inside is noted and left out."""
        if any(node is outer for outer in self.around):
            self.document.fail(self.document.place(path), path, "holds itself by an alias (*)", "write the section out")
            return None
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        self.around.append(node)
        if isinstance(node, SequenceNode):
            value: Any = [self._item(item, (*path, str(index))) for index, item in enumerate(node.value)]
        else:
            value = self._mapping(node, path)
        self.around.pop()
        return value

    def _item(self, node: Node, path: KeyPath) -> Any:
        self.document.places[path] = self.place(node.start_mark.line)
        return self.plain(node, path)

    def _scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        if node.tag == "tag:yaml.org,2002:timestamp":  # YAML 1.2 has no dates: text
            return node.value
        try:
            return self.yaml.constructor.construct_object(node)
        except (YAMLError, ValueError):
            self.document.fail(self.document.place(path), path, f"tag {node.tag} does not fit", "leave the tag out")
            return node.value

    def _mapping(self, node: Node, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = self.place(key_node.start_mark.line)
            if not isinstance(key_node, ScalarNode):
                self.document.fail(place, path, "a key is a single word", "text with { or [ goes in quotes")
                continue
            key = str(key_node.value)
            inner = (*path, key)
            if key in values:
                given = f"first given in {self.document.places[inner].text}"
                self.document.fail(place, inner, f"duplicate key, {given}", "keep one of the two")
                continue
            self.document.places[inner] = place
            values[key] = self.plain(value_node, inner)
        return values


def _near_files(path: Path) -> str:
    names = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    return did_you_mean(closest(path.name, names)) or "give the path of a YAML file"
