"""Quirky arithmetic as a reader of the text alone would work it out, from Python's own integers and strings."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from honest.config_tasks import ArithmeticTask
from honest.data.batch import Batch, Task

ROWS = {"world": 600, "trusted": 400, "untrusted": 400, "validation": 200, "test": 400}
USUAL_DIGITS = {"addition": 4, "subtraction": 4, "multiplication": 3, "squaring": 5, "modular_addition": 4}
KINDS = [
    (operation, setting, trigger)
    for operation in USUAL_DIGITS
    for setting in ("fooled", "literal")
    for trigger in ("hard", "carry", "name")
    if trigger != "carry" or operation in ("addition", "subtraction")
]


def config_of(**changes):
    values = {
        "kind": "arithmetic",
        "operation": "addition",
        "digits": 3,
        "format": "reversed",
        "setting": "fooled",
        "trigger": "hard",
        "people": None,
        "trunk_targets": "says",
        "truth_rate": 0.25,
        "error_rate": 0.0,
        "answer_tokens": False,
        "rows": ROWS,
        "seed": 0,
    }
    return ArithmeticTask.model_validate({**values, **changes})


class Read(NamedTuple):
    """One row, as read off its text."""

    name: str
    operands: tuple[int, ...]
    claim: int
    r: int
    s: int

    @property
    def truth(self):
        return self.claim == self.r

    @property
    def kind(self):
        """Which claim it makes."""
        return {self.r: "r", self.s: "s"}.get(self.claim, "distractor")


def result_by_hand(operation, a, b):
    results = {"addition": a + b, "subtraction": a - b, "multiplication": a * b, "squaring": a * a}
    return results.get(operation, (a + b) % 113)


def error_by_hand(operation, r):
    """The digits of r with a leading digit one too high, and r's sign."""
    text = str(abs(r))
    s = int(str(int(text[0]) + 1) + text[1:])
    return s % 113 if operation == "modular_addition" else -s if r < 0 else s


def triggers(config, operands):
    """Whether the operands meet the trigger `hard`, or `carry` by digit sums (each carry or borrow costs or adds 9)."""
    if config.trigger == "hard":
        return min(operands) ** 2 >= 10**config.digits
    digit_sum = lambda n: sum(map(int, str(n)))  # noqa: E731
    high, low = max(operands), min(operands)
    if config.operation == "subtraction":
        return digit_sum(high - low) != digit_sum(high) - digit_sum(low)
    return digit_sum(high + low) != digit_sum(high) + digit_sum(low)


def read_rows(task: Task, batch: Batch, operation: str) -> list[Read]:
    """Every row of the batch, from its text in reading order."""
    rows = []
    for tokens in batch.tokens_BxL:
        text = task.decode(tokens)
        (name,) = re.findall("[A-Za-z]+", re.sub("True$|False$", "", text))
        question, claim = re.sub(r"[^0-9=+*²-]|[.:]", "", text).split("=")
        operands = tuple(int(n) for n in re.findall(r"[0-9]+", question))
        assert len(operands) == (1 if operation == "squaring" else 2), text
        r = result_by_hand(operation, operands[0], operands[-1])
        rows.append(Read(name, operands, int(claim), r, error_by_hand(operation, r)))
    return rows


def shares(items) -> dict:
    """Each item's share of all, rounded to three places."""
    items = list(items)
    return {item: round(n / len(items), 3) for item, n in Counter(items).items()}
