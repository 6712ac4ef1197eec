"""What a report is made from: a run, a folder of runs, or a benchmark's results, all in one long form.

A benchmark is a folder with `results.csv` (columns `COLUMNS`) and its runs under `runs/TASK/seed_N/ENTRY/`; a sweep is
one with `members.json` and its runs under `runs/MEMBER/`.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from honest.errors import UserError
from honest.report.labels import label_runs, natural
from honest.train.run_directory import CONFIG, ENVIRONMENT, SUMMARY
from honest.units import disagreement, example, parse_quantity

RESULTS, SUITE, MEMBERS, RUNS = "results.csv", "suite.yaml", "members.json", "runs"
COLUMNS = ("task", "seed", "entry", "head", "metric", "value", "low", "high", "rows")
TAGS = ("objective/", "divergence/", "ledger/", "constraint/")  # of a run as a whole, not of one head


class Score(NamedTuple):
    """One number of one head (of a run as a whole: head "") and its 95 % interval within the seed; nan: undefined."""

    task: str
    seed: int
    entry: str
    head: str
    metric: str
    value: float
    low: float
    high: float


class RunFiles(NamedTuple):
    """What a finished run says of itself. config: flat, dotted keys."""

    path: Path
    task: str
    seed: int
    entry: str
    config: dict[str, Any]
    summary: dict[str, Any]
    environment: dict[str, Any]


class Planned(NamedTuple):
    """A member of a sweep. parameters: dotted key -> value as the sweep's YAML has it."""

    name: str
    parameters: dict[str, Any]


class Source(NamedTuple):
    """kind: "run", "runs", "benchmark" or "sweep". unfinished: runs without a summary, whether there is a folder or
    not. planned: all members of a sweep; of other kinds none."""

    path: Path
    kind: str
    scores: list[Score]
    runs: list[RunFiles]
    unfinished: list[Path]
    planned: list[Planned]


def read_source(path: Path) -> Source:
    """UserError: there is no result at `path` (it says what was looked for), or a file of it cannot be read."""
    if not path.is_dir():
        raise UserError(f"{path} is not a directory; give that of a run, of runs, of a sweep or of a benchmark")
    if (path / MEMBERS).exists():  # before the results, which a sweep has as well
        return _sweep(path)
    if (path / RESULTS).exists():
        runs, unfinished = _benchmark_runs(path)
        return Source(path, "benchmark", read_results(path / RESULTS), runs, unfinished, [])
    finished, unfinished = _run_folders(path)
    if not finished:
        found = f"; {unfinished[0]} is a run that is not finished: honest train goes on with it" if unfinished else ""
        raise UserError(
            f"{path} has no results. Looked for: {path / MEMBERS} (a sweep), {path / RESULTS} (a benchmark), "
            f"{path / SUMMARY} beside {CONFIG} (a finished run), and finished runs in the folders below{found}"
        )
    named = _labelled(path, finished)
    kind = "run" if finished == [path] else "runs"
    return Source(path, kind, [score for run in named for score in scores_of(run)], named, unfinished, [])


def _labelled(path: Path, finished: Sequence[Path]) -> list[RunFiles]:
    """The runs, called by what differs between them, in the order of these names."""
    runs = [_run_files(folder, "", "") for folder in finished]
    labels = label_runs([run.config for run in runs])
    twice = Counter((task, entry, run.seed) for run, (task, entry) in zip(runs, labels, strict=True))
    named = []
    for run, (task, entry) in zip(runs, labels, strict=True):
        if twice[task, entry, run.seed] > 1:  # the same config and seed again is no second seed
            entry = f"{entry} ({run.path.relative_to(path)})"
        named.append(run._replace(task=task, entry=entry))
    return sorted(named, key=lambda run: (run.task, natural(run.entry), run.seed))


def _sweep(path: Path) -> Source:
    planned = read_members(path)
    folders = [path / RUNS / member.name for member in planned]
    finished = [folder for folder in folders if is_finished(folder)]
    runs = _labelled(path, finished)
    unfinished = [folder for folder in folders if folder not in set(finished)]
    return Source(path, "sweep", [score for run in runs for score in scores_of(run)], runs, unfinished, planned)


def is_finished(run: Path) -> bool:
    return (run / CONFIG).exists() and (run / SUMMARY).exists()


def read_members(path: Path) -> list[Planned]:
    """The members of the sweep in `path`. UserError: its list of them cannot be read."""
    content = _json(path / MEMBERS)
    try:
        planned = [Planned(member["name"], dict(member["parameters"])) for member in content["members"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path / MEMBERS} does not list members with name and parameters; run honest sweep") from error
    if not planned:
        raise UserError(f"{path / MEMBERS} lists no member")
    return planned


def read_results(path: Path) -> list[Score]:
    """UserError names file, line, column and what stands there; and a (task, seed, entry, head, metric) given twice."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path}: no column {missing[0]!r}; a benchmark's results have {','.join(COLUMNS)}")
            scores = [_score(path, reader.line_num, line) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}; it should be CSV in UTF-8") from error
    if not scores:
        raise UserError(f"{path} has no line of results yet; finish the benchmark first")
    key, count = Counter(score[:5] for score in scores).most_common(1)[0]
    if count > 1:
        raise UserError(f"{path}: {', '.join(map(str, key))} is there {count} times; keep one of them")
    return scores


def _score(path: Path, line_number: int, line: dict[str, str]) -> Score:
    where = f"{path}:{line_number}"
    if None in line.values() or None in line:
        raise UserError(f"{where}: not {len(COLUMNS)} columns; the line was cut or has a comma too many")
    numbers = [_number(where, name, line[name]) for name in ("value", "low", "high")]
    try:
        seed = int(line["seed"])
    except ValueError as error:
        raise UserError(f"{where}: seed: not a whole number (value given: {line['seed']!r})") from error
    return Score(line["task"], seed, line["entry"], line["head"], line["metric"], *numbers)


def _number(where: str, name: str, text: str) -> float:
    if not text.strip():
        return math.nan
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{where}: {name}: not a number, nor empty (value given: {text!r})") from error


def _benchmark_runs(path: Path) -> tuple[list[RunFiles], list[Path]]:
    runs, unfinished = [], []
    for config in sorted(path.glob(f"runs/*/seed_*/*/{CONFIG}")):
        folder = config.parent
        if (folder / SUMMARY).exists():
            runs.append(_run_files(folder, folder.parts[-3], folder.name))
        else:
            unfinished.append(folder)
    return runs, unfinished


def _run_folders(path: Path) -> tuple[list[Path], list[Path]]:
    """Finished and unfinished runs at or below `path`; a run's own folders are not searched."""
    finished: list[Path] = []
    unfinished: list[Path] = []
    for folder, below, files in os.walk(path):
        below.sort()
        if CONFIG in files:
            (finished if SUMMARY in files else unfinished).append(Path(folder))
            below.clear()
    return finished, unfinished


def _run_files(folder: Path, task: str, entry: str) -> RunFiles:
    summary = _json(folder / SUMMARY)
    try:
        nested = YAML(typ="safe", pure=True).load(folder / CONFIG)
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{folder / CONFIG} cannot be read: {error}") from error
    if not isinstance(nested, dict):
        raise UserError(f"{folder / CONFIG} is not the config of a run: it has no keys")
    lacking = [key for key in ("seed", "scores", "metrics") if key not in summary]
    if lacking:
        raise UserError(f"{folder / SUMMARY}: no key {lacking[0]!r}: not the summary of a run")
    environment = _json(folder / ENVIRONMENT) if (folder / ENVIRONMENT).exists() else {}
    return RunFiles(folder, task, summary["seed"], entry, dict(_flat(nested)), summary, environment)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object")
    return content


def _flat(section: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def scores_of(run: RunFiles) -> Iterator[Score]:
    where = (run.task, run.seed, run.entry)
    for head, metrics in run.summary["scores"].items():
        for metric, value in metrics.items():
            stated = value if isinstance(value, dict) else {"value": value}
            yield Score(*where, head, metric, *_or_nan([stated.get(key) for key in ("value", "low", "high")]))
    whole = {tag: value for tag, value in run.summary["metrics"].items() if tag.startswith(TAGS)}
    for tag, value in (whole | constraint_of(run.summary)).items():
        yield Score(*where, "", tag, *_or_nan([value, None, None]))


def constraint_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """λ and C̄ over the whole population at the end of a run under the prior; nothing of other runs."""
    ledger = summary.get("ledger") or {}
    keys = {
        "constraint/lambda_nats_per_disagreement": "multiplier_nats_per_disagreement",
        "constraint/whole_violation_disagreement_per_example": "violation_disagreement_per_example",
    }
    return {tag: ledger[key] for tag, key in keys.items() if key in ledger}


def violation_over_tolerance(run: RunFiles) -> float | None:
    """C̄/ε over the whole population at the end of a run under the prior."""
    violation = (run.summary.get("ledger") or {}).get("violation_disagreement_per_example")
    tolerance = run.config.get("objective.multiplier.tolerance")
    if violation is None or tolerance is None:
        return None
    return violation / float(parse_quantity(tolerance).to(disagreement / example))


def _or_nan(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]
