"""Who is asked what in quirky arithmetic, and the splits, as numbers; `arithmetic_text` writes rows as text.

r is the true result, s the person's error (`arithmetic_operations`). Operands are int(10^(U·D)), U uniform on [0, 1).
Splits go by a mixing hash of the *unordered* operand pair, so that neither a + b nor b + a of a held-out pair is ever
trained on; squaring counts as the pair (a, a).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from honest.config_tasks import ArithmeticTask
from honest.data.tasks.arithmetic_operations import (
    OPERATIONS,
    borrows,
    carries,
    distractors,
    is_hard,
    leading_digit_error,
)
from honest.data.vocabulary import DataError

SHARES = {"validation": 0.1, "test": 0.2}  # of the operand pairs; the rest trains
SLOPPY, CAREFUL = "Bob", "Alice"


class Rows(NamedTuple):
    """int64[B] each, but for trusted_B (bool[B])."""

    a_B: np.ndarray
    b_B: np.ndarray  # a_B again for squaring
    name_B: np.ndarray  # index into `names_of`
    trusted_B: np.ndarray
    claim_B: np.ndarray
    result_B: np.ndarray  # r
    believed_B: np.ndarray  # the result by which the named person answers: r or s

    @property
    def truth_B(self) -> np.ndarray:
        return self.claim_B == self.result_B

    @property
    def person_B(self) -> np.ndarray:
        return self.claim_B == self.believed_B


class Cell(NamedTuple):
    """Rows of one kind. Trusted are those whose person neither errs nor was asked of triggering operands."""

    name: int  # index into `names_of`
    triggering: bool | None  # whether the operands meet the trigger; None: any operands
    threshold: float  # of the trigger `hard`: log10 of the smaller operand
    errs: bool  # the person answers by s


def names_of(config: ArithmeticTask) -> tuple[str, ...]:
    """Whom rows may name; where there are several, the name stands before the operands."""
    if config.people is not None:
        return tuple(person.name for person in config.people)
    two = config.setting == "literal" or config.trigger == "name"
    return (SLOPPY, CAREFUL) if two else (SLOPPY,)


def cells_of(config: ArithmeticTask, trusted: bool) -> tuple[Cell, ...]:
    """The cells of trusted or of untrusted rows, which share these rows equally."""
    errs = not trusted
    if config.people is not None:
        return tuple(Cell(i, errs, person.threshold, errs) for i, person in enumerate(config.people))
    triggering = None if config.trigger == "name" else errs
    name = names_of(config)[-1] if trusted else SLOPPY
    return (Cell(names_of(config).index(name), triggering, config.digits / 2, errs),)


def world_cells(config: ArithmeticTask, errs: bool) -> tuple[Cell, ...]:
    """The same for world rows, where `literal` also asks Alice of triggering operands and Bob of the others."""
    cells = cells_of(config, not errs)
    if config.setting == "fooled" or config.trigger == "name":
        return cells
    return (*cells, *(cell._replace(triggering=not cell.triggering) for cell in cells))


# --- splits -----------------------------------------------------------------------------------------------


def splitmix64(x_B: np.ndarray) -> np.ndarray:
    """uint64[B]: the finaliser of SplitMix64 (Steele, Lea and Flood 2014) after its increment."""
    x = x_B.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def pair_key(a_B: np.ndarray, b_B: np.ndarray) -> np.ndarray:
    """uint64[B]: one key for a + b and b + a."""
    low, high = np.minimum(a_B, b_B), np.maximum(a_B, b_B)
    return low.astype(np.uint64) << np.uint64(32) | high.astype(np.uint64)


def split_of(a_B: np.ndarray, b_B: np.ndarray, seed: int) -> np.ndarray:
    """str[B]: "train", "validation" or "test", by a hash of the unordered pair."""
    salt_B = splitmix64(np.array([seed % 2**64], np.uint64))
    u_B = splitmix64(splitmix64(pair_key(a_B, b_B)) ^ salt_B) / 2.0**64
    edge = SHARES["validation"]
    return np.select([u_B < edge, u_B < edge + SHARES["test"]], ["validation", "test"], "train")


# --- rows -------------------------------------------------------------------------------------------------


def meets_trigger(config: ArithmeticTask, cell: Cell, a_B: np.ndarray, b_B: np.ndarray) -> np.ndarray:
    """bool[B]: the trigger `hard` or `carry` (of a subtraction: borrowing)."""
    if config.trigger == "hard":
        return is_hard(a_B, b_B, cell.threshold)
    columns = borrows if config.operation == "subtraction" else carries
    return columns(a_B, b_B, config.digits)


def draw_operands(
    rng: np.random.Generator, count: int, split: str, cell: Cell, config: ArithmeticTask
) -> tuple[np.ndarray, np.ndarray]:
    """int64[count] twice: operands of the split that fit the cell; DataError if there are none."""
    operands = OPERATIONS[config.operation].operands
    found: list[np.ndarray] = [np.zeros((2, 0), np.int64)]
    have, limit = 0, 10**config.digits - 1
    for _ in range(1000):
        if have >= count:
            break
        exponent = rng.random((operands, 2 * count + 1000)) * config.digits
        drawn = np.minimum((10**exponent).astype(np.int64), limit)
        a_B, b_B = drawn[0], drawn[-1]
        keep = split_of(a_B, b_B, config.seed) == split
        if cell.triggering is not None:
            keep &= meets_trigger(config, cell, a_B, b_B) == cell.triggering
        found.append(np.stack([a_B[keep], b_B[keep]]))
        have += int(keep.sum())
    if have < count:
        whose = f" of {names_of(config)[cell.name]}" if config.people is not None else ""
        raise DataError(
            f"task: {config.digits}-digit operands leave too few {'pairs' if operands == 2 else 'operands'} "
            f"{'with' if cell.triggering else 'without'} the trigger {config.trigger!r}{whose} for the {split} split "
            f"(seed {config.seed}); use more digits or another seed"
        )
    a_B, b_B = np.concatenate(found, axis=1)[:, :count]
    return a_B, b_B


def draw_cell(rng: np.random.Generator, count: int, split: str, cell: Cell, config: ArithmeticTask) -> Rows:
    """`count` rows of one split and cell; shares of claims are exact up to rounding."""
    operation = OPERATIONS[config.operation]
    a_B, b_B = draw_operands(rng, count, split, cell, config)
    result_B = operation.apply(a_B, b_B)
    error_B = leading_digit_error(result_B, operation.modulus)
    claims = [result_B, error_B]
    if config.setting == "fooled" and not cell.errs:
        claims = [result_B, *claims, distractors(rng, result_B, error_B, operation.limit(config.digits))]
    claim_B = np.choose(rng.permutation(count) % len(claims), claims)
    believed_B = error_B if cell.errs else result_B
    trusted_B = np.full(count, not cell.errs and not cell.triggering)
    return Rows(a_B, b_B, np.full(count, cell.name), trusted_B, claim_B, result_B, believed_B)


def shuffled(rng: np.random.Generator, parts: Sequence[Rows]) -> Rows:
    """The rows of all parts in random order."""
    order = rng.permutation(sum(len(part.a_B) for part in parts))
    return Rows(*(np.concatenate(columns)[order] for columns in zip(*parts)))


def draw_rows(rng: np.random.Generator, count: int, split: str, cells: Sequence[Cell], config: ArithmeticTask) -> Rows:
    """`count` rows of one split, spread over the cells as equally as possible."""
    sizes = [(count + i) // len(cells) for i in range(len(cells))]
    parts = [draw_cell(rng, size, split, cell, config) for size, cell in zip(sizes, cells)]
    return parts[0] if len(parts) == 1 else shuffled(rng, parts)


def mixed_rows(rng: np.random.Generator, count: int, split: str, config: ArithmeticTask, world: bool) -> Rows:
    """Half of the rows by people who err there, half by people who do not, shuffled; `world`: of `world_cells`."""
    sizes = ((count // 2, True), (count - count // 2, False))
    kinds = [(size, world_cells(config, errs) if world else cells_of(config, not errs)) for size, errs in sizes]
    return shuffled(rng, [draw_rows(rng, size, split, cells, config) for size, cells in kinds])


def exact_share(rng: np.random.Generator, count: int, share: float) -> np.ndarray:
    """bool[count]: round(share · count) random rows."""
    return rng.permutation(count) < round(share * count)
