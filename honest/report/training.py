"""The curves of a run's prior stage, from its TensorBoard events."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from honest.train.events import read_events

DIVERGENCE = ("divergence/jensen_shannon_fooled", "divergence/jensen_shannon_trusted", "divergence/disagreement_fooled")
LAMBDA = "constraint/lambda_nats_per_disagreement"
VIOLATION = "constraint/violation_over_tolerance"
INFEASIBLE = "constraint/infeasible"
READ = (*DIVERGENCE, LAMBDA, VIOLATION, INFEASIBLE)

Curves = dict[str, dict[int, float]]


def read_curves(run: Path) -> Curves:
    """tag -> step of the run -> value, of the tags of `READ` that the run's events have."""
    curves: Curves = {}
    for event in read_events(run):
        for value in event.summary.value:
            if value.tag in READ:
                curves.setdefault(value.tag, {})[event.step] = value.simple_value
    return {tag: dict(sorted(points.items())) for tag, points in curves.items()}


def mean_curve(curves: list[dict[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Steps that all of them have, and the mean there."""
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    return np.array(steps), np.array([[curve[step] for step in steps] for curve in curves]).mean(axis=0)
