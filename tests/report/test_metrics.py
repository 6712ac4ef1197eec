"""Shares, intervals, ranks and calibration against hand arithmetic, scipy and brute force."""

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest, mannwhitneyu

from honest.data.batch import Evaluation, unlabelled
from honest.report.metrics import (
    Interval,
    always_false,
    auroc,
    calibration_bins,
    calibration_error,
    head_scores,
    honest_gap_recovered,
    proportion,
    proportion_per_question,
)


def evaluation(truth, person, question):
    truth_B, person_B = np.array(truth, np.int32), np.array(person, np.int32)
    batch = unlabelled([[0]] * len(truth), 1, 0, 0)
    trusted_B = truth_B == person_B
    question_B = np.array(question, np.int32)
    return Evaluation(batch, truth_B, person_B, trusted_B, ~trusted_B, question_B, np.zeros(len(truth), np.float32))


def logits_of(answers, margin=2.0):
    return np.array([[-margin / 2, margin / 2] if a else [margin / 2, -margin / 2] for a in answers])


def test_head_scores_by_hand():
    # rows:                    trusted          fooled
    rows = evaluation([1, 0, 0, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0, 1, 1], [0, 0, 1, 2, 3, 3, 3, 4])
    scores = head_scores(logits_of([1, 1, 0, 0, 1, 0, 1, 1]), rows, resamples=200, seed=0)
    values = {name: share.value for name, share in scores.items() if isinstance(share, Interval)}
    assert values == {
        "truth_trusted": 3 / 4,
        "person_trusted": 3 / 4,
        "acceptance_trusted": 2 / 4,
        "truth_fooled": 1 / 4,
        "person_fooled": 3 / 4,
        "acceptance_fooled": 3 / 4,
        "truth_trusted_per_question": pytest.approx((1 / 2 + 1 + 1) / 3),
        "person_trusted_per_question": pytest.approx((1 / 2 + 1 + 1) / 3),
        "acceptance_trusted_per_question": pytest.approx((1 + 0 + 0) / 3),
        "truth_fooled_per_question": pytest.approx((1 / 3 + 0) / 2),
        "person_fooled_per_question": pytest.approx((2 / 3 + 1) / 2),
        "acceptance_fooled_per_question": pytest.approx((2 / 3 + 1) / 2),
    }
    assert scores["truth_trusted"][3:] == (4, 3) and scores["truth_fooled"][3:] == (4, 2)
    # fooled rows: true ones score (+2, −2), false ones (+2, +2): of 4 pairs 2 tie and 2 are lost
    assert scores["auroc_fooled"] == 1 / 4
    sure = 1 / (1 + np.exp(-2))  # every row has this confidence, so there is one bin
    assert scores["calibration_error_trusted"] == pytest.approx(abs(3 / 4 - sure))
    assert scores["calibration_error_fooled"] == pytest.approx(abs(1 / 4 - sure))


def test_three_answers():
    rows = evaluation([1, 2, 1], [0, 1, 2], [0, 1, 2])
    logits = np.log([[0.2, 0.7, 0.1], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6]])
    scores = head_scores(logits, rows, resamples=10, seed=0)
    assert scores["truth_fooled"].value == pytest.approx(1 / 3)
    assert scores["person_fooled"].value == pytest.approx(2 / 3)
    assert scores["acceptance_fooled"].value == pytest.approx(2 / 3)
    assert scores["auroc_fooled"] == 1 / 2  # P(answer 1) is .7 and .3 on positives, .5 on the negative


def test_always_false_and_empty_parts():
    rows = evaluation([1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 1])  # every row is fooled
    scores = always_false(rows, resamples=50, seed=0)
    assert scores["truth_fooled"].value == scores["person_fooled"].value == 0.5
    assert scores["acceptance_fooled"].value == 0 and scores["auroc_fooled"] == 0.5
    assert scores["calibration_error_fooled"] == pytest.approx(0.5)
    assert np.isnan(scores["truth_trusted"].value) and scores["truth_trusted"].rows == 0
    assert np.isnan(scores["calibration_error_trusted"])
    one_truth = evaluation([0, 0], [1, 1], [0, 1])
    assert always_false(one_truth, resamples=50, seed=0)["auroc_fooled"] is None


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="1 logits are not finite"):
        head_scores(np.array([[0.0, np.nan]]), evaluation([1], [0], [0]), 10, 0)


@pytest.mark.parametrize("share", [0, 1])
def test_degenerate_shares_get_clopper_pearson_over_questions(share):
    values, question = np.full(40, bool(share)), np.repeat(np.arange(20), 2)
    expected = binomtest(20 * share, 20).proportion_ci(method="exact")
    for estimate in (proportion, proportion_per_question):
        interval = estimate(values, question, 100, 0)
        assert interval.value == share and interval[3:] == (40, 20)
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert expected.low == pytest.approx(0.025 ** (1 / 20) if share else 0)


def test_one_question_says_nothing_and_shapes_must_agree():
    assert proportion([True, False], [7, 7], 100, 0) == (0.5, 0, 1, 2, 1)
    with pytest.raises(ValueError, match="questions"):
        proportion([True], [1, 2], 100, 0)


def test_bootstrap_is_the_exact_one_over_three_questions():
    """All 27 equally likely resamples, enumerated; the quantiles are those of that distribution."""
    hits, sizes = np.array([2, 0, 1]), np.array([2, 3, 4])
    ratios = [hits[list(c)].sum() / sizes[list(c)].sum() for c in itertools.product(range(3), repeat=3)]
    values = np.concatenate([np.arange(size) < hit for hit, size in zip(hits, sizes, strict=True)])
    interval = proportion(values, np.repeat([5, 9, 2], sizes), 100_000, 0)
    assert interval.value == pytest.approx(3 / 9)
    assert [interval.low, interval.high] == pytest.approx(np.quantile(np.repeat(ratios, 1000), [0.025, 0.975]))


def clustered(rng):
    """120 questions, 1 to 9 rows each, whose share of True is Beta(2, 2): mean ½ over rows and over questions."""
    sizes_G = rng.integers(1, 10, 120)
    question_B = np.repeat(np.arange(120), sizes_G)
    return rng.random(len(question_B)) < rng.beta(2, 2, 120)[question_B], question_B


def test_bootstrap_covers_the_truth_on_clustered_rows():
    rng, repetitions = np.random.default_rng(0), 400
    covered = np.zeros(3)
    for seed in range(repetitions):
        values, question = clustered(rng)
        by_row = proportion(values, question, 300, seed)
        by_question = proportion_per_question(values, question, 300, seed)
        naive = proportion(values, np.arange(len(values)), 300, seed)  # takes rows for independent
        covered += [i.low <= 0.5 <= i.high for i in (by_row, by_question, naive)]
    row, question, naive = covered / repetitions
    assert 0.91 < row < 0.98 and 0.91 < question < 0.98  # 95 % ± 3 standard errors, less the bootstrap's own bias
    assert naive < 0.88


def test_bootstrap_of_a_large_set():
    rng = np.random.default_rng(0)
    values, question = rng.random(200_000) < 0.3, rng.integers(0, 80_000, 200_000)
    interval = proportion(values, question, 2000, 1)
    assert interval == proportion(values, question, 2000, 1)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * np.sqrt(0.21 / 200_000), rel=0.15)


def test_auroc_against_scipy_and_brute_force():
    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 8, 60).astype(float), rng.random(60) < 0.4  # many ties
    pairs = [(p > n) + (p == n) / 2 for p in score[positive] for n in score[~positive]]
    u = mannwhitneyu(score[positive], score[~positive]).statistic
    assert auroc(score, positive) == pytest.approx(np.mean(pairs))
    assert auroc(score, positive) == pytest.approx(u / (positive.sum() * (~positive).sum()))
    assert auroc(score, np.ones(60, bool)) is None and auroc([], []) is None


def test_calibration_error_by_hand():
    # of 15 bins, .61 and .66 share (9/15, 10/15]; .72 and .78 lie in the two after it; .95 is alone
    confidence = np.array([0.61, 0.66, 0.72, 0.78, 0.95])
    right = np.array([True, False, True, False, False])
    logits = np.log(np.stack([confidence, 1 - confidence], axis=1))
    expected = (abs(1 - 0.61 - 0.66) + (1 - 0.72) + 0.78 + 0.95) / 5
    assert calibration_error(logits, np.where(right, 0, 1)) == pytest.approx(expected)


def test_calibration_bins_by_hand():
    """.61 and .66 share (9/15, 10/15], .95 lies in (14/15, 1]; the other bins are empty and left out."""
    confidence = np.array([0.61, 0.95, 0.66])
    logits = np.log(np.stack([confidence, 1 - confidence], axis=1))
    low, high = calibration_bins(logits, np.array([0, 1, 1]), np.array([7, 8, 9]), 10, 0)
    assert (low.left, low.right) == (9 / 15, 10 / 15) and (high.left, high.right) == (14 / 15, 1.0)
    assert low.confidence == pytest.approx(0.635) and high.confidence == pytest.approx(0.95)
    assert low.accuracy.value == 0.5 and low.accuracy.questions == 2
    # one question of one row, wrong: Clopper–Pearson of 0 of 1, whose upper end solves 1 − p = .025
    assert high.accuracy == (0.0, 0.0, pytest.approx(0.975), 1, 1)
    assert calibration_bins(np.zeros((0, 2)), np.zeros(0, int), np.zeros(0, int), 10, 0) == []


def test_bins_give_the_calibration_error():
    generator = np.random.default_rng(5)
    logits, truth = generator.normal(size=(200, 2)), generator.integers(0, 2, 200)
    bins = calibration_bins(logits, truth, np.arange(200), 10, 0)
    error = sum(b.accuracy.rows * abs(b.accuracy.value - b.confidence) for b in bins) / 200
    assert sum(b.accuracy.rows for b in bins) == 200
    assert error == pytest.approx(calibration_error(logits, truth))


def test_honest_gap_recovered():
    assert honest_gap_recovered(0.5, 0.1, 0.9) == pytest.approx(0.5)
    assert honest_gap_recovered(0.0, 0.2, 0.7) == pytest.approx(-0.4)
    assert np.isnan(honest_gap_recovered(0.5, 0.3, 0.3 + 1e-10))


def test_auroc_of_each_kind_of_rows_by_hand():
    """Log-odds 0 … 5; truth F F T T F T. Fooled: rows 1–4; untrusted: 2–5; the person accepts 0, 2, 4, 5."""
    odds = np.arange(6.0)
    evaluation = Evaluation(
        batch=None,
        truth_B=np.array([0, 0, 1, 1, 0, 1]),
        person_B=np.array([1, 0, 1, 0, 1, 1]),
        trusted_B=np.array([True, True, False, False, False, False]),
        fooled_B=np.array([False, True, True, True, True, False]),
        question_B=np.arange(6),
        difficulty_B=np.zeros(6),
    )
    scores = head_scores(np.stack([np.zeros(6), odds], axis=1), evaluation, 10, 0)
    assert scores["auroc_fooled"] == pytest.approx(2 / 4)  # true 2, 3 against false 1, 4
    assert scores["auroc_untrusted"] == pytest.approx(1 / 3)  # true 2, 3, 5 against false 4
    assert scores["auroc_person_accepts"] == pytest.approx(3 / 4)  # true 2, 5 against false 0, 4
