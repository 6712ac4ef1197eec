"""Reads rules over the columns of a table by recursive descent; nothing is ever evaluated as code.

    rule       = conjunction {"or" conjunction}          conjunction = negation {"and" negation}
    negation   = "not" negation | comparison
    comparison = "(" rule ")" | value [operator value | ["not"] "in" "[" literal {"," literal} "]"]
    operator   = "==" | "!=" | "<" | "<=" | ">" | ">="
    value      = column | `column` | number | "text" | 'text'

Names in backticks may hold any character. Numbers may hold separators: 30_000, and 30,000 outside lists.
"""

from __future__ import annotations

import re
from typing import NoReturn

from honest.data.tasks.rule import (
    OPERATORS,
    Answer,
    Column,
    Compare,
    Junction,
    Literal,
    Membership,
    Node,
    Not,
    Rule,
    Value,
)
from honest.data.vocabulary import DataError

KEYWORDS = ("and", "or", "not", "in")
ANSWER_NAMES = ("truth", "human")
TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<grouped>[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?(?![\w.]))
    |(?P<number>[+-]?(0(?![\d_])|[1-9](_?\d)*|(?=\.))(\.\d+)?([eE][+-]?\d+)?(?![\w.]))
    |(?P<quoted>`[^`]+`)
    |(?P<text>"[^"]*"|'[^']*')
    |(?P<word>[^\W\d]\w*)
    |(?P<mark>==|!=|<=|>=|[<>()\[\],])""",
    re.VERBOSE,
)


def parse_rule(text: str, name: str, answers: bool) -> Rule:
    """The rule in `text`; DataError (with `name`, e.g. ``task.truth``, and a caret) where it does not parse.

    answers: whether the names `truth` and `human` mean the answers of those rules; a column of such a name is
    then reached in backticks.
    """
    parser = _Parser(text, name, answers)
    root = parser.disjunction()
    parser.expect_end()
    return Rule(root, tuple(dict.fromkeys(parser.columns)))


class _Parser:
    def __init__(self, text: str, name: str, answers: bool):
        self.rule_text, self.name, self.answers = text, name, answers
        self.columns: list[str] = []
        self.tokens = self._tokens()
        self.at = 0

    def fail(self, why: str, position: int) -> NoReturn:
        raise DataError(f"{self.name}: {why}\n  {self.rule_text}\n  {' ' * position}^")

    def _tokens(self) -> list[tuple[str, str, int]]:
        """(kind, text, position) of each token, and an end."""
        tokens, position, in_list = [], 0, False
        while position < len(self.rule_text):
            match = TOKEN.match(self.rule_text, position)
            if match is not None and match.lastgroup == "grouped" and in_list:
                self.fail("thousands separators inside a list are ambiguous; write 30000 or 30_000", position)
            if match is None:
                self.fail(f"cannot read {self.rule_text[position]!r} here", position)
            kind, token = match.lastgroup or "", match.group()
            in_list = token == "[" or (in_list and token != "]")
            if kind != "space":
                tokens.append((kind, token, position))
            position = match.end()
        return [*tokens, ("end", "the end", len(self.rule_text))]

    def accept(self, *wanted: str) -> str | None:
        kind, token, _ = self.tokens[self.at]
        if kind not in ("mark", "word") or token not in wanted:
            return None
        self.at += 1
        return token

    def expect(self, wanted: str) -> None:
        if self.accept(wanted) is None:
            self.unexpected(f"{wanted!r}")

    def expect_end(self) -> None:
        if self.tokens[self.at][0] != "end":
            self.unexpected("'and', 'or' or the end")

    def unexpected(self, wanted: str) -> NoReturn:
        _, token, position = self.tokens[self.at]
        self.fail(f"expected {wanted}, found {token}", position)

    def disjunction(self) -> Node:
        parts = [self.conjunction()]
        while self.accept("or"):
            parts.append(self.conjunction())
        return parts[0] if len(parts) == 1 else Junction(False, tuple(parts))

    def conjunction(self) -> Node:
        parts = [self.negation()]
        while self.accept("and"):
            parts.append(self.negation())
        return parts[0] if len(parts) == 1 else Junction(True, tuple(parts))

    def negation(self) -> Node:
        return Not(self.negation()) if self.accept("not") else self.comparison()

    def comparison(self) -> Node:
        if self.accept("("):
            inner = self.disjunction()
            self.expect(")")
            return inner
        position = self.tokens[self.at][2]
        left = self.value()
        symbol = self.accept(*OPERATORS)
        if symbol is not None:
            return self.compare(symbol, left, self.value(), position)
        negated = self.accept("not") is not None
        if negated or self.tokens[self.at][:2] == ("word", "in"):
            self.expect("in")
            return self.membership(left, negated, position)
        if isinstance(left, Literal):
            self.unexpected("a comparison")
        return left

    def compare(self, symbol: str, left: Value, right: Value, position: int) -> Compare:
        sides = (left, right)
        if all(isinstance(side, Literal) for side in sides):
            self.fail("a comparison needs a column", position)
        if any(isinstance(side, Answer) for side in sides) and (
            symbol not in ("==", "!=") or any(isinstance(side, Literal) for side in sides)
        ):
            self.fail("truth and human compare with each other or a yes/no column, by == or !=", position)
        return Compare(symbol, left, right)

    def membership(self, left: Value, negated: bool, position: int) -> Membership:
        if not isinstance(left, Column):
            self.fail("only a column can be in a list", position)
        self.expect("[")
        values = [self.literal()]
        while self.accept(","):
            values.append(self.literal())
        self.expect("]")
        if len({type(value) for value in values}) > 1:
            self.fail("the list mixes numbers and text", position)
        return Membership(left, tuple(values), negated)

    def literal(self) -> float | str:
        value = self.value() if self.tokens[self.at][0] in ("number", "text") else None
        if not isinstance(value, Literal):
            self.unexpected("a number or quoted text")
        return value.value

    def value(self) -> Value:
        kind, token, position = self.tokens[self.at]
        if kind in ("mark", "end") or (kind == "word" and token in KEYWORDS):
            self.unexpected("a column, number or quoted text")
        self.at += 1
        if kind in ("number", "grouped"):
            return Literal(float(token.replace(",", "").replace("_", "")))
        if kind == "text":
            if not token[1:-1].strip():
                self.fail("empty text cannot be compared with; empty cells follow task.empty", position)
            return Literal(token[1:-1])
        if self.answers and kind == "word" and token in ANSWER_NAMES:
            return Answer(token)
        name = token.strip("`")
        self.columns.append(name)
        return Column(name)
