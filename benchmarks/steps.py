"""The steps that throughput.py measures: the shipped `train_step` on synthetic rows of a given shape.

single head   the `trunk` stage: maximum likelihood of the next token at every position, B rows of world data
k parts       with `compute.micro_batches: k`
two heads     the data terms of all three groups (`terms.data_terms`): B/2 rows of world data, B/4 trusted rows that
              the intended head explains and B/4 untrusted rows that the instrumental head explains: B rows in all,
              so that the ratio is what a row costs with two heads against what it costs with none
on top        the same with B + B/2 + B/2 rows: the labels come on top of the world data
no log Z      the data terms of all three groups, B rows of each of the three sets
points, …     the full objective (`heads_then_trunk`) on B rows of each of the same sets and B to agree on; chains
              move unadjusted, on the batch, as an accept decision costs what the declared population is large
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from honest.config import GROUPS, ComputeConfig, HeadConfig, ModelConfig
from honest.data.batch import Batch
from honest.model.two_head import Model, build
from honest.objective.log_partition.volume import choose_volume_rows
from honest.objective.predictions import Counts, RowSets
from honest.params import Params, batched
from honest.train import multiplier as multipliers
from honest.train import optimizer as optimizers
from honest.train import phases
from honest.train.multiplier import MultiplierRule, decay
from honest.train.predictor import TokenPredictor
from honest.train.sharding import make_mesh
from honest.train.spec import HEADS, PhaseSettings, PriorSpec, StageSpec
from honest.train.spread import Spread
from honest.train.state import Held, PriorState, TrainState, VolumeState
from honest.train.step import Inputs, train_step
from tests.priors import gaussian_priors

LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 1e-3, 0.01, 1.0
MULTIPLIER = MultiplierRule("multiplicative", 0.01, 1.0, 1e-2, 1e2, 0.02, 0.0, decay(0.9), 0)


class Shape(NamedTuple):
    rows: int  # B
    length: int  # L
    width: int  # D
    heads: int  # H
    layers: int  # N
    vocabulary: int  # V

    @property
    def tokens(self) -> int:
        return self.rows * self.length


class Prepared(NamedTuple):
    """A compiled step. step: takes one, and waits for it."""

    step: Callable[[], None]
    compiled: Any
    seconds: float  # to trace, lower and compile


def tokens_BxL(shape: Shape) -> np.ndarray:
    return np.random.default_rng(0).integers(0, shape.vocabulary, (shape.rows, shape.length)).astype(np.int32)


def make_model(shape: Shape, compute: ComputeConfig, differentiated_twice: bool) -> Model:
    """The model as the quick start has it: RMSNorm, rotary positions, heads of one hidden layer of 2 D."""
    config = ModelConfig(
        layers=shape.layers,
        width=shape.width,
        attention_heads=shape.heads,
        key_value_heads=shape.heads,
        mlp_ratio=4,
        norm="rmsnorm",
        positions="rotary",
        head=HeadConfig(kind="mlp", hidden=2 * shape.width),
    )
    return build(
        config,
        compute,
        vocabulary=shape.vocabulary,
        max_length=shape.length,
        answers=2,
        world_channels=1,
        world_classes=shape.vocabulary,
        differentiated_twice=differentiated_twice,
        dtype=jnp.float32,
    )


def make_rows(shape: Shape, rows: int, seed: int, labelled: bool) -> Batch:
    """Rows of the shape's length, with the next token as world target."""
    tokens = np.resize(np.roll(tokens_BxL(shape), seed, axis=0), (rows, shape.length))
    targets = np.concatenate([tokens[:, 1:], np.full((rows, 1), -1)], axis=1)[..., None]
    label = tokens[:, 0] % 2 if labelled else np.full(rows, -1)
    return Batch(*(jnp.asarray(x, jnp.int32) for x in (tokens, np.full(rows, shape.length - 1), targets, label)))


def stage(name: str, model: Model, trained: tuple[str, ...], sets: RowSets, prior: PriorSpec | None) -> StageSpec:
    sizes = [0 if rows is None else rows.label_B.shape[0] for rows in sets[:4]]
    world = sizes[2] * (model.trunk_sizes.max_length - 1)
    settings = optimizers.OptimizerSettings(LEARNING_RATE, WEIGHT_DECAY, 50, "cosine", CLIP_NORM)
    return StageSpec(
        name=name,
        predictor=TokenPredictor(model),
        trained=trained,
        counts=Counts(sizes[0], sizes[1], world, sizes[3]),
        examples=max(sizes),
        optimizer=optimizers.build(settings, 1000),
        prior=prior,
        penalty=None,
    )


def prepare(
    spec: StageSpec, compute: ComputeConfig, params: Params, held: Held, prior: PriorState | None, inputs: Inputs
) -> Prepared:
    """Compiles the step for this state on one device, as the loop does; modes are followed by Adam."""
    import time

    spec = Spread("auto", make_mesh(1), compute.micro_batches).spec(spec)
    trained = {group: params[group] for group in spec.trained}
    state = TrainState(jnp.zeros((), jnp.int32), jax.random.key(1), trained, spec.optimizer.init(trained), held, prior)
    state = jax.tree.map(jnp.copy, state)  # no two leaves may share a buffer: the step donates them
    modes = optax.adam(0.01, b2=0.95)
    start = time.perf_counter()
    program = jax.jit(lambda state, inputs: train_step(spec, modes, state, inputs), donate_argnums=0)
    compiled = program.lower(state, inputs).compile()
    seconds = time.perf_counter() - start
    box = [state]

    def step() -> None:
        box[0], metrics = compiled(box[0], inputs)
        assert np.isfinite(float(metrics["objective/loss_nats_per_example"]))

    return Prepared(step, compiled, seconds)


def single_head(shape: Shape, compute: ComputeConfig) -> Prepared:
    model = make_model(shape, compute, differentiated_twice=False)
    params = jax.jit(model.init)(jax.random.key(0))
    sets = RowSets(None, None, make_rows(shape, shape.rows, 0, labelled=False), None)
    spec = stage("trunk", model, ("trunk",), sets, None)
    held = Held({}, {head: params[head] for head in HEADS}, None)
    return prepare(spec, compute, params, held, None, Inputs(sets, sets, None))


def data_step(shape: Shape, compute: ComputeConfig, world: int, trusted: int, untrusted: int) -> Prepared:
    """The data terms of all three groups on so many rows of each set."""
    model = make_model(shape, compute, differentiated_twice=False)
    params = jax.jit(model.init)(jax.random.key(0))
    sets = RowSets(
        make_rows(shape, trusted, 1, labelled=True),
        make_rows(shape, untrusted, 2, labelled=True),
        make_rows(shape, world, 0, labelled=False),
        None,
    )
    spec = stage("two_heads", model, GROUPS, sets, None)
    return prepare(spec, compute, params, Held({}, {}, None), None, Inputs(sets, sets, None))


def full_step(
    shape: Shape, compute: ComputeConfig, kind: str, *, chains: int, asked: int, move_every: int, volume_rows: int
) -> Prepared:
    """The full objective with phases of this kind; the Laplace volume is refreshed in every fourth step."""
    model = make_model(shape, compute, differentiated_twice=kind == "laplace")
    params = jax.jit(model.init)(jax.random.key(0))
    rows = shape.rows
    sets = RowSets(
        make_rows(shape, rows, 1, labelled=True),
        make_rows(shape, rows, 2, labelled=True),
        make_rows(shape, rows, 0, labelled=False),
        make_rows(shape, rows, 1, labelled=True),
    )
    settings = PhaseSettings(kind, 0.01, 4, chains, 1, 1e-3, 0.6, False, 512, "none", 1, move_every, asked)  # type: ignore[arg-type]
    prior = PriorSpec("heads_then_trunk", True, "jensen_shannon", MULTIPLIER, settings, batched())
    spec = stage(kind, model, prior.trained, sets, prior)
    held = Held(params, params, gaussian_priors(params, prior.trained, prior.resampled, 1.0, 1.0))
    particles = chains if kind == "chains" else 1
    u = jax.tree.map(lambda leaf: jnp.zeros((particles, *leaf.shape)), {g: params[g] for g in prior.resampled})
    phase = phases.init_phase(u, prior, optax.adam(0.01, b2=0.95))
    zero = jnp.zeros(())
    volume, chosen = None, None
    if kind == "laplace":
        volume = VolumeState(jax.tree.map(jnp.zeros_like, {g: params[g] for g in prior.trained}), zero, zero)
        many = RowSets(*(make_rows(shape, volume_rows, i, labelled=i < 2) for i in range(4)))
        chosen = choose_volume_rows(many, volume_rows, 0)
    state = PriorState(phase, phase, multipliers.init(prior.multiplier, jnp.dtype(jnp.float32)), volume)
    return prepare(spec, compute, params, held, state, Inputs(sets, sets, chosen))
