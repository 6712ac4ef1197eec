"""The layers of the package: a module imports only from its own layer or an earlier one, and stays short."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "honest"
LAYERS = (
    "errors",
    "process",
    "units",
    "config_fields",
    "config_priors",
    "config_objective",
    "config_world",
    "config_tasks",
    "config",
    "config_io",
    "params",
    "model",
    "data",
    "objective",
    "inference",
    "baselines",
    "train",
    "testing",
    "report",
    "run",
    "training",
    "jobs",
    "benchmark",
    "sweep",
    "exact",
    "cli",
    "__main__",
)
MOST_LINES = 349


def module_name(file: Path, package: Path) -> tuple[str, ...]:
    """("honest", "data", "loader") for honest/data/loader.py; a package's __init__ has the package's name."""
    parts = (package.name, *file.relative_to(package).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported_names(file: Path, package: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line, dotted name) of each import in the file; ``from a import b`` gives a.b, relative or not."""
    name = module_name(file, package)
    around = name if file.name == "__init__.py" else name[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = around[: len(around) - node.level + 1] if node.level else ()
            origin = (*base, *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                yield node.lineno, (*origin, alias.name)


def violations(package: Path) -> list[str]:
    """A line "file:line: what" for each import from a later layer, and for each module of no layer."""
    found = []
    for file in sorted(package.rglob("*.py")):
        name, where = module_name(file, package), file.relative_to(package.parent)
        if len(name) > 1 and name[1] not in LAYERS:
            found.append(f"{where}: {name[1]} is not one of the layers")
            continue
        rank = LAYERS.index(name[1]) if len(name) > 1 else -1  # the package itself imports nothing of it
        for line, imported in imported_names(file, package):
            if imported[0] != package.name or len(imported) == 1:
                continue
            if imported[1] not in LAYERS:
                found.append(f"{where}:{line}: {imported[1]} is not one of the layers")
            elif LAYERS.index(imported[1]) > rank:
                found.append(f"{where}:{line}: {'.'.join(name[1:]) or package.name} imports {imported[1]}")
    return found


def long_modules(package: Path, most_lines: int) -> list[str]:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in package.rglob("*.py")}
    return [f"{file.name}: {length} lines" for file, length in sorted(lengths.items()) if length > most_lines]


def test_package_keeps_to_its_layers():
    assert len(list(PACKAGE.rglob("*.py"))) > 5  # the path is right
    assert violations(PACKAGE) == []


def test_modules_are_short():
    assert long_modules(PACKAGE, MOST_LINES) == []


@pytest.fixture
def planted(tmp_path):
    """A package of three files that keeps to the layers; returns a function that plants one more."""
    package = tmp_path / "honest"

    def plant(name: str, text: str) -> Path:
        file = package / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return package

    plant("__init__.py", "import json\n")
    plant("params.py", "from honest.config import RunConfig\nfrom honest import units\nimport numpy.linalg\n")
    plant(
        "train/step.py",
        "from honest.train import state\nfrom . import loop\nfrom ..objective import x\n",
    )
    assert violations(package) == []
    return plant


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "params.py",
            "import numpy\nfrom honest.train.loop import run\n",
            ["honest/params.py:2: params imports train"],
        ),
        ("params.py", "import honest.train.loop as loop\n", ["honest/params.py:1: params imports train"]),
        ("params.py", "from honest import units, report\n", ["honest/params.py:1: params imports report"]),
        ("params.py", "def f():\n    from . import cli\n", ["honest/params.py:2: params imports cli"]),
        ("data/x.py", "from ..objective.y import z\n", ["honest/data/x.py:1: data.x imports objective"]),
        ("data/__init__.py", "from ..train import z\n", ["honest/data/__init__.py:1: data imports train"]),
        ("report/x.py", "from honest.cli import main\n", ["honest/report/x.py:1: report.x imports cli"]),
        ("cli.py", "from honest import __main__\n", ["honest/cli.py:1: cli imports __main__"]),
        ("__init__.py", "from honest import units\n", ["honest/__init__.py:1: honest imports units"]),
        ("extra.py", "import numpy\n", ["honest/extra.py: extra is not one of the layers"]),
        ("cli.py", "from honest.helpers import f\n", ["honest/cli.py:1: helpers is not one of the layers"]),
        ("__main__.py", "from honest.cli import main\n", []),
        ("data/tasks/t.py", "from ..batch import Batch\nfrom ...config import RunConfig\n", []),
    ],
)
def test_checker_finds_a_planted_violation(planted, name, text, expected):
    assert violations(planted(name, text)) == expected


def test_checker_finds_a_long_module(planted):
    assert long_modules(planted("params.py", "x = 1\n" * 349), 349) == []
    assert long_modules(planted("params.py", "x = 1\n" * 350), 349) == ["params.py: 350 lines"]
