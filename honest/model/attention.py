"""Causal self-attention with rotary positions and grouped queries.

Axes: B batch, L length (keys), Q queries, D model width, H query heads, K key/value heads, G = H/K query heads
that share one key/value head, C channels of a head (D/H), E output width of a matrix. Sequences are padded on the
right, so that the causal mask alone keeps every position before the padding free of it; no padding mask is needed.

The attention is written out rather than taken from `jax.nn.dot_product_attention`, which takes its softmax in
float32 whatever the inputs are and so has no float64.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

ROTARY_BASE = 10_000.0


def normal_param(rngs: nnx.Rngs, shape: tuple[int, ...], stddev: float, dtype: np.dtype) -> nnx.Param:
    """A trainable array drawn from N(0, stddev²)."""
    return nnx.Param(jnp.asarray(stddev, dtype) * jax.random.normal(rngs.params(), shape, dtype))


def dense(x: jax.Array, kernel_DxE: jax.Array) -> jax.Array:
    """x @ kernel over x's last axis, as one 2-D matmul.

    The gradient of a 3-D matmul with respect to its kernel contracts two axes, for which XLA writes transposed
    copies of both sides on CPU; in two dimensions it needs none.
    """
    rows_NxD = x.reshape(-1, x.shape[-1])
    return (rows_NxD @ kernel_DxE).reshape(*x.shape[:-1], kernel_DxE.shape[1])


def rotate(x_BxQxHxC: jax.Array, position_BxQ: jax.Array) -> jax.Array:
    """Rotary embedding: turn the channel pair (c, c + C/2) by the angle position · base^(−2c/C).

    The dot product of a rotated query and a rotated key depends on their positions through the difference
    alone. `position_BxQ` may have B = 1. Returns the shape of `x_BxQxHxC`; C must be even.
    Source: Su et al. 2021, arXiv:2104.09864, with the halves as pairs.
    """
    half = x_BxQxHxC.shape[-1] // 2
    frequency_C = ROTARY_BASE ** (-np.arange(half) / half)
    angle_BxQxC = position_BxQ[..., None] * jnp.asarray(frequency_C, x_BxQxHxC.dtype)[None, None, :]
    cos, sin = jnp.cos(angle_BxQxC)[:, :, None, :], jnp.sin(angle_BxQxC)[:, :, None, :]
    first, second = x_BxQxHxC[..., :half], x_BxQxHxC[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def causal_attention(
    query_BxQxHxC: jax.Array, key_BxLxKxC: jax.Array, value_BxLxKxC: jax.Array, position_BxQ: jax.Array
) -> jax.Array:
    """softmax(q·k / √C) over the keys at or before each query's position, times v; returns BxQxHxC.

    Query head h reads key/value head h // (H/K). `position_BxQ` (integers in [0, L); B may be 1) says where
    the queries stand. Source: Vaswani et al. 2017, arXiv:1706.03762; groups: Ainslie et al. 2023,
    arXiv:2305.13245.
    """
    channels, length, groups = query_BxQxHxC.shape[-1], key_BxLxKxC.shape[1], key_BxLxKxC.shape[2]
    query = rearrange(query_BxQxHxC, "b q (k g) c -> b q k g c", k=groups)
    scores = jnp.einsum("bqkgc,blkc->bkgql", query, key_BxLxKxC) * channels**-0.5
    visible_BxQxL = jnp.arange(length)[None, None, :] <= position_BxQ[:, :, None]
    scores = jnp.where(visible_BxQxL[:, None, None], scores, jnp.finfo(scores.dtype).min)
    mixed = jnp.einsum("bkgql,blkc->bqkgc", jax.nn.softmax(scores, axis=-1), value_BxLxKxC)
    return rearrange(mixed, "b q k g c -> b q (k g) c")


class Attention(nnx.Module):
    """Self-attention without biases; queries, keys and values come out of one matrix.

    `kernel_DxE`, E = (H + 2K)·C, has the columns of all query heads, then all key heads, then all value
    heads. Initialisation: N(0, 1/fan_in); `out_stddev_scale` multiplies the output matrix's stddev.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        key_value_heads: int,
        rotary: bool,
        out_stddev_scale: float,
        dtype: np.dtype,
        rngs: nnx.Rngs,
    ):
        self.heads, self.key_value_heads, self.rotary = heads, key_value_heads, rotary
        self.channels = width // heads
        out = (heads + 2 * key_value_heads) * self.channels
        self.kernel_DxE = normal_param(rngs, (width, out), width**-0.5, dtype)
        self.out_kernel_DxD = normal_param(rngs, (width, width), out_stddev_scale * width**-0.5, dtype)

    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        """Attend from every position; returns BxLxD."""
        projected_BxLxE = dense(x_BxLxD, self.kernel_DxE[...])
        query, key_value = jnp.split(projected_BxLxE, [self.heads * self.channels], axis=-1)
        return self._attend(query, key_value, jnp.arange(x_BxLxD.shape[1])[None, :])

    def at(self, x_BxLxD: jax.Array, last_B: jax.Array) -> jax.Array:
        """Attend from position `last_B` of each row alone; returns BxD, what `__call__` has there."""
        query_kernel, key_value_kernel = jnp.split(self.kernel_DxE[...], [self.heads * self.channels], axis=1)
        query_BxQxE = (take_position(x_BxLxD, last_B) @ query_kernel)[:, None]
        return self._attend(query_BxQxE, dense(x_BxLxD, key_value_kernel), last_B[:, None])[:, 0]

    def _attend(self, query_BxQxE: jax.Array, key_value_BxLxE: jax.Array, position_BxQ: jax.Array) -> jax.Array:
        query = rearrange(query_BxQxE, "b q (h c) -> b q h c", h=self.heads)
        key, value = rearrange(key_value_BxLxE, "b l (s k c) -> s b l k c", s=2, k=self.key_value_heads)
        if self.rotary:
            query = rotate(query, position_BxQ)
            key = rotate(key, jnp.arange(key.shape[1])[None, :])
        mixed_BxQxHxC = causal_attention(query, key, value, position_BxQ)
        return dense(rearrange(mixed_BxQxHxC, "b q h c -> b q (h c)"), self.out_kernel_DxD[...])


def take_position(x_BxLxD: jax.Array, position_B: jax.Array) -> jax.Array:
    """Row b's vector at `position_B[b]`, BxD; a position of L or more gives NaN."""
    return jnp.take_along_axis(x_BxLxD, position_B[:, None, None], axis=1)[:, 0]
