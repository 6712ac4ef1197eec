"""The baselines' losses beyond the data, against values worked out by hand and loops over rows."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from honest.baselines import METHODS, PROBES, confidence, dbat, divdis
from honest.baselines.method import HeadRows, PenaltyContext
from honest.config import CONTRAST_METHODS, MethodName
from honest.config_io import load_config
from honest.data.batch import NONE, Batch
from honest.model.two_head import HeadLogits
from honest.units import example, nat
from tests.conftest import QUICKSTART

STEP = jnp.zeros((), jnp.int32)
SETTINGS = load_config(QUICKSTART).config.baselines


def batch(labels) -> Batch:
    count = len(labels)
    return Batch(np.zeros((count, 1)), np.zeros(count), np.full((count, 1, 1), NONE), np.array(labels))


def context(labels, steps=100) -> PenaltyContext:
    rows = batch(labels)
    return PenaltyContext(SETTINGS, HeadRows(rows, rows, rows), steps)


def logits_of(p_true) -> jax.Array:
    p = jnp.asarray(p_true)
    return jnp.stack([jnp.log1p(-p), jnp.log(p)], axis=-1)


def value(loss, first, second, labels, step=STEP) -> float:
    return float(loss(HeadLogits(logits_of(first), logits_of(second)), jnp.asarray(labels), step).to(nat / example))


def test_names_are_those_of_the_config():
    assert set(MethodName.__args__) == {*METHODS, *PROBES, "prior"}
    assert not set(METHODS) & set(PROBES)
    assert set(CONTRAST_METHODS) == {name for name, probe in PROBES.items() if probe.pairs}


def test_mutual_information_of_independent_and_of_equal_heads():
    sure = 1 - 1e-7
    first, second = [sure, sure, 1 - sure, 1 - sure], [sure, 1 - sure, sure, 1 - sure]
    log_p, log_q = logits_of(first), logits_of(second)
    assert float(divdis.mutual_information(log_p, log_q)) == pytest.approx(0.0, abs=1e-5)
    assert float(divdis.mutual_information(log_p, log_p)) == pytest.approx(math.log(2), abs=1e-5)


def test_divdis_is_the_sum_over_the_table_of_answers():
    first, second, labels = [0.9, 0.3, 0.6], [0.2, 0.5, 0.7], [1, 1, 1, 0]
    joint = dict.fromkeys(itertools.product((0, 1), repeat=2), 0.0)
    for p, q in zip(first, second):
        for a, b in joint:
            joint[a, b] += (p if a else 1 - p) * (q if b else 1 - q) / 3
    one = {a: joint[a, 0] + joint[a, 1] for a in (0, 1)}
    two = {b: joint[0, b] + joint[1, b] for b in (0, 1)}
    information = sum(x * math.log(x / (one[a] * two[b])) for (a, b), x in joint.items())
    shares = {0: 0.25, 1: 0.75}
    balance = sum(m[a] * math.log(m[a] / shares[a]) for m in (one, two) for a in (0, 1))
    expected = SETTINGS.divdis.mutual_information * information + SETTINGS.divdis.balance * balance
    assert value(divdis.penalty(context(labels)), first, second, [NONE] * 3) == pytest.approx(expected, rel=1e-5)


def test_dbat_asks_the_second_head_alone_to_contradict():
    first, second = jnp.array([0.9, 0.2]), jnp.array([0.6, 0.7])
    loss = dbat.penalty(context([0, 1]))
    by_hand = -(math.log(0.9 * 0.4 + 0.1 * 0.6) + math.log(0.2 * 0.3 + 0.8 * 0.7)) / 2
    assert value(loss, first, second, [NONE] * 2) == pytest.approx(SETTINGS.dbat.disagreement * by_hand, rel=1e-5)

    def of(a, b):
        return loss(HeadLogits(a, b), jnp.array([NONE] * 2), STEP).to(nat / example)

    to_first, to_second = jax.grad(of, argnums=(0, 1))(logits_of(first), logits_of(second))
    assert not np.any(to_first) and np.all(np.abs(to_second) > 0)


def test_dbat_is_finite_where_both_heads_are_sure():
    both = jnp.array([[0.0, 1e4]])
    assert float(dbat.agreement_nll(both, both)[0]) == pytest.approx(1e4 - math.log(2))


def test_the_confident_answer_says_true_as_often_as_the_person():
    log_odds = jnp.array([3.0, -1.0, 2.0, -4.0])
    logits = jnp.stack([jnp.zeros(4), log_odds], axis=1)
    assert confidence.hardened(logits, jnp.array([1, 0, 0, 0])).tolist() == [1, 0, 0, 0]
    assert confidence.hardened(logits, jnp.array([1, 1, 1, 0])).tolist() == [1, 1, 1, 0]
    assert confidence.hardened(logits, jnp.array([0, 0, 0, 0])).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (10, 0.5), (20, 1.0), (90, 1.0)])
def test_confidence_is_weighted_after_its_warm_up(step, share):
    """0.2 of 100 steps; the head is sure of True on row 0 where the person says False, and the other way on row 1."""
    loss = confidence.penalty(context([0, 1]))
    own, taught = -math.log(0.9), -math.log(0.1)
    expected = share * SETTINGS.confidence.weight * (own - taught)
    assert value(loss, [0.9, 0.1], [0.5, 0.5], [0, 1], jnp.int32(step)) == pytest.approx(expected, rel=1e-5, abs=1e-9)
