"""Amplified labels and abstaining comparisons: counts, error rates, what they may tell, and that tests lose them."""

import jax
import numpy as np
import pytest

from honest.config_objective import Supervision
from honest.data.batch import NONE, Batch, Evaluation, Splits
from honest.data.helped import helped

TRUSTED, UNTRUSTED = 40, 200


def rows(start: int, count: int, label) -> Batch:
    """Row i has the text (i, i)."""
    index = np.arange(start, start + count)
    return Batch(np.stack([index, index], 1), np.ones(count, int), np.full((count, 2, 1), NONE), np.asarray(label))


def splits() -> Splits:
    """The truth of row i is i mod 2, the person says the opposite on untrusted rows; the test repeats ten of these."""
    index = np.arange(TRUSTED + UNTRUSTED)
    truth = index % 2
    trusted = rows(0, TRUSTED, truth[:TRUSTED])
    untrusted = rows(TRUSTED, UNTRUSTED, 1 - truth[TRUSTED:])
    asked = np.r_[np.arange(TRUSTED, TRUSTED + 10), np.arange(1000, 1010)]
    batch = Batch(np.stack([asked, asked], 1), np.ones(20, int), np.full((20, 2, 1), NONE), np.full(20, NONE))
    test = Evaluation(batch, asked % 2, 1 - asked % 2, np.zeros(20, bool), np.ones(20, bool), asked, np.zeros(20))
    ceiling = rows(0, TRUSTED + UNTRUSTED, truth)
    return Splits(untrusted, trusted, untrusted, ceiling, test, test)


def supervision(**changes) -> Supervision:
    return Supervision.model_validate({"instrumental": "untrusted", "amplified": None, "comparisons": None} | changes)


def ask(seed: int = 0, **changes) -> Splits:
    return helped(splits(), supervision(**changes), seed)


def equal(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_without_help_nothing_changes():
    assert equal(ask(), splits())


@pytest.mark.parametrize(("error_rate", "wrong"), [(0.0, 0), (0.1, 5), (1.0, 50)])
def test_amplified_labels_are_the_truth_but_for_the_stated_errors(error_rate, wrong):
    found = ask(amplified={"share": 0.25, "error_rate": error_rate})
    added = jax.tree.map(lambda leaf: leaf[TRUSTED:], found.trusted)
    index = added.tokens_BxL[:, 0]
    assert len(index) == len(set(index.tolist())) == 50 and index.min() >= TRUSTED
    assert np.sum(added.label_B != index % 2) == wrong
    assert equal(jax.tree.map(lambda leaf: leaf[:TRUSTED], found.trusted), splits().trusted)
    assert equal(found.untrusted, splits().untrusted) and equal(found.ceiling, splits().ceiling)


def test_helped_rows_leave_the_test():
    everything = ask(amplified={"share": 0.999, "error_rate": 0.0})
    left = everything.test.batch.tokens_BxL[:, 0]
    taken = set(everything.trusted.tokens_BxL[TRUSTED:, 0].tolist())
    assert not taken & set(left.tolist()) and set(range(1000, 1010)) <= set(left.tolist())
    assert len(left) == len(everything.test.truth_B) == len(everything.test.fooled_B)


def test_comparisons_are_of_one_true_and_one_false_claim():
    found = ask(comparisons={"asked": 4000, "abstain_rate": 0.0, "error_rate": 0.0}).comparisons
    better, worse = (part.tokens_BxL[:, 0] for part in found)
    assert np.all(better % 2 == 1) and np.all(worse % 2 == 0)
    assert abs(len(better) / 4000 - 0.5) < 0.04  # half of all random pairs
    assert np.all(found.better.label_B == NONE) and np.all(found.worse.label_B == NONE)


def test_the_judge_abstains_and_errs_as_stated():
    whole = ask(comparisons={"asked": 1000, "abstain_rate": 0.0, "error_rate": 0.0}).comparisons
    found = ask(comparisons={"asked": 1000, "abstain_rate": 0.75, "error_rate": 0.2}).comparisons
    total, made = whole.better.label_B.size, found.better.label_B.size
    assert made == total - round(0.75 * total)
    assert np.sum(found.better.tokens_BxL[:, 0] % 2 == 0) == round(0.2 * made)


def test_help_has_a_seed():
    one = {
        "amplified": {"share": 0.2, "error_rate": 0.1},
        "comparisons": {"asked": 100, "abstain_rate": 0.1, "error_rate": 0.1},
    }
    assert equal(ask(**one), ask(**one)) and not equal(ask(1, **one).trusted, ask(**one).trusted)
    alone = ask(comparisons=one["comparisons"])  # streams of their own
    assert equal(alone.comparisons, ask(**one).comparisons)
