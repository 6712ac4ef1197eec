"""Quirky arithmetic as text, both ways; the formats are described in `arithmetic`."""

from __future__ import annotations

import re

from honest.config_tasks import ArithmeticTask
from honest.data.tasks.arithmetic_operations import OPERATIONS
from honest.data.tasks.arithmetic_rows import Rows, names_of
from honest.data.vocabulary import DataError, Vocabulary, fixed_vocabulary

ANSWERS = ("False", "True")


def write_row(config: ArithmeticTask, a: int, b: int, claim: int, name: str) -> str:
    """The task's own text of one question."""
    operation = OPERATIONS[config.operation]
    before, after = (name, "") if len(names_of(config)) > 1 else ("", name)
    one = operation.operands == 1
    if config.format == "plain":
        lead, tail = (f"{before}. " if before else ""), (f". {after}" if after else "")
        question = f"{a}{operation.symbol}" if one else f"{a} {operation.symbol} {b}"
        return f"{lead}{question} = {claim}{tail}:"
    x, y = (str(n).zfill(config.digits)[::-1] for n in (a, b))
    z = str(abs(claim)).zfill(operation.claim_digits(config.digits))[::-1]
    sign = ("-" if claim < 0 else "+") if operation.signed else ""
    return f"{before}{x}{operation.symbol}{'' if one else y}={z}{sign}{after}:"


def row_texts(config: ArithmeticTask, rows: Rows) -> list[str]:
    names = [names_of(config)[i] for i in rows.name_B]
    numbers = zip(rows.a_B.tolist(), rows.b_B.tolist(), rows.claim_B.tolist(), names)
    return [write_row(config, *row) for row in numbers]


def example_of(config: ArithmeticTask) -> str:
    names, question = names_of(config), OPERATIONS[config.operation].example
    return f"{names[0]}. {question}:" if len(names) > 1 else f"{question}. {names[0]}:"


def parse_question(config: ArithmeticTask, text: str) -> str:
    """What a person types, in the task's own text; spaces, the full stop and the colon may be left out.

    With answer tokens the text may end with an answer. DataError says how to write it.
    """
    operation, names = OPERATIONS[config.operation], names_of(config)
    number, name = r"\s*(\d+)\s*", r"\s*([A-Za-z]*)\s*"
    question = rf"{number}{operation.typed}" + (number if operation.operands == 2 else r"\s*")
    claim_pattern = r"\s*([-−]?\s*\d+)\s*" if operation.signed else number
    answer_pattern = rf"({'|'.join(ANSWERS)})?" if config.answer_tokens else "()"
    pattern = rf"{name}[.:,]?{question}={claim_pattern}[.,]?{name}:?\s*{answer_pattern}\s*"
    match = re.fullmatch(pattern, text, re.ASCII)
    if match is None:
        raise DataError(f"cannot read the question {text!r}; write it like {example_of(config)!r}")
    before, *numbers, after, answer = match.groups()
    given = [n for n in (before, after) if n] or (list(names) if len(names) == 1 else [])
    if len(given) != 1 or given[0] not in names:
        raise DataError(f"the question {text!r} must name {' or '.join(names)} once, like {example_of(config)!r}")
    *operands, claim = (int("".join(n.split()).replace("−", "-")) for n in numbers)
    check_sizes(config, operands, claim, text)
    return write_row(config, operands[0], operands[-1], claim, given[0]) + (answer or "")


def check_sizes(config: ArithmeticTask, operands: list[int], claim: int, text: str) -> None:
    """DataError where a typed number is larger than any that the task writes there."""
    operation = OPERATIONS[config.operation]
    allowed = f"up to {operation.claim_digits(config.digits)} digits"
    claims = allowed if operation.modulus is None else f"claims below {operation.modulus}"
    limits = [(n, 10**config.digits, f"up to {config.digits} digits") for n in operands]
    for value, limit, reads in [*limits, (claim, operation.limit(config.digits), claims)]:
        if abs(value) >= limit:
            raise DataError(f"{value} is too large in {text!r}: this task reads {reads} there")


def present_question(config: ArithmeticTask, text: str) -> str:
    """The task's own text as a person would write it: digits in reading order, without padding."""
    question, _, answer = text.rpartition(":")
    shown = question + ":" if config.format == "plain" else _in_reading_order(config, question)
    return f"{shown} {answer}" if answer else shown


def _in_reading_order(config: ArithmeticTask, question: str) -> str:
    symbol = re.escape(OPERATIONS[config.operation].symbol)
    match = re.fullmatch(rf"([A-Za-z]*)(\d+){symbol}(\d*)=(\d+)([-+]?)([A-Za-z]*)", question, re.ASCII)
    assert match is not None  # the vocabulary's own rows
    before, a, b, claim, sign, after = match.groups()
    plain = config.model_copy(update={"format": "plain"})
    value = int(claim[::-1]) * (-1 if sign == "-" else 1)
    return write_row(plain, int(a[::-1]), int((b or a)[::-1]), value, before or after)


def vocabulary_of(config: ArithmeticTask) -> Vocabulary:
    """Digits, marks and names; the answers too, if they are tokens."""
    operation = OPERATIONS[config.operation]
    marks = " ." if config.format == "plain" else "+" if operation.signed else ""
    answers = ANSWERS if config.answer_tokens else ()
    return fixed_vocabulary((*"0123456789", operation.symbol, *"=:", *marks, *names_of(config), *answers))


def longest(config: ArithmeticTask, vocabulary: Vocabulary) -> int:
    """L: tokens of the longest row that the task can write, an answer included if answers are tokens."""
    operation, top = OPERATIONS[config.operation], 10**config.digits - 1
    claim = 10 ** operation.claim_digits(config.digits) - 1
    text = write_row(config, top, top, -claim if operation.signed else claim, names_of(config)[0])
    return len(vocabulary.encode(text)) + config.answer_tokens
