"""Two answer heads on one trunk: f+ (intended) and f− (instrumental).

`Model` is static: it holds the structure, and the arrays live in `Params`, a plain nested dict with one entry a
parameter group of the log posterior (the readout of world data belongs to the trunk). Its methods are pure and may
be jitted, differentiated and vmapped over the parameters.

Axes: B batch, L length, D width, K answers, T world target channels, V classes of a channel, F hidden width of a
head. All logits are in nats: log probabilities, up to a constant for each row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from honest.config import ComputeConfig, ModelConfig
from honest.model.attention import dense, dense_wide, normal_param
from honest.model.transformer import Trunk, TrunkSizes, gelu

Params = dict[str, Any]


class HeadLogits(NamedTuple):
    """What each head answers to the same rows; softmax over K gives its probabilities."""

    intended_BxK: jax.Array
    instrumental_BxK: jax.Array


@dataclass(frozen=True)
class HeadSizes:
    """What a head is built from; all static. `kind`: linear or mlp (one hidden layer of `hidden` units)."""

    kind: str
    hidden: int
    width: int
    answers: int
    dtype: np.dtype


class Head(nnx.Module):
    """Features to the logits of K answers: linear, or one hidden GELU layer.

    Initialisation: kernels N(0, 1/fan_in), biases zero.
    For two answers (False, True) there is one output z and the logits are [0, z], so that no direction of the
    parameters leaves the probabilities alone.
    """

    def __init__(self, sizes: HeadSizes, rngs: nnx.Rngs):
        if sizes.kind not in ("linear", "mlp"):
            raise ValueError(f"head kind must be linear or mlp, got {sizes.kind!r}")
        if sizes.answers < 2:
            raise ValueError(f"a head needs at least two answers, got {sizes.answers}")
        self.answers = sizes.answers
        self.has_hidden = sizes.kind == "mlp"
        inputs = sizes.width
        if self.has_hidden:
            self.hidden_kernel_DxF = normal_param(rngs, (inputs, sizes.hidden), inputs**-0.5, sizes.dtype)
            self.hidden_bias_F = nnx.Param(jnp.zeros(sizes.hidden, sizes.dtype))
            inputs = sizes.hidden
        outputs = 1 if sizes.answers == 2 else sizes.answers
        self.out_kernel = normal_param(rngs, (inputs, outputs), inputs**-0.5, sizes.dtype)
        self.out_bias = nnx.Param(jnp.zeros(outputs, sizes.dtype))

    def __call__(self, features_BxD: jax.Array) -> jax.Array:
        """Logits of the K answers, BxK."""
        x = features_BxD
        if self.has_hidden:
            x = gelu(dense(x, self.hidden_kernel_DxF[...]) + self.hidden_bias_F[None, :])
        logits = dense_wide(x, self.out_kernel[...]) + self.out_bias[None, :]
        if self.answers == 2:
            return jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1)
        return logits


@dataclass(frozen=True)
class Model:
    """The two-head model without its parameters: hashable, equal for equal sizes, a static argument of jit.

    compute_dtype: of the matrices that the network multiplies, and of what flows between them. Parameters keep their
    own dtype, which the gradients, the features and the logits have as well.
    """

    trunk_sizes: TrunkSizes
    head_sizes: HeadSizes
    trunk_graph: nnx.GraphDef
    head_graph: nnx.GraphDef
    compute_dtype: np.dtype

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters, bare arrays under exactly trunk, intended_head and instrumental_head.

        The heads have independent keys. Scales are given in `transformer` and in `Head`.
        """
        trunk_key, intended_key, instrumental_key = jax.random.split(key, 3)
        return {
            "trunk": _arrays(Trunk(self.trunk_sizes, nnx.Rngs(params=trunk_key))),
            "intended_head": _arrays(Head(self.head_sizes, nnx.Rngs(params=intended_key))),
            "instrumental_head": _arrays(Head(self.head_sizes, nnx.Rngs(params=instrumental_key))),
        }

    def features(self, trunk: Any, tokens_BxL: jax.Array, last_B: jax.Array) -> jax.Array:
        """The trunk's final-normed stream at position `last_B` of each row, BxD.

        Padding is on the right and 0 ≤ last < L: no token after `last` changes the result. ValueError where L
        exceeds the trunk's max_length; a token outside the vocabulary, or a `last` of L or more, gives NaN.
        """
        return nnx.merge(self.trunk_graph, self._cast(trunk)).features(tokens_BxL, last_B)

    def world_logits(self, trunk: Any, tokens_BxL: jax.Array) -> jax.Array:
        """Logits of T world targets with V classes at each position, BxLxTxV; position i sees tokens 0..i.

        ValueError where L exceeds the trunk's max_length; a token outside the vocabulary gives NaN.
        """
        return nnx.merge(self.trunk_graph, self._cast(trunk)).world_logits(tokens_BxL)

    def head(self, head_params: Any, features_BxD: jax.Array) -> jax.Array:
        """One head's logits of the K answers, BxK; [0, z] for two answers (False, True)."""
        return nnx.merge(self.head_graph, self._cast(head_params))(features_BxD)

    def _cast(self, group: Any) -> Any:
        """The group with its matrices in the compute dtype; vectors (scales, biases) act in float32 and stay."""
        return jax.tree.map(lambda leaf: leaf.astype(self.compute_dtype) if leaf.ndim > 1 else leaf, group)

    def head_logits(self, params: Params, tokens_BxL: jax.Array, last_B: jax.Array) -> HeadLogits:
        """Both heads' logits from one pass of the trunk; arguments and errors as for `features`."""
        features_BxD = self.features(params["trunk"], tokens_BxL, last_B)
        return HeadLogits(
            intended_BxK=self.head(params["intended_head"], features_BxD),
            instrumental_BxK=self.head(params["instrumental_head"], features_BxD),
        )


def build(
    config: ModelConfig,
    compute: ComputeConfig,
    *,
    vocabulary: int,
    max_length: int,
    answers: int,
    world_channels: int,
    world_classes: int,
    differentiated_twice: bool,
    dtype: Any,
) -> Model:
    """The model that `config` describes, for a task's sizes; the only function here that sees the config.

    `max_length` and `vocabulary` count tokens. differentiated_twice: second or forward derivatives will be taken, which
    rules out fused attention. ValueError for float64 without `jax_enable_x64` (it would
    silently become float32) and for fewer than two answers.
    """
    dtype = np.dtype(dtype)
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError(f"{dtype} parameters need jax_enable_x64")
    trunk_sizes = TrunkSizes(
        vocabulary=vocabulary,
        max_length=max_length,
        layers=config.layers,
        width=config.width,
        attention_heads=config.attention_heads,
        key_value_heads=config.key_value_heads,
        mlp_ratio=config.mlp_ratio,
        norm=config.norm,
        positions=config.positions,
        world_channels=world_channels,
        world_classes=world_classes,
        rematerialise=compute.rematerialise,
        fused_attention=not differentiated_twice,
        dtype=dtype,
    )
    head_sizes = HeadSizes(config.head.kind, config.head.hidden, config.width, answers, dtype)
    return Model(
        trunk_sizes,
        head_sizes,
        trunk_graph=_graph(lambda: Trunk(trunk_sizes, nnx.Rngs(params=0))),
        head_graph=_graph(lambda: Head(head_sizes, nnx.Rngs(params=0))),
        compute_dtype=np.dtype(jnp.bfloat16) if compute.dtype == "bfloat16" else dtype,
    )


def _graph(make) -> nnx.GraphDef:
    """The static half of a module, made without computing its arrays."""
    return nnx.split(nnx.eval_shape(make))[0]


def _arrays(module: nnx.Module) -> dict[str, Any]:
    """The trainable half of a module as nested dicts of bare arrays."""
    return nnx.to_pure_dict(nnx.state(module))
