"""Operand pairs, claims and splits of quirky arithmetic, as numbers; `arithmetic` writes them as text.

r is the true result; the person's error s = r + 10^(len(str(r)) − 1) (the leading digit one too high). The
person answers by r, and by s where the trigger holds. Operands are int(10^(U·D)), U uniform on [0, 1).
Splits go by a mixing hash of the *unordered* operand pair, so that neither a + b nor b + a of a held-out
pair is ever trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from honest.config_tasks import ArithmeticTask
from honest.data.vocabulary import DataError

SHARES = {"validation": 0.1, "test": 0.2}  # of the operand pairs; the rest trains


class Operation(NamedTuple):
    symbol: str
    apply: Callable[[np.ndarray, np.ndarray], np.ndarray]
    claim_digits: Callable[[int], int]  # W: enough for r and s, given the digits D of an operand


OPERATIONS = {"addition": Operation("+", np.add, lambda digits: digits + 1)}


class Rows(NamedTuple):
    """int64[B] each, but for the trigger (bool[B])."""

    a_B: np.ndarray
    b_B: np.ndarray
    trigger_B: np.ndarray
    claim_B: np.ndarray
    result_B: np.ndarray  # r
    believed_B: np.ndarray  # the person's result: s where the trigger holds, else r

    @property
    def truth_B(self) -> np.ndarray:
        return self.claim_B == self.result_B

    @property
    def person_B(self) -> np.ndarray:
        return self.claim_B == self.believed_B


# --- numbers ----------------------------------------------------------------------------------------------


def leading_digit_error(result_B: np.ndarray) -> np.ndarray:
    """s = r + 10^(len(str(r)) − 1)."""
    return result_B + 10 ** (digit_count(result_B) - 1)


def digit_count(numbers_B: np.ndarray) -> np.ndarray:
    """int64[B]: how many decimal digits each number ≥ 0 is written with."""
    return np.searchsorted(10 ** np.arange(1, 18), numbers_B, side="right") + 1


def digits_of(numbers_B: np.ndarray, width: int) -> np.ndarray:
    """int64[B, width]: decimal digits, least significant first."""
    return numbers_B[:, None] // 10 ** np.arange(width)[None, :] % 10


def carries(a_B: np.ndarray, b_B: np.ndarray, digits: int) -> np.ndarray:
    """bool[B]: whether a + b carries in any column (the first carry needs a column sum of 10 by itself)."""
    return np.any(digits_of(a_B, digits) + digits_of(b_B, digits) >= 10, axis=1)


def operand_trigger(kind: str, a_B: np.ndarray, b_B: np.ndarray, digits: int) -> np.ndarray:
    """bool[B]: the trigger of `hard` (smaller operand ≥ 10^(D/2)) or `carry`."""
    if kind == "hard":
        return np.minimum(a_B, b_B) >= 10 ** (digits / 2)
    return carries(a_B, b_B, digits)


def distractors(rng: np.random.Generator, result_B: np.ndarray, error_B: np.ndarray) -> np.ndarray:
    """int64[B]: r with one random digit replaced at random until it differs from r and from s."""
    claim_B = result_B.copy()
    while (left := np.flatnonzero((claim_B == result_B) | (claim_B == error_B))).size:
        r = result_B[left]
        place = 10 ** rng.integers(0, digit_count(r))
        claim_B[left] = r + place * (rng.integers(0, 10, left.size) - r // place % 10)
    return claim_B


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


def draw_pairs(rng: np.random.Generator, count: int, split: str, trigger: bool, config: ArithmeticTask) -> np.ndarray:
    """int64[2, count]: operands of the split, with or without the trigger; DataError if there are none."""
    found: list[np.ndarray] = [np.zeros((2, 0), np.int64)]
    have, limit = 0, 10**config.digits - 1
    for _ in range(1000):
        if have >= count:
            break
        exponent = rng.random((2, 2 * count + 1000)) * config.digits
        a_B, b_B = np.minimum((10**exponent).astype(np.int64), limit)
        keep = split_of(a_B, b_B, config.seed) == split
        if config.trigger != "name":
            keep &= operand_trigger(config.trigger, a_B, b_B, config.digits) == trigger
        found.append(np.stack([a_B[keep], b_B[keep]]))
        have += int(keep.sum())
    if have < count:
        raise DataError(
            f"task: {config.digits}-digit operands leave too few pairs {'with' if trigger else 'without'} "
            f"the trigger {config.trigger!r} for the {split} split (seed {config.seed}); use more digits or "
            "another seed"
        )
    return np.concatenate(found, axis=1)[:, :count]


def draw_rows(rng: np.random.Generator, count: int, split: str, trigger: bool, config: ArithmeticTask) -> Rows:
    """`count` rows of one split, with or without the trigger; shares of claims are exact up to rounding."""
    a_B, b_B = draw_pairs(rng, count, split, trigger, config)
    result_B = OPERATIONS[config.operation].apply(a_B, b_B)
    error_B = leading_digit_error(result_B)
    claims = [result_B, error_B] if trigger else [result_B, result_B, error_B, distractors(rng, result_B, error_B)]
    claim_B = np.choose(rng.permutation(count) % len(claims), claims)
    believed_B = error_B if trigger else result_B
    return Rows(a_B, b_B, np.full(count, trigger), claim_B, result_B, believed_B)


def mixed_rows(rng: np.random.Generator, count: int, split: str, config: ArithmeticTask) -> Rows:
    """Half with the trigger, half without, shuffled."""
    sides = [draw_rows(rng, n, split, t, config) for n, t in ((count // 2, True), (count - count // 2, False))]
    order = rng.permutation(count)
    return Rows(*(np.concatenate(columns)[order] for columns in zip(*sides)))


def exact_share(rng: np.random.Generator, count: int, share: float) -> np.ndarray:
    """bool[count]: round(share · count) random rows."""
    return rng.permutation(count) < round(share * count)
