"""What our step is measured against: a GPT-2 of `transformers` in PyTorch eager, and a plain Flax decoder.

Both train as our trunk stage does: next-token cross-entropy at every position, gradients clipped by global norm, AdamW.
Neither has dropout. Each function returns a thunk that takes one whole step and waits for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.steps import CLIP_NORM, LEARNING_RATE, WEIGHT_DECAY, Shape, tokens_BxL

MISSING = (
    "PyTorch and transformers are not installed: the column against GPT-2 is left out; "
    "install them with: .venv/bin/uv pip install torch transformers   (extra `benchmark`)"
)


def has_torch() -> bool:
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError:
        return False
    return True


def torch_gpt2(shape: Shape, bfloat16: bool, parts: int) -> Callable[[], Any]:
    """PyTorch eager, on the GPU where there is one; with `bfloat16` under autocast. Threads: as many as cores.

    parts: of a batch, whose gradients are added up.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    config = GPT2Config(
        vocab_size=shape.vocabulary,
        n_positions=shape.length,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
        loss_type="ForCausalLM",
    )
    model = GPT2LMHeadModel(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    tokens = torch.tensor(tokens_BxL(shape), dtype=torch.long, device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        for part in tokens.chunk(parts):
            with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
                loss = model(input_ids=part, labels=part).loss
            (loss / parts).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


class DecoderBlock(nnx.Module):
    def __init__(self, shape: Shape, rngs: nnx.Rngs):
        self.attention_norm = nnx.LayerNorm(shape.width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(shape.heads, shape.width, decode=False, rngs=rngs)
        self.mlp_norm = nnx.LayerNorm(shape.width, rngs=rngs)
        self.mlp_in = nnx.Linear(shape.width, 4 * shape.width, rngs=rngs)
        self.mlp_out = nnx.Linear(4 * shape.width, shape.width, rngs=rngs)

    def __call__(self, x_BxLxD: jax.Array, mask: jax.Array) -> jax.Array:
        x_BxLxD = x_BxLxD + self.attention(self.attention_norm(x_BxLxD), mask=mask)
        return x_BxLxD + self.mlp_out(nnx.gelu(self.mlp_in(self.mlp_norm(x_BxLxD))))


class Decoder(nnx.Module):
    """Flax's own layers put together as its guides do: three projections, einsum attention, learned positions."""

    def __init__(self, shape: Shape, rngs: nnx.Rngs):
        self.embedding = nnx.Embed(shape.vocabulary, shape.width, rngs=rngs)
        self.positions = nnx.Embed(shape.length, shape.width, rngs=rngs)
        self.blocks = nnx.List([DecoderBlock(shape, rngs) for _ in range(shape.layers)])
        self.norm = nnx.LayerNorm(shape.width, rngs=rngs)
        self.readout = nnx.Linear(shape.width, shape.vocabulary, rngs=rngs)

    def __call__(self, tokens_BxL: jax.Array) -> jax.Array:
        x_BxLxD = self.embedding(tokens_BxL) + self.positions(jnp.arange(tokens_BxL.shape[1]))[None]
        mask = nnx.make_causal_mask(tokens_BxL)
        for block in self.blocks:
            x_BxLxD = block(x_BxLxD, mask)
        return self.readout(self.norm(x_BxLxD))


def flax_decoder(shape: Shape, parts: int) -> Callable[[], Any]:
    """The decoder's step as one jitted program that donates its state. parts: of a batch, their gradients added up."""
    graph, params = nnx.split(Decoder(shape, nnx.Rngs(0)))
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP_NORM), optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY))
    tokens = jnp.asarray(tokens_BxL(shape))

    def loss(params: Any, tokens_BxL: jax.Array) -> jax.Array:
        logits = nnx.merge(graph, params)(tokens_BxL)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], tokens_BxL[:, 1:]))

    def of_parts(params: Any, tokens_BxL: jax.Array) -> tuple:
        if parts == 1:
            return jax.value_and_grad(loss)(params, tokens_BxL)

        def add(total: Any, part_BxL: jax.Array) -> tuple:
            value, gradient = jax.value_and_grad(loss)(params, part_BxL)
            return jax.tree.map(jnp.add, total, gradient), value

        zero = jax.tree.map(jnp.zeros_like, params)
        total, values = jax.lax.scan(add, zero, tokens_BxL.reshape(parts, -1, shape.length))
        return jnp.mean(values), jax.tree.map(lambda leaf: leaf / parts, total)

    def train_step(params: Any, state: Any, tokens_BxL: jax.Array) -> tuple:
        value, gradient = of_parts(params, tokens_BxL)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    compiled = jax.jit(train_step, donate_argnums=(0, 1)).lower(params, state, tokens).compile()
    held = [params, state]

    def step() -> None:
        held[0], held[1], value = compiled(held[0], held[1], tokens)
        assert np.isfinite(float(value))

    return step
