"""The guards of the design, §2: without data the phases coincide and stage one feels its prior alone; a net claim above
0 is flagged; and the forces are those of the formulas."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from honest.objective.log_partition.volume import VolumeRows
from honest.objective.predictions import Counts, RowSets
from honest.params import Params
from honest.train import multiplier as multipliers
from honest.train import phases
from honest.train.multiplier import MultiplierRule, decay
from honest.train.spec import HEADS, PhaseSettings, PriorSpec, StageSpec
from honest.train.state import Held, PriorState, TrainState, VolumeState
from honest.train.step import Inputs, differentiate, prior_metrics, train_step
from tests.planted_heads import Rows, ToyPredictor
from tests.priors import gaussian_priors

pytestmark = pytest.mark.usefixtures("quick_compilation")

GROUPS = ("trunk", *HEADS)
ROWS, HIDDEN = 12, 3
WEIGHT = 2.0  # λ, nat/disagreement


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def rows(key: jax.Array, labelled: bool) -> Rows:
    x = jax.random.normal(key, (ROWS, 2))
    label = (x[:, 0] > 0).astype(jnp.int32) if labelled else jnp.full(ROWS, -1, jnp.int32)
    return Rows(x, label, jnp.full((ROWS, 1, 2), -1, jnp.int32))


def problem(
    kind: str, staging: str, data: bool, chains: int, control_variate: str = "none"
) -> tuple[StageSpec, TrainState, Inputs]:
    """A trunk of 2 → 3 → 3 units, two linear heads far apart, 12 rows; both phases start at the same particles."""
    keys = jax.random.split(jax.random.key(3), 6)
    params: Params = {
        "trunk": {
            "W1": jax.random.normal(keys[0], (2, HIDDEN)),
            "b1": jnp.zeros(HIDDEN),
            "W2": jax.random.normal(keys[1], (HIDDEN, HIDDEN)),
            "b2": jnp.zeros(HIDDEN),
        },
        "intended_head": {"w": jnp.array([1.0, -1.0, 0.5])},
        "instrumental_head": {"w": jnp.array([-1.0, 0.3, 1.0])},
    }
    agreement = rows(keys[2], False)
    answered = rows(keys[3], True)
    sets = RowSets(answered, answered, None, agreement) if data else RowSets(None, None, None, agreement)
    prior = PriorSpec(
        staging=staging,  # type: ignore[arg-type]
        log_partition=True,
        divergence="jensen_shannon",
        multiplier=MultiplierRule("multiplicative", 0.01, WEIGHT, 1e-3, 1e3, 0.02, 0.0, decay(0.9), 10**6),
        phases=PhaseSettings(kind, 0.05, 1, chains, 3, 0.3, 0.8, True, 10**6, control_variate, 3, 1, chains),  # type: ignore[arg-type]
        batch_particles=True,
    )
    counts = Counts(ROWS if data else 0, ROWS if data else 0, 0, ROWS)
    predictor = ToyPredictor(jnp.zeros((HIDDEN, 2)))
    spec = StageSpec("toy", predictor, prior.trained, counts, 1, optax.set_to_zero(), prior, None)
    anchor = {group: jax.tree.map(lambda leaf: leaf - 0.1, params[group]) for group in GROUPS}
    particles = chains if kind == "chains" else 1
    u = jax.tree.map(
        lambda leaf: 0.1 * jax.random.normal(keys[4], (particles, *leaf.shape)),
        {group: params[group] for group in prior.resampled},
    )
    phase = phases.init_phase(u, prior, optax.adam(0.05))
    trained = {group: params[group] for group in prior.trained}
    zero = jnp.zeros(())
    volume = VolumeState(jax.tree.map(jnp.zeros_like, trained), zero, zero) if kind == "laplace" else None
    multiplier = multipliers.init(prior.multiplier, jnp.dtype("float64"))
    state = TrainState(
        jnp.zeros((), jnp.int32),
        jax.random.key(0),
        trained,
        spec.optimizer.init(trained),
        Held(anchor, params, gaussian_priors(params, prior.trained, prior.resampled, 0.7, 0.8)),
        PriorState(phase, phase, multiplier, volume),
    )
    chosen = VolumeRows(sets, None, None, None) if kind == "laplace" else None
    return spec, state, Inputs(sets, sets, chosen)


def first_prior_gradient(spec: StageSpec, state: TrainState) -> Params:
    """∂(½ |θ1 − θ0|²/σ1²) by hand: (θ1 − θ0)/σ1²."""
    return {
        group: jax.tree.map(lambda t, a: (t - a) / 0.7**2, state.params[group], state.held.anchor[group])
        for group in spec.trained
    }


@pytest.mark.parametrize("kind", ["points", "laplace"])
def test_without_data_equal_modes_leave_stage_one_to_its_prior(kind):
    spec, state, inputs = problem(kind, "heads_then_trunk", data=False, chains=1)
    step = jax.jit(lambda s: train_step(spec, optax.adam(0.05), s, inputs))
    for _ in range(3):
        gradient = differentiate(spec, state, inputs.batch)[2]
        expected = first_prior_gradient(spec, state)
        state, metrics = step(state)
        total = (
            {g: jax.tree.map(jnp.add, gradient[g], state.prior.volume.gradient[g]) for g in spec.trained}
            if (kind == "laplace")
            else {g: gradient[g] for g in spec.trained}
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), total, expected)
        # The modes move, and alike.
        near = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12)  # noqa: E731
        jax.tree.map(near, state.prior.positive.whitened, state.prior.negative.whitened)
        assert float(metrics["phases/net_claim_nats"]) == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("staging", ["heads_then_trunk", "all"])
def test_without_data_the_expected_force_of_chains_is_zero(staging):
    spec, state, inputs = problem("chains", staging, data=False, chains=256)
    step = jax.jit(lambda s: train_step(spec, optax.identity(), s, inputs)[0])
    force = jax.jit(lambda s: differentiate(spec, s, inputs.batch)[2])
    for _ in range(30):
        state = step(state)
    samples = []
    for _ in range(60):
        state = step(state)
        gradient = force(state)
        samples.append(np.concatenate([np.ravel(x) for g in spec.trained for x in jax.tree.leaves(gradient[g])]))
    expected = np.concatenate(
        [np.ravel(x) for g in spec.trained for x in jax.tree.leaves(first_prior_gradient(spec, state)[g])]
    )
    batches = np.stack(samples).reshape(6, 10, -1).mean(1) - expected  # means of ten: nearly independent
    error = batches.std(0, ddof=1) / np.sqrt(6)
    z = batches.mean(0) / error
    # t with 5 degrees of freedom: the mean of z² is 5/3, and 99.9 % of |z| are below 6.9.
    assert np.mean(z**2) < 5
    assert float(np.mean(np.asarray(state.prior.negative.acceptance))) > 0.5


def test_a_point_against_a_sampled_phase_would_separate_the_heads():
    """The error that the guard is for: one mode and one set of chains do not cancel."""
    spec, state, inputs = problem("chains", "heads_then_trunk", data=False, chains=256)
    step = jax.jit(lambda s: train_step(spec, optax.identity(), s, inputs)[0])
    for _ in range(40):
        state = step(state)
    mode = jax.tree.map(jnp.zeros_like, state.prior.positive.whitened)
    mixed = state._replace(prior=state.prior._replace(positive=state.prior.positive._replace(whitened=mode)))
    gradient = differentiate(spec, mixed, inputs.batch)[2]
    gap = jax.tree.map(
        lambda a, b: float(jnp.max(jnp.abs(a - b))),
        {g: gradient[g] for g in spec.trained},
        first_prior_gradient(spec, state),
    )
    assert max(jax.tree.leaves(gap)) > 0.2


@pytest.mark.parametrize("staging", ["heads_then_trunk", "all"])
def test_the_forces_are_those_of_the_formulas(staging):
    """Design §2: − ∂ first prior + E₊[∂(data + λN_cC̄)] − E₋[∂(λN_cC̄)] for heads that are not resampled, and
    − ∂ first prior − Σ2⁻¹(E₊[θ2] − θ1) − λN_c E₋[∂C̄] for resampled groups; autodiff of independent code."""
    spec, state, inputs = problem("chains", staging, data=True, chains=4)
    prior = spec.prior
    other = jax.tree.map(lambda leaf: leaf[::-1] * 1.7, state.prior.negative.whitened)
    state = state._replace(prior=state.prior._replace(negative=state.prior.negative._replace(whitened=other)))
    gradient = differentiate(spec, state, inputs.batch)[2]

    def cost(params: Params, whitened: Params, with_data: bool) -> jax.Array:
        def one(u):
            target = phases.log_weight(
                spec, params, state.held, jnp.asarray(WEIGHT), inputs.batch, with_data=with_data, whole=True
            )
            return -target(u)

        return jnp.mean(jnp.stack([one(jax.tree.map(lambda x, i=i: x[i], whitened)) for i in range(4)]))

    expected = first_prior_gradient(spec, state)
    negative = jax.grad(cost)(state.params, state.prior.negative.whitened, False)
    if staging == "all":
        positive = {
            group: jax.tree.map(lambda u: -jnp.mean(u, axis=0) / 0.8, state.prior.positive.whitened[group])
            for group in spec.trained
        }
    else:
        positive = jax.grad(cost)(state.params, state.prior.positive.whitened, True)
    for group in spec.trained:
        total = jax.tree.map(lambda f, p, n: f + p - n, expected[group], positive[group], negative[group])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), gradient[group], total)
    assert prior is not None


def test_a_net_claim_above_zero_is_flagged():
    spec, state, inputs = problem("points", "heads_then_trunk", data=True, chains=1)
    assert spec.prior is not None and state.prior is not None
    _, forward, _ = differentiate(spec, state, inputs.batch)
    honest = prior_metrics(spec.prior, forward, state.prior)
    assert float(honest["phases/net_claim_impossible"]) == 0.0
    claim = {**forward.metrics, "phases/log_partition_data_claim_nats": jnp.asarray(1e3)}
    flagged = prior_metrics(spec.prior, replace_metrics(forward, claim), state.prior)
    assert float(flagged["phases/net_claim_nats"]) > 0
    assert float(flagged["phases/net_claim_impossible"]) == 1.0


def replace_metrics(forward, metrics):
    return forward._replace(metrics=metrics)


def test_chains_move_in_every_so_many_th_step_alone():
    """Both phases at once, first in step 0, and then as they would have without the others; λ moves in every step."""
    moves = {}
    for every in (1, 4):
        spec, state, inputs = problem("chains", "heads_then_trunk", data=True, chains=2)
        rule = replace(spec.prior.multiplier, warmup_steps=0)
        settings = replace(spec.prior.phases, move_every=every, adjusted=False)  # every move is taken
        spec = replace(spec, prior=replace(spec.prior, phases=settings, multiplier=rule))
        step = jax.jit(lambda s, spec=spec, inputs=inputs: train_step(spec, optax.identity(), s, inputs)[0])
        moves[every] = [state]
        for _ in range(9):
            moves[every].append(step(moves[every][-1]))

    def moved(before: TrainState, after: TrainState) -> set[bool]:
        pairs = zip(*(jax.tree.leaves((s.prior.positive.whitened, s.prior.negative.whitened)) for s in (before, after)))
        return {bool((a != b).any()) for a, b in pairs}

    for every, expected in ((1, set(range(9))), (4, {0, 4, 8})):
        for number, (before, after) in enumerate(zip(moves[every], moves[every][1:])):
            assert moved(before, after) == {number in expected}, (every, number)
            assert before.prior.multiplier.value != after.prior.multiplier.value
    first = [moves[every][1].prior.positive.whitened for every in (1, 4)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), *first)


def test_chains_that_are_asked_in_turn_give_the_mean_over_all_of_them_in_a_cycle():
    """At a fixed state and λ: stage one's gradient is linear in the chains."""
    spec, state, inputs = problem("chains", "all", data=True, chains=6)
    assert spec.prior is not None

    def gradient(asked: int):
        prior = replace(spec.prior, phases=replace(spec.prior.phases, asked_chains=asked))
        asking = replace(spec, prior=prior)
        return jax.jit(lambda step: differentiate(asking, state._replace(step=step), inputs.batch)[2])

    asked_two = gradient(2)
    by_step = [asked_two(step) for step in range(6)]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 3, *by_step[:3])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), mean, gradient(6)(0))
    jax.tree.map(np.testing.assert_array_equal, by_step[1:3] + by_step[:1], by_step[3:])  # again, others first
    assert not np.allclose(by_step[0]["intended_head"]["w"], by_step[1]["intended_head"]["w"], rtol=1e-3)


@pytest.mark.parametrize("adjusted", [True, False])
def test_chains_in_one_batch_and_in_turn_are_the_same(adjusted):
    ends = []
    for batch in (True, False):
        spec, state, inputs = problem("chains", "heads_then_trunk", data=True, chains=3)
        assert spec.prior is not None
        settings = replace(spec.prior.phases, adjusted=adjusted)
        spec = replace(spec, prior=replace(spec.prior, phases=settings, batch_particles=batch))
        step = jax.jit(lambda s, spec=spec, inputs=inputs: train_step(spec, optax.identity(), s, inputs)[0])
        for _ in range(5):
            state = step(state)
        ends.append((state.params, state.prior))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), *ends)


def test_unadjusted_chains_report_the_acceptance_of_every_eighth_move():
    spec, state, inputs = problem("chains", "heads_then_trunk", data=True, chains=2)
    assert spec.prior is not None
    settings = replace(spec.prior.phases, adjusted=False, move_every=2)
    spec = replace(spec, prior=replace(spec.prior, phases=settings))
    step = jax.jit(lambda s: train_step(spec, optax.identity(), s, inputs)[0])
    reported = []
    for _ in range(18):
        state = step(state)
        reported.append(tuple(np.asarray(state.prior.positive.acceptance)))
    # Moves 0 and 8 are those of steps 0 and 16.
    assert len(set(reported[:16])) == len(set(reported[16:])) == 1
    assert reported[0] != reported[16]
    assert all(0 < acceptance <= 1 for acceptance in reported[0] + reported[16])
