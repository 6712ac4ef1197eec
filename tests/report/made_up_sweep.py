"""A sweep's folder with numbers made up for the tests, small enough to aggregate by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from honest.train.events import LAYOUT, EventLog

KIND, WIDTH, SEED = "objective.phases.kind", "objective.second_prior.trunk.stddev", "seed"
PRIOR = "under the prior"
TOLERANCE = 0.002  # disagreement/example
UNITS = {WIDTH: "θ.trunk", "objective.multiplier.tolerance": "disagreement/example"}


class Result(NamedTuple):
    """Of a finished member. divergence in bits, violation in disagreement/example."""

    truth: float
    divergence: float
    violation: float


def name(parameters: Mapping[str, Any]) -> str:
    return ",".join(f"{key.split('.')[-1]}={str(value).split()[0]}" for key, value in parameters.items())


def write_list(folder: Path, members: Iterable[Mapping[str, Any]]) -> Path:
    """`folder`, as that of a sweep of which nothing has run."""
    listed = [{"name": name(parameters), "parameters": parameters} for parameters in members]
    (folder / "members.json").write_text(json.dumps({"name": "made up", "members": listed}), encoding="utf-8")
    (folder / "runs").mkdir()
    return folder


def nested(parameters: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in parameters.items():
        *sections, last = key.split(".")
        section = made
        for word in sections:
            section = section.setdefault(word, {})
        section[last] = value
    return made


def start(folder: Path, parameters: Mapping[str, Any]) -> Path:
    """The run directory of a member that has started."""
    run = folder / "runs" / name(parameters)
    run.mkdir()
    others = {
        "name": "base",
        "task.kind": "sums",
        "objective.multiplier.tolerance": f"{TOLERANCE} disagreement/example",
    }
    with (run / "config.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(nested({SEED: 0, **others, **parameters}), file)
    (run / "units.json").write_text(json.dumps(UNITS), encoding="utf-8")
    return run


def finish(folder: Path, parameters: Mapping[str, Any], result: Result, heads: tuple[str, str]) -> Path:
    """The run directory of a member that is done; the second head says the opposite of the first one."""
    run = start(folder, parameters)
    scores = {}
    for head, truth in zip(heads, (result.truth, 1 - result.truth), strict=True):
        shares = {"truth_fooled": truth, "person_fooled": 1 - truth, "acceptance_fooled": 0.5}
        scores[f"{PRIOR}: {head}"] = {
            metric: {"value": x, "low": x - 0.05, "high": x + 0.05} for metric, x in shares.items()
        }
    claims = {"claim": -3.0, "lower": -5.0, "upper": -1.0}
    summary = {
        "seed": parameters.get(SEED, 0),
        "commit": "abc",
        "device": "cpu",
        "task": "sums of two numbers",
        "log_partition_checks": None,
        "metrics": {
            "divergence/jensen_shannon_fooled": result.divergence * math.log(2),
            **{f"objective/log_partition_{side}_nats": value for side, value in claims.items()},
        },
        "scores": scores,
        "ledger": {
            "multiplier_nats_per_disagreement": 10.0,
            "violation_disagreement_per_example": result.violation,
        },
    }
    (run / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return run


def log_events(run: Path, divergence: Iterable[float]) -> None:
    """The divergence in nat at steps 1, 2, …, and the layout that each run has."""
    log = EventLog(run)
    log.layout(LAYOUT, 0)
    step = 0
    for step, value in enumerate(divergence, start=1):
        log.scalar("divergence/jensen_shannon_fooled", value, step)
    log.pending()
    log.commit(step)
    log.close()
