"""The counter-based permutation: each epoch visits every row once; epochs and seeds differ."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from honest.data.batch import Batch
from honest.data.loader import indices, permuted_index, take, to_device


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7, 8, 9, 33, 1000, 4096, 4097])
def test_each_epoch_visits_each_row_once(rows):
    epochs = np.asarray(permuted_index(3, np.arange(3 * rows), rows)).reshape(3, rows)
    assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(rows), (3, 1)))
    if rows > 8:
        assert not np.array_equal(epochs[0], epochs[1])


def test_batches_run_on_over_the_end_of_an_epoch():
    rows, batch_rows = 10, 4
    steps = [np.asarray(indices(5, step, batch_rows, rows)) for step in range(5)]
    assert np.array_equal(np.concatenate(steps), np.asarray(permuted_index(5, np.arange(20), rows)))


def test_seeds_differ_and_large_seeds_are_read():
    first, second = (np.asarray(permuted_index(seed, np.arange(100), 100)) for seed in (0, 1))
    assert np.sum(first == second) < 10  # one in common is expected of random permutations
    assert np.array_equal(permuted_index(2**40 + 1, np.arange(100), 100), second)


def test_permutation_is_uniform():
    """Place of row 0, and the ordered pair at the first two positions, over 4,000 epochs of 5 rows, by χ²."""
    epochs = np.asarray(permuted_index(7, np.arange(20_000), 5)).reshape(4000, 5)
    place = np.bincount(np.argmin(epochs, axis=1), minlength=5)
    pairs = np.bincount(5 * epochs[:, 0] + epochs[:, 1], minlength=25)
    assert stats.chisquare(place).pvalue > 1e-3
    assert stats.chisquare(pairs[pairs > 0]).pvalue > 1e-3 and np.sum(pairs > 0) == 20


def test_neighbours_are_independent():
    order = np.asarray(permuted_index(1, np.arange(50_000), 50_000))
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 4 / np.sqrt(50_000)
    assert abs(np.corrcoef(np.arange(50_000), order)[0, 1]) < 4 / np.sqrt(50_000)


def test_jit_vmap_and_x64_agree():
    expected = np.asarray(indices(jnp.int32(2), jnp.int32(9), 16, 100))
    jitted = jax.jit(indices, static_argnums=(2, 3))
    assert np.array_equal(jitted(jnp.int32(2), jnp.int32(9), 16, 100), expected)
    over_seeds = jax.vmap(lambda seed: indices(seed, 9, 16, 100))(jnp.arange(4, dtype=jnp.uint32))
    assert np.array_equal(over_seeds[2], expected)
    with jax.enable_x64(True):
        wide = indices(jnp.asarray(2), jnp.asarray(9), 16, 100)
        assert wide.dtype == jnp.int32 and np.array_equal(wide, expected)
    with jax.numpy_rank_promotion("raise"):
        assert np.array_equal(indices(2, 9, 16, 100), expected)


def test_late_steps_are_still_permutations():
    rows, batch_rows = 1000, 250
    step = 4 * 4_000_000  # position 4·10⁹ is beyond int32
    epoch = np.concatenate([indices(0, step + i, batch_rows, rows) for i in range(4)])
    assert np.array_equal(np.sort(epoch), np.arange(rows))


@pytest.mark.parametrize("rows", [0, 2**31])
def test_impossible_row_counts_are_refused(rows):
    with pytest.raises(ValueError, match="rows must be in"):
        permuted_index(0, 0, rows)


def test_take_and_to_device():
    host = Batch(np.arange(12).reshape(4, 3), np.array([2, 2, 1, 0]), np.arange(24).reshape(4, 3, 2), np.arange(4))
    device = to_device(host)
    assert all(isinstance(x, jax.Array) and x.dtype == jnp.int32 for x in device)
    chosen = jax.jit(take)(device, jnp.array([3, 0]))
    assert np.array_equal(chosen.tokens_BxL, [[9, 10, 11], [0, 1, 2]])
    assert np.array_equal(chosen.last_B, [0, 2]) and np.array_equal(chosen.label_B, [3, 0])
    assert np.array_equal(chosen.world_targets_BxLxT[0], host.world_targets_BxLxT[3])
