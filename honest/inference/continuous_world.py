"""A continuous world of two heads and a tabular trunk: 2 to 50 parameters whose posterior quadrature gives exactly.

    trunk    one belief θ_j ~ N(0, σ2²) each: what the person is thought to think of some inputs; the facts are known
    heads    logit of "yes" at input x:  w_fact · fact_x + w_belief · sign_x · θ_{j(x)},   w ~ N(anchor, stddev²)
    agree    λ · JS of the two heads' answers, on every trusted input
    labels   of a trusted input explained by the intended head, the person's of an untrusted one by the instrumental

It is the finite world (`world.py`) with the readers' bits made distances: a head that reads the fact is honest, one
that reads the belief imitates. Given the heads the beliefs are independent, so that Z and Z_D are products of
one-dimensional integrals, however many beliefs there are.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from honest.config_fields import Count, HeadStddev, Multiplier, Strict, TrunkStddev, require

MOST_PARAMETERS = 50
Bit = Annotated[int, Field(ge=0, le=1)]


class WorldInput(Strict):
    """fact: its logit, ± for yes and no. sign: of the belief in the heads' logits."""

    fact: float
    sign: Literal[-1, 1]
    trusted: bool
    label: Bit | None = None
    person_label: Bit | None = None

    @model_validator(mode="after")
    def consistent(self):
        what = "label is for a trusted input, where people are right; an untrusted one has a person_label"
        require((self.trusted or self.label is None, "label", what))
        what = "person_label is for an untrusted input; a trusted one has its label"
        require((not self.trusted or self.person_label is None, "person_label", what))
        return self


class Belief(Strict):
    """copies: that many beliefs alike, a parameter each, with inputs of their own."""

    copies: Count
    inputs: Annotated[list[WorldInput], Field(min_length=1)]


class Weights(Strict):
    """Of one head: what it is planted at or starts from, for its two weights in θ.head."""

    fact: float
    belief: float


class Stddevs(Strict):
    """σ1 of one head's weights; null holds a weight at its anchor: planted, not a parameter."""

    fact: HeadStddev | None
    belief: HeadStddev | None


class Head(Strict):
    anchor: Weights
    stddev: Stddevs


class Heads(Strict):
    intended: Head
    instrumental: Head


class Trunk(Strict):
    stddev: TrunkStddev


class ContinuousWorld(Strict):
    """A world as it is written in YAML."""

    kind: Literal["continuous"]
    heads: Heads
    trunk: Trunk
    beliefs: Annotated[list[Belief], Field(min_length=1)]
    multiplier: Multiplier

    @property
    def parameters(self) -> int:
        heads = (self.heads.intended.stddev, self.heads.instrumental.stddev)
        free = sum(stddev is not None for head in heads for stddev in (head.fact, head.belief))
        return free + sum(belief.copies for belief in self.beliefs)

    @model_validator(mode="after")
    def small(self):
        what = f"the world has {self.parameters} parameters, more than the {MOST_PARAMETERS} this is made for"
        require((self.parameters <= MOST_PARAMETERS, "beliefs", what))
        trusted = any(x.trusted for belief in self.beliefs for x in belief.inputs)
        require((trusted, "beliefs", "no input is trusted: there is nothing to agree on"))
        return self
