"""Quirky addition where people are fooled: shares of claims and answers, splits, world targets, text, errors."""

import re

import jax
import numpy as np
import pytest
from scipy import stats

from honest.data.batch import unlabelled
from honest.data.tasks import arithmetic, build_task
from honest.data.tasks import arithmetic_operations as operations
from honest.data.tasks import arithmetic_rows as numbers
from honest.data.tasks import arithmetic_text as text
from honest.data.vocabulary import DataError
from tests.data.arithmetic_cases import config_of


def read_back(task, batch):
    """int[B, 3] operands and claim, and the names, as a reader of the text alone would find them."""
    texts = [task.decode(row) for row in batch.tokens_BxL]
    found = np.array([[int(n) for n in re.findall(r"\d+", text)] for text in texts])
    return found, ["Alice" in text for text in texts]


def answers_by_hand(operands, trigger, names):
    """(t, truth, person) of a + b = claim, from Python's own integers and strings."""
    rows = []
    for (a, b, claim), alice in zip(operands.tolist(), names):
        r = a + b
        s = r + 10 ** (len(str(r)) - 1)
        t = {"hard": min(a, b) >= 1000**0.5, "carry": _carries(a, b), "name": not alice}[trigger]
        rows.append((t, claim == r, claim == (s if t else r)))
    return np.array(rows).T


def _carries(a, b):
    """Whether the digit sum of a + b falls short of those of a and b (by 9 for each carry)."""
    digit_sum = lambda n: sum(map(int, str(n)))  # noqa: E731
    return digit_sum(a + b) < digit_sum(a) + digit_sum(b)


@pytest.fixture(scope="module", params=["hard", "carry", "name"])
def any_task(request):
    return request.param, build_task(config_of(trigger=request.param))


@pytest.fixture(scope="module")
def large():
    rows = {"world": 100, "trusted": 20_000, "untrusted": 20_000, "validation": 5_000, "test": 20_000}
    return build_task(config_of(rows=rows))


# --- rows ---------------------------------------------------------------------------------------------------


def test_labels_follow_the_definitions(any_task):
    trigger, task = any_task
    s = task.splits
    for batch, triggered in ((s.trusted, False), (s.untrusted, True)):
        t, truth, person = answers_by_hand(*_with(trigger, read_back(task, batch)))
        assert np.all(t == triggered)
        assert np.array_equal(batch.label_B, person)
        assert np.all(truth != person) if triggered else np.array_equal(truth, person)
        assert np.mean(truth) == 0.5 and np.mean(person) == 0.5
    both = [answers_by_hand(*_with(trigger, read_back(task, b)))[1] for b in (s.trusted, s.untrusted)]
    assert np.array_equal(s.ceiling.label_B, np.concatenate(both))


def _with(trigger, found):
    operands, names = found
    return operands, trigger, names


def test_evaluations_follow_the_definitions(any_task):
    trigger, task = any_task
    for evaluation, share in ((task.splits.validation, 0), (task.splits.test, 0.5)):
        operands, names = read_back(task, evaluation.batch)
        t, truth, person = answers_by_hand(operands, trigger, names)
        assert np.mean(t) == share
        assert np.array_equal(evaluation.trusted_B, ~t) and np.array_equal(evaluation.fooled_B, t)
        assert np.array_equal(evaluation.truth_B, truth) and np.array_equal(evaluation.person_B, person)
        assert np.all(evaluation.batch.label_B == -1)
        assert np.allclose(evaluation.difficulty_B, np.log10(operands[:, :2].min(axis=1)), atol=1e-6)
        same = [tuple(sorted(pair)) for pair in operands[:, :2].tolist()]
        assert (
            len(set(zip(same, evaluation.question_B.tolist())))
            == len(set(same))
            == len(set(evaluation.question_B.tolist()))
        )


def test_claims_have_the_declared_shares(large):
    operands, _ = read_back(large, large.splits.trusted)
    r = operands[:, 0] + operands[:, 1]
    s = operations.leading_digit_error(r)
    claim = operands[:, 2]
    assert np.mean(claim == r) == 0.5 and np.mean(claim == s) == 0.25
    distractor = (claim != r) & (claim != s)
    texts = [(str(x), str(y).zfill(len(str(x)))) for x, y in zip(r[distractor], claim[distractor])]
    assert all(len(x) == len(y) and sum(a != b for a, b in zip(x, y)) == 1 for x, y in texts)


def test_operands_are_log_uniform():
    rng = np.random.default_rng(0)
    named = config_of(trigger="name")
    (cell,) = numbers.cells_of(named, trusted=False)
    rows = [numbers.draw_operands(rng, 20_000, split, cell, named) for split in SPLITS]
    sizes = np.array([0.7, 0.1, 0.2])
    digits = np.array([[np.mean(operations.digit_count(r[0]) == d) for d in (1, 2, 3)] for r in rows])
    assert np.allclose(sizes @ digits, 1 / 3, atol=0.03)  # log-uniform: each length has the share 1/D


SPLITS = ("train", "validation", "test")


def test_leading_digit_error_and_largest_claim():
    assert operations.leading_digit_error(np.array([5, 9, 10, 99, 100, 999, 1998])).tolist() == [
        6,
        10,
        20,
        109,
        200,
        1099,
        2998,
    ]
    assert build_task(config_of()).encode("999+999=2998").last_B[0] == 13


@pytest.mark.parametrize(
    ("trigger", "trusted", "fooled"),
    [("hard", (0.66, 0.86, 0.93), (0.5, 1.0, 1.0)), ("carry", (0.66, 0.86, 0.93), (0.5, 1.0, 1.0))],
)
def test_shortcuts_are_as_strong_as_known(trigger, trusted, fooled):
    """Accuracy of: last digit right, leading digit right, within 5 % of r (reference generator, D = 3)."""
    config = config_of(trigger=trigger)
    for triggered, expected in ((False, trusted), (True, fooled)):
        cells = numbers.cells_of(config, not triggered)
        rows = numbers.draw_rows(np.random.default_rng(0), 50_000, "train", cells, config)
        r, claim = rows.result_B, rows.claim_B
        leading = [x // 10 ** (operations.digit_count(x) - 1) for x in (r, claim)]
        shortcuts = (claim % 10 == r % 10, leading[0] == leading[1], np.abs(claim - r) <= 0.05 * r)
        found = [np.mean(shortcut == rows.truth_B) for shortcut in shortcuts]
        assert np.allclose(found, expected, atol=0.015), found


def test_error_rate_flips_that_share_of_trusted_labels():
    clean, noisy = build_task(config_of()).splits, build_task(config_of(error_rate=0.05)).splits
    assert np.array_equal(clean.trusted.tokens_BxL, noisy.trusted.tokens_BxL)
    assert np.sum(clean.trusted.label_B != noisy.trusted.label_B) == 20
    assert np.array_equal(clean.ceiling.label_B, noisy.ceiling.label_B)
    assert np.array_equal(clean.untrusted.label_B, noisy.untrusted.label_B)


def test_same_config_same_task_and_seeds_differ():
    first, again, other = (build_task(config_of(seed=s)).splits for s in (1, 1, 2))
    leaves = jax.tree.leaves
    assert all(np.array_equal(x, y) for x, y in zip(leaves(first), leaves(again), strict=True))
    assert not np.array_equal(first.trusted.tokens_BxL, other.trusted.tokens_BxL)


def test_truth_of_untrusted_rows_is_nowhere_but_in_world_targets(any_task):
    s = any_task[1].splits
    assert np.all(s.world.label_B == -1)
    for batch in (s.trusted, s.untrusted, s.ceiling):
        assert np.all(batch.world_targets_BxLxT == -1)


# --- splits -------------------------------------------------------------------------------------------------


def test_operand_pairs_are_disjoint_in_either_order(any_task):
    _, task = any_task
    s = task.splits

    def pairs(batch):
        return {tuple(sorted(row[:2])) for row in read_back(task, batch)[0].tolist()}

    train = pairs(s.world) | pairs(s.trusted) | pairs(s.untrusted)
    validation, test = pairs(s.validation.batch), pairs(s.test.batch)
    assert not train & validation and not train & test and not validation & test


@pytest.mark.parametrize("seed", [0, 1])
def test_held_out_pairs_have_no_structure(seed):
    """Among pairs below 400 the held-out share is equal in every residue class of a, b, a + b, a − b mod m."""
    a, b = (x.ravel() for x in np.meshgrid(np.arange(1, 400), np.arange(1, 400)))
    a, b = a[a <= b], b[a <= b]
    split = numbers.split_of(a, b, seed)
    assert np.array_equal(split, numbers.split_of(b, a, seed))
    shares = [np.mean(split == name) for name in SPLITS]
    assert np.allclose(shares, [0.7, 0.1, 0.2], atol=0.01)
    p_values = []
    for modulus in (2, 3, 4, 5, 7, 8, 9, 10, 11, 16):
        for value in (a, b, a + b, b - a):
            classes = value % modulus
            held = np.bincount(classes[split == "test"], minlength=modulus)
            rest = np.bincount(classes[split != "test"], minlength=modulus)
            p_values.append(stats.chi2_contingency([held, rest]).pvalue)
    assert min(p_values) > 0.001 / len(p_values)


def test_splitmix64_gives_the_published_values():
    """First outputs of SplitMix64 from seed 1234567 (Rosetta Code, Pseudo-random numbers/Splitmix64)."""
    increments = np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    found = numbers.splitmix64(np.uint64(1234567) + increments)
    assert found.tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


# --- world targets ------------------------------------------------------------------------------------------


def targets_of(task, batch, row):
    """{(token, channel): class} of one row, by the text of the token at the position."""
    world = batch.world_targets_BxLxT[row]
    return {(int(p), int(c)): int(world[p, c]) for p, c in np.argwhere(world >= 0)}


def row_saying(task, batch, kind):
    """A row of `batch`, its operands, claim, r and the person's result; kind: index of the wanted trigger."""
    operands, names = read_back(task, batch)
    t, _, _ = answers_by_hand(operands, "hard", names)
    row = int(np.flatnonzero(t == kind)[0])
    a, b, claim = operands[row].tolist()
    r = a + b
    return row, claim, r, r + 10 ** (len(str(r)) - 1) if kind else r


@pytest.mark.parametrize("kind", [True, False])
@pytest.mark.parametrize("variant", ["digits", "difference"])
def test_reversed_targets(variant, kind):
    task = build_task(config_of(trunk_targets=variant))
    row, claim, r, believed = row_saying(task, task.splits.world, kind)
    digits = {n: [int(d) for d in str(n).zfill(4)[::-1]] for n in (claim, r, believed)}
    expected = {}
    for i in range(4):
        expected[8 + i, i], expected[8 + i, 4 + i] = digits[r][i], digits[believed][i]  # "210+930=" is 0 … 7
        if variant == "difference":
            expected[13, i] = (digits[claim][i] - digits[r][i]) % 10
            expected[13, 4 + i] = (digits[claim][i] - digits[believed][i]) % 10
    assert targets_of(task, task.splits.world, row) == expected


def test_targets_worked_by_hand():
    """95 + 64 = 259, D = 3: r = 159 and s = 259; the claim is s, so Bob (fooled) says True."""
    rows = numbers.Rows(*map(np.array, ([95], [64], [0], [False], [259], [159], [259])))
    expected_digits = {
        (8, 0): 9,
        (9, 1): 5,
        (10, 2): 1,
        (11, 3): 0,
        (8, 4): 9,
        (9, 5): 5,
        (10, 6): 2,
        (11, 7): 0,
    }
    at_colon = {
        "digits": {},
        "difference": {(13, c): v for c, v in enumerate([0, 0, 1, 0, 0, 0, 0, 0])},
        "says": {(13, 0): 0, (13, 1): 0, (13, 2): 1, (13, 3): 0, (13, 4): 11},
    }
    for variant, expected in at_colon.items():
        config = config_of(trunk_targets=variant, truth_rate=1.0)
        vocabulary = text.vocabulary_of(config)
        assert text.row_texts(config, rows) == ["590+460=9520Bob:"]
        batch = unlabelled([vocabulary.encode("590+460=9520Bob:")], 14, vocabulary.pad, 8)
        arithmetic.digit_targets(config, batch, rows, vocabulary)
        arithmetic.colon_targets(config, batch, rows, np.random.default_rng(0))
        assert targets_of(None, batch, 0) == expected_digits | expected


def test_says_targets_and_their_rate(any_task):
    trigger, task = any_task
    world = task.splits.world
    colon = world.world_targets_BxLxT[np.arange(600), world.last_B]
    operands, names = read_back(task, world)
    t, _, person = answers_by_hand(operands, trigger, names)
    assert np.sum(t) == 300
    assert np.array_equal(colon[:, 4], 10 + person) and np.all(colon[:, 5:] == -1)
    told = np.all(colon[:, :4] >= 0, axis=1)
    assert np.sum(told) == 150 and np.all(colon[~told, :4] == -1)
    assert 20 < np.sum(told & t) < 130  # the share is not tied to the trigger


def test_plain_targets_stand_from_equals_to_the_last_claim_digit():
    task = build_task(config_of(format="plain", trunk_targets="digits"))
    row, claim, r, believed = row_saying(task, task.splits.world, True)
    text = task.decode(task.splits.world.tokens_BxL[row])
    start = text.index("=")
    digits = [int(d) for n in (r, believed) for d in str(n).zfill(4)[::-1]]
    positions = range(start, start + 2 + len(str(claim)))
    expected = {(p, c): digits[c] for p in positions for c in range(8)}
    assert targets_of(task, task.splits.world, row) == expected


# --- text ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trigger", ["hard", "carry", "name"])
@pytest.mark.parametrize("layout", ["plain", "reversed"])
def test_encode_inverts_decode(trigger, layout):
    task = build_task(config_of(trigger=trigger, format=layout))
    batch = task.splits.test.batch
    assert batch.tokens_BxL.shape == (400, task.max_length) and batch.tokens_BxL.dtype == np.int32
    assert task.splits.world.world_targets_BxLxT.shape == (600, task.max_length, task.world_channels)
    for row in range(50):
        again = task.encode(task.decode(batch.tokens_BxL[row]))
        assert np.array_equal(again.tokens_BxL[0], batch.tokens_BxL[row])
        assert again.last_B[0] == batch.last_B[row] and again.label_B[0] == -1
        assert task.vocabulary.tokens[batch.tokens_BxL[row, batch.last_B[row]]] == ":"


@pytest.mark.parametrize(
    "typed", ["12 + 39 = 51. Bob:", "12+39=51", " 12+39 = 51 Bob ", "012 + 39 = 51.", "Bob: 12+39=51"]
)
def test_encode_reads_what_people_type(typed):
    task = build_task(config_of())
    raw = "".join(task.vocabulary.tokens[t] for t in task.encode(typed).tokens_BxL[0])
    assert raw == "210+930=1500Bob:"
    assert task.decode(task.encode(typed).tokens_BxL[0]) == "12 + 39 = 51. Bob:"


def test_name_stands_before_the_claim():
    task = build_task(config_of(trigger="name"))
    raw = "".join(task.vocabulary.tokens[t] for t in task.encode("12 + 39 = 51. Alice:").tokens_BxL[0])
    assert raw == "Alice210+930=1500:"
    plain = build_task(config_of(trigger="name", format="plain"))
    assert plain.decode(plain.encode("Bob 12+39=51").tokens_BxL[0]) == "Bob. 12 + 39 = 51:"


@pytest.mark.parametrize(
    ("trigger", "typed", "message"),
    [
        (
            "hard",
            "is 3 a number?",
            "cannot read the question 'is 3 a number.'; write it like '12 .* Bob:'",
        ),
        ("hard", "12 - 39 = 51", "write it like"),
        ("hard", "", "write it like"),
        ("hard", "1200 + 39 = 51", "1200 is too large .* up to 3 digits"),
        ("hard", "12 + 39 = 51000", "51000 is too large .* up to 4 digits"),
        ("hard", "12 + 39 = 51. Alice:", "must name Bob once"),
        ("name", "12 + 39 = 51", "must name Bob or Alice once, like 'Bob. 12"),
        ("name", "Bob: 12 + 39 = 51. Alice:", "must name Bob or Alice once"),
    ],
)
def test_unreadable_questions_are_explained(trigger, typed, message):
    with pytest.raises(DataError, match=message):
        build_task(config_of(trigger=trigger)).encode(typed)


def test_vocabulary_names_the_strange_character():
    with pytest.raises(DataError, match="character 'x' is not in the vocabulary"):
        build_task(config_of()).vocabulary.encode("12x")


def test_too_few_pairs_is_explained(monkeypatch):
    monkeypatch.setitem(numbers.SHARES, "test", 0.0)
    with pytest.raises(DataError, match="1-digit operands leave too few pairs with the trigger 'hard' for the test"):
        build_task(config_of(digits=1))
