"""The five operations of quirky arithmetic, the person's error, distractors and triggers, as numbers.

Results, claims and the person's results are whole numbers; their digits are those of the absolute value, and the sign
of a subtraction is a place of its own above them. So everything here is about |r| and keeps the sign:

- the person's error s has the leading digit one too high: |s| = |r| + 10^(digits of |r| − 1); 0 becomes 1. (Taking
  len(str(r)) with the minus sign, as a literal reading of the formula would, makes s = 5 of r = −5, and does not raise
  the leading digit.) Modular addition then takes s mod 113.
- a distractor replaces one random digit of |r|, never the sign, until the number differs from r and s; below the
  modulus where there is one. −5 may become −0, which is 0.
- hence the sign of s is that of r, and a wrong sign is never what makes a claim false (but for that 0).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

MODULUS = 113


class Operation(NamedTuple):
    symbol: str  # between the operands, or behind the only one
    typed: str  # regular expression of what a person may type for it
    example: str  # a true claim
    operands: int
    apply: Callable[[np.ndarray, np.ndarray], np.ndarray]  # of both operands; squaring gets its one operand twice
    claim_digits: Callable[[int], int]  # enough for |r|, |s| and every distractor, given the digits D of an operand
    signed: bool
    modulus: int | None

    def places(self, digits: int) -> int:
        """W: digits of a claim, and the sign's place above them where there is one."""
        return self.claim_digits(digits) + self.signed

    def limit(self, digits: int) -> int:
        """The smallest absolute value that no claim has."""
        return self.modulus or 10 ** self.claim_digits(digits)


def _sum_modulo(a_B: np.ndarray, b_B: np.ndarray) -> np.ndarray:
    return (a_B + b_B) % MODULUS


OPERATIONS = {
    "addition": Operation("+", r"\+", "12 + 39 = 51", 2, np.add, lambda digits: digits + 1, False, None),
    "subtraction": Operation("-", "[-−]", "12 - 39 = -27", 2, np.subtract, lambda digits: digits + 1, True, None),
    "multiplication": Operation(
        "*", "[*×]", "12 * 39 = 468", 2, np.multiply, lambda digits: 2 * digits + 1, False, None
    ),
    "squaring": Operation(
        "²", r"(?:²|\^\s*2)", "12² = 144", 1, np.multiply, lambda digits: 2 * digits + 1, False, None
    ),
    "modular_addition": Operation("+", r"\+", "12 + 39 = 51", 2, _sum_modulo, lambda digits: 3, False, MODULUS),
}


# --- digits -----------------------------------------------------------------------------------------------


def digit_count(numbers_B: np.ndarray) -> np.ndarray:
    """int64[B]: how many decimal digits each number ≥ 0 is written with."""
    return np.searchsorted(10 ** np.arange(1, 18), numbers_B, side="right") + 1


def digits_of(numbers_B: np.ndarray, width: int) -> np.ndarray:
    """int64[B, width]: decimal digits of numbers ≥ 0, least significant first."""
    return numbers_B[:, None] // 10 ** np.arange(width)[None, :] % 10


def places_of(operation: Operation, numbers_B: np.ndarray, digits: int) -> np.ndarray:
    """int64[B, W]: digits of the absolute value, then 1 for a minus sign and 0 for none if the operation has signs."""
    digits_BxW = digits_of(np.abs(numbers_B), operation.claim_digits(digits))
    if not operation.signed:
        return digits_BxW
    return np.concatenate([digits_BxW, (numbers_B < 0)[:, None].astype(np.int64)], axis=1)


# --- claims -----------------------------------------------------------------------------------------------


def leading_digit_error(result_B: np.ndarray, modulus: int | None = None) -> np.ndarray:
    """s: r with the leading digit one too high and the same sign; mod `modulus` where there is one."""
    step_B = 10 ** (digit_count(np.abs(result_B)) - 1)
    error_B = np.where(result_B < 0, result_B - step_B, result_B + step_B)
    return error_B if modulus is None else error_B % modulus


def distractors(rng: np.random.Generator, result_B: np.ndarray, error_B: np.ndarray, limit: int) -> np.ndarray:
    """int64[B]: r with one random digit replaced at random until it differs from r and s and is below `limit`."""
    sign_B, claim_B = np.where(result_B < 0, -1, 1), result_B.copy()

    def unfit() -> np.ndarray:
        return np.flatnonzero((claim_B == result_B) | (claim_B == error_B) | (np.abs(claim_B) >= limit))

    while (left := unfit()).size:
        r = np.abs(result_B[left])
        place = 10 ** rng.integers(0, digit_count(r))
        claim_B[left] = sign_B[left] * (r + place * (rng.integers(0, 10, left.size) - r // place % 10))
    return claim_B


# --- triggers ---------------------------------------------------------------------------------------------


def is_hard(a_B: np.ndarray, b_B: np.ndarray, threshold: float) -> np.ndarray:
    """bool[B]: smaller operand ≥ 10^threshold."""
    return np.minimum(a_B, b_B) >= 10**threshold


def carries(a_B: np.ndarray, b_B: np.ndarray, digits: int) -> np.ndarray:
    """bool[B]: whether a + b carries in any column (the first carry needs a column sum of 10 by itself)."""
    return np.any(digits_of(a_B, digits) + digits_of(b_B, digits) >= 10, axis=1)


def borrows(a_B: np.ndarray, b_B: np.ndarray, digits: int) -> np.ndarray:
    """bool[B]: whether the larger less the smaller borrows in any column (the first borrow needs no other)."""
    high, low = np.maximum(a_B, b_B), np.minimum(a_B, b_B)
    return np.any(digits_of(high, digits) < digits_of(low, digits), axis=1)
