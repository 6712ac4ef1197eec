"""Tokens of a task: mostly single characters; a name such as ``Bob`` is one token.

Index 0 pads. One made from a training set may hold an `unknown` token for characters that it never saw.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from honest.errors import UserError

PAD = "<pad>"
UNKNOWN = "<unknown>"


class DataError(UserError):
    """Data or a typed question that cannot be used; the message names the file, column, row or character."""


@dataclass(frozen=True)
class Vocabulary:
    """tokens: text of each token by index; pad: index of the padding; unknown: its index, None if absent."""

    tokens: tuple[str, ...]
    pad: int
    unknown: int | None

    @property
    def size(self) -> int:
        return len(self.tokens)

    @cached_property
    def _index(self) -> dict[str, int]:
        special = {self.pad, self.unknown}
        return {token: i for i, token in enumerate(self.tokens) if i not in special}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        names = sorted((t for t in self._index if len(t) > 1), key=len, reverse=True)
        return re.compile("|".join([*map(re.escape, names), "."]), re.DOTALL)

    def encode(self, text: str) -> list[int]:
        """Token indices of `text`. DataError names a strange character, unless `unknown` stands for it."""
        return [self._lookup(token) for token in self._pattern.findall(text)]

    def _lookup(self, token: str) -> int:
        if token in self._index:
            return self._index[token]
        if self.unknown is None:
            raise DataError(f"the character {token!r} is not in the vocabulary: {' '.join(self._index)}")
        return self.unknown

    def decode(self, tokens: Iterable) -> str:
        """Text of the tokens, without padding; the unknown token reads ``<unknown>``."""
        return "".join(self.tokens[int(t)] for t in tokens if int(t) != self.pad)


def fixed_vocabulary(tokens: Sequence[str]) -> Vocabulary:
    """The given tokens and padding; any other character is an error."""
    return Vocabulary((PAD, *tokens), pad=0, unknown=None)


def character_vocabulary(texts: Iterable[str]) -> Vocabulary:
    """Every character of `texts` (sorted), padding and `unknown` for characters that no text holds."""
    characters = sorted(set().union(*map(set, texts)))
    return Vocabulary((PAD, UNKNOWN, *characters), pad=0, unknown=1)
