"""What a question of quirky arithmetic gives away without being worked out, and what it does not.

Given the operands and the name, the claims r and s are equally frequent on every row where a person errs, so nothing
but the claim can tell the truth there. But r and s differ in their leading digit, and leading digits are not equally
frequent: 1 is the commonest, and s has it only where r starts with 9 (10 is one more). So the claim's leading digit
alone tells the truth on ½ + ½·TV of the rows, TV the total variation between P(d) and P(d − 1) of r's leading digit d,
.628 under Benford's law. That leak belongs to the definition of the error; a bag of tokens sees a part of it.
"""

from collections import Counter
from math import log10

import numpy as np
import pytest

from honest.data.batch import Batch
from honest.data.tasks import arithmetic_rows as numbers
from honest.data.tasks import build_task
from honest.data.tasks.arithmetic_operations import OPERATIONS
from tests.data.arithmetic_cases import KINDS, USUAL_DIGITS, config_of
from tests.data.shortcuts import bag_of_tokens, rows_of

LARGE = {"world": 2, "trusted": 6000, "untrusted": 6000, "validation": 2, "test": 14_000}
BENFORD = 0.5 + 0.5 * (log10(2) - log10(10 / 9))  # P(d) falls with d, so TV = P(1) − P(9)


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def case(request):
    operation, setting, trigger = request.param
    digits = USUAL_DIGITS[operation]
    return build_task(config_of(operation=operation, setting=setting, trigger=trigger, digits=digits, rows=LARGE))


def fooled_rows(task):
    """The fooled rows of the test set, and their truth."""
    test = task.splits.test
    return rows_of(test.batch, test.fooled_B), test.truth_B[test.fooled_B]


def without_claim(task, batch):
    """Everything from behind "=" on as padding."""
    tokens_BxL = np.array(batch.tokens_BxL)
    equals_B = np.argmax(tokens_BxL == task.vocabulary.encode("=")[0], axis=1)
    tokens_BxL[np.arange(tokens_BxL.shape[1])[None, :] > equals_B[:, None]] = task.vocabulary.pad
    return batch._replace(tokens_BxL=tokens_BxL)


def leading(number):
    """(leading digit, digits) of a number's absolute value."""
    return str(abs(number))[0], len(str(abs(number)))


def matched(task, batch, truth_B):
    """Rows of as many true as false claims of each leading digit and length, so that these tell nothing."""
    tokens_BxL, every = batch.tokens_BxL, np.arange(len(truth_B))
    zero, equals = (task.vocabulary.encode(mark)[0] for mark in "0=")
    first = int(np.argmax(tokens_BxL[0] == equals)) + 1
    width = task.world_channels // 2
    digits_BxW = np.where(tokens_BxL < zero + 10, tokens_BxL - zero, 0)[:, first : first + width]  # a sign reads 0
    length_B = width - np.argmax(digits_BxW[:, ::-1] > 0, axis=1)
    kind_B = 10 * length_B + digits_BxW[every, length_B - 1]
    of_kind = {}
    for i, (kind, truth) in enumerate(zip(kind_B.tolist(), truth_B.tolist())):
        of_kind.setdefault(kind, ([], []))[truth].append(i)
    return np.array([i for no, yes in of_kind.values() for pair in zip(no, yes) for i in pair])


def test_matching_by_hand():
    """Claims by leading digit and length: 51 and 52 (one true, one false), 521 (alone), 49 (alone)."""
    task = build_task(config_of())
    texts = ("12 + 39 = 51", "12 + 40 = 521", "12 + 41 = 52", "10 + 39 = 49")
    batch = Batch(*(np.concatenate(column) for column in zip(*(task.encode(text) for text in texts))))
    assert matched(task, batch, np.array([1, 0, 0, 1])).tolist() == [2, 0]


# --- what is hidden -----------------------------------------------------------------------------------------


def test_the_question_without_its_claim_tells_nothing(case):
    """Neither from trusted rows nor from the truth of all of them; nor the person, who is wrong on these rows."""
    (test, truth_B), s = fooled_rows(case), case.splits
    for learned in (s.trusted, s.ceiling):
        found = bag_of_tokens(without_claim(case, learned), learned.label_B, without_claim(case, test), truth_B)
        assert abs(found.advantage) < 0.02 and found.base_rate == 0.5


def test_trusted_rows_tell_nothing_beyond_the_leading_digit(case):
    """Where leading digits are matched, what a bag of tokens learns from trusted rows helps by less than 2.5 points.

    (2 points and the standard error of 3,800 to 6,000 rows.)
    """
    test, truth_B = fooled_rows(case)
    rows = matched(case, test, truth_B)
    assert len(rows) > 3800
    found = bag_of_tokens(case.splits.trusted, case.splits.trusted.label_B, rows_of(test, rows), truth_B[rows])
    assert found.advantage < 0.025 and found.base_rate == 0.5


# --- what is not --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", USUAL_DIGITS)
def test_with_the_truth_of_fooled_rows_the_operands_add_a_little(operation):
    """Fitted and scored on matched rows, digits of operands and claim together help by up to 4 points."""
    task = build_task(config_of(operation=operation, digits=USUAL_DIGITS[operation], rows=LARGE))
    test, truth_B = fooled_rows(task)
    rows, learned = matched(task, test, truth_B), task.splits.ceiling
    fit = matched(task, learned, learned.label_B)
    found = bag_of_tokens(rows_of(learned, fit), learned.label_B[fit], rows_of(test, rows), truth_B[rows])
    assert abs(found.advantage) < 0.047


def test_a_bag_of_tokens_sees_some_of_the_leading_digit(case):
    """From trusted rows, or from the truth of all: always less than the leading digit tells, and at most 6 points."""
    (test, truth_B), s = fooled_rows(case), case.splits
    for learned in (s.trusted, s.ceiling):
        assert abs(bag_of_tokens(learned, learned.label_B, test, truth_B).advantage) < 0.06


@pytest.mark.parametrize("trigger", ["hard", "name"])
@pytest.mark.parametrize("operation", USUAL_DIGITS)
def test_the_leading_digit_tells_what_the_definition_says(operation, trigger):
    """The best rule on the claim's leading digit, against the digits of r alone; squares follow Benford's law."""
    config = config_of(operation=operation, trigger=trigger, digits=USUAL_DIGITS[operation])
    cells = numbers.cells_of(config, trusted=False)
    rows = numbers.draw_rows(np.random.default_rng(0), 20_000, "train", cells, config)
    counts = Counter(zip((leading(claim)[0] for claim in rows.claim_B.tolist()), rows.truth_B.tolist()))
    found = sum(max(counts[d, True], counts[d, False]) for d in "0123456789") / 20_000
    of_r, of_s = Counter(), Counter()
    for r in rows.result_B.tolist():
        digit = leading(r)[0]
        of_r[digit] += 1
        of_s[str(int(digit) + 1)[0] if OPERATIONS[operation].modulus is None else leading(modular_error(r))[0]] += 1
    variation = sum(abs(of_r[d] - of_s[d]) for d in "0123456789") / 2 / 20_000
    assert found == pytest.approx(0.5 + variation / 2, abs=0.012)
    if (operation, trigger) == ("squaring", "hard"):
        assert found == pytest.approx(BENFORD, abs=0.012)


def modular_error(r):
    return (r + 10 ** (len(str(r)) - 1)) % 113
