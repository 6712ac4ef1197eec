"""Text and JSON of `honest exact`: the pairs of a finite world, the ledger of a continuous one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from honest.inference.continuous_world import ContinuousWorld
from honest.inference.enumeration import Pair, Posterior, Solution
from honest.inference.ledger import Account, Ledger
from honest.inference.quadrature import Exact
from honest.report.tables import layout

NATS_PER_BIT = math.log(2)
PAIR_HEADER = [
    "intended",
    "instrumental",
    "log2 prior",
    "bits recovered",
    "log2 evidence",
    "posterior",
    "without log Z",
]


def number(value: float, digits: int = 4) -> str:
    if math.isnan(value):
        return "–"
    return ("∞" if value > 0 else "−∞") if math.isinf(value) else f"{value:.{digits}f}".replace("-", "−")


def posterior_text(found: Posterior, solution: Solution, solver: str) -> str:
    rows = [[pair.intended, pair.instrumental, *map(number, pair[2:])] for pair in found.pairs]
    lines = [
        layout(PAIR_HEADER, rows, "llrrrrr"),
        "",
        f"log2 of the total evidence: {number(found.total_log2_evidence)} bit   "
        f"({solver}, {solution.evaluations} evaluations)",
    ]
    errors = np.stack([solution.log2_z_error_RxR, solution.log2_joint_error_RxR])
    if np.isfinite(errors).any() and np.nanmax(errors) > 0:
        worst = np.nanmax(np.where(np.isfinite(errors), errors, np.nan), axis=(1, 2))
        lines.append(f"largest standard errors: log2 Z {worst[0]:.2g} bit, log2 Z_D {worst[1]:.2g} bit")
    if math.isinf(found.total_log2_evidence):
        lines.append("No pair can give these labels: there is no posterior.")
    return "\n".join(lines)


def posterior_json(found: Posterior) -> dict[str, Any]:
    """pairs and total_log2_evidence: an infinite or undefined number is null, and its pair has `impossible: true`."""
    document: dict[str, Any] = {
        "pairs": [pair_json(pair) for pair in found.pairs],
        "total_log2_evidence": finite_or_none(found.total_log2_evidence),
    }
    return document | ({"impossible": True} if document["total_log2_evidence"] is None else {})


def pair_json(pair: Pair) -> dict[str, Any]:
    values = {
        key: finite_or_none(value) if isinstance(value, float) else value for key, value in pair._asdict().items()
    }
    return values | ({"impossible": True} if None in values.values() else {})


def finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


LEDGER_ROWS = ("data", "first prior", "second prior", "consistency", "−log Z")  # the fields of a `Ledger`


def exact_text(world: ContinuousWorld, with_z: Exact, without: Exact) -> str:
    """Mean ledger, evidence and answers of the exact posterior, with log Z and without."""
    columns = (with_z.account, without.account)
    lines = [[name, *(number(account.ledger[i]) for account in columns)] for i, name in enumerate(LEDGER_ROWS)]
    lines.append(["log evidence", *(number(account.log_evidence) for account in columns)])
    lines += [
        [f"P(yes) {what}", *(number(account.answers[i]) for account in columns)]
        for i, what in enumerate(input_names(world))
    ]
    return "\n".join(
        [
            layout(["mean over the posterior, nat", "with log Z", "without"], lines, "lrr"),
            "",
            f"{world.parameters} parameters; bits recovered {number(with_z.bits_recovered)}. The Gaussians' constants "
            f"are left out. Quadrature: the coarser grid's log evidence is {with_z.account.error:.2g} and "
            f"{without.account.error:.2g} nat away ({with_z.account.evaluations} evaluations).",
        ]
    )


def account_text(world: ContinuousWorld, account: Account, solver: str) -> str:
    lines = [[name, number(value)] for name, value in zip(LEDGER_ROWS, account.ledger, strict=True)]
    lines.append(["log evidence, as it claims", number(account.log_evidence)])
    lines += [[f"P(yes) {what}", number(p)] for what, p in zip(input_names(world), account.answers, strict=True)]
    table = layout(["mean over what it found, nat", solver], lines, "lr")
    return f"{table}\n\n{account.evaluations} evaluations; a solver that claims no log evidence has – there."


def input_names(world: ContinuousWorld) -> list[str]:
    """What each answer is about: the intended head on these inputs."""
    return [
        f"intended, {'trusted' if x.trusted else 'untrusted'}, fact {x.fact:+g} (beliefs.{i}.inputs.{k})"
        for i, belief in enumerate(world.beliefs)
        for k, x in enumerate(belief.inputs)
    ]


def account_json(world: ContinuousWorld, account: Account) -> dict[str, Any]:
    return {
        "ledger_nats": ledger_json(account.ledger),
        "log_evidence_nats": finite_or_none(account.log_evidence),
        "log_evidence_error_nats": finite_or_none(account.error),
        "intended_says_yes": dict(zip(input_names(world), map(float, account.answers), strict=True)),
        "evaluations": account.evaluations,
    }


def exact_json(world: ContinuousWorld, with_z: Exact, without: Exact) -> dict[str, Any]:
    return {
        "parameters": world.parameters,
        "bits_recovered": with_z.bits_recovered,
        "with_log_partition": account_json(world, with_z.account),
        "without_log_partition": account_json(world, without.account),
    }


def ledger_json(ledger: Ledger) -> dict[str, float | None]:
    return {name: finite_or_none(value) for name, value in ledger._asdict().items()}
