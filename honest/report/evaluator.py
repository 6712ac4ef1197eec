"""Evaluates a stage's state: scores, divergences and ledger, under their tags."""

from __future__ import annotations

from typing import Any

import jax

from honest.config import RunConfig
from honest.model.two_head import HeadLogits
from honest.objective.log_partition import LogPartition
from honest.params import Params
from honest.report.answers import Answers, chain_params
from honest.report.divergence import divergence_histograms, divergence_scalars, parameter_scalars
from honest.report.ledger_values import LedgerReader, LogPartitionSampler, ledger_scalars
from honest.report.metrics import HeadScores, head_scores
from honest.train.stage import PRIOR, TRUNK, Run, Stage
from honest.train.state import TrainState
from honest.units import nat

SCALARS = ("truth", "person", "acceptance")
HEAD_NAMES = ("intended", "instrumental")
SAMPLED = 2  # folded into a step's key, of which 0 and 1 move the phases


class Evaluator:
    """Called by the training loop with (stage, state); keeps what it compiled between calls."""

    def __init__(self, run: Run):
        self.run = run
        self.answers = Answers(run, run.task.splits.test.batch, run.config.evaluation.batch_rows)
        self._ledger: LedgerReader | None = None
        self._sampler: LogPartitionSampler | None = None

    def set_trunk(self, trunk: Params) -> None:
        self.answers.trunk = trunk

    def ledger(self, stage: Stage) -> LedgerReader:
        if self._ledger is None or self._ledger.stage is not stage:
            self._ledger = LedgerReader(stage)
        return self._ledger

    def scores(self, logits: HeadLogits) -> dict[str, HeadScores]:
        config = self.run.config
        test = self.run.task.splits.test
        pairs = zip(HEAD_NAMES, logits, strict=True)
        return {name: head_scores(x, test, config.evaluation.bootstrap, config.seed) for name, x in pairs}

    def __call__(self, stage: Stage, state: TrainState) -> tuple[dict[str, float], dict[str, Any]]:
        """Scalars and histograms of one evaluation on the test rows; none for the trunk stage, which has no heads."""
        if stage.spec.name == TRUNK:
            return {}, {}
        test = self.run.task.splits.test
        logits = self.answers(stage.spec, state)
        scores = self.scores(logits)
        reported = HEAD_NAMES if "instrumental_head" in stage.spec.trained else HEAD_NAMES[:1]
        scalars = {
            f"honesty/{name}_{what}_{rows}": scores[name][f"{what}_{rows}"].value  # type: ignore[literal-required]
            for name in reported
            for what in SCALARS
            for rows in ("trusted", "fooled")
            if scores[name][f"{what}_{rows}"].rows  # type: ignore[literal-required]
        }
        if len(reported) == 1:
            return scalars, {}
        scalars |= divergence_scalars(logits, test)
        scalars |= parameter_scalars(chain_params(stage.spec, state, 0))
        histograms = dict(divergence_histograms(logits, test))
        if stage.spec.name == PRIOR:
            scalars |= self.prior_scalars(stage, state)
        return scalars, histograms

    def prior_scalars(self, stage: Stage, state: TrainState) -> dict[str, float]:
        """The ledger over the whole sets. Chains make no claim of log Z, so theirs is sampled."""
        assert stage.spec.prior is not None
        log_z = None
        if stage.spec.prior.phases.kind == "chains":
            log_z = float(self.sampled(stage, state).log_z.to(nat))
        values = self.ledger(stage)(state, log_z)
        return {
            **ledger_scalars(values),
            "constraint/whole_violation_disagreement_per_example": values.violation,
            "objective/log_posterior_nats": values.total,
        }

    def sampled(self, stage: Stage, state: TrainState) -> LogPartition:
        """log Z from both ends of annealing; the same key for the same state."""
        if self._sampler is None or self._sampler.stage is not stage:
            self._sampler = LogPartitionSampler(stage, self.run.config.evaluation.log_partition)
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), SAMPLED)
        return self._sampler(state, key, with_data=False)


def method_names(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """What each reported head of each stage is called in tables."""
    ordered = config.objective.supervision.instrumental == "untrusted"
    pair = ("intended", "instrumental") if ordered else ("first", "second")
    return {
        "single_head": ("single head",),
        "plain_heads": tuple(f"plain heads: {name}" for name in pair),
        "truth_ceiling": ("truth-trained ceiling",),
        PRIOR: tuple(f"under the prior: {name}" for name in pair),
    }
