"""A baseline is a choice of rows and labels for the heads on the frozen trunk; the trainer is the one trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from honest.data.batch import Batch, Splits


@dataclass(frozen=True)
class HeadRows:
    """What the intended head is trained on, and the instrumental head (None: it is neither trained nor reported)."""

    intended: Batch
    instrumental: Batch | None


@dataclass(frozen=True)
class Method:
    """rows: (splits, supervision.instrumental) -> the rows of each head. name: of its stage and in tables."""

    name: str
    rows: Callable[[Splits, str], HeadRows]
