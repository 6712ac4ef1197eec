"""People of several strengths, answers as tokens, and what a config may not combine."""

from pathlib import Path

import numpy as np
import pytest

from honest.config_io import ConfigError, dump_config, load_config
from honest.data.batch import append_tokens, unlabelled
from honest.data.tasks import build_task
from honest.data.vocabulary import DataError
from tests.data.arithmetic_cases import USUAL_DIGITS, config_of, read_rows, shares

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
STRENGTHS = {"Bob": 1.0, "Carol": 2.0, "Bobby": 1.5}
PEOPLE = [{"name": name, "threshold": threshold} for name, threshold in STRENGTHS.items()]


def refused(*changes):
    with pytest.raises(ConfigError) as caught:
        load_config(QUICKSTART, changes)
    return str(caught.value)


# --- people of several strengths ----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["addition", "subtraction", "multiplication", "squaring", "modular_addition"])
def crowd(request):
    rows = {"world": 600, "trusted": 360, "untrusted": 360, "validation": 120, "test": 480}
    digits = USUAL_DIGITS[request.param]
    config = config_of(operation=request.param, digits=digits, people=PEOPLE, rows=rows)
    return config, build_task(config)


def test_each_person_is_fooled_from_the_own_threshold_on(crowd):
    config, task = crowd
    s = task.splits
    count = len(s.trusted.label_B)
    for batch, truth_B, person_B, trusted_B in (
        (s.trusted, s.ceiling.label_B[:count], s.trusted.label_B, np.ones(count, bool)),
        (s.untrusted, s.ceiling.label_B[count:], s.untrusted.label_B, np.zeros(count, bool)),
        (s.validation.batch, s.validation.truth_B, s.validation.person_B, s.validation.trusted_B),
        (s.test.batch, s.test.truth_B, s.test.person_B, s.test.trusted_B),
    ):
        rows = read_rows(task, batch, config.operation)
        fooled = [min(row.operands) ** 2 >= round(100 ** STRENGTHS[row.name]) for row in rows]
        assert [not f for f in fooled] == trusted_B.tolist()
        assert [row.truth for row in rows] == truth_B.tolist()
        assert [row.claim == (row.s if f else row.r) for row, f in zip(rows, fooled)] == person_B.tolist()
        assert np.all((truth_B == person_B) == trusted_B)  # a fooled person is wrong on r and on s


def test_names_do_not_tell_trust(crowd):
    """Each person has a third of every set, on either side of the own threshold; claims have the shares of `fooled`."""
    config, task = crowd
    s = task.splits
    for batch in (s.world, s.trusted, s.untrusted, s.validation.batch, s.test.batch):
        assert shares(row.name for row in read_rows(task, batch, config.operation)) == dict.fromkeys(STRENGTHS, 0.333)
    test = read_rows(task, s.test.batch, config.operation)
    cells = shares((row.name, trusted) for row, trusted in zip(test, s.test.trusted_B.tolist()))
    assert cells == {(name, trusted): 0.167 for name in STRENGTHS for trusted in (True, False)}
    trusted = read_rows(task, s.trusted, config.operation)
    claims = shares((row.name, row.kind) for row in trusted)
    third = {"r": 1 / 6, "s": 1 / 12, "distractor": 1 / 12}
    assert claims == {(name, kind): round(third[kind], 3) for name in STRENGTHS for kind in third}


def test_the_same_question_may_be_trusted_of_one_person_and_not_of_another():
    rows = {"world": 6, "trusted": 2000, "untrusted": 2000, "validation": 3, "test": 6}
    config = config_of(people=PEOPLE, rows=rows)
    task = build_task(config)
    trusted, untrusted = (
        {row.operands: row.name for row in read_rows(task, batch, config.operation)}
        for batch in (task.splits.trusted, task.splits.untrusted)
    )
    both = trusted.keys() & untrusted.keys()
    assert len(both) > 10 and all(STRENGTHS[trusted[q]] > STRENGTHS[untrusted[q]] for q in both)


@pytest.mark.parametrize("layout", ["plain", "reversed"])
def test_names_stand_first_and_are_one_token(layout):
    task = build_task(config_of(people=PEOPLE, format=layout))
    tokens = task.encode("12 + 39 = 51. Bobby:").tokens_BxL[0]
    assert task.vocabulary.tokens[tokens[0]] == "Bobby" and task.decode(tokens) == "Bobby. 12 + 39 = 51:"
    for row in task.splits.test.batch.tokens_BxL:
        assert np.array_equal(task.encode(task.decode(row)).tokens_BxL[0], row)
    with pytest.raises(DataError, match=r"must name Bob or Carol or Bobby once, like 'Bob\. 12 "):
        task.encode("12 + 39 = 51")
    assert "Bob from 10^1, Carol from 10^2, Bobby from 10^1.5" in task.description


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (["[{name: Bob, threshold: 1.0}]"], ["task.people: names fewer than two people"]),
        (["[]"], ["task.people: names fewer than two people"]),
        (
            ["[{name: Bob, threshold: 1.0}, {name: Bob, threshold: 2.0}]"],
            ["task.people.1.name: Bob is named twice"],
        ),
        (
            ["[{name: Bob, threshold: 3.0}, {name: Eve, threshold: 2.0}]"],
            ["task.people.0.threshold: 3 is not below task.digits (3): nothing would fool Bob"],
        ),
        (["[{name: Bob, threshold: 0.0}, {name: Eve, threshold: 2.0}]"], ["task.people.0.threshold: out of range"]),
        (["[{name: Bob 2, threshold: 1.0}, {name: Eve, threshold: 2.0}]"], ["task.people.0.name: not of the allowed"]),
        (["[{name: Bob, threshold: 1.0}, {name: 'True', threshold: 2.0}]"], ["task.people.1.name: True and False are"]),
        (["[{name: Bob, threshold: 1.0}, {name: Eve}]"], ["task.people.1.threshold: missing key"]),
        (
            ["[{name: Bob, threshold: 1.0}, {name: Eve, threshold: 2.0}]", "task.trigger=carry"],
            ["task.people: thresholds are for the trigger hard, not for carry"],
        ),
        (
            ["[{name: Bob, threshold: 1.0}, {name: Eve, threshold: 2.0}]", "task.setting=literal"],
            ["task.people: setting literal has Alice and Bob: people must be null"],
        ),
        (
            [
                "[{name: Bob, threshold: 1.0}, {name: Eve, threshold: 2.0}]",
                "task.rows.world=3",
                "task.rows.untrusted=1",
            ],
            [
                "task.rows.world: 3 rows are too few for 2 people: use at least 4",
                "task.rows.untrusted: 1 rows are too few for 2 people: use at least 2",
            ],
        ),
    ],
)
def test_mistaken_people_are_explained(changes, messages):
    told = refused(f"task.people={changes[0]}", *changes[1:])
    assert all(message in told for message in messages), told
    assert "--set task." in told


def test_people_survive_the_resolved_config(tmp_path):
    changes = ["task.people=[{name: Bob, threshold: 1.5}, {name: Eve, threshold: 2.0}]"]
    config = load_config(QUICKSTART, changes).config
    (tmp_path / "again.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(tmp_path / "again.yaml").config == config


@pytest.mark.parametrize("operation", ["multiplication", "squaring", "modular_addition"])
def test_carry_is_refused_where_it_means_nothing(operation):
    told = refused(f"task.operation={operation}", "task.trigger=carry")
    assert f"task.trigger: rows without a carry are easy in addition and subtraction alone, not in {operation}" in told


def test_missing_choices_are_told(tmp_path):
    text = QUICKSTART.read_text(encoding="utf-8")
    for line in ("  setting: fooled\n", "  people: null\n", "  answer_tokens: false\n"):
        assert line in text
        text = text.replace(line, "")
    (tmp_path / "old.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "old.yaml")
    for key in ("setting", "people", "answer_tokens"):
        assert f"task.{key}: missing key; give it" in str(caught.value)


# --- answers as tokens --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["digits", "difference", "says"])
def answered(request):
    """A task without answer tokens, and with them."""
    return [build_task(config_of(trunk_targets=request.param, answer_tokens=on)) for on in (False, True)]


def test_answers_change_nothing_before_them(answered):
    without, with_ = answered
    length = without.max_length
    assert with_.max_length == length + 1 and with_.vocabulary.tokens == (*without.vocabulary.tokens, "False", "True")
    assert without.splits.comparisons is None and with_.splits.comparisons is None
    for old, new in zip(without.splits[:-1], with_.splits[:-1]):
        for x, y in zip(getattr(old, "batch", old), getattr(new, "batch", new)):
            x, y = np.asarray(x), np.asarray(y)
            if y.ndim > 1:
                y = y[:, :length]
            assert np.array_equal(x, y - 1 if old is without.splits.world and x is old.last_B else y)
    for name in ("truth_B", "person_B", "trusted_B", "question_B"):
        assert np.array_equal(getattr(without.splits.test, name), getattr(with_.splits.test, name))
    for batch in (with_.splits.trusted, with_.splits.test.batch):
        assert np.all(batch.tokens_BxL[:, -1] == with_.vocabulary.pad) and np.all(
            batch.world_targets_BxLxT[:, -1] == -1
        )


def test_answers_carry_no_information():
    """Half of the world rows end with True; what they say is independent of the truth and of the person's verdict."""
    rows = {"world": 20_000, "trusted": 10, "untrusted": 10, "validation": 10, "test": 10}
    task = build_task(config_of(rows=rows, answer_tokens=True))
    world = task.splits.world
    said = world.tokens_BxL[:, -1] == task.vocabulary.encode("True")[0]
    assert np.mean(said) == 0.5
    assert np.all(said | (world.tokens_BxL[:, -1] == task.vocabulary.encode("False")[0]))
    read = read_rows(task, world, "addition")
    for fact in ([row.truth for row in read], [min(row.operands) ** 2 >= 1000 for row in read]):
        assert abs(np.mean(said[np.array(fact)]) - 0.5) < 0.015  # 3 standard deviations of 10,000 rows


def test_targets_at_the_answer(answered):
    task = answered[1]
    world = task.splits.world
    kind = (
        "difference" if "claim − person" in task.description else "says" if "verdict" in task.description else "digits"
    )
    for i, row in enumerate(read_rows(task, world, "addition")):
        at_colon, at_answer = world.world_targets_BxLxT[i, world.last_B[i] - 1 : world.last_B[i] + 1]
        assert task.vocabulary.tokens[world.tokens_BxL[i, world.last_B[i] - 1]] == ":"
        said = task.vocabulary.tokens[world.tokens_BxL[i, world.last_B[i]]]
        believed = row.s if min(row.operands) ** 2 >= 1000 else row.r
        expected = [-1] * 8
        if kind == "says":
            expected[4] = 11 if (said == "True") == (row.claim == believed) else 10
            assert at_colon[4] == 10 + (row.claim == believed)
        if kind == "difference":
            digits = [str(n).zfill(4)[::-1] for n in (row.claim, row.r, believed)]
            expected = [(int(x) - int(y)) % 10 for other in digits[1:] for x, y in zip(digits[0], other)]
            assert at_colon.tolist() == expected
        assert at_answer.tolist() == expected


def test_contrast_pairs_are_the_questions_answered_both_ways(answered):
    without, with_ = answered
    assert without.contrast is None
    batch = with_.splits.untrusted
    before = [np.array(x) for x in batch]
    yes, no = with_.contrast(batch)
    for pair, answer in ((yes, "True"), (no, "False")):
        assert np.array_equal(pair.last_B, batch.last_B + 1) and np.array_equal(pair.label_B, batch.label_B)
        assert pair.tokens_BxL.dtype == pair.last_B.dtype == np.int32
        for row, question in zip(pair.tokens_BxL[:50], batch.tokens_BxL):
            assert with_.decode(row) == f"{with_.decode(question)} {answer}"
        assert np.array_equal(pair.world_targets_BxLxT, batch.world_targets_BxLxT)
    assert all(np.array_equal(x, y) for x, y in zip(before, batch))
    differs = yes.tokens_BxL != no.tokens_BxL
    assert np.array_equal(np.argwhere(differs)[:, 1], yes.last_B)


def test_contrast_pairs_of_short_plain_rows():
    """In `plain` rows differ in length: the answer stands right behind each colon."""
    task = build_task(config_of(format="plain", answer_tokens=True))
    yes, _ = task.contrast(task.encode("1 + 1 = 2. Bob:"))
    assert task.vocabulary.decode(yes.tokens_BxL[0]) == "1 + 1 = 2. Bob:True" and yes.last_B.tolist() == [13]


def test_what_is_no_question_has_no_contrast_pair(answered):
    with pytest.raises(DataError, match="a contrast pair is made of questions, which end with their colon"):
        answered[1].contrast(answered[1].splits.world)


def test_a_full_row_takes_no_more_tokens():
    with pytest.raises(DataError, match="a row of 2 tokens is as long as this task reads"):
        append_tokens(unlabelled([[1], [1, 2]], 2, 0, 1), np.array([3, 3]))


def test_answered_questions_are_read(answered):
    without, with_ = answered
    for text in ("12 + 39 = 51. Bob: True", "12 + 39 = 51. Bob:False"):
        row = with_.encode(text)
        assert np.array_equal(with_.encode(with_.decode(row.tokens_BxL[0])).tokens_BxL, row.tokens_BxL)
        assert with_.vocabulary.tokens[row.tokens_BxL[0, row.last_B[0]]] in ("True", "False")
        with pytest.raises(DataError, match="cannot read the question"):
            without.encode(text)
