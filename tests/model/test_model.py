"""The model against numpy in float64, hand arithmetic, and the invariances that the objective relies on."""

from __future__ import annotations

import cmath
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from honest.config import ComputeConfig, HeadConfig, ModelConfig
from honest.model.attention import Attention, rotate
from honest.model.transformer import LayerNorm, RMSNorm, Trunk
from honest.model.two_head import Head, HeadSizes, Model, build

pytestmark = pytest.mark.usefixtures("quick_compilation")
VOCABULARY, MAX_LENGTH, CHANNELS, CLASSES, WIDTH = 11, 7, 2, 5, 8
LAST = np.array([0, 3, 6, 2])

# compiled once for all tests on equal models
run_init = jax.jit(Model.init, static_argnums=0)
run_features = jax.jit(Model.features, static_argnums=0)
run_world_logits = jax.jit(Model.world_logits, static_argnums=0)
run_head_logits = jax.jit(Model.head_logits, static_argnums=0)


@pytest.fixture(autouse=True)
def strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def member_keys():
    return jax.random.split(jax.random.key(0), 200)


@pytest.fixture(scope="module")
def members():
    """200 initialisations of the standard model, from one vmapped call."""
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(make().init))(member_keys()))


def make(
    *,
    norm="rmsnorm",
    positions="rotary",
    key_value_heads=2,
    head="mlp",
    answers=2,
    layers=2,
    dtype=jnp.float32,
    compute="parameters",
    rematerialise=False,
):
    config = ModelConfig(
        layers=layers,
        width=WIDTH,
        attention_heads=4,
        key_value_heads=key_value_heads,
        mlp_ratio=3,
        norm=norm,
        positions=positions,
        head=HeadConfig(kind=head, hidden=6),
    )
    return build(
        config,
        ComputeConfig(dtype=compute, rematerialise=rematerialise, micro_batches=1),
        vocabulary=VOCABULARY,
        max_length=MAX_LENGTH,
        answers=answers,
        world_channels=CHANNELS,
        world_classes=CLASSES,
        differentiated_twice=False,
        dtype=dtype,
    )


def shapes(model):
    return jax.eval_shape(model.init, jax.random.key(0))


def scattered(model, seed=0):
    """Random parameters everywhere, so that no initial one or zero hides an error."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0.0, 0.4, leaf.shape), leaf.dtype), shapes(model))


def some_tokens(seed=0, rows=4, length=MAX_LENGTH):
    return np.random.default_rng(seed).integers(0, VOCABULARY, (rows, length))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


# --- an independent implementation: one position at a time, rotation by complex numbers ----------------------------


def np_rotate(vector_C, position):
    half = len(vector_C) // 2
    turned = [
        complex(vector_C[c], vector_C[c + half]) * cmath.exp(1j * position / 10_000 ** (c / half)) for c in range(half)
    ]
    return np.array([z.real for z in turned] + [z.imag for z in turned])


def np_attention(x_LxD, kernel, out_kernel, heads, groups, rotary):
    length, width = x_LxD.shape
    channels = width // heads
    projected = (x_LxD @ kernel).reshape(length, heads + 2 * groups, channels)
    mixed = np.zeros((length, heads, channels))
    for head in range(heads):
        shared = head // (heads // groups)
        for i in range(length):
            query, scores = projected[i, head], []
            for j in range(i + 1):
                key = projected[j, heads + shared]
                if rotary:
                    scores.append(np_rotate(query, i) @ np_rotate(key, j) / math.sqrt(channels))
                else:
                    scores.append(query @ key / math.sqrt(channels))
            weights = np.exp(scores) / np.sum(np.exp(scores))
            mixed[i, head] = sum(w * projected[j, heads + groups + shared] for j, w in enumerate(weights))
    return mixed.reshape(length, width) @ out_kernel


def np_norm(x, params):
    if "bias_D" in params:
        deviation = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-6)
        return (x - x.mean(axis=-1, keepdims=True)) / deviation * params["scale_D"] + params["bias_D"]
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * params["scale_D"]


def np_gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def np_trunk(trunk, tokens_L, heads, groups):
    """Final-normed stream at every position of one row, LxD."""
    x = trunk["embedding_VxD"][tokens_L]
    rotary = "position_LxD" not in trunk
    if not rotary:
        x = x + trunk["position_LxD"][: len(tokens_L)]
    for _, block in sorted(trunk["blocks"].items()):
        attention, mlp = block["attention"], block["mlp"]
        normed = np_norm(x, block["attention_norm"])
        x = x + np_attention(normed, attention["kernel_DxE"], attention["out_kernel_DxD"], heads, groups, rotary)
        x = x + np_gelu(np_norm(x, block["mlp_norm"]) @ mlp["in_kernel_DxF"]) @ mlp["out_kernel_FxD"]
    return np_norm(x, trunk["final_norm"])


# --- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("rotary", [True, False])
def test_attention_is_the_numpy_one_in_float64(x64, groups, rotary):
    attention = Attention(
        width=WIDTH,
        heads=4,
        key_value_heads=groups,
        rotary=rotary,
        fused=True,
        out_stddev_scale=1.0,
        dtype=np.dtype(np.float64),
        rngs=nnx.Rngs(params=3),
    )
    x_BxLxD = np.random.default_rng(0).normal(size=(4, 7, WIDTH))
    expected = np.stack(
        [
            np_attention(
                x,
                np.asarray(attention.kernel_DxE[...]),
                np.asarray(attention.out_kernel_DxD[...]),
                4,
                groups,
                rotary,
            )
            for x in x_BxLxD
        ]
    )
    everywhere = jax.jit(attention.__call__)(jnp.asarray(x_BxLxD))
    np.testing.assert_allclose(everywhere, expected, rtol=0, atol=1e-13)
    at_last = jax.jit(attention.at)(jnp.asarray(x_BxLxD), jnp.asarray(LAST))
    np.testing.assert_allclose(at_last, expected[np.arange(4), LAST], rtol=0, atol=1e-13)


@pytest.mark.parametrize(("norm", "positions"), [("rmsnorm", "rotary"), ("layernorm", "learned")])
def test_trunk_is_the_numpy_one_in_float64(x64, norm, positions):
    model = make(norm=norm, positions=positions, dtype=jnp.float64)
    trunk = scattered(model)["trunk"]
    tokens = some_tokens()
    as_numpy = jax.tree.map(np.asarray, trunk)
    expected = np.stack([np_trunk(as_numpy, row, heads=4, groups=2) for row in tokens])
    features = run_features(model, trunk, jnp.asarray(tokens), jnp.asarray(LAST))
    np.testing.assert_allclose(features, expected[np.arange(4), LAST], rtol=0, atol=1e-12)
    readout = expected @ as_numpy["readout_kernel"] + as_numpy["readout_bias"]
    logits = run_world_logits(model, trunk, jnp.asarray(tokens))
    # channel t owns the outputs t·V to (t + 1)·V − 1
    for channel in range(CHANNELS):
        own = readout[..., channel * CLASSES : (channel + 1) * CLASSES]
        np.testing.assert_allclose(logits[:, :, channel], own, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [RMSNorm, LayerNorm])
def test_norms_against_numpy(x64, kind):
    rng = np.random.default_rng(0)
    norm = kind(WIDTH, np.dtype(np.float64))
    graph, state = nnx.split(norm)
    params = {name: rng.normal(size=WIDTH) for name in nnx.to_pure_dict(state)}
    x = rng.normal(2.0, 3.0, size=(4, 3, WIDTH))
    got = nnx.merge(graph, jax.tree.map(jnp.asarray, params))(jnp.asarray(x))
    np.testing.assert_allclose(got, np_norm(x, params), rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("answers", [2, 3])
def test_heads_against_numpy(x64, kind, answers):
    model = make(head=kind, answers=answers, dtype=jnp.float64)
    params = jax.tree.map(np.asarray, scattered(model)["intended_head"])
    features = np.random.default_rng(0).normal(size=(4, WIDTH))
    x = features
    if kind == "mlp":
        x = np_gelu(x @ params["hidden_kernel_DxF"] + params["hidden_bias_F"])
    expected = x @ params["out_kernel"] + params["out_bias"]
    if answers == 2:  # (False, True): the logit of False is fixed at 0
        assert expected.shape == (4, 1)
        expected = np.concatenate([np.zeros((4, 1)), expected], axis=1)
    logits = model.head(jax.tree.map(jnp.asarray, params), jnp.asarray(features))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-13)


# --- rotary positions and grouped queries --------------------------------------------------------------------------


def test_rotary_products_depend_on_the_difference_of_positions(x64):
    query, key = (jax.random.normal(jax.random.key(i), (1, 1, 1, 6), jnp.float64) for i in (0, 1))

    def product(i, j):
        turned = rotate(query, jnp.array([[i]])), rotate(key, jnp.array([[j]]))
        return float(jnp.sum(turned[0] * turned[1]))

    for shift in (1, 5, 40):
        assert product(3 + shift, 1 + shift) == pytest.approx(product(3, 1), abs=1e-12)
    assert abs(product(3, 1) - product(4, 1)) > 1e-3
    assert abs(product(3, 1) - product(1, 3)) > 1e-3
    np.testing.assert_allclose(rotate(query, jnp.array([[0]])), query, rtol=0, atol=0)
    np.testing.assert_allclose(
        rotate(query, jnp.array([[9]]))[0, 0, 0], np_rotate(np.asarray(query)[0, 0, 0], 9), rtol=0, atol=1e-14
    )


def test_grouped_queries_equal_full_heads_with_repeated_key_value_weights(x64):
    grouped, full = make(key_value_heads=2, dtype=jnp.float64), make(key_value_heads=4, dtype=jnp.float64)
    trunk = scattered(grouped)["trunk"]
    repeated = jax.tree.map(lambda leaf: leaf, trunk)
    for block in repeated["blocks"].values():
        kernel = block["attention"]["kernel_DxE"]
        query, key, value = jnp.split(kernel, [8, 12], axis=1)  # 4 query heads and 2 + 2 others of 2 channels
        repeat = [jnp.repeat(half.reshape(WIDTH, 2, 2), 2, axis=1).reshape(WIDTH, 8) for half in (key, value)]
        block["attention"]["kernel_DxE"] = jnp.concatenate([query, *repeat], axis=1)
    tokens = jnp.asarray(some_tokens())
    expected = run_world_logits(full, repeated, tokens)
    np.testing.assert_allclose(run_world_logits(grouped, trunk, tokens), expected, rtol=0, atol=1e-12)


# --- what may depend on what ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["rotary", "learned"])
@pytest.mark.parametrize("changed", [0, 3, 6])
def test_a_position_sees_itself_and_what_is_before_it(positions, changed):
    model = make(positions=positions)
    trunk = scattered(model)["trunk"]
    tokens = some_tokens()
    other = tokens.copy()
    other[:, changed] = (other[:, changed] + 1) % VOCABULARY
    before, after = (np.asarray(run_world_logits(model, trunk, jnp.asarray(t))) for t in (tokens, other))
    np.testing.assert_array_equal(before[:, :changed], after[:, :changed])
    assert (np.abs(before - after)[:, changed:].max(axis=(2, 3)) > 1e-4).all()


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_answers_do_not_depend_on_padding(positions):
    model = make(positions=positions)
    params = scattered(model)
    tokens, last = some_tokens(), np.array([0, 2, 3, 3])
    padded_otherwise = np.where(np.arange(MAX_LENGTH)[None] > last[:, None], 9, tokens)
    assert (padded_otherwise != tokens).any(axis=1).all()
    results = [
        run_head_logits(model, params, jnp.asarray(t), jnp.asarray(last))
        for t in (tokens, padded_otherwise, tokens[:, :4])
    ]
    np.testing.assert_array_equal(results[0].intended_BxK, results[1].intended_BxK)
    np.testing.assert_array_equal(results[0].instrumental_BxK, results[1].instrumental_BxK)
    np.testing.assert_allclose(results[0].intended_BxK, results[2].intended_BxK, rtol=0, atol=1e-5)
    read = tokens.copy()
    read[np.arange(4), last] = (read[np.arange(4), last] + 1) % VOCABULARY
    moved = run_head_logits(model, params, jnp.asarray(read), jnp.asarray(last)).intended_BxK
    assert (np.abs(moved - results[0].intended_BxK)[:, 1] > 1e-4).all()


def test_features_are_what_the_readout_reads_at_the_last_position(x64):
    model = make(dtype=jnp.float64)
    trunk = scattered(model)["trunk"]
    tokens = jnp.asarray(some_tokens())
    features = run_features(model, trunk, tokens, jnp.asarray(LAST))
    readout = features @ trunk["readout_kernel"] + trunk["readout_bias"][None]
    at_last = run_world_logits(model, trunk, tokens)[np.arange(4), LAST]
    np.testing.assert_allclose(readout.reshape(4, CHANNELS, CLASSES), at_last, rtol=0, atol=1e-12)


def count_matmuls(function, *arguments):
    return str(jax.make_jaxpr(function)(*arguments)).count("dot_general[")


def test_both_heads_read_one_pass_of_the_trunk():
    model = make()
    params = scattered(model)
    tokens, last = jnp.asarray(some_tokens()), jnp.asarray(LAST)
    logits = run_head_logits(model, params, tokens, last)
    features = run_features(model, params["trunk"], tokens, last)
    np.testing.assert_array_equal(logits.intended_BxK, model.head(params["intended_head"], features))
    np.testing.assert_array_equal(logits.instrumental_BxK, model.head(params["instrumental_head"], features))
    assert np.abs(logits.intended_BxK - logits.instrumental_BxK)[:, 1].min() > 1e-4
    in_trunk = count_matmuls(model.features, params["trunk"], tokens, last)
    assert in_trunk > 0
    assert count_matmuls(model.head_logits, params, tokens, last) == in_trunk + 2 * 2  # two layers a head


def test_equal_heads_answer_alike():
    model = make()
    params = scattered(model)
    params["instrumental_head"] = params["intended_head"]
    logits = run_head_logits(model, params, jnp.asarray(some_tokens()), jnp.asarray(LAST))
    np.testing.assert_array_equal(logits.intended_BxK, logits.instrumental_BxK)


# --- shapes, counts, initialisation --------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", [2, 3])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_shapes(answers, head):
    model = make(answers=answers, head=head, norm="layernorm", positions="learned", key_value_heads=1)
    params, tokens, last = shapes(model), np.zeros((3, 5), int), np.array([4, 0, 2])
    assert jax.eval_shape(model.features, params["trunk"], tokens, last).shape == (3, WIDTH)
    assert jax.eval_shape(model.world_logits, params["trunk"], tokens).shape == (3, 5, CHANNELS, CLASSES)
    logits = jax.eval_shape(model.head_logits, params, tokens, last)
    assert logits.intended_BxK.shape == logits.instrumental_BxK.shape == (3, answers)


@pytest.mark.parametrize(
    ("norm", "positions", "parameters"),
    [
        # embedding 11·8; a block: 8·(4 + 2·2)·2 + 8·8 + 2·8·24, norms 2·8; final norm 8; readout 8·10 + 10
        ("rmsnorm", "rotary", 88 + 2 * (128 + 64 + 384 + 16) + 8 + 90),
        ("rmsnorm", "learned", 88 + 2 * (128 + 64 + 384 + 16) + 8 + 90 + 7 * 8),
        ("layernorm", "rotary", 88 + 2 * (128 + 64 + 384 + 32) + 16 + 90),
    ],
)
def test_trunk_parameter_count(norm, positions, parameters):
    assert count(shapes(make(norm=norm, positions=positions))["trunk"]) == parameters


@pytest.mark.parametrize(
    ("head", "answers", "parameters"),
    [("linear", 2, 8 + 1), ("linear", 3, 8 * 3 + 3), ("mlp", 2, 8 * 6 + 6 + 6 + 1), ("mlp", 3, 54 + 6 * 3 + 3)],
)
def test_head_parameter_count(head, answers, parameters):
    params = shapes(make(head=head, answers=answers))
    assert count(params["intended_head"]) == count(params["instrumental_head"]) == parameters


def test_parameters_are_bare_arrays_in_three_groups():
    params = run_init(make(), jax.random.key(0))
    assert set(params) == {"trunk", "intended_head", "instrumental_head"}
    for leaf in jax.tree.leaves(params):
        assert isinstance(leaf, jax.Array) and leaf.dtype == jnp.float32


def test_initial_scales(members):
    """Sample standard deviations within five of their standard errors, σ/√(2n), over 200 initialisations."""
    block = members["trunk"]["blocks"][1]
    expected = [
        (members["trunk"]["embedding_VxD"], 0.5),
        (block["attention"]["kernel_DxE"], 8**-0.5),
        (block["attention"]["out_kernel_DxD"], 8**-0.5 / 4**0.5),  # two layers: 1/√(2·2)
        (block["mlp"]["in_kernel_DxF"], 8**-0.5),
        (block["mlp"]["out_kernel_FxD"], 24**-0.5 / 4**0.5),
        (members["trunk"]["readout_kernel"], 8**-0.5),
        (members["intended_head"]["hidden_kernel_DxF"], 8**-0.5),
        (members["instrumental_head"]["out_kernel"], 6**-0.5),
    ]
    for array, stddev in expected:
        assert abs(np.std(array) - stddev) < 5 * stddev / (2 * array.size) ** 0.5
        assert abs(np.mean(array)) < 5 * stddev / array.size**0.5
    assert (members["trunk"]["final_norm"]["scale_D"] == 1).all()
    assert not members["trunk"]["readout_bias"].any() and not members["intended_head"]["out_bias"].any()


def test_keys_decide_the_initialisation():
    model = make()
    one, same, other = (run_init(model, jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    kernels = [
        one["intended_head"]["out_kernel"],
        one["instrumental_head"]["out_kernel"],
        other["intended_head"]["out_kernel"],
    ]
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(kernels, kernels[1:] + kernels[:1]))
    blocks = one["trunk"]["blocks"]
    assert np.abs(blocks[0]["mlp"]["in_kernel_DxF"] - blocks[1]["mlp"]["in_kernel_DxF"]).max() > 1e-3


# --- transformations -----------------------------------------------------------------------------------------------


def test_vmap_over_chains_equals_a_loop(x64):
    model = make(dtype=jnp.float64)
    members = [scattered(model, seed) for seed in range(3)]
    chains = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    tokens, last = jnp.asarray(some_tokens()), jnp.asarray(LAST)
    together = jax.jit(jax.vmap(model.head_logits, in_axes=(0, None, None)))(chains, tokens, last)
    world = jax.jit(jax.vmap(model.world_logits, in_axes=(0, None)))(chains["trunk"], tokens)
    assert together.intended_BxK.shape == (3, 4, 2)
    for i, member in enumerate(members):
        alone = run_head_logits(model, member, tokens, last)
        np.testing.assert_allclose(together.intended_BxK[i], alone.intended_BxK, rtol=0, atol=1e-12)
        np.testing.assert_allclose(together.instrumental_BxK[i], alone.instrumental_BxK, rtol=0, atol=1e-12)
        alone_world = run_world_logits(model, member["trunk"], tokens)
        np.testing.assert_allclose(world[i], alone_world, rtol=0, atol=1e-12)


def test_vmap_over_keys_initialises_each_member_as_alone(members):
    for i in (0, 199):
        alone, own = run_init(make(), member_keys()[i]), jax.tree.map(lambda leaf, i=i: leaf[i], members)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), alone, own)


def test_first_and_second_derivatives_against_central_differences(x64):
    model = make(layers=1, dtype=jnp.float64)
    params, direction = scattered(model), scattered(model, seed=7)
    tokens, last = jnp.asarray(some_tokens()), jnp.asarray(LAST)

    def value(params):
        logits = model.head_logits(params, tokens, last)
        return jnp.sum(jnp.tanh(logits.intended_BxK) * jnp.sin(logits.instrumental_BxK))

    def slope(params):
        gradient = jax.grad(value)(params)
        products = jax.tree.map(lambda g, d: jnp.sum(g * d), gradient, direction)
        return sum(jax.tree.leaves(products))

    def central(function, step=1e-5):
        ahead, behind = (jax.tree.map(lambda p, d, s=s: p + s * d, params, direction) for s in (step, -step))
        return float(function(ahead) - function(behind)) / (2 * step)

    slope_now = jax.jit(slope)
    assert float(slope_now(params)) == pytest.approx(central(jax.jit(value)), rel=1e-6)
    # reverse over reverse: directionᵀ H direction
    curved = jax.jit(jax.grad(slope))(params)
    quadratic = sum(jax.tree.leaves(jax.tree.map(lambda h, d: jnp.sum(h * d), curved, direction)))
    assert float(quadratic) == pytest.approx(central(slope_now), rel=1e-5)


def test_dtypes_throughout(x64):
    for dtype in (np.dtype(np.float64), np.dtype(np.float32)):
        model = make(dtype=dtype)
        params, tokens = shapes(model), some_tokens()
        logits = jax.eval_shape(model.head_logits, params, tokens, LAST)
        world = jax.eval_shape(model.world_logits, params["trunk"], tokens)
        assert {leaf.dtype for leaf in jax.tree.leaves((params, logits, world))} == {dtype}


def test_models_of_equal_sizes_are_one_static_argument():
    one, same, other = make(), make(), make(positions="learned")
    assert one == same and hash(one) == hash(same) and one != other
    traces = []

    def forward(model, params, tokens, last):
        traces.append(model)
        return model.head_logits(params, tokens, last)

    jitted = jax.jit(forward, static_argnums=0)
    params, tokens, last = scattered(one), jnp.asarray(some_tokens()), jnp.asarray(LAST)
    first, second = (jitted(model, params, tokens, last) for model in (one, same))
    assert len(traces) == 1
    np.testing.assert_array_equal(first.intended_BxK, second.intended_BxK)


# --- refusals ------------------------------------------------------------------------------------------------------


def test_rows_that_are_too_long_are_refused():
    model = make()
    tokens = jnp.zeros((2, MAX_LENGTH + 1), int)
    with pytest.raises(ValueError, match="length 8 exceed the trunk's max_length 7"):
        run_world_logits(model, run_init(model, jax.random.key(0))["trunk"], tokens)


def test_what_is_out_of_range_shows_as_nan():
    model = make()
    trunk = run_init(model, jax.random.key(0))["trunk"]
    tokens = some_tokens()
    assert np.isnan(run_features(model, trunk, jnp.asarray(tokens), jnp.array([0, 1, 2, MAX_LENGTH]))[3]).all()
    tokens[1, 0] = VOCABULARY
    features = run_features(model, trunk, jnp.asarray(tokens), jnp.asarray(LAST))
    assert np.isnan(features[1]).all() and np.isfinite(features[0]).all()


def test_float64_needs_x64():
    with pytest.raises(ValueError, match="jax_enable_x64"):
        make(dtype=jnp.float64)


def test_unknown_kinds_are_refused():
    sizes = make().trunk_sizes
    with pytest.raises(ValueError, match="norm must be rmsnorm or layernorm, got 'batchnorm'"):
        Trunk(replace(sizes, norm="batchnorm"), nnx.Rngs(params=0))
    with pytest.raises(ValueError, match="positions must be rotary or learned, got 'none'"):
        Trunk(replace(sizes, positions="none"), nnx.Rngs(params=0))
    with pytest.raises(ValueError, match="head kind must be linear or mlp, got 'deep'"):
        Head(HeadSizes("deep", 1, 4, 2, np.dtype(np.float32)), nnx.Rngs(params=0))
    with pytest.raises(ValueError, match="at least two answers, got 1"):
        make(answers=1)
