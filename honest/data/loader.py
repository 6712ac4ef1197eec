"""Which rows a step sees: a counter-based permutation, so that a data position is one integer.

Each epoch is a pseudo-random permutation of the rows by an alternating Feistel network on ⌈log2 rows⌉ bits
with cycle walking (Black and Rogaway, Ciphers with arbitrary finite domains, 2002). A Feistel network
permutes 0 … 2^bits − 1 whatever its round function; walking on from an index ≥ rows until one < rows is met
permutes 0 … rows − 1. Everything is 32-bit, works with and without jax's x64 mode, and may be jitted and
vmapped over seed and step.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from honest.data.batch import Batch

ROUNDS = 16  # with 8, permutations of 5 or 8 rows are measurably uneven (χ² over 40,000 epochs)


def mix32(x: jax.Array) -> jax.Array:
    """A bijection of uint32 with full avalanche: the finaliser of MurmurHash3 (Appleby, public domain)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _uint32(x: jax.typing.ArrayLike) -> jax.Array:
    """The low 32 bits; a Python integer may be of any size."""
    if isinstance(x, int):
        return jnp.uint32(x & 0xFFFFFFFF)
    return jnp.asarray(x).astype(jnp.uint32)


def _feistel(x: jax.Array, key: jax.Array, bits: int) -> jax.Array:
    """Permutes 0 … 2^bits − 1; x and key broadcast. The halves may differ by one bit, so they do not swap."""
    low_bits = (bits + 1) // 2
    low_mask, high_mask = jnp.uint32((1 << low_bits) - 1), jnp.uint32((1 << (bits - low_bits)) - 1)
    low, high = x & low_mask, x >> low_bits
    for i in range(ROUNDS):
        round_key = mix32(key + jnp.uint32(0x9E3779B9 * (i + 1) % 2**32))
        if i % 2:
            high = high ^ (mix32(low ^ round_key) & high_mask)
        else:
            low = low ^ (mix32(high ^ round_key) & low_mask)
    return (high << low_bits) | low


def permuted_index(seed: jax.typing.ArrayLike, position: jax.typing.ArrayLike, rows: int) -> jax.Array:
    """int32, shape of `position`: the row at each position of the endless pass over shuffled epochs.

    seed: integer scalar (its low 32 bits count); position: integers in [0, 2^32), epoch = position // rows;
    rows: 1 … 2^31 − 1, static, else ValueError.
    """
    if not 1 <= rows < 2**31:
        raise ValueError(f"rows must be in [1, 2^31), is {rows}")
    return _permuted(_uint32(seed), _uint32(position), rows)


@partial(jax.jit, static_argnames="rows")
def _permuted(seed: jax.Array, position: jax.Array, rows: int) -> jax.Array:
    bits = (rows - 1).bit_length()
    epoch = position // jnp.uint32(rows)
    key = mix32(mix32(seed + jnp.uint32(0x9E3779B9)) ^ epoch)

    def outside(state):
        return jnp.any(state[1])

    def walk(state):
        x, walking = state
        x = jnp.where(walking, _feistel(x, key, bits), x)
        return x, x >= rows

    start = position % jnp.uint32(rows), jnp.ones_like(position, bool)
    return jax.lax.while_loop(outside, walk, start)[0].astype(jnp.int32)


def indices(seed: jax.typing.ArrayLike, step: jax.typing.ArrayLike, batch_rows: int, rows: int) -> jax.Array:
    """int32[batch_rows]: the rows of the batch at `step`; batches run on over the ends of epochs.

    Unique positions for step · batch_rows < 2^32; only this batch's indices are computed.
    """
    offsets = jnp.arange(batch_rows, dtype=jnp.uint32)
    return permuted_index(seed, _uint32(step) * jnp.uint32(batch_rows) + offsets, rows)


def take(batch: Batch, indices_B: jax.typing.ArrayLike) -> Batch:
    """The rows at `indices_B` (each in [0, rows)) of a batch on the device; usable under jit and vmap."""
    return Batch(*(jnp.asarray(x)[jnp.asarray(indices_B)] for x in batch))


def to_device(batch: Batch) -> Batch:
    """The batch as int32 device arrays."""
    return Batch(*(jnp.asarray(np.asarray(x), jnp.int32) for x in batch))
