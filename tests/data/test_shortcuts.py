"""The bag-of-tokens check itself: it finds what is there to find, and nothing where there is nothing."""

import numpy as np
import pytest

from honest.data.batch import unlabelled
from tests.data.shortcuts import bag_of_tokens, count_tokens, fit_logistic, rows_of


def random_rows(seed, count=4000):
    """Rows of 1 to 6 tokens out of 1 … 4; padding is 0."""
    rng = np.random.default_rng(seed)
    return unlabelled([rng.integers(1, 5, rng.integers(1, 7)).tolist() for _ in range(count)], 6, 0, 1)


def test_counts_by_hand():
    batch = unlabelled([[1, 2, 2], [3]], 4, 0, 1)
    assert count_tokens(batch).tolist() == [[1, 1, 2, 0, 1], [3, 0, 0, 1, 1]]


def test_weights_against_a_closed_form():
    """With a constant alone (and hardly any ridge) the best logit is log(p / (1 − p)): p = 3/4 gives log 3."""
    weights = fit_logistic(np.ones((4, 1)), np.array([1.0, 1.0, 1.0, 0.0]))
    assert weights[0] == pytest.approx(np.log(3), abs=0.002)


def test_a_token_that_decides_is_found_and_an_unrelated_answer_is_not():
    train, test = random_rows(0), random_rows(1)
    holds = lambda batch: np.any(batch.tokens_BxL == 3, axis=1)  # noqa: E731
    found = bag_of_tokens(train, holds(train), test, holds(test))
    assert found.accuracy > 0.98 and found.advantage > 0.4
    coin = np.random.default_rng(2).random(8000) < 0.5
    nothing = bag_of_tokens(train, coin[:4000], test, coin[4000:])
    assert abs(nothing.advantage) < 0.02 and nothing.base_rate < 0.52


def test_what_leads_astray_has_a_negative_advantage():
    train, test = random_rows(0), random_rows(1)
    long_B = train.last_B > 2, test.last_B > 2
    assert bag_of_tokens(train, long_B[0], test, ~long_B[1]).advantage < -0.4


def test_chance_is_that_of_independent_answers():
    """A predictor that always says True is right at the base rate by chance, and has no advantage."""
    train, test = random_rows(0, 200), random_rows(1, 200)
    always = bag_of_tokens(train, np.ones(200), test, np.arange(200) < 150)
    assert always == (0.75, 0.75, 0.75) and always.advantage == 0


def test_rows_of_chooses_rows():
    batch = random_rows(0, 10)
    assert np.array_equal(rows_of(batch, np.arange(10) == 4).tokens_BxL, batch.tokens_BxL[4:5])
