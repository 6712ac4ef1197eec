"""The objective's section of a config: supervision, priors, agreement, λ, and the two phases behind log Z."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from honest.config_fields import (
    Count,
    InUnit,
    Multiplier,
    NonNegative,
    Positive,
    ProperShare,
    Rows,
    Share,
    Steps,
    StepsOrNone,
    Strict,
    Tolerance,
    require,
)
from honest.config_priors import FirstPriors, ReferenceMeasure, SecondPriors
from honest.units import disagreement, nat


class Amplified(Strict):
    """Labels of a helped person on some untrusted rows (step two of the proposal)."""

    share: ProperShare  # of the untrusted training rows
    error_rate: Share  # of these labels


class Comparisons(Strict):
    """A helped person says which of two claims is the better one, and abstains unless one surely is (step three)."""

    asked: Rows  # random pairs of untrusted training rows
    abstain_rate: Share  # of the pairs of which exactly one is true; on all others the judge always abstains
    error_rate: Share  # of the comparisons made


class Supervision(Strict):
    instrumental: Literal["untrusted", "none"]
    amplified: Amplified | None
    comparisons: Comparisons | None


class Consistency(Strict):
    divergence: Literal["jensen_shannon", "symmetric_kl", "total_variation"]
    population: Rows  # N_c: rows of the declared finite population, taken from the trusted rows


class MultiplierConfig(Strict):
    update: Literal["multiplicative", "additive", "augmented_lagrangian", "nupi"]
    tolerance: Tolerance  # ε
    initial: Multiplier
    minimum: Multiplier
    maximum: Multiplier
    rate: Positive  # η, per step
    proportional_rate: NonNegative  # κ, per step (`augmented_lagrangian` and `nupi` alone)
    ema: Annotated[float, Field(ge=0, lt=1)]  # decay of the violation's moving average
    warmup_steps: StepsOrNone  # λ is frozen at `initial` for so many steps

    @model_validator(mode="after")
    def ordered(self):
        of = InUnit(nat / disagreement).value
        low, start, high = of(self.minimum), of(self.initial), of(self.maximum)
        fits = low <= start <= high
        require((fits, "initial", f"needs minimum ≤ initial ≤ maximum, has {low:g} ≤ {start:g} ≤ {high:g}"))
        return self


class PhasesConfig(Strict):
    """The two phases behind −log Z + log Z_D, always of one kind (design §2)."""

    kind: Literal["points", "laplace", "chains"]
    learning_rate: Positive  # modes: Adam step on the whitened offsets
    burn_in_steps: StepsOrNone  # phases alone move first, from every start; the best start is kept
    volume_rows: Rows  # laplace: rows per likelihood term in the Gram form
    volume_every: Steps  # laplace: steps between refreshes of the volume's force
    chains: Count  # chains: how many per phase
    asked_chains: Count | None  # chains: how many stage one asks in a step, in turn (noisier, cheaper); null: all
    leapfrog_steps: Count  # chains: 1 is MALA
    step_size: Positive  # chains: initial, in whitened units
    target_accept: ProperShare
    move_every: Steps  # chains: steps between moves, of both phases alike (burn-in moves at every step)
    adjusted: bool  # chains: accept/reject on the whole declared sets; false: unadjusted moves on batches
    chunk_rows: Rows  # rows per chunk where whole sets are summed
    control_variate: Literal["none", "newton_stein"]  # chains: newton_stein takes noise out of stage one's gradient
    cg_steps: Count  # newton_stein: conjugate-gradient steps of its P⁻¹

    @property
    def asked(self) -> int:
        """Chains that stage one asks in a step."""
        return self.chains if self.asked_chains is None else self.asked_chains

    @model_validator(mode="after")
    def control_variate_fits(self):
        newton_stein = self.control_variate == "newton_stein"
        what = f"newton_stein takes sampling noise from chains, but phases.kind is {self.kind}"
        asked = self.asked
        turns = (
            f"has to divide objective.phases.chains, {self.chains}, for all chains to have their turns; it is {asked}"
        )
        some = f"newton_stein corrects the mean over all {self.chains} chains: set it to null, not to {asked}"
        odd = f"newton_stein corrects each half of the chains by the other: it needs an even number, not {self.chains}"
        require(
            (not newton_stein or self.kind == "chains", "control_variate", what),
            (not newton_stein or self.kind != "chains" or self.chains % 2 == 0, "chains", odd),
            (self.kind != "chains" or self.chains % asked == 0, "asked_chains", turns),
            (not newton_stein or self.kind != "chains" or asked == self.chains, "asked_chains", some),
        )
        return self


class ObjectiveConfig(Strict):
    staging: Literal["heads_then_trunk", "all"]
    anchor: Literal["init", "trained"]  # the priors' centre: initialisation, or the trunk stage's result
    supervision: Supervision
    log_partition: Literal["included", "omitted"]  # omitted: stage one climbs log Z_D alone, as a contrast
    reference_measure: ReferenceMeasure
    first_prior: FirstPriors
    second_prior: SecondPriors
    consistency: Consistency
    multiplier: MultiplierConfig
    phases: PhasesConfig
