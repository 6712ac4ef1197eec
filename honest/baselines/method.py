"""What a baseline is: rows and labels for the heads on the frozen trunk, and a loss beyond the data if it has one.

The trainer is the one trainer. A baseline that is fitted in closed form is a `honest.baselines.probe.Probe` instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax

from honest.config import BaselinesConfig
from honest.data.batch import Batch, Splits
from honest.model.two_head import HeadLogits
from honest.units import Quantity

UNORDERED = ("first", "second")  # names of two heads that nothing tells apart
# (logits on a batch of target rows, their labels (−1 where there is none), step of the stage) -> nat/example
Penalty = Callable[[HeadLogits, jax.Array, jax.Array], Quantity]


@dataclass(frozen=True)
class HeadRows:
    """What the intended head is trained on, the instrumental head (None: it is neither trained nor reported), and
    the rows that a loss beyond the data is taken on (None: there is no such loss).

    compared: whether the intended head explains the comparisons too, where there are any."""

    intended: Batch
    instrumental: Batch | None
    target: Batch | None
    compared: bool = False


class PenaltyContext(NamedTuple):
    """What a loss may depend on beside the batch: its settings, the stage's rows on the host, and its steps."""

    settings: BaselinesConfig
    rows: HeadRows
    steps: int


@dataclass(frozen=True)
class Method:
    """name: of its stage. lines: what its heads are called in tables; `pair`: "intended" and "instrumental", or
    "first" and "second" where the objective does not tell them apart.

    rows: (splits, supervision.instrumental) -> the rows of each head. penalty: makes the loss beyond the data.
    """

    name: str
    lines: Callable[[tuple[str, str]], tuple[str, ...]]
    rows: Callable[[Splits, str], HeadRows]
    penalty: Callable[[PenaltyContext], Penalty] | None


def one_line(text: str) -> Callable[[tuple[str, str]], tuple[str, ...]]:
    """A method with one head."""
    return lambda _pair: (text,)


def unordered(text: str) -> Callable[[tuple[str, str]], tuple[str, ...]]:
    """A method with two heads that nothing tells apart."""
    return lambda _pair: tuple(f"{text}: {name}" for name in UNORDERED)
