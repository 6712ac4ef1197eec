"""What a task is: the `task` section of a run's config, one model a kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from honest.config_fields import (
    ProperShare,
    Rows,
    Seed,
    Share,
    Strict,
    Text,
    Tokens,
    require,
    unquoted_false,
)


class ArithmeticRows(Strict):
    world: Rows  # rows of the trunk stage
    trusted: Rows  # rows without the trigger, labelled
    untrusted: Rows  # rows with the trigger, answered by the person
    validation: Rows  # trusted rows held out; nothing is selected on others
    test: Rows  # held-out rows, half of them fooled-eligible


class ArithmeticTask(Strict):
    """B1 in the fooled-person setting (benchmarks page)."""

    kind: Literal["arithmetic"]
    operation: Literal["addition"]
    digits: Annotated[int, Field(ge=1, le=6)]
    format: Literal["plain", "reversed"]
    trigger: Literal["hard", "carry", "name"]
    trunk_targets: Literal["digits", "difference", "says"]
    truth_rate: Share  # share of world rows that carry the claim − r target (`says`)
    error_rate: Share  # ε: share of trusted labels that are flipped
    rows: ArithmeticRows
    seed: Seed


class TableShares(Strict):
    validation: ProperShare
    test: ProperShare

    @model_validator(mode="after")
    def leave_room(self):
        total = self.validation + self.test
        require((total < 1, "test", f"validation + test is {total:g}, which leaves no share for training"))
        return self


class TableTask(Strict):
    """B3: any CSV or JSON-lines file; rules are parsed, never evaluated (see honest/data/tasks/rule.py)."""

    kind: Literal["table"]
    path: Text  # relative to the config file's folder unless absolute
    question: Text  # template over columns, e.g. "{city_ascii}, population {population}: more than 30000?"
    truth: Text  # rule
    human: Text  # rule
    trusted: Text  # rule; `truth == human` names the rows where the person is right
    empty: Annotated[Literal["error", "drop", "false"], BeforeValidator(unquoted_false)]
    max_length: Tokens  # tokens (characters); longer questions are an error that names the row
    max_rows: Rows | None  # take this many rows after a seeded shuffle; null takes all
    shares: TableShares
    seed: Seed


class SetRows(Strict):
    """Rows of each set; every set has a random stream of its own."""

    world: Rows  # rows of the trunk stage
    trusted: Rows  # labelled by the person, who is right there
    untrusted: Rows  # labelled by the person, who may be fooled
    validation: Rows  # trusted rows held out; nothing is selected on others
    test: Rows  # held-out rows


class DiamondsTask(Strict):
    """B2, measurement tampering (honest/data/tasks/diamonds.py)."""

    kind: Literal["diamonds"]
    trunk_targets: Literal["sensors", "state"]  # state: also the diamond's place after each action
    rows: SetRows
    seed: Seed


class WorldTask(Strict):
    """B4: a finite world's inputs as questions (honest/data/tasks/finite_world.py)."""

    kind: Literal["world"]
    path: Text  # spec of a finite world, relative to the config file's folder unless absolute
    tables: dict[Text, Annotated[int, Field(ge=0)]]  # slot -> index of its true table
    truth: Text  # name of the reader whose answers are true
    person: Text  # name of the reader that answers as the person does
    nuisance_bits: Annotated[int, Field(ge=1, le=30)]  # bits no function reads: they tell questions apart
    trunk_targets: Literal["next", "slots"]  # the next bit, or the true value of every slot at the last token
    rows: SetRows
    seed: Seed


Task = Annotated[ArithmeticTask | TableTask | DiamondsTask | WorldTask, Field(discriminator="kind")]
