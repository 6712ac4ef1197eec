"""Causal self-attention with rotary positions and grouped queries.

Axes: B batch, L length (keys), Q queries, D model width, H query heads, K key/value heads, G = H/K query heads
that share one key/value head, C channels of a head (D/H), E output width of a matrix. Sequences are padded on the
right, so that the causal mask alone keeps every position before the padding free of it; no padding mask is needed.

Numbers are computed in the dtype of the matrices that are handed in; angles, scores and softmax in float32 where that
is narrower, so that float64 stays float64. `jax.nn.dot_product_attention` takes its softmax in float32 whatever the
inputs are, so the attention is written out; where the matrices are bfloat16 anyway, a GPU takes cuDNN's (`fused`).

The head axis stands before the length, because both matmuls are then plain ones for every row and head: with the
length first XLA's CPU backend transposes their operands one by one, forwards and backwards.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

ROTARY_BASE = 10_000.0
BFLOAT16 = np.dtype(jnp.bfloat16)
FUSED_LENGTH, FUSED_CHANNELS = 64, 128  # cuDNN's attention: lengths in multiples of, channels of a head up to


def normal_param(rngs: nnx.Rngs, shape: tuple[int, ...], stddev: float, dtype: np.dtype) -> nnx.Param:
    """A trainable array drawn from N(0, stddev²)."""
    return nnx.Param(jnp.asarray(stddev, dtype) * jax.random.normal(rngs.params(), shape, dtype))


def at_least_float32(x: jax.Array) -> jax.Array:
    """x in float32 where it is narrower: for statistics, softmax and logits."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def dense(x: jax.Array, kernel_DxE: jax.Array) -> jax.Array:
    """x @ kernel over x's last axis in the kernel's dtype, as one 2-D matmul.

    The gradient of a 3-D matmul with respect to its kernel contracts two axes, for which XLA writes transposed
    copies of both sides on CPU; in two dimensions it needs none.
    """
    rows_NxD = x.astype(kernel_DxE.dtype).reshape(-1, x.shape[-1])
    return (rows_NxD @ kernel_DxE).reshape(*x.shape[:-1], kernel_DxE.shape[1])


def wide_precision(dtype: np.dtype) -> jax.lax.DotAlgorithmPreset | None:
    """How bfloat16 matrices are multiplied into float32, in the backward pass too: without it that one would widen both
    sides first. None for other dtypes."""
    return jax.lax.DotAlgorithmPreset.BF16_BF16_F32 if dtype == BFLOAT16 else None


def dense_wide(x: jax.Array, kernel_DxE: jax.Array) -> jax.Array:
    """`dense` whose sums come out in float32 at least: for logits."""
    rows_NxD = x.astype(kernel_DxE.dtype).reshape(-1, x.shape[-1])
    wide, precision = jnp.promote_types(kernel_DxE.dtype, jnp.float32), wide_precision(kernel_DxE.dtype)
    logits_NxE = jnp.matmul(rows_NxD, kernel_DxE, precision=precision, preferred_element_type=wide)
    return logits_NxE.reshape(*x.shape[:-1], kernel_DxE.shape[1])


def rotate(x_BxHxQxC: jax.Array, position_BxQ: jax.Array | np.ndarray) -> jax.Array:
    """Rotary embedding: turn the channel pair (c, c + C/2) by the angle position · base^(−2c/C).

    The dot product of a rotated query and a rotated key depends on their positions through the difference
    alone. `position_BxQ` may have B = 1; where it is known beforehand (numpy), so are the sines, which XLA would
    otherwise take again for every row and head. Returns the shape of `x_BxHxQxC`; C must be even.
    Source: Su et al. 2021, arXiv:2104.09864, with the halves as pairs.
    """
    half = x_BxHxQxC.shape[-1] // 2
    x = at_least_float32(x_BxHxQxC)
    numbers = np if isinstance(position_BxQ, np.ndarray) else jnp
    frequency_C = numbers.asarray(ROTARY_BASE ** (-np.arange(half) / half), x.dtype)
    angle_BxQxC = position_BxQ[..., None] * frequency_C[None, None, :]
    cos, sin = (jnp.asarray(of(angle_BxQxC), x.dtype)[:, None] for of in (numbers.cos, numbers.sin))
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x_BxHxQxC.dtype)


def causal_attention(
    query_BxHxQxC: jax.Array, key_BxKxLxC: jax.Array, value_BxKxLxC: jax.Array, position_BxQ: jax.Array | np.ndarray
) -> jax.Array:
    """softmax(q·k / √C) over the keys at or before each query's position, times v; returns BxHxQxC.

    Query head h reads key/value head h // (H/K). `position_BxQ` (integers in [0, L); B may be 1) says where
    the queries stand. Source: Vaswani et al. 2017, arXiv:1706.03762; groups: Ainslie et al. 2023,
    arXiv:2305.13245.
    """
    heads, queries, channels = query_BxHxQxC.shape[1:]
    length, groups = key_BxKxLxC.shape[2], key_BxKxLxC.shape[1]
    # The queries of a group are further rows of one matmul.
    query = rearrange(query_BxHxQxC * channels**-0.5, "b (k g) q c -> b k (g q) c", k=groups)
    wide, precision = jnp.promote_types(query.dtype, jnp.float32), wide_precision(query.dtype)
    scores = jnp.einsum("bkqc,bklc->bkql", query, key_BxKxLxC, precision=precision, preferred_element_type=wide)
    visible_BxQxL = jnp.arange(length)[None, None, :] <= position_BxQ[:, :, None]
    visible = jnp.tile(visible_BxQxL, (1, heads // groups, 1))[:, None]
    scores = jnp.where(visible, scores, jnp.finfo(scores.dtype).min)
    # The softmax is divided out after the matmul, on C numbers a query and not on L; forwards and backwards.
    weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    mixed = jnp.einsum("bkql,bklc->bkqc", weights.astype(value_BxKxLxC.dtype), value_BxKxLxC)
    mixed = (mixed / jnp.sum(weights, axis=-1, keepdims=True)).astype(value_BxKxLxC.dtype)
    return rearrange(mixed, "b k (g q) c -> b (k g) q c", q=queries)


def fused_attention_fits(query_BxHxQxC: jax.Array) -> bool:
    """Whether cuDNN's causal attention takes these heads here."""
    _, _, length, channels = query_BxHxQxC.shape
    return (
        query_BxHxQxC.dtype == BFLOAT16
        and length % FUSED_LENGTH == 0
        and channels <= FUSED_CHANNELS
        and channels % 8 == 0
        and jax.default_backend() == "gpu"
    )


def fused_attention(query_BxHxLxC: jax.Array, key_BxKxLxC: jax.Array, value_BxKxLxC: jax.Array) -> jax.Array:
    """`causal_attention` from every position by cuDNN; it can be differentiated once, and in reverse only."""
    by_position = (x.swapaxes(1, 2) for x in (query_BxHxLxC, key_BxKxLxC, value_BxKxLxC))
    return jax.nn.dot_product_attention(*by_position, is_causal=True, implementation="cudnn").swapaxes(1, 2)


class Attention(nnx.Module):
    """Self-attention without biases; queries, keys and values come out of one matrix.

    `kernel_DxE`, E = (H + 2K)·C, has the columns of all query heads, then all key heads, then all value
    heads. Initialisation: N(0, 1/fan_in); `out_stddev_scale` multiplies the output matrix's stddev. `fused`: whether
    `fused_attention` may be taken where it fits.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        key_value_heads: int,
        rotary: bool,
        fused: bool,
        out_stddev_scale: float,
        dtype: np.dtype,
        rngs: nnx.Rngs,
    ):
        self.heads, self.key_value_heads, self.rotary, self.fused = heads, key_value_heads, rotary, fused
        self.channels = width // heads
        out = (heads + 2 * key_value_heads) * self.channels
        self.kernel_DxE = normal_param(rngs, (width, out), width**-0.5, dtype)
        self.out_kernel_DxD = normal_param(rngs, (width, width), out_stddev_scale * width**-0.5, dtype)

    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        """Attend from every position; returns BxLxD."""
        heads = self._heads(dense(x_BxLxD, self.kernel_DxE[...]))
        query, key, value = jnp.split(heads, [self.heads, self.heads + self.key_value_heads], axis=1)
        everywhere_1xL = np.arange(x_BxLxD.shape[1])[None, :]
        query, key = self._rotated(query, everywhere_1xL), self._rotated(key, everywhere_1xL)
        if self.fused and fused_attention_fits(query):
            return self._out(fused_attention(query, key, value))
        return self._out(causal_attention(query, key, value, everywhere_1xL))

    def at(self, x_BxLxD: jax.Array, last_B: jax.Array) -> jax.Array:
        """Attend from position `last_B` of each row alone; returns BxD, what `__call__` has there."""
        query_kernel, key_value_kernel = jnp.split(self.kernel_DxE[...], [self.heads * self.channels], axis=1)
        query = self._heads(dense(take_position(x_BxLxD, last_B), query_kernel)[:, None])
        key, value = jnp.split(self._heads(dense(x_BxLxD, key_value_kernel)), 2, axis=1)
        query = self._rotated(query, last_B[:, None])
        key = self._rotated(key, np.arange(x_BxLxD.shape[1])[None, :])
        return self._out(causal_attention(query, key, value, last_B[:, None]))[:, 0]

    def _heads(self, projected_BxLxE: jax.Array) -> jax.Array:
        return rearrange(projected_BxLxE, "b l (h c) -> b h l c", c=self.channels)

    def _rotated(self, x_BxHxQxC: jax.Array, position_BxQ: jax.Array | np.ndarray) -> jax.Array:
        return rotate(x_BxHxQxC, position_BxQ) if self.rotary else x_BxHxQxC

    def _out(self, mixed_BxHxQxC: jax.Array) -> jax.Array:
        return dense(rearrange(mixed_BxHxQxC, "b h q c -> b q (h c)"), self.out_kernel_DxD[...])


def take_position(x_BxLxD: jax.Array, position_B: jax.Array) -> jax.Array:
    """Row b's vector at `position_B[b]`, BxD; a position of L or more gives NaN."""
    return jnp.take_along_axis(x_BxLxD, position_B[:, None, None], axis=1)[:, 0]
