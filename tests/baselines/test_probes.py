"""Probes on features whose best answer is known in closed form, or from an optimiser of another kind."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.special import expit

from honest.baselines import PROBES, ccs
from honest.baselines.probe import Features, ProbeRows, Scale, logistic_regression
from honest.config_io import load_config
from tests.conftest import QUICKSTART

SETTINGS = load_config(QUICKSTART).config.baselines.probes
UNSHRUNK = SETTINGS.model_copy(update={"l2": 1e-8})
MEAN, COVARIANCE = np.array([1.0, -0.5, 0.0]), np.array([[1.0, 0.6, 0.0], [0.6, 2.0, -0.3], [0.0, -0.3, 0.5]])


def gaussians(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two Gaussians of one covariance around ±MEAN, alternating labels."""
    label = np.arange(count) % 2
    noise = np.random.default_rng(seed).multivariate_normal(np.zeros(3), COVARIANCE, count)
    return noise + np.where(label[:, None] == 1, MEAN, -MEAN), label


def rows_of(x: np.ndarray, label: np.ndarray, pairs: tuple | None = None) -> ProbeRows:
    features = Features(x, *(pairs or (None, None)))
    return ProbeRows(features, label, features)


def fit(name: str, rows: ProbeRows, seed: int = 0, settings=SETTINGS):
    return PROBES[name].fit(rows, settings, np.random.default_rng(seed))


@pytest.mark.parametrize("name", ["lda", "logistic_regression"])
def test_the_log_odds_of_gaussians_are_recovered(name):
    """log p(1|x)/p(0|x) = 2 MEANᵀ Σ⁻¹ x for equal shares."""
    x, label = gaussians(40_000)
    expected = 2 * x @ np.linalg.solve(COVARIANCE, MEAN)
    found = fit(name, rows_of(x, label), settings=UNSHRUNK)(Features(x, None, None))
    assert np.corrcoef(found, expected)[0, 1] > 0.999
    assert np.polyfit(expected, found, 1) == pytest.approx([1.0, 0.0], abs=0.05)


def test_difference_in_means_ignores_the_covariance():
    x, label = gaussians(40_000)
    found = fit("difference_in_means", rows_of(x, label))(Features(x, None, None))
    expected = 2 * x @ MEAN / np.mean(np.diag(COVARIANCE))
    assert np.polyfit(expected, found, 1) == pytest.approx([1.0, 0.0], abs=0.05)
    assert np.corrcoef(found, expected)[0, 1] > 0.999


def test_logistic_regression_is_at_the_minimum():
    """Against a simplex search, which needs no gradient."""
    x, label = gaussians(200)

    def objective(parameters):
        z = x @ parameters[:3] + parameters[3]
        return np.mean(np.logaddexp(0, z) - label * z) + 0.05 * np.sum(parameters[:3] ** 2)

    weights, bias = logistic_regression(x, label, 0.1)
    other = minimize(objective, np.zeros(4), method="Nelder-Mead", options={"maxiter": 5000, "fatol": 1e-12})
    assert np.append(weights, bias) == pytest.approx(other.x, abs=1e-3)


def test_a_constant_feature_is_left_out():
    scale = Scale.of(np.array([[1.0, 5.0], [3.0, 5.0]]))
    assert scale(np.array([[3.0, 9.0]])).tolist() == [[1.0, 0.0]]


def contrast_rows(count: int, flip: bool) -> tuple[ProbeRows, Features, np.ndarray]:
    """φ after "True" and after "False" differ by ±2 along the first axis, by the truth, and by a word's offset."""
    rng = np.random.default_rng(1)
    label = rng.integers(0, 2, count)
    sign = np.where(label == 1, 1.0, -1.0) * (-1 if flip else 1)
    base, word = rng.normal(size=(count, 4)), np.array([0.0, 7.0, 0.0, 0.0])
    along = np.outer(sign, [2.0, 0.0, 0.0, 0.0])
    features = Features(base, 0.3 * base + along + word, 0.3 * base - along - word)
    return ProbeRows(features, label, features), features, label


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("name", ["ccs", "contrast_logistic"])
def test_contrast_pairs_tell_and_trusted_rows_give_the_sign(name, flip):
    rows, features, label = contrast_rows(400, flip)
    found = fit(name, rows)(features)
    assert np.mean((found > 0) == (label == 1)) > 0.98


def test_ccs_does_not_see_labels_but_for_the_sign():
    rows, features, _ = contrast_rows(400, False)
    shuffled = rows._replace(label_N=np.random.default_rng(2).permutation(rows.label_N))
    assert np.abs(fit("ccs", rows)(features)) == pytest.approx(np.abs(fit("ccs", shuffled)(features)))


def test_ccs_loss_and_its_gradient():
    rng = np.random.default_rng(3)
    true, false, at = rng.normal(size=(5, 2)), rng.normal(size=(5, 2)), rng.normal(size=3)
    p, q = expit(true @ at[:2] + at[2]), expit(false @ at[:2] + at[2])
    by_hand = np.mean([(a + b - 1) ** 2 + min(a, b) ** 2 for a, b in zip(p, q)])
    found, gradient = ccs.loss(at, true, false)
    assert found == pytest.approx(by_hand)
    assert gradient == pytest.approx(approx_fprime(at, lambda w: ccs.loss(w, true, false)[0], 1e-7), abs=1e-5)


def test_a_random_direction_knows_nothing_and_has_a_seed():
    x, label = gaussians(100)
    a, b, c = (fit("random", rows_of(x, label), seed)(Features(x, None, None)) for seed in (0, 0, 1))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
