"""What a run is: frozen, strict models of the YAML config. Reading files and reporting errors is `config_io`.

Every field that has a unit is a text "number unit", e.g. ``trunk: 1.0 θ.trunk`` (``theta.trunk`` is read as
well). It is checked against the unit in its type, kept as text, so that a resolved config reads alike, and
made a `Quantity` by `parse_quantity` where it is used. Counts are plain integers whose type names what is
counted; probabilities and rates are plain numbers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from honest.config_fields import (
    Count,
    Evaluations,
    Nats,
    NonNegative,
    Positive,
    ProperShare,
    Rows,
    Seed,
    Share,
    Steps,
    StepsOrNone,
    Strict,
    require,
)
from honest.config_objective import ObjectiveConfig
from honest.config_priors import explained_by, too_many_rows
from honest.config_tasks import ArithmeticTask, DiamondsTask, Task, WorldTask
from honest.units import displacement

GROUPS = ("trunk", "intended_head", "instrumental_head")
GROUP_UNITS = {
    "trunk": displacement("trunk"),
    "intended_head": displacement("head"),
    "instrumental_head": displacement("head"),
}

# --- model --------------------------------------------------------------------------------------------------


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
        width, heads, key_value_heads = self.width, self.attention_heads, self.key_value_heads
        even = self.positions != "rotary" or width % heads != 0 or (width // heads) % 2 == 0
        require(
            (width % heads == 0, "width", f"{width} is not a multiple of attention_heads {heads}"),
            (
                heads % key_value_heads == 0,
                "key_value_heads",
                f"attention_heads {heads} is not a multiple of key_value_heads {key_value_heads}",
            ),
            (even, "width", f"rotary positions need an even width / attention_heads, not {width}/{heads}"),
        )
        return self


# --- training -----------------------------------------------------------------------------------------------


class OptimizerConfig(Strict):
    learning_rate: Positive
    weight_decay: NonNegative
    warmup_steps: StepsOrNone
    schedule: Literal["constant", "cosine"]
    clip_norm: Positive


class StageConfig(Strict):
    steps: Steps
    batch_rows: Rows  # rows per likelihood term and step
    optimizer: OptimizerConfig

    @model_validator(mode="after")
    def warm_up_ends(self):
        warmup = self.optimizer.warmup_steps
        what = f"{warmup} warm-up steps do not end within the stage's {self.steps} steps"
        require((warmup < self.steps, "optimizer.warmup_steps", what))
        return self


class Stages(Strict):
    """In order of running; `heads` serves single head, plain heads and ceiling alike: equal budgets."""

    trunk: StageConfig
    heads: StageConfig
    prior: StageConfig


class LogPartitionEvaluation(Strict):
    """Annealing from both ends: log Z for the report, and bounds against which the phases' claims are checked."""

    particles: Count  # up from the prior, down from where these end, and down from the phase's own position
    bridges: Count  # temperatures between prior and target, each one gradient over the whole sets a particle
    tail_probability: ProperShare  # δ of each one-sided bound
    check_every: Evaluations | None  # of the prior stage's evaluations, every so many-th is checked, and the last one
    net: Literal["sampled", "limit"]  # log Z_D bounded by sampling over all data; or only by log Z_D ≤ log Z (free)
    gap_limit: Nats  # a claim further outside its bounds is warned of


# --- baselines ------------------------------------------------------------------------------------------------


class DivDisConfig(Strict):
    mutual_information: NonNegative  # weight of I(y₁; y₂) on the untrusted rows
    balance: NonNegative  # weight of each head's KL(mean prediction ‖ label shares of the trusted rows)


class DBatConfig(Strict):
    disagreement: NonNegative  # weight of −log P(y₁ ≠ y₂) on the untrusted rows


class ConfidenceConfig(Strict):
    weight: Share  # α at the end of the warm-up
    warmup_share: Share  # of the stage's steps


class ProbesConfig(Strict):
    l2: Positive  # nat/example, of standardised features' weights
    restarts: Count  # of CCS


class BaselinesConfig(Strict):
    """What the methods beside the prior need; steps and batches are those of `stages.heads` for all of them."""

    divdis: DivDisConfig
    dbat: DBatConfig
    confidence: ConfidenceConfig
    probes: ProbesConfig


MethodName = Literal[
    "single_head",
    "plain_heads",
    "truth_ceiling",
    "person_head",
    "divdis",
    "dbat",
    "confidence",
    "logistic_regression",
    "difference_in_means",
    "lda",
    "contrast_logistic",
    "ccs",
    "random",
    "prior",
]


CONTRAST_METHODS = ("contrast_logistic", "ccs")  # they read a question with each answer appended


class EvaluationConfig(Strict):
    every: Steps  # steps between evaluations within a stage
    log_every: Steps  # steps between logged training metrics
    batch_rows: Rows
    bootstrap: Count  # resamples for the intervals
    log_partition: LogPartitionEvaluation


class CheckpointConfig(Strict):
    every: Steps  # steps; events are written when the checkpoint that covers them is committed
    keep: Count


class ComputeConfig(Strict):
    """How a model's passes are computed; what is computed stays the same, up to rounding."""

    dtype: Literal["parameters", "bfloat16"]  # of the network's matrices; parameters, priors and log Z keep `precision`
    rematerialise: bool  # each block's activations are computed again in the backward pass
    micro_batches: Count  # parts of a batch, with one part's activations at a time; on a CPU a trunk is faster in 8


class ParallelConfig(Strict):
    devices: Count | None  # null: all that jax sees; batches that do not divide into these are refused at the start
    strategy: Literal["auto", "pmap", "fsdp"]
    hosts: Literal["one", "detect"]  # detect: one of several processes, as the cluster (or the environment) says


class RunConfig(Strict):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    seed: Seed
    precision: Literal["float32", "float64"]
    task: Task
    model: ModelConfig
    objective: ObjectiveConfig
    methods: Annotated[list[MethodName], Field(min_length=1)]  # in order of running, after the trunk
    baselines: BaselinesConfig
    stages: Stages
    evaluation: EvaluationConfig
    checkpoint: CheckpointConfig
    compute: ComputeConfig
    parallel: ParallelConfig

    @model_validator(mode="after")
    def sections_fit(self):
        frozen, steps = self.objective.multiplier.warmup_steps, self.stages.prior.steps
        what = f"λ is frozen for {frozen} steps, but stages.prior.steps is {steps}"
        checks = [(frozen <= steps, "objective.multiplier.warmup_steps", what)]
        laplace = self.objective.phases.kind == "laplace"
        tv = self.objective.consistency.divergence == "total_variation"
        what = "phases.kind laplace needs a curvature, and total_variation has none: it is not quadratic at agreement"
        checks.append((not (laplace and tv), "objective.consistency.divergence", what))
        decay = self.stages.prior.optimizer.weight_decay
        what = f"weight decay {decay} would be a prior without a row in the ledger: set it to 0 and use first_prior"
        checks.append((decay == 0, "stages.prior.optimizer.weight_decay", what))
        if isinstance(self.task, ArithmeticTask | DiamondsTask | WorldTask):
            population, trusted = self.objective.consistency.population, self.task.rows.trusted
            what = f"{population} of the trusted rows are asked for, but task.rows.trusted is {trusted}"
            checks.append((population <= trusted, "objective.consistency.population", what))
            rows, amplified = self.task.rows, self.objective.supervision.amplified
            helped = 0 if amplified is None else round(amplified.share * rows.untrusted)
            checks += [(False, *each) for each in self.too_many_rows(rows.world, rows.trusted + helped, rows.untrusted)]
        devices = self.parallel.devices or 1  # null: how many there are is only known where the run starts
        for name in ("trunk", "heads", "prior"):
            batch = getattr(self.stages, name).batch_rows
            what = f"{batch} rows do not divide into the {devices} of parallel.devices"
            checks.append((batch % devices == 0, f"stages.{name}.batch_rows", what))
        twice = sorted({name for name in self.methods if self.methods.count(name) > 1})
        checks.append((not twice, "methods", f"names {', '.join(twice)} more than once"))
        pairs = [name for name in self.methods if name in CONTRAST_METHODS]
        has_pairs = isinstance(self.task, ArithmeticTask) and self.task.answer_tokens
        what = f"{', '.join(pairs)} read contrast pairs, for which task.kind is arithmetic and task.answer_tokens true"
        checks.append((has_pairs or not pairs, "methods", what))
        require(*checks)
        return self

    def too_many_rows(self, world: int, trusted: int, untrusted: int) -> list[tuple[str, str]]:
        """(key, what is wrong) of priors that ask for more training rows than there are of each set."""
        objective = self.objective
        have = explained_by(world, trusted, untrusted if objective.supervision.instrumental == "untrusted" else None)
        wrong = too_many_rows(objective.first_prior, objective.second_prior, objective.staging, have)
        return list(wrong) if "prior" in self.methods else []
