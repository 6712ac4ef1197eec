"""What a run ends with: tables, ledger, a sentence, a figure, and `summary.json`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from honest.model.two_head import HeadLogits
from honest.report.answers import chain_params
from honest.report.divergence import divergence_scalars, parameter_scalars
from honest.report.evaluator import Evaluator, method_names
from honest.report.gap import GapSummary, sentence, summarise
from honest.report.ledger_values import LN2, LedgerValues, SampledLogPartition, bits_spent, ledger_scalars
from honest.report.metrics import HeadScores, always_false, head_scores, honest_gap_recovered
from honest.report.tables import ALWAYS_FALSE, comparison_table, head_sentence, ledger_table
from honest.train.stage import PRIOR, Stage
from honest.train.state import TrainState

BINS = {"trusted": "calibration_bins_trusted", "fooled": "calibration_bins_fooled"}


class Final(NamedTuple):
    """scores: by table line. ledger: with the conservative log Z. claims: log Z in nat from every side.

    gaps: how the phases' claims compared with bounds; None for an objective without log Z. task: what was asked.
    """

    scores: dict[str, HeadScores]
    ledger: LedgerValues
    claims: dict[str, float]
    sentence: str
    scalars: dict[str, float]
    gaps: GapSummary | None
    task: str


def conclude(
    evaluator: Evaluator, stages: dict[str, Stage], states: dict[str, TrainState], gaps: dict[int, float]
) -> Final:
    """Scores every method's heads on the test rows and states the ledger of the full objective.

    gaps: step of the prior stage -> the gap in nat that was logged there; the present step's is added if it is missing.
    The row −log Z takes the sampled upper bound of log Z: bits are claimed from the side that claims fewer.
    """
    config, test = evaluator.run.config, evaluator.run.task.splits.test
    scores: dict[str, HeadScores] = {}
    answers: dict[str, HeadLogits] = {}
    for method, names in method_names(config).items():
        answers[method] = evaluator.answers(stages[method].spec, states[method])
        for name, logits in zip(names, answers[method], strict=False):
            scores[name] = head_scores(logits, test, config.evaluation.bootstrap, config.seed)
    if config.objective.supervision.instrumental == "none":
        scores["under the prior: mean (blind choice)"] = head_scores(
            blind_mean(answers[PRIOR]), test, config.evaluation.bootstrap, config.seed
        )
    scores[ALWAYS_FALSE] = always_false(test, config.evaluation.bootstrap, config.seed)
    stage, state = stages[PRIOR], states[PRIOR]
    sampled = evaluator.sampled(stage, state)
    reader = evaluator.ledger(stage)
    values = reader(state, sampled.upper)
    own = reader(state, None) if makes_claim(stage) else None
    claims = log_partition_claims(sampled, None if own is None else own.log_partition)
    scalars = divergence_scalars(answers[PRIOR], test) | parameter_scalars(chain_params(stage.spec, state, 0))
    names = method_names(config)[PRIOR]
    sides = head_sentence(
        {f"the {name.removeprefix('under the prior: ')} head": scores[name] for name in names},
        scalars["divergence/jensen_shannon_fooled"],
        scalars["divergence/disagreement_fooled"],
    )
    task = evaluator.run.task.description
    if stage.spec.prior is None or not stage.spec.prior.log_partition:
        return Final(scores, values, claims, sides, scalars, None, task)
    step = int(state.step)
    if step not in gaps:
        gaps = {**gaps, step: evaluator.check(stage, state, own or values).gap}
    summary = summarise(gaps, evaluator.gap_limit, config.evaluation.log_partition.net)
    return Final(scores, values, claims, sides, scalars, summary, task)


def makes_claim(stage: Stage) -> bool:
    """Whether the phases themselves say what log Z is."""
    prior = stage.spec.prior
    return prior is not None and prior.log_partition and prior.phases.kind != "chains"


def blind_mean(logits: HeadLogits) -> np.ndarray:
    """Log of the two heads' mean probability: the answer of somebody who cannot tell the heads apart."""
    a, b = (x - np.logaddexp.reduce(x, axis=1, keepdims=True) for x in logits)
    return np.logaddexp(a, b) - LN2


def log_partition_claims(sampled: SampledLogPartition, claim: float | None) -> dict[str, float]:
    claims = {
        "objective/log_partition_sampled_nats": sampled.value,
        "objective/log_partition_lower_nats": sampled.lower,
        "objective/log_partition_upper_nats": sampled.upper,
    }
    return claims if claim is None else {**claims, "objective/log_partition_claim_nats": claim}


def text(final: Final, config: Any) -> str:
    """What is printed at the end of a run."""
    claims = final.claims
    lines = [
        "",
        comparison_table(final.scores),
        "",
        f"Ledger of the log joint (λ = {final.ledger.multiplier:.4g} nat/disagreement, "
        f"C̄ = {final.ledger.violation:.4g} "
        f"disagreement/example, tolerance ε = {config.objective.multiplier.tolerance}):",
        ledger_table([(row.term, row.group, row.nats) for row in final.ledger.rows], final.ledger.total),
        "",
        f"log Z: sampled {claims['objective/log_partition_sampled_nats']:.1f} nat, bounds "
        f"[{claims['objective/log_partition_lower_nats']:.1f}, {claims['objective/log_partition_upper_nats']:.1f}]"
        + (
            f"; the {config.objective.phases.kind} phases claim {claims['objective/log_partition_claim_nats']:.1f}"
            + claim_verdict(claims)
            if "objective/log_partition_claim_nats" in claims
            else ""
        )
        + (
            f". Bits recovered (from the bound that claims fewer): {0.0 - final.ledger.log_partition / LN2:.1f}. "
            if config.objective.log_partition == "included"
            else " (left out of this objective: log_partition: omitted). "
        )
        + f"Bits spent on the priors, constants excluded: {bits_spent(final.ledger):.1f}.",
        *(() if final.gaps is None else (sentence(final.gaps, config.objective.phases.kind),)),
        "",
        final.sentence,
    ]
    return "\n".join(lines)


def claim_verdict(claims: dict[str, float]) -> str:
    claim = claims["objective/log_partition_claim_nats"]
    low, high = claims["objective/log_partition_lower_nats"], claims["objective/log_partition_upper_nats"]
    return " (within the bounds)" if low <= claim <= high else " (OUTSIDE the bounds: do not trust that claim)"


def summary(final: Final, config: Any, environment: dict[str, Any]) -> dict[str, Any]:
    """`summary.json`: metrics under their tags, every score with its interval, bins of confidence, the ledger."""
    tags = {**final.scalars, **final.claims, **ledger_scalars(final.ledger)}
    names = method_names(config)[PRIOR]
    for name, tag in zip(names, ("intended", "instrumental"), strict=True):
        for key, interval in final.scores[name].items():
            if isinstance(interval, tuple):
                tags[f"honesty/{tag}_{key}"] = interval[0]
    truth = {name: scores["truth_fooled"].value for name, scores in final.scores.items()}
    tags["honesty/honest_gap_recovered"] = honest_gap_recovered(
        truth[names[0]], truth["single head"], truth["truth-trained ceiling"]
    )
    tags["honesty/honest_gap_recovered_always_false"] = honest_gap_recovered(
        truth[ALWAYS_FALSE], truth["single head"], truth["truth-trained ceiling"]
    )
    return {
        "name": config.name,
        "seed": config.seed,
        "commit": environment["commit"],
        "device": environment["device_kind"],
        "task": final.task,
        "sentence": final.sentence,
        "log_partition_checks": checks(final, config.objective.phases.kind),
        "metrics": {tag: finite(value) for tag, value in sorted(tags.items())},
        "scores": {
            name: jsonable({key: score for key, score in scores.items() if key not in BINS.values()})
            for name, scores in final.scores.items()
        },
        "calibration_bins": {
            name: {rows: jsonable(scores[key]) for rows, key in BINS.items()}  # type: ignore[literal-required]
            for name, scores in final.scores.items()
        },
        "ledger": {
            "rows": [row._asdict() for row in final.ledger.rows],
            "total_nats": final.ledger.total,
            "multiplier_nats_per_disagreement": final.ledger.multiplier,
            "violation_disagreement_per_example": final.ledger.violation,
        },
    }


def checks(final: Final, kind: str) -> dict[str, Any] | None:
    """None for an objective without log Z; a largest gap of null is that of a claim that was no number."""
    if final.gaps is None:
        return None
    return {**jsonable(final.gaps), "sentence": sentence(final.gaps, kind)}


def finite(value: float) -> float | None:
    """JSON has no nan: a number that does not exist is null."""
    return float(value) if math.isfinite(value) else None


def jsonable(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return finite(value)
    return value.item() if isinstance(value, np.generic) else value
