"""The control variate in the train step: it adds nothing on average, and takes away what a displaced chain adds."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from honest.objective.log_partition.moves import whitened_energy
from honest.params import Params
from honest.train import phases
from honest.train.newton_stein import corrections, weights
from honest.train.spec import StageSpec
from honest.train.state import PhaseState, TrainState
from honest.train.step import Inputs, differentiate, train_step
from tests.train.test_guards import first_prior_gradient, problem

pytestmark = pytest.mark.usefixtures("quick_compilation")
STAGINGS = ("heads_then_trunk", "all")


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def force(spec: StageSpec, state: TrainState, inputs: Inputs, corrected: bool) -> Params:
    """The loss's gradient in stage one, nat/θ_g."""
    _, forward, gradient = differentiate(spec, state, inputs.batch)
    found = {group: gradient[group] for group in spec.trained}
    if not corrected:
        return found
    assert spec.prior is not None
    added, _ = corrections(spec, spec.prior, state, forward.weight, inputs.batch, inputs.population)
    return jax.tree.map(jnp.add, found, added)


def mode(spec: StageSpec, state: TrainState, inputs: Inputs, phase: PhaseState, with_data: bool) -> Params:
    """The whitened mode near the phase's first chain, by Newton steps that are cut where they lead upwards."""
    assert spec.prior is not None and state.prior is not None
    target = phases.log_weight(
        spec, state.params, state.held, state.prior.multiplier.value, inputs.population, with_data=with_data, whole=True
    )
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], phase.whitened))
    energy = jax.jit(lambda x: whitened_energy(unravel(x)) - target(unravel(x)))
    gradient, curvature = jax.jit(jax.grad(energy)), jax.jit(jax.hessian(energy))
    for _ in range(60):
        values, vectors = np.linalg.eigh(curvature(flat))
        step = -vectors @ ((vectors.T @ gradient(flat)) / np.maximum(np.abs(values), 0.1))
        size = 1.0
        while energy(flat + size * step) > energy(flat) and size > 1e-6:
            size /= 2
        flat = flat + size * step
    assert np.linalg.norm(gradient(flat)) < 1e-9
    return unravel(flat)


def with_chains(state: TrainState, positive: Params, negative: Params) -> TrainState:
    assert state.prior is not None
    both = (state.prior.positive._replace(whitened=positive), state.prior.negative._replace(whitened=negative))
    return state._replace(prior=state.prior._replace(positive=both[0], negative=both[1]))


@pytest.mark.parametrize("staging", STAGINGS)
def test_displaced_chains_feel_the_force_at_the_mode(staging):
    """f + J P⁻¹ s is the force after a Newton step: what a displacement δ of all chains adds falls from O(δ) to O(δ²).

    This fixes the sign and the rows of each part, and that the positive phase of `all` leaves its shift form.
    """
    spec, state, inputs = problem("chains", staging, True, 2, "newton_stein")
    assert spec.prior is not None and state.prior is not None
    spec = replace(spec, prior=replace(spec.prior, phases=replace(spec.prior.phases, cg_steps=40)))
    modes = (
        mode(spec, state, inputs, state.prior.positive, True),
        mode(spec, state, inputs, state.prior.negative, False),
    )
    directions = [
        jax.tree.map(lambda x, i=i: jnp.cos(jnp.arange(x.size) + i).reshape(x.shape), modes[i]) for i in (0, 1)
    ]

    def gap(size: float, corrected: bool) -> float:
        at = [jax.tree.map(lambda u, d: jnp.stack([u + size * d] * 2), *pair) for pair in zip(modes, directions)]
        return float(optax.global_norm(jax.tree.map(jnp.subtract, run(with_chains(state, *at), corrected), exact)))

    run = jax.jit(lambda s, corrected: force(spec, s, inputs, corrected), static_argnums=1)
    exact = run(with_chains(state, *(jax.tree.map(lambda u: jnp.stack([u] * 2), m) for m in modes)), False)
    plain, small, smaller = gap(1e-3, False), gap(1e-3, True), gap(5e-4, True)
    assert plain > 1e-3
    assert small < 0.02 * plain
    assert small / smaller == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize("staging", STAGINGS)
def test_without_data_the_expected_force_of_corrected_chains_is_zero(staging):
    """The guard of test_guards.py with the option on: 128 replicas of two chains, from equilibrated ones."""
    spec, state, inputs = problem("chains", staging, False, 256)
    pair, *_ = problem("chains", staging, False, 2, "newton_stein")
    assert state.prior is not None
    step = jax.jit(lambda s: train_step(spec, optax.identity(), s, inputs)[0])

    @jax.jit
    def replicas(state: TrainState) -> Params:
        def one(key: jax.Array, positive: Params, negative: Params) -> Params:
            return force(pair, with_chains(state, positive, negative)._replace(key=key), inputs, True)

        pairs = (
            jax.tree.map(lambda x: x.reshape(128, 2, *x.shape[1:]), phase.whitened)
            for phase in (state.prior.positive, state.prior.negative)
        )
        return jax.vmap(one)(jax.random.split(jax.random.fold_in(state.key, state.step), 128), *pairs)

    for _ in range(30):
        state = step(state)
    means = []
    for _ in range(40):
        state = step(state)
        means.append(ravel_pytree(jax.tree.map(lambda x: jnp.mean(x, axis=0), replicas(state)))[0])
    expected = ravel_pytree(first_prior_gradient(spec, state))[0]
    batches = np.stack(means).reshape(5, 8, -1).mean(1) - expected  # means of eight: nearly independent
    z = batches.mean(0) / (batches.std(0, ddof=1) / np.sqrt(5))
    assert np.mean(z**2) < 7  # t with 4 degrees of freedom: the mean of z² is 2


def test_a_step_logs_the_residual_of_both_phases_and_uses_the_corrected_gradient():
    spec, state, inputs = problem("chains", "heads_then_trunk", True, 4, "newton_stein")
    spec = replace(spec, optimizer=optax.sgd(1.0))
    state = state._replace(optimizer=spec.optimizer.init(state.params))
    new, metrics = jax.jit(lambda s: train_step(spec, optax.identity(), s, inputs))(state)
    moved = jax.tree.map(jnp.subtract, state.params, new.params)
    expected = jax.jit(lambda s: force(spec, s, inputs, True))(state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), moved, expected)
    for phase in ("positive", "negative"):
        assert 0 < float(metrics[f"phases/{phase}_mean_residual"]) <= 4
    assert spec.prior is not None
    alone = replace(spec, prior=replace(spec.prior, log_partition=False))
    without = jax.eval_shape(lambda s: train_step(alone, optax.identity(), s, inputs), state)[1]
    assert {name for name in without if "residual" in name} == {"phases/positive_mean_residual"}


def test_each_part_takes_its_rows():
    """Adjusted: scores and P of the whole sets, J of the batch. Unadjusted: scores of the batch, P and J of the first
    rows, whatever the batch."""
    spec, state, inputs = problem("chains", "all", True, 2, "newton_stein")
    assert spec.prior is not None and state.prior is not None
    u = jax.tree.map(lambda leaf: leaf[0], state.prior.positive.whitened)
    last = jax.tree.map(lambda leaf: leaf[-4:], inputs.population)
    first = jax.tree.map(lambda leaf: leaf[:4], inputs.population)

    def value(rows, whole):
        weight = state.prior.multiplier.value
        return float(phases.log_weight(spec, state.params, state.held, weight, rows, with_data=True, whole=whole)(u))

    def parts(adjusted: bool) -> list[float]:
        prior = replace(spec.prior, phases=replace(spec.prior.phases, adjusted=adjusted))
        made = weights(
            replace(spec, prior=prior), prior, state, state.prior.multiplier.value, last, inputs.population, True
        )
        return [float(weight(state.params, u)) for weight in made]

    whole = value(inputs.population, True)
    assert len({whole, value(last, False), value(first, False)}) == 3
    assert parts(True) == [whole, whole, value(last, False)]
    assert parts(False) == [value(last, False), value(first, False), value(first, False)]
