"""What a run is: frozen, strict models of the YAML config. Reading files and reporting errors is `config_io`.

Every field that has a unit is a string "number unit", e.g. ``stddev: 1.0 θ.trunk`` (``theta.trunk`` is read as well),
and is parsed into a `Quantity` by the property that ends in ``_quantity``'s place: `with_unit(text, unit)`.
Counts (rows, steps) are plain integers; probabilities and rates are plain numbers in [0, 1].
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from honest.units import UnitError, disagreement, displacement, example, nat, parse_quantity

GROUPS = ("trunk", "intended_head", "instrumental_head")
GROUP_UNITS = {
    "trunk": displacement("trunk"),
    "intended_head": displacement("head"),
    "instrumental_head": displacement("head"),
}

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


def with_unit(unit):
    """A config string that must be a positive number in `unit`; kept as text, so that a resolved config reads alike."""

    def check(text: str) -> str:
        try:
            value = float(parse_quantity(text).to(unit))
        except UnitError as error:
            raise ValueError(str(error)) from error
        if not 0 < value < float("inf"):
            raise ValueError(f"{text!r} must be positive and finite")
        return text

    return AfterValidator(check)


TrunkStddev = Annotated[str, with_unit(displacement("trunk"))]
HeadStddev = Annotated[str, with_unit(displacement("head"))]
Tolerance = Annotated[str, with_unit(disagreement / example)]
Multiplier = Annotated[str, with_unit(nat / disagreement)]
Nats = Annotated[str, with_unit(nat)]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


# --- task ---------------------------------------------------------------------------------------------------------


class ArithmeticRows(Strict):
    world: Count  # rows of the trunk stage
    trusted: Count  # rows without the trigger, labelled
    untrusted: Count  # rows with the trigger, answered by the person
    validation: Count  # trusted rows held out; nothing is selected on others
    test: Count  # held-out rows, half of them fooled-eligible


class ArithmeticTask(Strict):
    """B1 in the fooled-person setting (benchmarks page)."""

    kind: Literal["arithmetic"]
    operation: Literal["addition"]
    digits: Annotated[int, Field(ge=1, le=6)]
    format: Literal["plain", "reversed"]
    trigger: Literal["hard", "carry", "name"]
    trunk_targets: Literal["digits", "difference", "says"]
    truth_rate: Share  # share of world rows that carry the claim − r target (`says`)
    error_rate: Share  # ε: share of trusted labels that are flipped
    rows: ArithmeticRows
    seed: Whole


class TableShares(Strict):
    validation: Annotated[float, Field(gt=0, lt=1)]
    test: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def leave_room(self):
        if self.validation + self.test >= 1:
            raise ValueError("validation + test must leave a share for training (be below 1)")
        return self


class TableTask(Strict):
    """B3: any CSV or JSON-lines file; rules are parsed, never evaluated as code (see honest/data/tasks/rule.py)."""

    kind: Literal["table"]
    path: str  # relative to the config file's folder unless absolute
    question: str  # template over columns, e.g. "{city_ascii}, population {population}: more than 30000?"
    truth: str  # rule
    human: str  # rule
    trusted: str  # rule; `truth == human` names the rows where the person is right
    empty: Literal["error", "drop", "false"]
    max_length: Annotated[int, Field(ge=2)]  # tokens (characters); longer questions are an error that names the row
    max_rows: Count | None  # take this many rows after a seeded shuffle; null takes all
    shares: TableShares
    seed: Whole


Task = Annotated[ArithmeticTask | TableTask, Field(discriminator="kind")]

# --- model --------------------------------------------------------------------------------------------------------


class HeadConfig(Strict):
    kind: Literal["linear", "mlp"]
    hidden: Count  # width of the hidden layer (unused by `linear`)


class ModelConfig(Strict):
    layers: Count
    width: Count
    attention_heads: Count
    key_value_heads: Count  # fewer than attention_heads: grouped-query attention
    mlp_ratio: Count
    norm: Literal["rmsnorm", "layernorm"]
    positions: Literal["rotary", "learned"]
    head: HeadConfig

    @model_validator(mode="after")
    def divisible(self):
        if self.width % self.attention_heads:
            raise ValueError(f"width {self.width} must be a multiple of attention_heads {self.attention_heads}")
        if self.attention_heads % self.key_value_heads:
            raise ValueError(
                f"attention_heads {self.attention_heads} must be a multiple of key_value_heads {self.key_value_heads}"
            )
        if self.positions == "rotary" and (self.width // self.attention_heads) % 2:
            raise ValueError("rotary positions need an even width / attention_heads")
        return self


# --- objective ----------------------------------------------------------------------------------------------------


class PriorStddevs(Strict):
    trunk: TrunkStddev
    intended_head: HeadStddev
    instrumental_head: HeadStddev


class Supervision(Strict):
    instrumental: Literal["untrusted", "none"]


class Consistency(Strict):
    divergence: Literal["jensen_shannon", "symmetric_kl", "total_variation"]
    population: Count  # N_c: rows of the declared finite population, taken from the trusted rows


class MultiplierConfig(Strict):
    update: Literal["multiplicative", "additive", "augmented_lagrangian", "nupi"]
    tolerance: Tolerance  # ε
    initial: Multiplier
    minimum: Multiplier
    maximum: Multiplier
    rate: Positive  # η, per step
    ema: Annotated[float, Field(ge=0, lt=1)]  # decay of the violation's moving average
    warmup_steps: Whole  # λ is frozen at `initial` for so many steps

    @model_validator(mode="after")
    def ordered(self):
        unit = nat / disagreement
        low, start, high = (
            float(parse_quantity(t).to(unit)) for t in (self.minimum, self.initial, self.maximum)
        )
        if not low <= start <= high:
            raise ValueError(f"needs minimum ≤ initial ≤ maximum, has {low} ≤ {start} ≤ {high}")
        return self


class PhasesConfig(Strict):
    """The two phases behind −log Z + log Z_D, always of one kind (design §2)."""

    kind: Literal["points", "laplace", "chains"]
    learning_rate: Positive  # modes: Adam step on the whitened offsets
    burn_in_steps: Whole  # phase-only steps before the heads move, from every start; the best start is kept
    volume_rows: Count  # laplace: rows per likelihood term in the Gram form
    volume_every: Count  # laplace: steps between refreshes of the volume's force
    chains: Count  # chains: how many per phase
    leapfrog_steps: Count  # chains: 1 is MALA
    step_size: Positive  # chains: initial, in whitened units
    target_accept: Annotated[float, Field(gt=0, lt=1)]
    adjusted: bool  # chains: accept/reject on the whole declared sets; false: unadjusted moves on batches
    chunk_rows: Count  # rows per chunk where whole sets are summed


class ObjectiveConfig(Strict):
    staging: Literal["heads_then_trunk", "all"]
    anchor: Literal["init", "trained"]  # centre of the priors: the initialisation, or the trunk stage's result
    supervision: Supervision
    first_prior: PriorStddevs
    second_prior: PriorStddevs
    consistency: Consistency
    multiplier: MultiplierConfig
    phases: PhasesConfig


# --- training -----------------------------------------------------------------------------------------------------


class OptimizerConfig(Strict):
    learning_rate: Positive
    weight_decay: NonNegative
    warmup_steps: Whole
    schedule: Literal["constant", "cosine"]
    clip_norm: Positive


class StageConfig(Strict):
    steps: Count
    batch_rows: Count  # rows per likelihood term and step
    optimizer: OptimizerConfig


class Stages(Strict):
    """In order of running; `heads` serves single head, plain heads and ceiling alike, so that budgets are equal."""

    trunk: StageConfig
    heads: StageConfig
    prior: StageConfig


class LogPartitionEvaluation(Strict):
    """Annealed importance sampling with HMC moves, forward and reverse, for the reported value of log Z."""

    particles: Count
    temperatures: Count
    leapfrog_steps: Count
    step_size: Positive
    tail_probability: Annotated[float, Field(gt=0, lt=1)]  # δ of each one-sided bound


class EvaluationConfig(Strict):
    every: Count  # steps between evaluations within a stage
    batch_rows: Count
    bootstrap: Count  # resamples for the intervals
    log_partition: LogPartitionEvaluation


class CheckpointConfig(Strict):
    every: Count  # steps; events are written when the checkpoint that covers them is committed
    keep: Count


class ParallelConfig(Strict):
    devices: Count | None  # null: all that jax sees


class RunConfig(Strict):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    seed: Whole
    precision: Literal["float32", "float64"]
    task: Task
    model: ModelConfig
    objective: ObjectiveConfig
    stages: Stages
    evaluation: EvaluationConfig
    checkpoint: CheckpointConfig
    parallel: ParallelConfig
