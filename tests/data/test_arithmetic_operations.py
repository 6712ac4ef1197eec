"""The five operations in both settings: claims, answers, trust, splits, targets and text, read back from the text."""

import numpy as np
import pytest

from honest.data.tasks import arithmetic_operations as operations
from honest.data.tasks import arithmetic_rows as numbers
from honest.data.tasks import build_task
from honest.data.vocabulary import DataError
from tests.data.arithmetic_cases import KINDS, USUAL_DIGITS, config_of, read_rows, shares, triggers

FOOLED = {
    True: {("r", True, True): 0.5, ("s", False, False): 0.25, ("distractor", False, False): 0.25},
    False: {("r", True, False): 0.5, ("s", False, True): 0.5},
}


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def case(request):
    operation, setting, trigger = request.param
    config = config_of(operation=operation, setting=setting, trigger=trigger, digits=USUAL_DIGITS[operation])
    return config, build_task(config)


def person_by_hand(config, row):
    """Bob answers by s in the literal setting, and where the trigger holds in the other; Alice by r."""
    errs = row.name == "Bob" and (
        config.setting == "literal" or config.trigger == "name" or triggers(config, row.operands)
    )
    return row.claim == (row.s if errs else row.r)


def labelled_sets(task):
    """(rows, truth or None, person, trusted) of each set, by name."""
    s = task.splits
    count = len(s.trusted.label_B)
    truth = s.ceiling.label_B
    sets = {
        "trusted": (s.trusted, truth[:count], s.trusted.label_B, np.ones(count, bool)),
        "untrusted": (s.untrusted, truth[count:], s.untrusted.label_B, np.zeros(len(truth) - count, bool)),
    }
    for name, e in (("validation", s.validation), ("test", s.test)):
        sets[name] = (e.batch, e.truth_B, e.person_B, e.trusted_B)
    return sets


# --- numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "a", "b", "r", "s"),
    [
        ("addition", 12, 39, 51, 61),
        ("addition", 999, 1, 1000, 2000),
        ("subtraction", 12, 39, -27, -37),
        ("subtraction", 5, 5, 0, 1),
        ("subtraction", 1, 6, -5, -6),  # len(str(-5)) = 2 would make it 5
        ("subtraction", 1, 100, -99, -109),
        ("multiplication", 12, 39, 468, 568),
        ("squaring", 31, 31, 961, 1061),
        ("modular_addition", 100, 12, 112, 99),  # 212 mod 113
        ("modular_addition", 100, 13, 0, 1),
        ("modular_addition", 9999, 9999, 110, 97),  # 19998 = 176 · 113 + 110
    ],
)
def test_results_and_errors_by_hand(operation, a, b, r, s):
    made = operations.OPERATIONS[operation]
    result = made.apply(np.array([a]), np.array([b]))
    assert result.tolist() == [r]
    assert operations.leading_digit_error(result, made.modulus).tolist() == [s]


@pytest.mark.parametrize("operation", USUAL_DIGITS)
def test_distractors_of_every_small_result(operation):
    """One digit of |r| replaced, the sign kept, and neither r nor s; below 113 for modular addition."""
    made = operations.OPERATIONS[operation]
    r = np.repeat(np.arange(-150 if made.signed else 0, 113), 20)
    s = operations.leading_digit_error(r, made.modulus)
    claims = operations.distractors(np.random.default_rng(0), r, s, made.limit(3))
    assert np.all(claims != r) and np.all(claims != s)
    for result, claim in zip(r.tolist(), claims.tolist()):
        texts = str(abs(result)), str(abs(claim)).zfill(len(str(abs(result))))
        assert len(texts[0]) == len(texts[1]) and sum(x != y for x, y in zip(*texts)) == 1
        assert claim * result >= 0
    assert operation != "modular_addition" or claims.max() < 113


@pytest.mark.parametrize(("a", "b", "borrows"), [(39, 12, False), (12, 39, False), (32, 19, True), (100, 1, True)])
def test_borrows_by_hand(a, b, borrows):
    assert operations.borrows(np.array([a]), np.array([b]), 3).tolist() == [borrows]


# --- rows ---------------------------------------------------------------------------------------------------


def test_claims_and_answers_cross_as_defined(case):
    """Claim × truth × person, per set and trust; names and triggers as the setting says."""
    config, task = case
    for name, (batch, truth_B, person_B, trusted_B) in labelled_sets(task).items():
        rows = read_rows(task, batch, config.operation)
        assert [row.truth for row in rows] == truth_B.tolist()
        assert [person_by_hand(config, row) for row in rows] == person_B.tolist()
        cells = zip([row.kind for row in rows], (truth_B == 1).tolist(), (person_B == 1).tolist(), trusted_B.tolist())
        by_trust = {True: [], False: []}
        for *cell, trusted in cells:
            by_trust[trusted].append(tuple(cell))
        assert name != "test" or len(by_trust[True]) == len(by_trust[False])
        literal = {True: {("r", True, True): 0.5, ("s", False, False): 0.5}, False: FOOLED[False]}
        for trusted, found in by_trust.items():
            assert not found or shares(found) == (FOOLED if config.setting == "fooled" else literal)[trusted]


def test_trust_follows_names_and_triggers(case):
    config, task = case
    for batch, _, _, trusted_B in labelled_sets(task).values():
        for row, trusted in zip(read_rows(task, batch, config.operation), trusted_B.tolist()):
            if config.setting == "literal" or config.trigger == "name":
                assert row.name == ("Alice" if trusted else "Bob")
            if config.trigger != "name":
                assert triggers(config, row.operands) != trusted


def test_world_rows_cross_as_defined(case):
    config, task = case
    rows = read_rows(task, task.splits.world, config.operation)
    met = lambda row: config.trigger != "name" and triggers(config, row.operands)  # noqa: E731
    if config.setting == "literal":
        cells = shares((row.name, row.kind, met(row)) for row in rows)
        assert set(cells.values()) == {0.25 if config.trigger == "name" else 0.125}
        assert len(cells) == (4 if config.trigger == "name" else 8)
    else:
        errs = [row.name == "Bob" if config.trigger == "name" else met(row) for row in rows]
        assert np.mean(errs) == 0.5 and np.mean([row.truth for row in rows]) == 0.5


def test_world_rows_are_trusted_of_alice_without_the_trigger_alone():
    """The literal setting has four kinds of world rows, of which one is trusted."""
    config = config_of(setting="literal")
    rows = numbers.mixed_rows(np.random.default_rng(0), 400, "train", config, world=True)
    alice_B = np.array(numbers.names_of(config))[rows.name_B] == "Alice"
    easy_B = np.minimum(rows.a_B, rows.b_B) ** 2 < 1000
    assert np.array_equal(rows.trusted_B, alice_B & easy_B) and np.sum(rows.trusted_B) == 100


def test_where_alice_and_bob_agree_the_claim_is_false(case):
    """The trap: whatever is claimed, and whoever is asked; in the literal setting there is no such row at all."""
    config, task = case
    rows = [r for batch, *_ in labelled_sets(task).values() for r in read_rows(task, batch, config.operation)]
    agreed = [row.truth for row in rows if (row.claim == row.r) == (row.claim == row.s)]
    assert not any(agreed)
    assert bool(agreed) == (config.setting == "fooled")


def test_operands_are_disjoint_across_splits(case):
    config, task = case
    s = task.splits
    key = lambda batch: {tuple(sorted(r.operands)) for r in read_rows(task, batch, config.operation)}  # noqa: E731
    train, validation, test = (
        key(s.world) | key(s.trusted) | key(s.untrusted),
        key(s.validation.batch),
        key(s.test.batch),
    )
    assert not train & validation and not train & test and not validation & test
    assert len(set(s.test.question_B.tolist())) == len(test)
    rows = read_rows(task, s.test.batch, config.operation)
    assert np.allclose(s.test.difficulty_B, [np.log10(min(row.operands)) for row in rows], atol=1e-6)


@pytest.mark.parametrize("operation", USUAL_DIGITS)
def test_same_seed_same_rows_and_each_set_has_its_own_stream(operation):
    digits = USUAL_DIGITS[operation]
    config = config_of(operation=operation, digits=digits, setting="literal", answer_tokens=True)
    longer = config.model_copy(update={"rows": config.rows.model_copy(update={"validation": 250, "trusted": 500})})
    first, again, other = build_task(config).splits, build_task(config).splits, build_task(longer).splits
    assert all(np.array_equal(x, y) for x, y in zip(first.world, other.world, strict=True))
    assert all(np.array_equal(x, y) for x, y in zip(first.world, again.world, strict=True))
    assert np.array_equal(first.untrusted.tokens_BxL, other.untrusted.tokens_BxL)
    assert np.array_equal(first.test.batch.tokens_BxL, other.test.batch.tokens_BxL)
    reseeded = build_task(config.model_copy(update={"seed": 1})).splits
    assert not np.array_equal(first.test.batch.tokens_BxL, reseeded.test.batch.tokens_BxL)


# --- world targets ------------------------------------------------------------------------------------------


def number_in(digits, signed):
    """The number whose digits, least significant first, are these; the last is 1 for a minus where there are signs."""
    size = sum(int(d) * 10**i for i, d in enumerate(digits[: len(digits) - signed]))
    return -size if signed and digits[-1] else size


@pytest.mark.parametrize("layout", ["plain", "reversed"])
@pytest.mark.parametrize("operation", USUAL_DIGITS)
def test_digit_targets_spell_both_results(operation, layout):
    """Read off the targets of every world row: r, then what the named person takes for it."""
    config = config_of(
        operation=operation, setting="literal", format=layout, trunk_targets="digits", digits=USUAL_DIGITS[operation]
    )
    task = build_task(config)
    world, width, signed = task.splits.world, task.world_channels // 2, operation == "subtraction"
    equals = task.vocabulary.encode("=")[0]
    for i, row in enumerate(read_rows(task, world, operation)):
        start = int(np.flatnonzero(world.tokens_BxL[i] == equals)[0])
        targets = world.world_targets_BxLxT[i]
        if layout == "reversed":
            places = [targets[start + 1 + c % width, c] for c in range(2 * width)]
            assert np.sum(targets >= 0) == 2 * width
        else:
            places = targets[start].tolist()
            end = start + 2 + len(str(row.claim))
            assert np.all(targets[start:end] == places) and np.sum(targets >= 0) == 2 * width * (end - start)
            text = "".join(task.vocabulary.tokens[t] for t in world.tokens_BxL[i])
            assert text.split("= ")[1].startswith(f"{row.claim}:")
        assert number_in(places[:width], signed) == row.r
        assert number_in(places[width:], signed) == (row.s if row.name == "Bob" else row.r)


def test_difference_targets_of_signed_claims():
    """Digit by digit from texts of equal length whose last place is the sign."""
    config = config_of(operation="subtraction", trunk_targets="difference", setting="literal", trigger="name")
    task = build_task(config)
    world = task.splits.world
    for i, row in enumerate(read_rows(task, world, "subtraction")):
        colon = world.world_targets_BxLxT[i, world.last_B[i]]
        believed = row.s if row.name == "Bob" else row.r
        for found, number in ((colon[:5], row.r), (colon[5:], believed)):
            texts = [str(abs(n)).zfill(4)[::-1] + ("1" if n < 0 else "0") for n in (row.claim, number)]
            assert found.tolist() == [(int(x) - int(y)) % 10 for x, y in zip(*texts)]


# --- text ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["plain", "reversed"])
def test_decoded_rows_are_read_back(case, layout):
    config, _ = case
    task = build_task(config.model_copy(update={"format": layout, "rows": config.rows.model_copy(update={"test": 60})}))
    batch = task.splits.test.batch
    for tokens, last in zip(batch.tokens_BxL, batch.last_B):
        again = task.encode(task.decode(tokens))
        assert np.array_equal(again.tokens_BxL[0], tokens) and again.last_B[0] == last
        assert task.vocabulary.tokens[tokens[last]] == ":"


@pytest.mark.parametrize(
    ("operation", "setting", "typed", "plain", "reversed_"),
    [
        ("subtraction", "fooled", "12-39=-27", "12 - 39 = -27. Bob:", "210-930=7200-Bob:"),
        ("subtraction", "fooled", "39 − 12 = 27. Bob:", "39 - 12 = 27. Bob:", "930-210=7200+Bob:"),
        ("subtraction", "literal", "Alice 12 - 39 = −27", "Alice. 12 - 39 = -27:", "Alice210-930=7200-:"),
        ("multiplication", "fooled", "12×39=468", "12 * 39 = 468. Bob:", "210*930=8640000Bob:"),
        ("squaring", "fooled", "12 ^ 2 = 144", "12² = 144. Bob:", "210²=4410000Bob:"),
        ("squaring", "literal", "12²=144. Alice:", "Alice. 12² = 144:", "Alice210²=4410000:"),
        ("modular_addition", "fooled", "99 + 99 = 85", "99 + 99 = 85. Bob:", "990+990=580Bob:"),
    ],
)
def test_typed_questions(operation, setting, typed, plain, reversed_):
    for layout, raw in (("plain", plain), ("reversed", reversed_)):
        task = build_task(config_of(operation=operation, setting=setting, format=layout))
        tokens = task.encode(typed).tokens_BxL[0]
        assert task.vocabulary.decode(tokens) == raw and task.decode(tokens) == plain


@pytest.mark.parametrize(
    ("operation", "typed", "message"),
    [
        ("squaring", "12 + 39 = 51", r"write it like '12² = 144\. Bob:'"),
        ("multiplication", "12 * 39 = 10000000", "10000000 is too large .* up to 7 digits"),
        ("subtraction", "12 - 39 = -10000", "-10000 is too large .* up to 4 digits"),
        ("modular_addition", "12 + 39 = 113", "113 is too large .* claims below 113"),
        ("addition", "12 + 39 = -51", "write it like"),
    ],
)
def test_unreadable_questions_are_explained(operation, typed, message):
    with pytest.raises(DataError, match=message):
        build_task(config_of(operation=operation)).encode(typed)


@pytest.mark.parametrize("operation", USUAL_DIGITS)
def test_the_largest_claim_fits(operation):
    """The largest operands, and r and s of them as claims, fill max_length exactly in the plain format."""
    digits = USUAL_DIGITS[operation]
    config = config_of(operation=operation, digits=digits, format="plain")
    task, top = build_task(config), 10**digits - 1
    claim = {"addition": 2 * top, "subtraction": 1 - top, "modular_addition": 112}.get(operation, top * top)
    largest = {"addition": 10 ** (digits + 1) - 1, "subtraction": 1 - 10 ** (digits + 1), "modular_addition": 112}
    question = f"{top}²" if operation == "squaring" else f"{top} {operations.OPERATIONS[operation].symbol} {top}"
    for number in (claim, largest.get(operation, 10 ** (2 * digits + 1) - 1)):
        used = task.encode(f"{question} = {number}").last_B[0] + 1
        assert used <= task.max_length
    assert used == task.max_length


def test_too_few_operands_are_explained():
    """1, 2 and 3 are the easy operands of one digit, and none of them is held out for validation by seed 0."""
    message = "1-digit operands leave too few operands without the trigger 'hard' for the validation split"
    with pytest.raises(DataError, match=message):
        build_task(config_of(operation="squaring", digits=1))
