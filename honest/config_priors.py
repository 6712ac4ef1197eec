"""Priors in the config: one family a group and stage, each scale a text in that group's unit (see parameter_prior).

`S` is the type of a scale: a positive number of θ.trunk or of θ.head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field, model_validator

from honest.config_fields import (
    Bits,
    Count,
    HeadStddev,
    NonNegativeRows,
    Positive,
    Rows,
    Strict,
    Text,
    TrunkStddev,
    require,
)
from honest.units import parse_quantity

S = TypeVar("S")
R = TypeVar("R")
STAGED = {  # staging -> groups of stage one (chosen around the anchor), and of stage two (drawn around its centre)
    "heads_then_trunk": (("intended_head", "instrumental_head"), ("trunk",)),
    "all": (("trunk", "intended_head", "instrumental_head"),) * 2,
}
GAUSSIAN = ("gaussian", "diagonal", "kronecker")


class GaussianPrior(Strict, Generic[S]):
    """Isotropic. tensors: σ of the tensors whose path matches a pattern (`*` any, the first match holds), or null."""

    kind: Literal["gaussian"]
    stddev: S
    tensors: dict[str, S] | None


class FisherScales(Strict, Generic[S]):
    """precision_i = (1 nat)/stddev² + examples · F_i, F_i from the first `rows` rows at θ0."""

    source: Literal["fisher"]
    stddev: S
    examples: NonNegativeRows
    rows: Rows


class FileScales(Strict):
    source: Literal["file"]
    path: Text  # .npz; relative to the config file's folder unless absolute


class DiagonalPrior(Strict, Generic[S]):
    kind: Literal["diagonal"]
    scales: Annotated[FisherScales[S] | FileScales, Field(discriminator="source")]


class KroneckerPrior(Strict, Generic[S]):
    """As `diagonal` with `fisher`, with a Kronecker-factored F."""

    kind: Literal["kronecker"]
    stddev: S
    examples: NonNegativeRows
    rows: Rows
    largest_axis: Count  # of a longer axis only the diagonal of its factor is kept


class TowardZeroPrior(Strict, Generic[S]):
    kind: Literal["toward_zero"]
    stddev: S
    per: Literal["weight", "tensor"]


class StudentTPrior(Strict, Generic[S]):
    kind: Literal["student_t"]
    scale: S
    degrees_of_freedom: Positive


class LaplacePrior(Strict, Generic[S]):
    kind: Literal["laplace"]
    scale: S


class HorseshoePrior(Strict, Generic[S]):
    kind: Literal["horseshoe"]
    scale: S
    floor: S


class TiedPrior(Strict, Generic[S]):
    kind: Literal["tied"]
    stddev: S
    tie_stddev: S
    bits: Bits

    @model_validator(mode="after")
    def narrow_tie(self):
        fits = parse_quantity(str(self.tie_stddev)) < parse_quantity(str(self.stddev))
        require((fits, "tie_stddev", f"{self.tie_stddev} is not below the independent head's stddev {self.stddev}"))
        return self


class SparsePrior(Strict, Generic[S]):
    kind: Literal["sparse"]
    stddev: S
    spike_stddev: S
    bits: Bits
    per: Literal["weight", "column", "tensor"]

    @model_validator(mode="after")
    def narrow_spike(self):
        fits = parse_quantity(str(self.spike_stddev)) < parse_quantity(str(self.stddev))
        require((fits, "spike_stddev", f"{self.spike_stddev} is not below the slab's stddev {self.stddev}"))
        return self


TrunkPrior = Annotated[
    GaussianPrior[TrunkStddev]
    | DiagonalPrior[TrunkStddev]
    | KroneckerPrior[TrunkStddev]
    | TowardZeroPrior[TrunkStddev]
    | StudentTPrior[TrunkStddev]
    | LaplacePrior[TrunkStddev]
    | HorseshoePrior[TrunkStddev]
    | TiedPrior[TrunkStddev]
    | SparsePrior[TrunkStddev],
    Field(discriminator="kind"),
]
HeadPrior = Annotated[
    GaussianPrior[HeadStddev]
    | DiagonalPrior[HeadStddev]
    | KroneckerPrior[HeadStddev]
    | TowardZeroPrior[HeadStddev]
    | StudentTPrior[HeadStddev]
    | LaplacePrior[HeadStddev]
    | HorseshoePrior[HeadStddev]
    | TiedPrior[HeadStddev]
    | SparsePrior[HeadStddev],
    Field(discriminator="kind"),
]


class FirstPriors(Strict):
    """Stage one, around θ0."""

    trunk: TrunkPrior
    intended_head: HeadPrior
    instrumental_head: HeadPrior

    @model_validator(mode="after")
    def tied_second_head(self):
        what = "tied makes the instrumental head a copy of the intended one: give it to instrumental_head, not here"
        groups = ("trunk", "intended_head")
        require(*((getattr(self, group).kind != "tied", f"{group}.kind", what) for group in groups))
        return self


class SecondPriors(Strict):
    """Stage two, around c. Gaussian families alone."""

    trunk: TrunkPrior
    intended_head: HeadPrior
    instrumental_head: HeadPrior

    @model_validator(mode="after")
    def gaussian(self):
        def check(group: str) -> tuple[bool, str, str]:
            kind = getattr(self, group).kind
            what = f"{kind!r} is refused in the second stage: Z, chains and forces assume one of {', '.join(GAUSSIAN)}"
            return kind in GAUSSIAN, f"{group}.kind", what

        require(*map(check, ("trunk", "intended_head", "instrumental_head")))
        return self


class ReferenceMeasure(Strict):
    """u of ∏ dθ_i/u for every prior and stage: it shifts the constants, and nothing else."""

    trunk: TrunkStddev
    head: HeadStddev


def explained_by(world: R, trusted: R, untrusted: R | None) -> dict[str, R]:
    """Group -> the rows that its Fisher information is taken from; untrusted: None where the person's answers are
    withheld."""
    return {
        "trunk": world,
        "intended_head": trusted,
        "instrumental_head": trusted if untrusted is None else untrusted,
    }


def too_many_rows(
    first: FirstPriors, second: SecondPriors, staging: str, have: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) of each prior in use whose scales are made from more rows than there are of `have`."""
    for role, priors, groups in zip(("first_prior", "second_prior"), (first, second), STAGED[staging], strict=True):
        for group in groups:
            prior, key = getattr(priors, group), f"objective.{role}.{group}"
            if isinstance(prior, DiagonalPrior):
                prior, key = prior.scales, f"{key}.scales"
            if isinstance(prior, FisherScales | KroneckerPrior) and prior.rows > have[group]:
                yield f"{key}.rows", f"asks for {prior.rows} rows, but there are {have[group]} to take them from"
