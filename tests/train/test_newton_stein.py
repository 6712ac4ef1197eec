"""The control variate in the train step: it adds nothing on average, and takes away what a displaced chain adds."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

from honest.objective.log_partition.moves import whitened_energy
from honest.params import Params
from honest.train import phases
from honest.train.newton_stein import weights
from honest.train.spec import StageSpec
from honest.train.state import PhaseState, TrainState
from honest.train.step import Inputs, differentiate, train_step
from tests.train.test_guards import first_prior_gradient, problem

pytestmark = pytest.mark.usefixtures("quick_compilation")
REPLICAS = 24


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def mode(spec: StageSpec, state: TrainState, inputs: Inputs, phase: PhaseState, with_data: bool) -> Params:
    """The whitened mode near the phase's first chain, over the population."""
    assert spec.prior is not None and state.prior is not None
    target = phases.log_weight(
        spec, state.params, state.held, state.prior.multiplier.value, inputs.population, with_data=with_data, whole=True
    )
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], phase.whitened))
    energy = jax.jit(jax.value_and_grad(lambda x: whitened_energy(unravel(x)) - target(unravel(x))))
    found = minimize(lambda x: tuple(map(np.asarray, energy(x))), flat, jac=True, options={"gtol": 1e-9})
    assert np.max(np.abs(found.jac)) < 1e-6
    return unravel(jnp.asarray(found.x))


def with_chains(state: TrainState, positive: Params, negative: Params) -> TrainState:
    assert state.prior is not None
    both = (state.prior.positive._replace(whitened=positive), state.prior.negative._replace(whitened=negative))
    return state._replace(prior=state.prior._replace(positive=both[0], negative=both[1]))


@pytest.fixture(scope="module", params=["heads_then_trunk", "all"])
def replicated(request):
    """A problem without data of two chains a phase, and 24 of its train steps in one program:

    (state, positive, negative with leading axis 24) -> (gradient in stage one as the step takes it, moved phases,
    metrics), all with leading axis 24.
    """
    spec, state, inputs = problem("chains", request.param, False, 2, "newton_stein")
    assert spec.prior is not None
    settings = replace(spec.prior.phases, cg_steps=10)
    spec = replace(spec, prior=replace(spec.prior, phases=settings), optimizer=optax.sgd(1.0))
    state = state._replace(optimizer=spec.optimizer.init(state.params))

    @jax.jit
    def run(state: TrainState, positive_R: Params, negative_R: Params) -> tuple:
        def one(part: tuple) -> tuple:
            key, positive, negative = part
            start = with_chains(state, positive, negative)._replace(key=key)
            new, metrics = train_step(spec, optax.identity(), start, inputs)
            assert new.prior is not None
            gradient = jax.tree.map(jnp.subtract, state.params, new.params)
            return gradient, new.prior.positive.whitened, new.prior.negative.whitened, metrics

        keys = jax.random.split(jax.random.fold_in(state.key, state.step), REPLICAS)
        return jax.lax.map(one, (keys, positive_R, negative_R))

    return spec, state, inputs, run


def test_displaced_chains_feel_the_force_at_the_mode(replicated):
    """f + J P⁻¹ s is the force after a Newton step: what a displacement δ of all chains adds falls from O(δ) to O(δ²).

    This fixes the sign of each part and that the positive phase of `all` leaves its shift form. The phases are
    displaced differently; at the mode itself both forms are the same, and the score is 0.
    """
    spec, state, inputs, run = replicated
    assert state.prior is not None
    at = mode(spec, state, inputs, state.prior.positive, False)
    sizes = jnp.array([0.0, 0.02, 0.01])[jnp.minimum(jnp.arange(REPLICAS), 2)]

    def displaced(phase: float) -> Params:
        return jax.tree.map(
            lambda u: u + jnp.einsum("r,...->r...", sizes, jnp.cos(jnp.arange(u.size) + phase).reshape(u.shape)), at
        )

    chains = [jax.tree.map(lambda x: jnp.stack([x, x], axis=1), displaced(phase)) for phase in (0.0, 1.0)]
    gradient = jax.vmap(lambda tree: ravel_pytree(tree)[0])(run(state, *chains)[0])
    one_displaced = with_chains(state, *(jax.tree.map(lambda x: x[1], tree) for tree in chains))
    uncorrected = differentiate(spec, one_displaced, inputs.batch)[2]
    plain = ravel_pytree({group: uncorrected[group] for group in spec.trained})[0] - gradient[0]
    gaps = np.linalg.norm(gradient[1:3] - gradient[0], axis=1)
    np.testing.assert_allclose(gradient[0], ravel_pytree(first_prior_gradient(spec, state))[0], atol=1e-6)
    assert np.linalg.norm(plain) > 1e-4
    assert gaps[0] < 0.1 * np.linalg.norm(plain)
    assert gaps[0] / gaps[1] == pytest.approx(4.0, rel=0.2)


def test_without_data_the_expected_force_is_the_prior_alone(replicated):
    """The guard of test_guards.py with the option on, for 24 replicas of two chains a phase; and its diagnostic."""
    spec, state, _, run = replicated
    assert state.prior is not None
    starts = jax.tree.map(
        lambda x: 0.1 * jax.random.normal(jax.random.key(x.size), (REPLICAS, *x.shape)), state.prior.positive.whitened
    )
    positive, negative, means, residuals = starts, starts, [], []
    for step in range(70):
        moving = state._replace(step=jnp.asarray(step, jnp.int32))
        gradient, positive, negative, metrics = run(moving, positive, negative)
        if step >= 30:
            means.append(ravel_pytree(jax.tree.map(lambda x: jnp.mean(x, axis=0), gradient))[0])
            residuals.append(np.mean(metrics["phases/positive_mean_residual"]))
    batches = np.stack(means).reshape(5, 8, -1).mean(1) - ravel_pytree(first_prior_gradient(spec, state))[0]
    z = batches.mean(0) / (batches.std(0, ddof=1) / np.sqrt(5))  # means of eight: nearly independent
    assert np.mean(z**2) < 7  # t with 4 degrees of freedom: the mean of z² is 2
    assert np.mean(residuals) == pytest.approx(1.0, abs=0.1)


def test_the_residual_of_each_phase_in_the_objective_is_logged():
    def logged(log_partition: bool) -> set[str]:
        spec, state, inputs = problem("chains", "heads_then_trunk", True, 2, "newton_stein")
        assert spec.prior is not None
        spec = replace(spec, prior=replace(spec.prior, log_partition=log_partition))
        metrics = jax.eval_shape(lambda s: train_step(spec, optax.identity(), s, inputs), state)[1]
        return {name for name in metrics if "residual" in name}

    both = {"phases/positive_mean_residual", "phases/negative_mean_residual"}
    assert logged(True) == both
    assert logged(False) == {"phases/positive_mean_residual"}


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
