"""The trunk: a decoder-only pre-norm transformer, and the readout of world data from it.

Axes: B batch, L length, D model width, F hidden width of an MLP, T world target channels (things predicted at
one position), V classes of a channel (of a token, for the embedding). Sequences are padded on the right: causal
masking makes what comes out at a position independent of everything after it, padding included.

Initialisation: matrices N(0, 1/fan_in), those that write into the residual stream N(0, 1/(2·layers·fan_in)),
token and position embeddings N(0, .5²), norm scales one, biases zero. Only layer norms and the readout have biases.

Activations have the dtype of the matrices that are handed in; norms (their scales and biases too) and logits are in
float32 where that is narrower.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

from honest.model.attention import Attention, at_least_float32, dense, dense_wide, normal_param, take_position

EMBEDDING_STDDEV = 0.5
NORM_EPSILON = 1e-6


@dataclass(frozen=True)
class TrunkSizes:
    """What a trunk is built from, all static; `norm` is rmsnorm or layernorm, `positions` rotary or learned.

    rematerialise: a block's activations are not kept for the backward pass but computed again there. fused_attention:
    a GPU may take its attention from cuDNN (see `attention`).
    """

    vocabulary: int
    max_length: int
    layers: int
    width: int
    attention_heads: int
    key_value_heads: int
    mlp_ratio: int
    norm: str
    positions: str
    world_channels: int
    world_classes: int
    rematerialise: bool
    fused_attention: bool
    dtype: np.dtype


class RMSNorm(nnx.Module):
    """x / √(mean x² + ε) · scale over the last axis. Source: Zhang & Sennrich 2019, arXiv:1910.07467."""

    def __init__(self, width: int, dtype: np.dtype):
        self.scale_D = nnx.Param(jnp.ones(width, dtype))

    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        return _rms_norm(x_BxLxD, self.scale_D[...])


@jax.checkpoint
def _rms_norm(x_BxLxD: jax.Array, scale_D: jax.Array) -> jax.Array:
    """The backward pass keeps x and takes the rest again: memory traffic costs more than the sums."""
    x_BxLxD = at_least_float32(x_BxLxD)
    mean_square = jnp.mean(jnp.square(x_BxLxD), axis=-1, keepdims=True)
    return x_BxLxD * jax.lax.rsqrt(mean_square + NORM_EPSILON) * _as_last(scale_D, x_BxLxD)


class LayerNorm(nnx.Module):
    """(x − mean x) / √(var x + ε) · scale + bias over the last axis. Source: Ba et al., arXiv:1607.06450."""

    def __init__(self, width: int, dtype: np.dtype):
        self.scale_D = nnx.Param(jnp.ones(width, dtype))
        self.bias_D = nnx.Param(jnp.zeros(width, dtype))

    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        return _layer_norm(x_BxLxD, self.scale_D[...], self.bias_D[...])


@jax.checkpoint
def _layer_norm(x_BxLxD: jax.Array, scale_D: jax.Array, bias_D: jax.Array) -> jax.Array:
    """As `_rms_norm` for the backward pass."""
    x_BxLxD = at_least_float32(x_BxLxD)
    centred = x_BxLxD - jnp.mean(x_BxLxD, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    normed = centred * jax.lax.rsqrt(variance + NORM_EPSILON)
    return normed * _as_last(scale_D, x_BxLxD) + _as_last(bias_D, x_BxLxD)


def _as_last(vector_D: jax.Array, like: jax.Array) -> jax.Array:
    """`vector_D` with leading axes of size one, so that no rank is promoted silently."""
    return vector_D.reshape((1,) * (like.ndim - 1) + vector_D.shape)


def make_norm(kind: str, width: int, dtype: np.dtype) -> RMSNorm | LayerNorm:
    """The norm named `kind`; ValueError for another name than rmsnorm or layernorm."""
    if kind == "rmsnorm":
        return RMSNorm(width, dtype)
    if kind == "layernorm":
        return LayerNorm(width, dtype)
    raise ValueError(f"norm must be rmsnorm or layernorm, got {kind!r}")


@jax.checkpoint
def gelu(x: jax.Array) -> jax.Array:
    """GELU in its tanh form (Hendrycks & Gimpel, arXiv:1606.08415).

    The backward pass keeps x alone and takes the tanh again, which costs less than to write and read two more arrays of
    the MLP's width.
    """
    return jax.nn.gelu(x)


class MLP(nnx.Module):
    """gelu(x W_in) W_out, without biases."""

    def __init__(self, width: int, hidden: int, *, out_stddev_scale: float, dtype: np.dtype, rngs: nnx.Rngs):
        self.in_kernel_DxF = normal_param(rngs, (width, hidden), width**-0.5, dtype)
        self.out_kernel_FxD = normal_param(rngs, (hidden, width), out_stddev_scale * hidden**-0.5, dtype)

    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        return dense(gelu(dense(x_BxLxD, self.in_kernel_DxF[...])), self.out_kernel_FxD[...])


class Block(nnx.Module):
    """x ← x + attention(norm x);  x ← x + mlp(norm x)."""

    def __init__(self, sizes: TrunkSizes, rngs: nnx.Rngs):
        out_stddev_scale = (2 * sizes.layers) ** -0.5
        self.attention_norm = make_norm(sizes.norm, sizes.width, sizes.dtype)
        self.attention = Attention(
            width=sizes.width,
            heads=sizes.attention_heads,
            key_value_heads=sizes.key_value_heads,
            rotary=sizes.positions == "rotary",
            fused=sizes.fused_attention,
            out_stddev_scale=out_stddev_scale,
            dtype=sizes.dtype,
            rngs=rngs,
        )
        self.mlp_norm = make_norm(sizes.norm, sizes.width, sizes.dtype)
        self.mlp = MLP(
            sizes.width,
            sizes.mlp_ratio * sizes.width,
            out_stddev_scale=out_stddev_scale,
            dtype=sizes.dtype,
            rngs=rngs,
        )

    def __call__(self, stream_BxLxD: jax.Array) -> jax.Array:
        """The residual stream after the block, at every position."""
        stream_BxLxD = stream_BxLxD + self.attention(self.attention_norm(stream_BxLxD))
        return stream_BxLxD + self.mlp(self.mlp_norm(stream_BxLxD))

    def at(self, stream_BxLxD: jax.Array, last_B: jax.Array) -> jax.Array:
        """The residual stream after the block at `last_B` alone, BxD."""
        attended_BxD = self.attention.at(self.attention_norm(stream_BxLxD), last_B)
        stream_BxD = take_position(stream_BxLxD, last_B) + attended_BxD
        return stream_BxD + self.mlp(self.mlp_norm(stream_BxD))


class Trunk(nnx.Module):
    """Embedding, blocks, final norm, and a linear readout of T·V world logits at each position."""

    def __init__(self, sizes: TrunkSizes, rngs: nnx.Rngs):
        if sizes.positions not in ("rotary", "learned"):
            raise ValueError(f"positions must be rotary or learned, got {sizes.positions!r}")
        self.max_length = sizes.max_length
        self.world_channels = sizes.world_channels
        self.rematerialise = sizes.rematerialise
        width, dtype = sizes.width, sizes.dtype
        self.embedding_VxD = normal_param(rngs, (sizes.vocabulary, width), EMBEDDING_STDDEV, dtype)
        self.learned_positions = sizes.positions == "learned"
        if self.learned_positions:
            self.position_LxD = normal_param(rngs, (sizes.max_length, width), EMBEDDING_STDDEV, dtype)
        self.blocks = nnx.List([Block(sizes, rngs) for _ in range(sizes.layers)])
        self.final_norm = make_norm(sizes.norm, width, dtype)
        outputs = sizes.world_channels * sizes.world_classes
        self.readout_kernel = normal_param(rngs, (width, outputs), width**-0.5, dtype)
        self.readout_bias = nnx.Param(jnp.zeros(outputs, dtype))

    def features(self, tokens_BxL: jax.Array, last_B: jax.Array) -> jax.Array:
        """The final-normed stream at position `last_B` of each row, BxD; 0 ≤ last < L.

        The last block is computed at that one position only, since nothing reads it elsewhere.
        """
        stream_BxLxD = self._embed(tokens_BxL)
        for block in self.blocks[:-1]:
            stream_BxLxD = self._kept(block)(stream_BxLxD)
        return self.final_norm(self._kept(self.blocks[-1].at)(stream_BxLxD, last_B))

    def world_logits(self, tokens_BxL: jax.Array) -> jax.Array:
        """Logits of T world targets with V classes at each position, BxLxTxV."""
        stream_BxLxD = self._embed(tokens_BxL)
        for block in self.blocks:
            stream_BxLxD = self._kept(block)(stream_BxLxD)
        logits = dense_wide(self.final_norm(stream_BxLxD), self.readout_kernel[...])
        logits = logits + _as_last(self.readout_bias[...], logits)
        return rearrange(logits, "b l (t v) -> b l t v", t=self.world_channels)

    def _kept(self, block: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        """The block, with what its backward pass keeps: everything, or its input alone."""
        return jax.checkpoint(block) if self.rematerialise else block

    def _embed(self, tokens_BxL: jax.Array) -> jax.Array:
        """Token (and learned position) embeddings, BxLxD; a token outside the vocabulary gives NaN."""
        length = tokens_BxL.shape[1]
        if length > self.max_length:
            raise ValueError(f"tokens of length {length} exceed the trunk's max_length {self.max_length}")
        stream_BxLxD = jnp.take(self.embedding_VxD[...], tokens_BxL, axis=0)
        if self.learned_positions:
            stream_BxLxD = stream_BxLxD + self.position_LxD[:length][None]
        return stream_BxLxD
