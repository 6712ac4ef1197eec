"""Predictions of several row sets from one pass, and sums over a population in chunks."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from honest.model.two_head import HeadLogits
from honest.objective.predictions import Counts, RowSets, predict, size, sum_over_rows
from honest.units import Quantity, nat, total


@pytest.fixture(autouse=True)
def strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield


class ToyRows(NamedTuple):
    x_BxF: jax.Array
    label_B: jax.Array


class CountingPredictor:
    """Linear heads; counts its passes."""

    def __init__(self):
        self.head_passes = self.world_passes = 0

    def head_logits(self, params, rows):
        self.head_passes += 1
        return HeadLogits(rows.x_BxF @ params["intended_head"], rows.x_BxF @ params["instrumental_head"])

    def world_logits(self, params, rows):
        self.world_passes += 1
        return rows.x_BxF @ params["trunk"]


PARAMS = {"trunk": np.eye(2) * 7, "intended_head": np.eye(2), "instrumental_head": np.eye(2) * 10}


def toy_rows(start, count):
    """Features start, start+1, … twice, so that each row is known by its value."""
    x_B = np.arange(start, start + count, dtype=np.float32)
    return ToyRows(jnp.asarray(np.stack([x_B, -x_B], axis=1)), jnp.zeros(count, int))


def test_each_set_gets_the_logits_of_its_own_rows_from_one_head_pass():
    predictor = CountingPredictor()
    sets: Any = RowSets(toy_rows(0, 2), toy_rows(2, 3), toy_rows(5, 4), toy_rows(9, 1))
    predictions: Any = predict(predictor, PARAMS, sets)
    assert (predictor.head_passes, predictor.world_passes) == (1, 1)
    for answer, rows in (
        (predictions.trusted, sets.trusted),
        (predictions.untrusted, sets.untrusted),
        (predictions.consistency, sets.consistency),
    ):
        np.testing.assert_array_equal(answer.intended_BxK, rows.x_BxF)
        np.testing.assert_array_equal(answer.instrumental_BxK, 10 * rows.x_BxF)
    np.testing.assert_array_equal(predictions.world, 7 * sets.world.x_BxF)


def test_sets_that_are_not_there_are_not_asked():
    predictor = CountingPredictor()
    predictions: Any = predict(predictor, PARAMS, RowSets(None, None, None, toy_rows(0, 3)))
    assert predictions.trusted is predictions.untrusted is predictions.world is None
    assert (predictor.head_passes, predictor.world_passes) == (1, 0)
    np.testing.assert_array_equal(predictions.consistency.intended_BxK, toy_rows(0, 3).x_BxF)
    predict(predictor, PARAMS, RowSets(None, None, toy_rows(0, 3), None))
    assert (predictor.head_passes, predictor.world_passes) == (1, 1)


def test_size_and_counts():
    assert size(toy_rows(0, 5)) == 5
    assert Counts(trusted=3, untrusted=4, world_tokens=50, consistency=2).labels == 7


@pytest.mark.parametrize("chunk", [1, 3, 5, 10, 11, 64])
def test_sum_over_rows_counts_each_row_once(chunk):
    """Σ 2^i over rows i = 0…9 has one bit for each row; row 0 fills the last chunk up, and must not count again."""
    rows = ToyRows(2.0 ** jnp.arange(10)[:, None], jnp.zeros(10, int))

    def summed(part, real_B):
        assert size(part) <= chunk
        return total(Quantity(part.x_BxF[:, 0], nat), where=real_B)

    result = sum_over_rows(summed, rows, chunk, Quantity(jnp.zeros(()), nat))
    assert float(result.to(nat)) == 1023.0
