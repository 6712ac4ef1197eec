"""The static description of a stage: what `train_step` closes over. No arrays, and no config below this line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import optax

from honest.baselines.method import Penalty
from honest.config import GROUPS
from honest.objective.predictions import Counts, Predictor
from honest.train.multiplier import MultiplierRule

HEADS = ("intended_head", "instrumental_head")


@dataclass(frozen=True)
class PhaseSettings:
    """How both phases are followed (always alike). learning_rate and step_size are in whitened units.

    control_variate, cg_steps: of chains' part in stage one's gradient; `newton_stein` needs an even number of chains.
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


@dataclass(frozen=True)
class PriorSpec:
    """The part of the objective beyond the data. The priors' families and scales are in `Held`: they are traced.

    log_partition: whether −log Z is part of the objective (without it, a contrast, stage one climbs log Z_D alone).
    """

    staging: Literal["heads_then_trunk", "all"]
    log_partition: bool
    divergence: str
    multiplier: MultiplierRule
    phases: PhaseSettings

    @property
    def trained(self) -> tuple[str, ...]:
        """Stage one: chosen around the anchor."""
        return HEADS if self.staging == "heads_then_trunk" else GROUPS

    @property
    def variables(self) -> frozenset[str]:
        """What the log posterior is a density of."""
        return frozenset(f"θ1.{g}" for g in self.trained) | frozenset(f"θ2.{g}" for g in self.resampled)

    @property
    def resampled(self) -> tuple[str, ...]:
        """Stage two: drawn around its centre in both phases."""
        return ("trunk",) if self.staging == "heads_then_trunk" else GROUPS


@dataclass(frozen=True)
class StageSpec:
    """examples: what the loss is divided by to be in nat/example. prior None: maximum likelihood of the data term.

    penalty: a baseline's loss beyond the data, on the rows in the place of the consistency set; None elsewhere.
    """

    name: str
    predictor: Predictor
    trained: tuple[str, ...]
    counts: Counts
    examples: int
    optimizer: optax.GradientTransformation
    prior: PriorSpec | None
    penalty: Penalty | None
