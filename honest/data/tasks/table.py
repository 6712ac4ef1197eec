"""B3: any CSV or JSON-lines file as a yes/no task, by a question template and three rules.

Rows are split by a mixing hash of the question's text, so that equal questions never straddle splits.
Trusted and untrusted rows carry the person's answer; the world rows are all training rows, and their target
is the next token along the question (T = 1, classes are the vocabulary). Characters that the training
questions do not hold become the vocabulary's `unknown`. An empty cell counts where a rule reads it
(`empty`): `error` names it, `drop` leaves the row out, `false` makes the comparison false. A question shows
its cells as they are, empty ones included.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from honest.config_tasks import TableTask
from honest.data.batch import Batch, Evaluation, Splits, Task, distinct, labelled, unlabelled
from honest.data.tasks.rule import Row, Rule
from honest.data.tasks.rule_parser import ANSWER_NAMES, parse_rule
from honest.data.tasks.table_file import Record, read_records
from honest.data.vocabulary import DataError, Vocabulary, character_vocabulary

ANSWERS = ("False", "True")
FIELD = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")
RULES = ("truth", "human", "trusted")


class Example(NamedTuple):
    line: int
    question: str
    truth: bool
    human: bool
    trusted: bool


# --- examples ---------------------------------------------------------------------------------------------


def check_columns(used: Iterable[str], columns: Sequence[str], what: str, path: str) -> None:
    """DataError names a column that the file lacks, and the likeliest one that it has."""
    for name in used:
        if name in columns:
            continue
        by_lower = {column.lower(): column for column in columns}
        near = difflib.get_close_matches(name.lower(), by_lower, n=1)
        hint = f"; did you mean {by_lower[near[0]]!r}?" if near else ""
        if name in ANSWER_NAMES:
            hint = f"; the answer {name} may be used in task.trusted alone"
        raise DataError(f"{what}: {path} has no column {name!r}{hint} (columns: {', '.join(columns)})")


def template_columns(template: str) -> list[str]:
    """Columns named in braces; DataError on a brace by itself (a literal brace is written twice)."""
    matches = list(FIELD.finditer(template))
    lone = [m for m in matches if m.group() in "{}"]
    if lone:
        caret = f"  {template}\n  {' ' * lone[0].start()}^"
        raise DataError(f"task.question: a brace by itself (write {{{{ or }}}} for a literal one)\n{caret}")
    return [m.group(1) for m in matches if m.group(1)]


def fill_template(template: str, cells: dict[str, str]) -> str:
    return FIELD.sub(lambda m: cells[m.group(1)] if m.group(1) else m.group()[0], template)


def _has_empty_cell(rules: dict[str, Rule], record: Record, config: TableTask) -> bool:
    """Whether a rule reads an empty cell; DataError names it under `empty: error`."""
    for name, rule in rules.items():
        for column in rule.columns:
            if record.cells[column].strip():
                continue
            if config.empty == "error":
                raise DataError(
                    f"{config.path}, line {record.line}, column {column!r}: the cell is empty, but "
                    f"task.{name} reads it (task.empty: drop leaves such rows out, false makes comparisons false)"
                )
            return True
    return False


def read_examples(config: TableTask) -> list[Example]:
    """Every row that the config keeps, in file order, with its question, both answers and trust."""
    columns, records = read_records(config.path)
    texts = {"truth": config.truth, "human": config.human, "trusted": config.trusted}
    rules = {name: parse_rule(texts[name], f"task.{name}", answers=name == "trusted") for name in RULES}
    check_columns(template_columns(config.question), columns, "task.question", config.path)
    for name, rule in rules.items():
        check_columns(rule.columns, columns, f"task.{name}", config.path)
    examples = []
    for record in records:
        if _has_empty_cell(rules, record, config) and config.empty == "drop":
            continue
        answers: dict[str, bool] = {}
        for name, rule in rules.items():
            place = f"task.{name}: {config.path}, line {record.line}"
            answers[name] = rule.holds(Row(record.cells, dict(answers), place))
        examples.append(Example(record.line, fill_template(config.question, record.cells), **answers))
    return examples


def check_lengths(examples: Sequence[Example], config: TableTask) -> None:
    for example in sorted(examples):  # by line: the first one in the file is named
        if not 1 <= len(example.question) <= config.max_length:
            raise DataError(
                f"{config.path}, line {example.line}: the question has {len(example.question)} characters; "
                f"task.max_length allows 1 to {config.max_length}: {example.question!r}"
            )


# --- splits -----------------------------------------------------------------------------------------------


def split_of(question: str, config: TableTask) -> str:
    """ "validation", "test" or "train", by a keyed hash of the text."""
    digest = blake2b(question.encode(), digest_size=8, key=str(config.seed).encode()).digest()
    u = int.from_bytes(digest, "big") / 2.0**64
    if u < config.shares.validation:
        return "validation"
    return "test" if u < config.shares.validation + config.shares.test else "train"


def choose_examples(examples: list[Example], config: TableTask) -> list[Example]:
    """At most `max_rows` of them, after a seeded shuffle.

    Shuffled also where all are taken: what is made of a set's first rows, such as the consistency population, has to
    be a sample of it, and files are often sorted.
    """
    order = np.random.default_rng(config.seed).permutation(len(examples))
    return [examples[i] for i in order[: config.max_rows]]


def check_sets(sets: dict[str, list[Example]], path: str) -> None:
    """DataError where a set is empty or the trusted training rows know one label alone."""
    for name, members in sets.items():
        if not members:
            sizes = ", ".join(f"{n} {len(m)}" for n, m in sets.items())
            raise DataError(
                f"{path}: no rows are left for the {name} set (rows: {sizes}); see task.trusted and task.shares"
            )
    for answer in ("truth", "human"):
        yes = sum(getattr(example, answer) for example in sets["trusted"])
        no = len(sets["trusted"]) - yes
        if not yes or not no:
            raise DataError(
                f"{path}: on the trusted training rows task.{answer} is true {yes} times and false {no} "
                "times; a head can learn only from both (see task.trusted)"
            )


# --- batches ----------------------------------------------------------------------------------------------


def make_batch(examples: Sequence[Example], vocabulary: Vocabulary, length: int, world: bool) -> Batch:
    """Unlabelled; `world`: with next-token targets."""
    batch = unlabelled([vocabulary.encode(e.question) for e in examples], length, vocabulary.pad, channels=1)
    if world:
        following_BxL = np.asarray(batch.tokens_BxL)[:, 1:]
        before_last_BxL = np.arange(length - 1)[None, :] < np.asarray(batch.last_B)[:, None]
        batch.world_targets_BxLxT[:, :-1, 0] = np.where(before_last_BxL, following_BxL, -1)
    return batch


def make_evaluation(examples: Sequence[Example], vocabulary: Vocabulary, length: int) -> Evaluation:
    """difficulty: the question's length in characters."""
    truth_B = np.array([e.truth for e in examples], np.int32)
    person_B = np.array([e.human for e in examples], np.int32)
    return Evaluation(
        batch=make_batch(examples, vocabulary, length, world=True),
        truth_B=truth_B,
        person_B=person_B,
        trusted_B=np.array([e.trusted for e in examples], bool),
        fooled_B=truth_B != person_B,
        question_B=distinct([e.question for e in examples]),
        difficulty_B=np.array([len(e.question) for e in examples], np.float32),
    )


def build_table(config: TableTask) -> Task:
    """The task of this config; DataError names the file, column, row or rule that cannot be used."""
    examples = choose_examples(read_examples(config), config)
    check_lengths(examples, config)
    splits: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    for example in examples:
        splits[split_of(example.question, config)].append(example)
    train = splits["train"]
    sets = {
        "trusted": [e for e in train if e.trusted],
        "untrusted": [e for e in train if not e.trusted],
        "validation": [e for e in splits["validation"] if e.trusted],
        "test": splits["test"],
    }
    check_sets(sets, config.path)
    vocabulary, length = character_vocabulary(e.question for e in train), config.max_length

    def rows(members: Sequence[Example], answer: str) -> Batch:
        label_B = np.array([getattr(e, answer) for e in members], np.int32)
        return labelled(make_batch(members, vocabulary, length, world=False), label_B)

    return Task(
        splits=Splits(
            world=make_batch(train, vocabulary, length, world=True),
            trusted=rows(sets["trusted"], "human"),
            untrusted=rows(sets["untrusted"], "human"),
            ceiling=rows(sets["trusted"] + sets["untrusted"], "truth"),
            validation=make_evaluation(sets["validation"], vocabulary, length),
            test=make_evaluation(sets["test"], vocabulary, length),
        ),
        vocabulary=vocabulary,
        answers=ANSWERS,
        world_channels=1,
        world_classes=vocabulary.size,
        max_length=length,
        description=describe(config, {"training": train, **sets}),
        parse=str,
        present=str,
        contrast=None,
    )


def describe(config: TableTask, sets: dict[str, list[Example]]) -> str:
    """One paragraph for reports."""
    sizes = ", ".join(f"{name} {len(members)}" for name, members in sets.items())
    return (
        f"{Path(config.path).name}: {config.question!r}; truth: {config.truth}; person: {config.human}; "
        f"trusted: {config.trusted}; rows: {sizes}. Trunk-stage targets: the next character of the question."
    )
