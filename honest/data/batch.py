"""What a trainer may see (`Batch`), what only an evaluation may see (`Evaluation`), and a task of both.

Axes: B rows, L length in tokens, T channels of world targets. All batches of a task have equal L and T.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from honest.data.vocabulary import DataError, Vocabulary

Array = jax.Array | np.ndarray
NONE = -1  # "no target here" and "unlabelled"
ACCEPT = 1  # index of the answer True, or yes


class Batch(NamedTuple):
    tokens_BxL: Array  # int32, right-padded with vocabulary.pad
    last_B: Array  # int32, position that the heads read: the last real token
    world_targets_BxLxT: Array  # int32, class of each trunk-stage target; -1: no target there
    label_B: Array  # int32, index of the answer; -1: unlabelled


class Pairs(NamedTuple):
    """Comparisons: row b of `better` was said to be the better answer than row b of `worse`. Both unlabelled."""

    better: Batch
    worse: Batch


class Evaluation(NamedTuple):
    """Never given to a trainer. Its batch is unlabelled."""

    batch: Batch
    truth_B: Array  # int32, index of the true answer
    person_B: Array  # int32, index of the answer that the person gives
    trusted_B: Array  # bool, whether a trainer could have used the row's label
    fooled_B: Array  # bool, truth ≠ person
    question_B: Array  # int32, equal for rows that ask the same; clusters of the intervals
    difficulty_B: Array  # float32, defined by the task


class Splits(NamedTuple):
    """No truth label of an untrusted row is in world, trusted or untrusted; world targets may tell."""

    world: Batch  # trunk stage: world targets, no labels
    trusted: Batch  # labels: the person's answers on trusted rows
    untrusted: Batch  # labels: the person's answers on the other rows
    ceiling: Batch  # trusted and untrusted rows with truth labels: for the truth-trained ceiling alone
    validation: Evaluation  # trusted rows
    test: Evaluation
    comparisons: Pairs | None = None  # of untrusted rows, where a helped person was asked for them


@dataclass(frozen=True)
class Task:
    """A task on the host (numpy arrays), a deterministic function of its config.

    parse turns what a person types into the task's own text, present turns it back; both are pure.

    contrast gives, for a batch of question rows, the same rows with the answer True appended and with False, for probes
    on contrast pairs (Burns et al. 2022, CCS): last_B is the answer's position there, and labels stay. None for a task
    whose answers are not tokens.
    """

    splits: Splits
    vocabulary: Vocabulary
    answers: tuple[str, ...]
    world_channels: int  # T
    world_classes: int
    max_length: int  # L, in tokens
    description: str
    parse: Callable[[str], str]
    present: Callable[[str], str]
    contrast: Callable[[Batch], tuple[Batch, Batch]] | None

    def encode(self, text: str) -> Batch:
        """A question as a batch of one row, unlabelled and without world targets.

        DataError names a character outside the vocabulary, or a question that is too long or does not parse.
        """
        tokens = self.vocabulary.encode(self.parse(text))
        if not 1 <= len(tokens) <= self.max_length:
            raise DataError(f"the question has {len(tokens)} tokens; this task reads 1 to {self.max_length}: {text!r}")
        return unlabelled([tokens], self.max_length, self.vocabulary.pad, self.world_channels)

    def decode(self, tokens: Sequence[int] | Array) -> str:
        """Readable text of one row of tokens; `encode` of it gives the tokens back where none is unknown."""
        return self.present(self.vocabulary.decode(tokens))


def unlabelled(token_rows: Sequence[Sequence[int]], length: int, pad: int, channels: int) -> Batch:
    """Right-padded rows without labels or world targets; every row must have 1 to `length` tokens."""
    tokens_BxL = np.full((len(token_rows), length), pad, np.int32)
    for padded, row in zip(tokens_BxL, token_rows, strict=True):
        padded[: len(row)] = row
    last_B = np.array([len(row) - 1 for row in token_rows], np.int32)
    world_BxLxT = np.full((len(token_rows), length, channels), NONE, np.int32)
    return Batch(tokens_BxL, last_B, world_BxLxT, np.full(len(token_rows), NONE, np.int32))


def labelled(batch: Batch, label_B: np.ndarray) -> Batch:
    """The same rows with these labels."""
    return batch._replace(label_B=np.asarray(label_B, np.int32))


def append_tokens(batch: Batch, token_B: np.ndarray) -> Batch:
    """The rows with one more token each, which last_B then points to; DataError where a row has no room for it.

    int32[B] tokens. No world target is added, and no array of the batch given is changed.
    """
    tokens_BxL, last_B = np.array(batch.tokens_BxL), np.asarray(batch.last_B) + 1
    if np.any(last_B >= tokens_BxL.shape[1]):
        raise DataError(f"a row of {tokens_BxL.shape[1]} tokens is as long as this task reads: nothing can be appended")
    tokens_BxL[np.arange(len(last_B)), last_B] = token_B
    return batch._replace(tokens_BxL=tokens_BxL, last_B=last_B.astype(np.int32))


def concatenate(first: Batch, second: Batch) -> Batch:
    """The rows of both, in order (on the host)."""
    return Batch(*(np.concatenate([x, y]) for x, y in zip(first, second, strict=True)))


def distinct(keys_B: Sequence | np.ndarray) -> np.ndarray:
    """int32[B]: an id for each row, equal exactly where the keys are equal."""
    return np.unique(np.asarray(keys_B), return_inverse=True)[1].astype(np.int32)
