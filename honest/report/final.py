"""What a run ends with: tables, ledger, a sentence, a figure, and `summary.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from honest.baselines.method import UNORDERED
from honest.config import RunConfig
from honest.report.answers import chain_params
from honest.report.divergence import divergence_scalars, parameter_scalars
from honest.report.evaluator import Evaluator, method_names
from honest.report.gap import GapSummary, sentence, summarise
from honest.report.ledger_values import LN2, LedgerValues, SampledLogPartition, bits_spent, ledger_scalars
from honest.report.methods import CEILING, SINGLE
from honest.report.metrics import HeadScores, always_false, head_scores, honest_gap_recovered
from honest.report.tables import ALWAYS_FALSE, comparison_table, head_sentence, ledger_table
from honest.train.stage import PRIOR, Stage
from honest.train.state import TrainState

BINS = {"trusted": "calibration_bins_trusted", "fooled": "calibration_bins_fooled"}


class PriorFinal(NamedTuple):
    """Of the full objective alone. ledger: with the conservative log Z. claims: log Z in nat from every side.

    gaps: how the phases' claims compared with bounds; None for an objective without log Z.
    """

    ledger: LedgerValues
    claims: dict[str, float]
    sentence: str
    scalars: dict[str, float]
    gaps: GapSummary | None


class Final(NamedTuple):
    """scores: by table line. prior: None where the run's `methods` do not have it. task: what was asked."""

    scores: dict[str, HeadScores]
    prior: PriorFinal | None
    task: str


def conclude(
    evaluator: Evaluator, stages: Mapping[str, Stage], states: Mapping[str, TrainState], gaps: Mapping[int, float]
) -> Final:
    """Scores every method's heads on the test rows and states the ledger of the full objective.

    gaps: step of the prior stage -> the gap in nat that was logged there; the present step's is added if it is missing.
    """
    config, test = evaluator.run.config, evaluator.run.task.splits.test
    scores: dict[str, HeadScores] = {}
    for method, names in method_names(config).items():
        if method in stages:
            answers: tuple[Any, ...] = evaluator.answers(stages[method].spec, states[method])[: len(names)]
        else:
            assert evaluator.probing is not None, "the trunk stage comes first"
            answers = (evaluator.probing.logits(method),)
        if names[0].endswith(f": {UNORDERED[0]}"):
            names = (*names, names[0].removesuffix(UNORDERED[0]) + "mean (blind choice)")
            answers = (*answers, blind_mean(answers))
        for name, logits in zip(names, answers, strict=True):
            scores[name] = head_scores(logits, test, config.evaluation.bootstrap, config.seed)
    scores[ALWAYS_FALSE] = always_false(test, config.evaluation.bootstrap, config.seed)
    prior = None
    if PRIOR in stages:
        prior = conclude_prior(evaluator, stages[PRIOR], states[PRIOR], gaps, scores)
    return Final(scores, prior, evaluator.run.task.description)


def conclude_prior(
    evaluator: Evaluator,
    stage: Stage,
    state: TrainState,
    gaps: Mapping[int, float],
    scores: Mapping[str, HeadScores],
) -> PriorFinal:
    """The row −log Z takes the sampled upper bound of log Z: bits are claimed from the side that claims fewer."""
    config, test = evaluator.run.config, evaluator.run.task.splits.test
    sampled = evaluator.sampled(stage, state)
    reader = evaluator.ledger(stage)
    values = reader(state, sampled.upper)
    own = reader(state, None) if makes_claim(stage) else None
    claims = log_partition_claims(sampled, None if own is None else own.log_partition)
    answers = evaluator.answers(stage.spec, state)
    scalars = divergence_scalars(answers, test) | parameter_scalars(chain_params(stage.spec, state, 0))
    names = method_names(config)[PRIOR]
    sides = head_sentence(
        {f"the {name.removeprefix('under the prior: ')} head": scores[name] for name in names},
        scalars["divergence/jensen_shannon_fooled"],
        scalars["divergence/disagreement_fooled"],
    )
    if stage.spec.prior is None or not stage.spec.prior.log_partition:
        return PriorFinal(values, claims, sides, scalars, None)
    step = int(state.step)
    if step not in gaps:
        gaps = {**gaps, step: evaluator.check(stage, state, own or values).gap}
    summary = summarise(gaps, evaluator.gap_limit, config.evaluation.log_partition.net)
    return PriorFinal(values, claims, sides, scalars, summary)


def makes_claim(stage: Stage) -> bool:
    """Whether the phases themselves say what log Z is."""
    prior = stage.spec.prior
    return prior is not None and prior.log_partition and prior.phases.kind != "chains"


def blind_mean(logits: Any) -> np.ndarray:
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


def text(final: Final, config: RunConfig) -> str:
    """What is printed at the end of a run."""
    table = ["", comparison_table(final.scores), ""]
    if final.prior is None:
        return "\n".join(table).rstrip()
    prior = final.prior
    return "\n".join(
        [
            *table,
            f"Ledger of the log joint (λ = {prior.ledger.multiplier:.4g} nat/disagreement, "
            f"C̄ = {prior.ledger.violation:.4g} "
            f"disagreement/example, tolerance ε = {config.objective.multiplier.tolerance}):",
            ledger_table([(row.term, row.group, row.nats) for row in prior.ledger.rows], prior.ledger.total),
            "",
            claims_text(prior, config),
            *(() if prior.gaps is None else (sentence(prior.gaps, config.objective.phases.kind),)),
            "",
            prior.sentence,
        ]
    )


def claims_text(prior: PriorFinal, config: RunConfig) -> str:
    claims = prior.claims
    sampled, lower, upper = (claims[f"objective/log_partition_{side}_nats"] for side in ("sampled", "lower", "upper"))
    said = f"log Z: sampled {sampled:.1f} nat, bounds [{lower:.1f}, {upper:.1f}]"
    if "objective/log_partition_claim_nats" in claims:
        claim = claims["objective/log_partition_claim_nats"]
        said += f"; the {config.objective.phases.kind} phases claim {claim:.1f}{claim_verdict(claims)}"
    if config.objective.log_partition == "included":
        bits = 0.0 - prior.ledger.log_partition / LN2
        said += f". Bits recovered (from the bound that claims fewer): {bits:.1f}. "
    else:
        said += " (left out of this objective: log_partition: omitted). "
    return said + f"Bits spent on the priors, constants excluded: {bits_spent(prior.ledger):.1f}."


def claim_verdict(claims: dict[str, float]) -> str:
    claim = claims["objective/log_partition_claim_nats"]
    low, high = claims["objective/log_partition_lower_nats"], claims["objective/log_partition_upper_nats"]
    return " (within the bounds)" if low <= claim <= high else " (OUTSIDE the bounds: do not trust that claim)"


def summary(final: Final, config: RunConfig, environment: Mapping[str, Any]) -> dict[str, Any]:
    """`summary.json`: metrics under their tags, every score with its interval, bins of confidence, the ledger."""
    tags = gap_recovered(final.scores, config)
    prior = final.prior
    if prior is not None:
        tags |= {**prior.scalars, **prior.claims, **ledger_scalars(prior.ledger)}
        for name, tag in zip(method_names(config)[PRIOR], ("intended", "instrumental"), strict=True):
            for key, interval in final.scores[name].items():
                if isinstance(interval, tuple):
                    tags[f"honesty/{tag}_{key}"] = interval[0]
    return {
        "name": config.name,
        "seed": config.seed,
        "commit": environment["commit"],
        "device": environment["device_kind"],
        "task": final.task,
        "sentence": None if prior is None else prior.sentence,
        "log_partition_checks": None if prior is None else checks(prior, config.objective.phases.kind),
        "metrics": {tag: finite(value) for tag, value in sorted(tags.items())},
        "scores": {
            name: jsonable({key: score for key, score in scores.items() if key not in BINS.values()})
            for name, scores in final.scores.items()
        },
        "calibration_bins": {
            name: {rows: jsonable(scores[key]) for rows, key in BINS.items()}  # type: ignore[literal-required]
            for name, scores in final.scores.items()
        },
        "ledger": None
        if prior is None
        else {
            "rows": [row._asdict() for row in prior.ledger.rows],
            "total_nats": prior.ledger.total,
            "multiplier_nats_per_disagreement": prior.ledger.multiplier,
            "violation_disagreement_per_example": prior.ledger.violation,
        },
    }


def gap_recovered(scores: Mapping[str, HeadScores], config: RunConfig) -> dict[str, float]:
    """HGR of the intended head (of an ordered pair) and of always False, where the run has the lines that it needs."""
    if PRIOR not in config.methods or SINGLE not in scores or CEILING not in scores:
        return {}
    truth = {name: line["truth_fooled"].value for name, line in scores.items()}
    intended = method_names(config)[PRIOR][0]
    of = {"_always_false": ALWAYS_FALSE} | ({} if intended.endswith(f": {UNORDERED[0]}") else {"": intended})
    return {
        f"honesty/honest_gap_recovered{suffix}": honest_gap_recovered(truth[name], truth[SINGLE], truth[CEILING])
        for suffix, name in of.items()
    }


def checks(final: PriorFinal, kind: str) -> dict[str, Any] | None:
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
