"""Evaluates a stage's state: scores, divergences and ledger, under their tags."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import jax

from honest.baselines import METHODS, PROBES
from honest.baselines.method import UNORDERED
from honest.config import RunConfig
from honest.model.two_head import HeadLogits
from honest.params import Params
from honest.report.answers import Answers, chain_params
from honest.report.divergence import divergence_histograms, divergence_scalars, parameter_scalars
from honest.report.gap import Check, chain_mean, check_chains, check_modes, mode_data_claim, warning
from honest.report.ledger_values import (
    LedgerReader,
    LedgerValues,
    LogPartitionSampler,
    SampledLogPartition,
    ledger_scalars,
)
from honest.report.metrics import HeadScores, head_scores
from honest.report.probes import Probing
from honest.train.stage import PRIOR, TRUNK, Run, Stage
from honest.train.state import TrainState
from honest.units import nat, parse_quantity

SCALARS = ("truth", "person", "acceptance")
HEAD_NAMES: tuple[str, str] = ("intended", "instrumental")
SAMPLED, SAMPLED_DATA = 2, 3  # folded into a step's key, of which 0 and 1 move the phases

_chain_mean = jax.jit(chain_mean, static_argnums=(0, 3))


class Evaluator:
    """Called by the training loop with (stage, state); keeps what it compiled between calls."""

    def __init__(self, run: Run):
        self.run = run
        self.answers = Answers(run, run.task.splits.test.batch, run.config.evaluation.batch_rows)
        self.probing: Probing | None = None  # set with the trunk
        self._ledger: LedgerReader | None = None
        self._sampler: LogPartitionSampler | None = None
        self._sampled_state: TrainState | None = None  # the latest one that was asked for, and its samples
        self._samples: dict[bool, SampledLogPartition] = {}
        self._warned = False

    def set_trunk(self, trunk: Params) -> None:
        self.answers.trunk = trunk
        self.probing = Probing(self.run, trunk)

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
            log_z = self.sampled(stage, state).value
        values = self.ledger(stage)(state, log_z)
        return {
            **self.gap_scalars(stage, state, values),
            **ledger_scalars(values),
            "constraint/whole_violation_disagreement_per_example": values.violation,
            "objective/log_posterior_nats": values.total,
        }

    def gap_scalars(self, stage: Stage, state: TrainState, values: LedgerValues) -> dict[str, float]:
        """The check of the phases' claims, where one is due; the first bad one of a process is told on stderr."""
        config, step, prior = self.run.config.evaluation, int(state.step), stage.spec.prior
        assert prior is not None
        check_every = config.log_partition.check_every
        due = step == stage.steps or (check_every is not None and step % (check_every * config.every) == 0)
        if not prior.log_partition or not due:
            return {}
        check = self.check(stage, state, values)
        if check.gap > self.gap_limit and not self._warned:
            self._warned = True
            print(warning(step, check, self.gap_limit, prior.phases.kind), file=sys.stderr, flush=True)
        return check.scalars()

    @property
    def gap_limit(self) -> float:
        """In nat."""
        return float(parse_quantity(self.run.config.evaluation.log_partition.gap_limit).to(nat))

    def check(self, stage: Stage, state: TrainState, values: LedgerValues) -> Check:
        """What the phases say at this state against bounds. values: the ledger with the modes' own claim of log Z."""
        prior = stage.spec.prior
        assert prior is not None
        sampled = self.sampled(stage, state)
        data = self.sampled(stage, state, True) if self.run.config.evaluation.log_partition.net == "sampled" else None
        if prior.phases.kind != "chains":
            return check_modes(sampled, data, values.log_partition, mode_data_claim(values, state))
        mean = partial(_chain_mean, stage.program, state, stage.sets)
        return check_chains(sampled, data, float(mean(False)), None if data is None else float(mean(True)))

    def sampled(self, stage: Stage, state: TrainState, with_data: bool = False) -> SampledLogPartition:
        """log Z (log Z_D with data) from both ends of annealing; the same draws for the same state."""
        if self._sampler is None or self._sampler.stage is not stage:
            self._sampler = LogPartitionSampler(stage, self.run.config.evaluation.log_partition)
            self._sampled_state = None
        if self._sampled_state is not state:
            self._sampled_state, self._samples = state, {}
        if with_data not in self._samples:  # the end of a run asks again for what its last evaluation sampled
            key = jax.random.fold_in(state.key, state.step)
            key = jax.random.fold_in(key, SAMPLED_DATA if with_data else SAMPLED)
            self._samples[with_data] = self._sampler(state, key, with_data)
        return self._samples[with_data]


def pair_names(config: RunConfig) -> tuple[str, str]:
    """What the heads of a pair are called: `first` and `second` where the objective does not tell them apart."""
    ordered = config.objective.supervision.instrumental == "untrusted"
    return HEAD_NAMES if ordered else UNORDERED


def method_names(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """What each reported head of each method of the config is called in tables, in the config's order."""
    pair = pair_names(config)
    lines = {PRIOR: tuple(f"under the prior: {name}" for name in pair)}
    lines |= {name: method.lines(pair) for name, method in METHODS.items()}
    lines |= {name: (probe.line,) for name, probe in PROBES.items()}
    return {name: lines[name] for name in config.methods}
