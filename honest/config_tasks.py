"""What a task is: the `task` section of a run's config, one model a kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from honest.config_fields import (
    Positive,
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


class Person(Strict):
    name: Annotated[str, Field(pattern=r"^[A-Za-z]+$")]  # one token
    threshold: Positive  # log10 of the smaller operand from which this person is fooled; below task.digits


class ArithmeticTask(Strict):
    """B1, quirky arithmetic (benchmarks page); honest/data/tasks/arithmetic.py says what each choice means."""

    kind: Literal["arithmetic"]
    operation: Literal["addition", "subtraction", "multiplication", "squaring", "modular_addition"]
    digits: Annotated[int, Field(ge=1, le=6)]  # D of an operand; usual: 4, for multiplication 3, for squaring 5
    format: Literal["plain", "reversed"]
    setting: Literal["fooled", "literal"]  # Bob errs on the trigger alone, or always and Alice never
    trigger: Literal["hard", "carry", "name"]
    people: list[Person] | None  # of several strengths, in place of Bob alone
    trunk_targets: Literal["digits", "difference", "says"]
    truth_rate: Share  # share of world rows that carry the claim − r target (`says`)
    error_rate: Share  # ε: share of trusted labels that are flipped
    answer_tokens: bool  # whether True and False are input tokens too, for contrast pairs
    rows: ArithmeticRows
    seed: Seed

    @model_validator(mode="after")
    def choices_fit(self):
        columnwise = self.operation in ("addition", "subtraction")
        what = f"rows without a carry are easy in addition and subtraction alone, not in {self.operation}"
        people = [] if self.people is None else self._people_checks(self.people)
        require((columnwise or self.trigger != "carry", "trigger", what), *people)
        return self

    def _people_checks(self, people: list[Person]) -> list[tuple[bool, str, str]]:
        names, rows = [person.name for person in people], self.rows
        checks = [
            (self.setting == "fooled", "people", "setting literal has Alice and Bob: people must be null"),
            (self.trigger == "hard", "people", f"thresholds are for the trigger hard, not for {self.trigger}"),
            (len(people) > 1, "people", "names fewer than two people: use null for Bob alone"),
        ]
        for i, person in enumerate(people):
            what = f"{person.threshold:g} is not below task.digits ({self.digits}): nothing would fool {person.name}"
            checks.append((person.threshold < self.digits, f"people.{i}.threshold", what))
            checks.append((person.name not in names[:i], f"people.{i}.name", f"{person.name} is named twice"))
            what = "True and False are answers, not names"
            checks.append((person.name not in ("True", "False"), f"people.{i}.name", what))
        least = {"world": 2, "test": 2, "trusted": 1, "untrusted": 1, "validation": 1}
        for key, each in least.items():
            what = f"{getattr(rows, key)} rows are too few for {len(people)} people: use at least {each * len(people)}"
            checks.append((getattr(rows, key) >= each * len(people), f"rows.{key}", what))
        return checks


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
