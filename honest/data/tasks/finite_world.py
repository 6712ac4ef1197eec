"""B4, a finite world as questions: "0110 01101001:" – the world's input bits, then bits that no function reads.

Each slot of the spec (`honest.config_world`) holds its true table, named by `tables`; truth and the person's answer are
those of two of its readers. Trusted inputs are the spec's; the person must be right on them. The nuisance bits make
questions distinct, so that splits (by a hash of all bits) are disjoint though the world has few inputs: the same input
of the world is met in training and in the test, under other nuisance bits. That is the world's own setting, where the
heads are functions on all inputs and the posterior is over which; a model learns the functions on trusted and untrusted
inputs and is compared with `honest exact` of the same spec.

World targets, T channels: `next` (T = 1) holds the next bit of the question, which is random and tells nothing of the
slots; `slots` (T = number of slots) holds the value of each slot's true table at the last token.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from honest.config_io import load_kind
from honest.config_tasks import WorldTask
from honest.config_world import FiniteWorld
from honest.data.batch import Batch, Evaluation, Splits, Task, concatenate, distinct, labelled, unlabelled
from honest.data.tasks.diamonds_rows import split_of
from honest.data.vocabulary import DataError, Vocabulary, fixed_vocabulary

ANSWERS = ("False", "True")
SETS = ("world", "trusted", "untrusted", "validation", "test")


class Truths(NamedTuple):
    """The world as it is, by input (X of them)."""

    slots_XxS: np.ndarray  # value of each slot's true table
    truth_X: np.ndarray
    person_X: np.ndarray
    trusted_X: np.ndarray  # bool


class Questions(NamedTuple):
    input_B: np.ndarray
    nuisance_B: np.ndarray


# --- the world --------------------------------------------------------------------------------------------


def truths_of(config: WorldTask, world: FiniteWorld) -> Truths:
    """DataError where the config names what the spec has not, or where the spec contradicts it."""
    slots, readers = world.slots, {reader.name: reader.table for reader in world.readers}
    if set(config.tables) != set(slots):
        named, there = ", ".join(config.tables), ", ".join(slots)
        raise DataError(f"task.tables: names {named}; {config.path} has the slots {there}")
    for name, index in config.tables.items():
        if index >= len(slots[name].tables):
            raise DataError(f"task.tables.{name}: is {index}; the slot has tables 0 … {len(slots[name].tables) - 1}")
    for key, name in (("truth", config.truth), ("person", config.person)):
        if name not in readers:
            raise DataError(f"task.{key}: there is no reader {name!r} in {config.path}; it has {', '.join(readers)}")
    columns = [list(map(int, slot.tables[config.tables[name]])) for name, slot in slots.items()]
    slots_XxS = np.array(columns).T
    combination_X = slots_XxS @ 2 ** np.arange(len(slots))[::-1]  # the first slot is the high bit
    truth_X, person_X = (
        np.array(list(map(int, readers[name])))[combination_X] for name in (config.truth, config.person)
    )
    found = Truths(slots_XxS, truth_X, person_X, np.isin(np.arange(2**world.inputs), world.trusted))
    check_world(config, world, found)
    return found


def check_world(config: WorldTask, world: FiniteWorld, found: Truths) -> None:
    """DataError: both sorts of inputs must exist, the person be right on trusted ones, and the spec's labels true."""
    if found.trusted_X.all() or not found.trusted_X.any():
        raise DataError(f"{config.path}: trusted: a training task needs trusted inputs and others")
    wrong = np.flatnonzero(found.trusted_X & (found.truth_X != found.person_X))
    if wrong.size:
        raise DataError(
            f"{config.path}: trusted: the person ({config.person}) is wrong on the trusted input {wrong[0]}; "
            "see task.tables, task.truth and task.person"
        )
    for key, labels, answers_X, whose in (
        ("labels", world.labels, found.truth_X, config.truth),
        ("person_labels", world.person_labels, found.person_X, config.person),
    ):
        for text, label in labels.items():
            if answers_X[int(text)] != label:
                raise DataError(f"{config.path}: {key}.{text}: is {label}, but {whose} says {answers_X[int(text)]}")


# --- text -------------------------------------------------------------------------------------------------


def write_question(config: WorldTask, inputs: int, number: int, nuisance: int) -> str:
    """The input's bits, the high bit first, and the nuisance bits."""
    return f"{number:0{inputs}b} {nuisance:0{config.nuisance_bits}b}:"


def parse_question(config: WorldTask, inputs: int, text: str) -> str:
    """The bits in the task's own text; the colon may be left out, and the nuisance bits too: they are 0 then."""
    match = re.fullmatch(r"\s*([01]+)(?:\s+([01]+))?\s*:?\s*", text)
    example = write_question(config, inputs, 0, 1)
    if match is None or len(match[1]) != inputs or len(match[2] or "0" * config.nuisance_bits) != config.nuisance_bits:
        raise DataError(
            f"cannot read the question {text!r}; it needs {inputs} bits of input and {config.nuisance_bits} bits "
            f"that nothing reads, like {example!r}"
        )
    return write_question(config, inputs, int(match[1], 2), int(match[2] or "0", 2))


# --- rows -------------------------------------------------------------------------------------------------


def draw_questions(
    rng: np.random.Generator, allowed: np.ndarray, count: int, split: str, config: WorldTask
) -> Questions:
    """`count` questions of a split, inputs uniform over the allowed ones; DataError where there are none."""
    parts: list[np.ndarray] = []
    for _ in range(200):
        if sum(map(len, parts)) >= count:
            break
        size = 2 * count + 64
        both_Bx2 = np.stack([rng.choice(allowed, size), rng.integers(0, 2**config.nuisance_bits, size)], axis=1)
        parts.append(both_Bx2[split_of(both_Bx2, config.seed) == split])
    rows_Bx2 = np.concatenate(parts)[:count]
    if len(rows_Bx2) < count:
        raise DataError(f"task.nuisance_bits: {config.nuisance_bits} leave too few for the {split} split; use more")
    return Questions(rows_Bx2[:, 0], rows_Bx2[:, 1])


def batch_of(config: WorldTask, world: FiniteWorld, vocabulary: Vocabulary, rows: Questions) -> Batch:
    """Unlabelled, without world targets."""
    pairs = zip(rows.input_B.tolist(), rows.nuisance_B.tolist(), strict=True)
    tokens = [vocabulary.encode(write_question(config, world.inputs, *pair)) for pair in pairs]
    channels = 1 if config.trunk_targets == "next" else len(world.slots)
    return unlabelled(tokens, world.inputs + config.nuisance_bits + 2, vocabulary.pad, channels)


def with_targets(batch: Batch, rows: Questions, found: Truths, config: WorldTask, vocabulary: Vocabulary) -> Batch:
    """The batch with its world targets; classes are 0 and 1."""
    world_BxLxT = np.array(batch.world_targets_BxLxT)
    if config.trunk_targets == "slots":
        world_BxLxT[np.arange(len(world_BxLxT)), batch.last_B] = found.slots_XxS[rows.input_B]
    else:
        zero, one = vocabulary.encode("01")
        next_BxL = np.asarray(batch.tokens_BxL)[:, 1:]
        world_BxLxT[:, :-1, 0] = np.select([next_BxL == zero, next_BxL == one], [0, 1], -1)
    return batch._replace(world_targets_BxLxT=world_BxLxT)


def build_world(config: WorldTask) -> Task:
    """The task of this config. ConfigError: a spec with mistakes; DataError: one that does not fit the config."""
    world = load_kind(Path(config.path), {"finite": FiniteWorld}, "finite")
    found, vocabulary, counts = truths_of(config, world), fixed_vocabulary(("0", "1", " ", ":")), config.rows
    streams = {name: np.random.default_rng([config.seed, i]) for i, name in enumerate(SETS)}
    trusted_inputs, other_inputs = np.flatnonzero(found.trusted_X), np.flatnonzero(~found.trusted_X)
    every_input = np.arange(2**world.inputs)

    def draw(name: str, allowed: np.ndarray, count: int, split: str) -> tuple[Questions, Batch]:
        rows = draw_questions(streams[name], allowed, count, split, config)
        return rows, batch_of(config, world, vocabulary, rows)

    def evaluation(name: str, allowed: np.ndarray, count: int) -> Evaluation:
        rows, batch = draw(name, allowed, count, name)
        truth_B, person_B = found.truth_X[rows.input_B], found.person_X[rows.input_B]
        return Evaluation(
            batch=with_targets(batch, rows, found, config, vocabulary),
            truth_B=truth_B.astype(np.int32),
            person_B=person_B.astype(np.int32),
            trusted_B=found.trusted_X[rows.input_B],
            fooled_B=truth_B != person_B,
            question_B=distinct(rows.input_B * 2**config.nuisance_bits + rows.nuisance_B),
            difficulty_B=np.zeros(count, np.float32),
        )

    world_rows, world_batch = draw("world", every_input, counts.world, "train")
    trusted, trusted_batch = draw("trusted", trusted_inputs, counts.trusted, "train")
    untrusted, untrusted_batch = draw("untrusted", other_inputs, counts.untrusted, "train")
    both = np.concatenate([trusted.input_B, untrusted.input_B])
    return Task(
        splits=Splits(
            world=with_targets(world_batch, world_rows, found, config, vocabulary),
            trusted=labelled(trusted_batch, found.person_X[trusted.input_B]),
            untrusted=labelled(untrusted_batch, found.person_X[untrusted.input_B]),
            ceiling=labelled(concatenate(trusted_batch, untrusted_batch), found.truth_X[both]),
            validation=evaluation("validation", trusted_inputs, counts.validation),
            test=evaluation("test", every_input, counts.test),
        ),
        vocabulary=vocabulary,
        answers=ANSWERS,
        world_channels=1 if config.trunk_targets == "next" else len(world.slots),
        world_classes=2,
        max_length=world.inputs + config.nuisance_bits + 2,
        description=describe(config, world, found),
        parse=partial(parse_question, config, world.inputs),
        present=str,
        contrast=None,
    )


def describe(config: WorldTask, world: FiniteWorld, found: Truths) -> str:
    """One paragraph for reports: the world, where to find its exact posterior, and the trunk-stage variant."""
    fooled = ", ".join(map(str, np.flatnonzero(found.truth_X != found.person_X))) or "none"
    spec = Path(config.path).name
    targets = {
        "next": "the next bit of the question, on all rows: nothing of the slots reaches the trunk",
        "slots": "the true value of every slot at the last token, on all rows: what the truth and what the person's "
        "answer is read from reaches the trunk on fooled rows",
    }
    return (
        f"Finite world {spec}: {world.inputs} input bits and {config.nuisance_bits} that nothing reads; "
        f"truth: {config.truth}, person: {config.person}, fooled on the inputs {fooled}; "
        f"exact posterior odds of the pair ({config.truth}, {config.person}): honest exact {spec}. "
        f"Trunk-stage targets ({config.trunk_targets}): {targets[config.trunk_targets]}."
    )
