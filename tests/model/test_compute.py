"""How the passes are computed: bfloat16 matrices under float32 parameters, and blocks computed again."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from honest.model.attention import causal_attention, fused_attention, fused_attention_fits
from tests.model.test_model import (
    LAST,
    count_matmuls,
    make,
    run_head_logits,
    run_world_logits,
    scattered,
    shapes,
    some_tokens,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")
ROUNDOFF = 2.0**-9  # of bfloat16, which keeps 8 significant bits
# Matmuls in a lowered module: the operands' element types, and the accumulation of an explicit algorithm.
DOT = re.compile(r"stablehlo\.dot_general [^\n]*: \(tensor<[^>]*x(\w+)>, tensor<[^>]*x(\w+)>\)")


def batch():
    return jnp.asarray(some_tokens()), jnp.asarray(LAST)


def scalar_of(model):
    """A scalar that depends on all three groups, through the heads and through the readout."""
    tokens, last = batch()

    def scalar(params):
        logits = model.head_logits(params, tokens, last)
        world = model.world_logits(params["trunk"], tokens)
        return jnp.sum(jnp.sin(world)) + jnp.sum(jnp.sin(logits.intended_BxK - 2.0 * logits.instrumental_BxK))

    return scalar


def test_a_linear_head_in_bfloat16_is_within_its_two_roundings():
    """Features and kernel are rounded once each, to x(1 + δ) with |δ| ≤ u; sums and logits are in float32."""
    params = scattered(make(head="linear", answers=3))["intended_head"]
    features = jnp.asarray(np.random.default_rng(1).normal(size=(40, 8)), jnp.float32)
    exact, rounded = (
        np.asarray(make(head="linear", answers=3, compute=compute).head(params, features))
        for compute in ("parameters", "bfloat16")
    )
    magnitude = np.abs(features) @ np.abs(params["out_kernel"])
    error = np.abs(rounded - exact)
    assert rounded.dtype == np.float32
    assert (error <= (2 * ROUNDOFF + ROUNDOFF**2) * magnitude + 1e-6).all()
    assert error.max() > 0.01 * ROUNDOFF * magnitude.max()  # it is bfloat16
    assert (rounded != rounded.astype(jnp.bfloat16)).any()  # the logits are not


@pytest.mark.parametrize(("norm", "positions"), [("rmsnorm", "rotary"), ("layernorm", "learned")])
def test_bfloat16_logits_are_the_float32_ones_up_to_rounding(norm, positions):
    """A value passes fewer than 20 roundings a block, each by a relative error of at most u and of independent signs:
    √(20 · layers) · u in root mean square, doubled for what the nonlinearities amplify."""
    exact, rounded = (make(norm=norm, positions=positions, compute=c) for c in ("parameters", "bfloat16"))
    params, (tokens, last) = scattered(exact), batch()
    pairs = [
        (run_world_logits(model, params["trunk"], tokens), run_head_logits(model, params, tokens, last))
        for model in (exact, rounded)
    ]
    for a, b in zip(*map(jax.tree.leaves, pairs)):
        assert a.dtype == b.dtype == jnp.float32
        relative = np.sqrt(np.mean((a - b) ** 2) / np.mean(np.square(a)))
        assert 0.1 * ROUNDOFF < relative < 2 * (20 * 2) ** 0.5 * ROUNDOFF


def test_bfloat16_gradients_come_in_the_parameters_dtype_and_direction():
    exact, rounded = make(), make(compute="bfloat16")
    params = scattered(exact)
    a, b = (jax.jit(jax.grad(scalar_of(model)))(params) for model in (exact, rounded))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, b))} == {np.dtype(np.float32)}
    flat = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (a, b)]
    # The relative error of `test_bfloat16_logits…`, twice as many roundings for the way back: √2 of it, < 0.04.
    assert np.linalg.norm(flat[1] - flat[0]) < 0.04 * np.linalg.norm(flat[0])


def test_the_program_multiplies_in_bfloat16_and_normalises_in_float32():
    model = make(compute="bfloat16")
    text = jax.jit(jax.value_and_grad(scalar_of(model))).lower(shapes(model)).as_text()
    dots = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert len(dots) > 30
    for line in dots:
        (operands,) = DOT.findall(line)
        # A float32 cotangent of scores or logits is rounded by the algorithm.
        assert operands == ("bf16", "bf16") or "lhs_precision_type = bf16, rhs_precision_type = bf16" in line
    for narrow in ("exponential", "rsqrt"):
        found = re.findall(rf"stablehlo\.{narrow} .*: tensor<[^>]*x(\w+)>", text)
        assert found and set(found) == {"f32"}
    plain = jax.jit(scalar_of(make())).lower(shapes(model)).as_text()
    assert "bf16" not in plain


def test_float64_parameters_do_without_bfloat16_unless_asked():
    with jax.enable_x64(True):
        model = make(dtype=jnp.float64)
        text = jax.jit(scalar_of(model)).lower(shapes(model)).as_text()
        assert "f32" not in text and "bf16" not in text


def test_rematerialised_blocks_give_the_same_numbers_and_are_computed_again():
    kept, again = make(), make(rematerialise=True)
    params = scattered(kept)
    a, b = (jax.jit(jax.value_and_grad(scalar_of(model)))(params) for model in (kept, again))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), a, b)
    forward = count_matmuls(scalar_of(kept), params)
    assert count_matmuls(scalar_of(again), params) == forward
    in_gradient = [count_matmuls(jax.grad(scalar_of(model)), params) for model in (kept, again)]
    # All but the readout's, the heads' two layers each, and the last matmul of a block, which no derivative asks for,
    # are there twice: two passes of two blocks with qkv (one or two), scores, mixed, out and in.
    outside = 1 + 2 * 2
    assert forward - outside - 4 <= in_gradient[1] - in_gradient[0] <= forward - outside


def test_rematerialisation_keeps_less_for_the_backward_pass():
    """Counted in what `jax.vjp` keeps: XLA's CPU backend plans the same memory for both (notes/performance.md)."""

    def kept(**how):
        model = make(layers=6, **how)

        def keep(trunk):
            return jax.vjp(lambda trunk: model.world_logits(trunk, batch()[0]), trunk)[1]

        parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes(model)["trunk"]))
        return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(keep, shapes(model)["trunk"]))) - parameters

    assert kept(rematerialise=True) < 0.5 * kept()


def test_fused_attention_is_not_for_the_cpu_nor_for_float32():
    """The written-out form is what every test here sees; cuDNN's needs a GPU."""
    model = make(compute="bfloat16")
    assert "cudnn" not in jax.jit(scalar_of(model)).lower(shapes(model)).as_text()


def test_fused_attention_is_the_written_out_one():
    """On a GPU alone, where cuDNN has it: values and gradients within bfloat16's rounding, 2⁻⁸, of sums of some ten."""
    if jax.default_backend() != "gpu":
        pytest.skip("cuDNN's attention needs an NVIDIA GPU")
    query, key, value, weight = jax.random.normal(jax.random.key(0), (4, 3, 4, 128, 64), jnp.bfloat16)

    def written_out(query, key, value):
        wide = (x.astype(jnp.float32) for x in (query, key, value))
        return causal_attention(*wide, np.arange(128)[None, :])

    def gradients(attention):
        def scalar(heads):
            return jnp.sum(attention(*heads).astype(jnp.float32) * weight.astype(jnp.float32))

        return [np.asarray(x, np.float32) for x in jax.grad(scalar)((query, key, value))]

    assert fused_attention_fits(query)
    found, expected = (np.asarray(f(query, key, value), np.float32) for f in (fused_attention, written_out))
    np.testing.assert_allclose(found, expected, atol=0.03, rtol=0.03)
    for found, expected in zip(gradients(fused_attention), gradients(written_out), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.03 * np.max(np.abs(expected)))
