"""The static description of a stage: what `train_step` closes over. No config below this line.

No arrays either, but for one case: where several members of a sweep share a program, the settings of a stage that are
mere numbers (`Numbers`) are traced, and `with_numbers` puts the traced values in the place of the floats.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import optax

from honest.baselines.method import Penalty
from honest.config_priors import STAGED
from honest.objective.predictions import Counts, Predictor
from honest.train import optimizer as optimizers
from honest.train.multiplier import MultiplierRule

HEADS = ("intended_head", "instrumental_head")


@dataclass(frozen=True)
class PhaseSettings:
    """How both phases are followed (always alike). learning_rate and step_size are in whitened units.

    control_variate, cg_steps: of chains' part in stage one's gradient; `newton_stein` needs an even number of chains.
    asked_chains: how many of the chains stage one asks in a step; they take turns, and it divides `chains`.
    """

    kind: Literal["points", "laplace", "chains"]
    learning_rate: float
    volume_every: int
    chains: int
    leapfrog_steps: int
    step_size: float
    target_accept: float
    adjusted: bool
    chunk_rows: int
    control_variate: Literal["none", "newton_stein"]
    cg_steps: int
    move_every: int
    asked_chains: int


@dataclass(frozen=True)
class PriorSpec:
    """The part of the objective beyond the data. The priors' families and scales are in `Held`: they are traced.

    log_partition: whether −log Z is part of the objective (without it, a contrast, stage one climbs log Z_D alone).
    batch_particles: whether a phase's particles are computed in one batch, or in turn (`honest.params.batched`).
    """

    staging: Literal["heads_then_trunk", "all"]
    log_partition: bool
    divergence: str
    multiplier: MultiplierRule
    phases: PhaseSettings
    batch_particles: bool

    @property
    def trained(self) -> tuple[str, ...]:
        """Stage one: chosen around the anchor."""
        return STAGED[self.staging][0]

    @property
    def variables(self) -> frozenset[str]:
        """What the log posterior is a density of."""
        return frozenset(f"θ1.{g}" for g in self.trained) | frozenset(f"θ2.{g}" for g in self.resampled)

    @property
    def resampled(self) -> tuple[str, ...]:
        """Stage two: drawn around its centre in both phases."""
        return STAGED[self.staging][1]


@dataclass(frozen=True)
class StageSpec:
    """examples: what the loss is divided by to be in nat/example. prior None: maximum likelihood of the data term.

    penalty: a baseline's loss beyond the data, on the rows in the place of the consistency set; None elsewhere.
    micro_batches: parts of a batch whose gradients are added up, see `added_up`; of a stage that `adds_up` alone.
    """

    name: str
    predictor: Predictor
    trained: tuple[str, ...]
    counts: Counts
    examples: int
    optimizer: optax.GradientTransformation
    prior: PriorSpec | None
    penalty: Penalty | None
    micro_batches: int = 1

    @property
    def adds_up(self) -> bool:
        """Whether the loss is a sum over rows, once the numbers of labels are known.

        With a prior λ weights the gradient by the whole batch's violation; a penalty is any function of all rows.
        """
        return self.prior is None and self.penalty is None


class Numbers(NamedTuple):
    """Settings of a stage that its program does not depend on, by field: floats, or traced scalars.

    optimizer: of `OptimizerSettings`. multiplier: of `MultiplierRule`, phases: of `PhaseSettings`; both empty without a
    prior.
    """

    optimizer: dict[str, Any]
    multiplier: dict[str, Any]
    phases: dict[str, Any]


OPTIMIZER_NUMBERS = ("learning_rate", "weight_decay", "clip_norm")
MULTIPLIER_NUMBERS = ("tolerance", "initial", "minimum", "maximum", "rate", "proportional_rate", "ema")
PHASE_NUMBERS = ("learning_rate", "step_size", "target_accept")


def numbers_of(settings: optimizers.OptimizerSettings, prior: PriorSpec | None) -> Numbers:
    def chosen(section: Any, names: tuple[str, ...]) -> dict[str, Any]:
        fields = vars(section)
        return {name: fields[name] for name in names}

    optimizer = chosen(settings, OPTIMIZER_NUMBERS)
    if prior is None:
        return Numbers(optimizer, {}, {})
    return Numbers(optimizer, chosen(prior.multiplier, MULTIPLIER_NUMBERS), chosen(prior.phases, PHASE_NUMBERS))


def with_numbers(spec: StageSpec, settings: optimizers.OptimizerSettings, steps: int, numbers: Numbers) -> StageSpec:
    """The stage with these numbers; steps: the stage's, which its learning-rate schedule ends with."""
    optimizer = optimizers.build(replace(settings, **numbers.optimizer), steps)
    prior = spec.prior
    if prior is not None:
        multiplier, phases = replace(prior.multiplier, **numbers.multiplier), replace(prior.phases, **numbers.phases)
        prior = replace(prior, multiplier=multiplier, phases=phases)
    return replace(spec, optimizer=optimizer, prior=prior)


NO_OPTIMIZER = optax.set_to_zero()


def program_of(spec: StageSpec) -> StageSpec:
    """The stage without its numbers, optimiser and penalty: what its *values* depend on beside states and rows.

    Equal for members of a sweep that differ in numbers alone, so that an evaluation is compiled once for all of them.
    """
    prior = spec.prior
    if prior is not None:
        blank: dict[str, Any] = dict.fromkeys(MULTIPLIER_NUMBERS, 0.0)
        multiplier = replace(prior.multiplier, **blank)
        blank = dict.fromkeys(PHASE_NUMBERS, 0.0)
        prior = replace(prior, multiplier=multiplier, phases=replace(prior.phases, **blank))
    return replace(spec, optimizer=NO_OPTIMIZER, prior=prior, penalty=None)
