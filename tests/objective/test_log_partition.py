"""`estimate` against closed forms and quadrature: accuracy within a budget, and how often the bounds hold."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from honest.objective.log_partition import RELIABLE_GAP_NATS, estimate, smc
from honest.objective.log_partition.bidirectional import plan_within
from honest.objective.log_partition.bounds import bennett_with_error, lower_bound, upper_bound
from honest.objective.log_partition.importance import chernoff
from honest.objective.log_partition.ladder import _closed_forms
from honest.objective.log_partition.mode import find_mode
from honest.objective.log_partition.persistent import Path, anneal, pilot, start_at
from honest.objective.log_partition.problem import Problem as Whitened
from honest.objective.log_partition.problem import whiten_problem
from honest.units import Quantity, UnitError, bit, disagreement, nat
from tests.objective.known_integrals import Problem, bernoulli_heads, quadratic


@pytest.fixture
def optimised():
    """For tests that compute more than they compile, unlike the others of this folder."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def assert_brackets(problem, lower, upper):
    """Never outside. A bound that fails in 1 of 100, no more, fails in none of n seeds with probability 0.99ⁿ, and one
    that fails in 1 of 4 in some of them with probability 1 − 0.75ⁿ. `TestPasses` counts where failures are frequent.
    """
    assert (lower <= problem.exact).all()
    assert (upper >= problem.exact).all()


# Few seeds, for the time; benchmarks/log_partition.py has hundreds.
TARGETS = [(10, 16, 0.1), (100, 6, 0.5), (1000, 3, 1.0), (10_000, 1, 2.0)]


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(("dimension", "seeds", "rms"), TARGETS)
def test_ais_reaches_the_error_of_the_design_and_brackets_the_truth(dimension, seeds, rms):
    problem = quadratic(dimension)
    log_z, lower, upper, error, reliable = problem.over_seeds("ais", 50_000, seeds)
    assert np.sqrt(np.mean((log_z - problem.exact) ** 2)) <= rms
    assert_brackets(problem, lower, upper)
    assert np.mean((log_z - problem.exact) ** 2 / error**2) < 3  # the stated error is not far too small
    assert (reliable == (upper - lower < RELIABLE_GAP_NATS)).all()
    assert np.max(upper - lower) < 25  # the bounds say something: at 10,000 dimensions log Z is −441 nat


@pytest.mark.parametrize(("method", "inputs"), [("importance", 5), ("importance", 50), ("ais", 5), ("ais", 50)])
def test_bounds_bracket_tabular_bernoulli_heads(method, inputs):
    problem = bernoulli_heads(inputs, multiplier=20.0)
    log_z, lower, upper, _, _ = problem.over_seeds(method, 12_000, 8)
    assert_brackets(problem, lower, upper)
    if method != "importance":  # which at 100 dimensions has bounds and no value
        assert np.sqrt(np.mean((log_z - problem.exact) ** 2)) < (0.4 if inputs == 5 else 1.5)


@pytest.mark.usefixtures("optimised")
def test_bounds_bracket_many_tabular_heads():
    problem = bernoulli_heads(500, multiplier=4.0)
    _, lower, upper, _, _ = problem.over_seeds("ais", 4_000, 2)
    assert_brackets(problem, lower, upper)


@pytest.mark.parametrize("method", ["smc", "thermodynamic"])
def test_other_samplers_bracket_the_quadratic(method):
    problem = quadratic(100)
    log_z, lower, upper, error, _ = problem.over_seeds(method, 30_000, 3)
    assert_brackets(problem, lower, upper)
    assert np.sqrt(np.mean((log_z - problem.exact) ** 2)) < (2.0 if method == "smc" else 0.5)
    assert (error > 0).all()


def test_two_modes():
    """e^w is a mixture of two narrow bumps on either side: log Z is a sum of two Gaussian integrals."""
    a, b = 20.0, 2.0
    exact = float(np.log(0.5 * 2 * np.exp(-0.5 * a * b**2 / (1 + a)) / np.sqrt(1 + a)))

    def weight(u):
        bumps = -0.5 * a * (u[0] - jnp.array([-b, b])) ** 2
        return jax.nn.logsumexp(bumps) - math.log(2.0)

    problem = Problem(4, weight, exact)
    log_z, lower, upper, _, _ = problem.over_seeds("ais", 12_000, 4)
    assert_brackets(problem, lower, upper)
    assert abs(np.mean(log_z) - exact) < 0.15


@pytest.mark.parametrize("method", ["exact_quadratic", "gram"])
def test_closed_forms_are_exact_for_what_they_assume(method):
    problem = quadratic(60)
    found = problem.estimate(jax.random.key(0), method)
    assert float(found.log_z.to(nat)) == pytest.approx(problem.exact, abs=1e-3)
    assert float(found.lower.to(nat)) <= problem.exact <= float(found.upper.to(nat))
    assert bool(found.reliable)


@pytest.mark.parametrize("method", ["exact_quadratic", "gram", "laplace"])
def test_closed_forms_claim_nothing_where_the_form_does_not_hold(method):
    """Bernoulli heads are no quadratic. What is given as residuals, √(λ/8)·√2 times the logit gap, is Gauss–Newton."""
    inputs, multiplier = 5, 20.0
    problem = bernoulli_heads(inputs, multiplier)
    shift = jnp.linspace(-2.0, 2.0, inputs)
    problem.residuals_of_u = lambda u: math.sqrt(multiplier / 16) * (u[:inputs] + shift - 1.5 * u[inputs:])
    found = problem.estimate(jax.random.key(0), method)
    assert not bool(found.reliable)
    assert float(found.lower.to(nat)) == -math.inf and float(found.upper.to(nat)) == 0.0
    assert abs(float(found.log_z.to(nat)) - problem.exact) > 0.2  # the bias is there to see


@pytest.mark.parametrize("method", ["exact_quadratic", "gram"])
def test_closed_forms_look_where_their_own_mass_lies(method):
    """A quadratic at every draw from the prior, with a wall where it would put all of Z: −128.5, not −20.1."""
    weight = lambda u: jnp.where(u[0] > 4.5, -1000.0, -50.0 * (u[0] - 6.0) ** 2)  # noqa: E731
    problem = Problem(3, weight, -128.5, residuals_of_u=lambda u: 10.0 * (u[:1] - 6.0))
    found = problem.estimate(jax.random.key(0), method)
    assert not bool(found.reliable)
    assert float(found.lower.to(nat)) == -math.inf


def test_auto_leaves_out_closed_forms_that_are_too_large():
    whole = Problem(6000, lambda u: -0.5 * jnp.sum(u**2), 0.0, residuals_of_u=lambda u: u)
    flat = whiten_problem(whole.log_weight, whole.centre, whole.stddev, lambda p: whole.residuals_of_u(whole.u_of(p)))
    assert _closed_forms(flat) == []
    assert _closed_forms(flat._replace(residuals=lambda u: u[:4096])) == ["gram"]
    assert _closed_forms(flat._replace(residuals=None, dimension=1024)) == ["exact_quadratic"]


def test_laplace_without_a_dense_hessian():
    """The quadratic, reflected: probes of signs would be exact on a diagonal Hessian."""
    problem = quadratic(2000)
    diagonal, normal = problem.weight_of_u, jax.random.normal(jax.random.key(3), (2000,))
    problem.weight_of_u = lambda u: diagonal(u - 2 * normal * (normal @ u) / (normal @ normal))
    found = problem.estimate(jax.random.key(0), "laplace", 2000)
    error = float(found.standard_error)
    assert 0 < error < 3
    assert float(found.log_z.to(nat)) == pytest.approx(problem.exact, abs=4 * error)


class TestAuto:
    def test_takes_the_closed_form_where_it_holds(self):
        problem = quadratic(40)
        assert problem.estimate(jax.random.key(0), "auto").method == "gram"
        problem.residuals_of_u = None
        assert problem.estimate(jax.random.key(0), "auto").method == "exact_quadratic"

    def test_takes_importance_where_draws_keep_their_weight(self):
        problem = bernoulli_heads(5, multiplier=0.5)
        found = problem.estimate(jax.random.key(0), "auto")
        assert found.method == "importance" and bool(found.reliable)
        assert [rung.method for rung in found.rungs] == ["exact_quadratic", "importance"]
        assert "not of that form" in found.rungs[0].why
        assert float(found.log_z.to(nat)) == pytest.approx(problem.exact, abs=0.05)

    def test_climbs_to_ais_and_says_why(self):
        problem = bernoulli_heads(50, multiplier=20.0)
        found = problem.estimate(jax.random.key(0), "auto", 23_000)
        assert [rung.method for rung in found.rungs] == ["exact_quadratic", "importance", "smc", "ais"]
        assert "effective size" in found.rungs[1].why and "meet" in found.rungs[2].why
        assert found.method == "ais" and bool(found.reliable)
        assert float(found.lower.to(nat)) <= problem.exact <= float(found.upper.to(nat))
        assert found.log_z.to(bit) == pytest.approx(float(found.log_z.to(nat)) / math.log(2))

    def test_is_refused_inside_jit(self):
        problem = quadratic(10)
        with pytest.raises(TypeError, match="name a method"):
            jax.jit(lambda key: problem.estimate(key, "auto").log_z)(jax.random.key(0))


@pytest.mark.parametrize("method", ["ais", "smc", "thermodynamic", "importance"])
def test_no_more_evaluations_than_the_budget(method):
    calls = []

    def weight(u):
        jax.debug.callback(lambda _: calls.append(1), u[0])  # once for each element of a batch
        return -0.5 * jnp.sum(4.0 * (u - 1.0) ** 2)

    budget = {"smc": 12_000, "importance": 1024}.get(method, 6_000)
    jax.block_until_ready(Problem(2, weight, 0.0).estimate(jax.random.key(0), method, budget))
    jax.effects_barrier()
    assert 0.5 * budget < len(calls) <= budget


class TestMistakes:
    def test_unknown_method_and_small_budgets(self):
        problem = quadratic(10)
        with pytest.raises(ValueError, match=r"'nuts' is not one of exact_quadratic, gram, .*, auto"):
            problem.estimate(jax.random.key(0), "nuts")
        with pytest.raises(ValueError, match="has to be positive"):
            problem.estimate(jax.random.key(0), "ais", 0)
        for method in ("ais", "smc", "thermodynamic"):
            with pytest.raises(ValueError, match=f"too small for {method}"):
                problem.estimate(jax.random.key(0), method, 100)
        with pytest.raises(ValueError, match=r"1000 is too small for auto, .* too small for smc"):
            bernoulli_heads(50, 20.0).estimate(jax.random.key(0), "auto", 1000)
        problem.residuals_of_u = None
        with pytest.raises(ValueError, match="gram needs residuals"):
            problem.estimate(jax.random.key(0), "gram")
        with pytest.raises(ValueError, match="2000 dimensions are more than 1024"):
            quadratic(2000).estimate(jax.random.key(0), "exact_quadratic")

    def test_what_is_not_nat_and_trees_that_do_not_match(self):
        centre, stddev, key = {"x": jnp.zeros(3)}, {"x": jnp.ones(3)}, jax.random.key(0)
        for wrong in (lambda p: Quantity(-jnp.sum(p["x"] ** 2), disagreement), lambda p: -jnp.sum(p["x"] ** 2)):
            with pytest.raises((UnitError, TypeError), match=r"nat|Quantity"):
                estimate(wrong, centre, stddev, key, method="ais")
        good = lambda p: Quantity(-jnp.sum(p["x"] ** 2), nat)  # noqa: E731
        with pytest.raises(ValueError, match=r"shape \(2,\); its parameter has \(3,\)"):
            estimate(good, centre, {"x": jnp.ones(2)}, key, method="ais")
        with pytest.raises(ValueError, match="shape"):
            estimate(lambda p: Quantity(-(p["x"] ** 2), nat), centre, stddev, key, method="ais")

    @pytest.mark.parametrize("method", ["importance", "exact_quadratic"])
    def test_a_log_weight_above_zero(self, method):
        """log Z = +0.77 here: cutting at 0 would make it a reliable 0."""
        centre, stddev, key = {"x": jnp.zeros(3)}, {"x": 1.0}, jax.random.key(0)
        upside_down = lambda p: Quantity(0.2 * jnp.sum(p["x"] ** 2), nat)  # noqa: E731
        with pytest.raises(ValueError, match=f"above 0, where {method} looked.*check its sign"):
            estimate(upside_down, centre, stddev, key, method=method, budget=3500)

    def test_a_log_weight_above_zero_inside_jit_and_vmap(self):
        """Where nothing can be raised: half of the keys see the sign turned round, and NaN is theirs alone."""

        def run(key, sign):
            weight = lambda p: Quantity(sign * 0.2 * jnp.sum(p["x"] ** 2), nat)  # noqa: E731
            return estimate(weight, {"x": jnp.zeros(3)}, {"x": 1.0}, key, method="ais", budget=3500)

        found = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 2), jnp.array([1.0, -1.0]))
        for number in (found.log_z, found.lower, found.upper):
            assert np.isnan(np.asarray(number.to(nat))).tolist() == [True, False]
        assert found.reliable.tolist() == [False, True]
        assert float(found.log_z.to(nat)[1]) == pytest.approx(-1.5 * math.log(1.4), abs=0.3)

    def test_a_log_weight_that_is_nan(self):
        centre, stddev = {"x": jnp.zeros(3)}, {"x": 1.0}
        broken = lambda p: Quantity(jnp.where(p["x"][0] > 1.0, jnp.nan, -1.0), nat)  # noqa: E731
        run = functools.partial(estimate, broken, centre, stddev, method="importance", budget=64)
        with pytest.raises(ValueError, match="was NaN"):
            run(jax.random.key(0))
        found = jax.jit(run)(jax.random.key(0))  # which cannot raise
        assert np.isnan([float(x.to(nat)) for x in (found.log_z, found.lower, found.upper)]).all()
        assert not bool(found.reliable)

    def test_parameters_that_have_no_density(self):
        good = lambda p: Quantity(-jnp.sum(p["x"] ** 2), nat)  # noqa: E731
        key = jax.random.key(0)
        with pytest.raises(TypeError, match="parameter of int32 has no density; keep it out"):
            estimate(good, {"x": jnp.zeros(3, jnp.int32)}, {"x": 1.0}, key)
        for wrong in (-1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match="finite and 0 or more"):
                estimate(good, {"x": jnp.zeros(3)}, {"x": wrong}, key)


def test_bfloat16_parameters_are_summed_in_float32():
    seen = []

    def weight(p):
        seen.append(p["x"].dtype)
        return Quantity(-0.5 * jnp.sum(p["x"] ** 2), nat)

    centre = {"x": jnp.zeros(2, jnp.bfloat16)}
    found = estimate(weight, centre, {"x": 1.0}, jax.random.key(0), method="importance", budget=4096)
    assert set(seen) == {jnp.dtype(jnp.bfloat16)} and found.log_z.to(nat).dtype == jnp.float32
    assert float(found.log_z.to(nat)) == pytest.approx(-math.log(2), abs=0.05)  # E exp(−½u²) = 1/√2, twice


def test_mode_and_pilot_where_x64_is_enabled():
    """optax counts in int64 there, and sums of no dtype are float64: neither may change what the loops carry."""
    with jax.enable_x64(True):
        problem = Whitened(lambda u: -2.0 * jnp.sum((u - 1.0) ** 2), None, 3, jnp.dtype("float64"))
        mode_D = find_mode(problem, 60)
        assert mode_D.dtype == jnp.float64
        np.testing.assert_allclose(mode_D, 0.8, atol=1e-7)  # of 2(u − 1)² + ½u²
        path = pilot(jax.random.key(0), 3, 16, problem.value_and_grad, jnp.dtype("float32"))
        assert path.steps_T.dtype == jnp.float32


def test_double_precision_and_fixed_parameters():
    """σ = 0 holds a parameter at its centre: what is left is the one-dimensional integral."""
    with jax.enable_x64(True):
        centre, stddev = {"x": jnp.array([1.0, 3.0])}, {"x": jnp.array([2.0, 0.0])}
        weight = lambda p: Quantity(-0.5 * jnp.sum(p["x"] ** 2), nat)  # noqa: E731
        found = estimate(weight, centre, stddev, jax.random.key(0), method="exact_quadratic")
        # −½·3² fixed; E exp(−½(1 + 2u)²) = exp(−½/(1+4))/√5
        assert found.log_z.to(nat).dtype == jnp.float64
        assert float(found.log_z.to(nat)) == pytest.approx(-4.5 - 0.1 - 0.5 * math.log(5), abs=1e-12)


class TestBounds:
    def test_allowances_by_hand(self):
        """Equal weights: the smallest of 16 has the least allowance, log(5/δ)/16 (four ranks and the mean share δ)."""
        equal = jnp.full(16, -3.0)
        assert float(lower_bound(equal, 0.01)) == pytest.approx(-3.0 - math.log(500) / 16, abs=1e-5)
        assert float(upper_bound(equal, 0.01)) == pytest.approx(-3.0 + math.log(500) / 16, abs=1e-5)
        # One weight dominates: only the mean knows it, log(1/16) below, and pays log(5/δ).
        one = jnp.full(16, -500.0).at[3].set(0.0)
        assert float(lower_bound(one, 0.01)) == pytest.approx(-math.log(16) - math.log(500), abs=1e-4)

    @pytest.mark.parametrize("spread", [0.3, 2.0, 6.0])
    def test_lower_bound_fails_no_more_often_than_stated(self, spread):
        """Log-normal weights of mean 1. At δ = ½ the failures are frequent enough to be counted."""
        draws = jax.random.normal(jax.random.key(1), (4000, 32)) * spread - spread**2 / 2
        for tail in (0.5, 0.01):
            failures = np.mean(np.asarray(jax.vmap(functools.partial(lower_bound, tail=tail))(draws)) > 0)
            assert failures <= tail + 3 * math.sqrt(tail / 4000)

    def test_bennett_on_gaussian_work(self):
        """Crooks' relation makes Gaussian works N(c ∓ s²/2, s²): the dissipation cancels, the error is as stated."""
        c, spread = -40.0, 2.0
        noise = jax.random.normal(jax.random.key(2), (400, 64)) * spread
        forward, backward = c - spread**2 / 2 + noise[:, :32], c + spread**2 / 2 + noise[:, 32:]
        value, error = (np.asarray(x) for x in jax.vmap(bennett_with_error)(forward, backward))
        assert abs(np.mean(value) - c) < 4 * np.std(value) / 20
        assert np.mean(error) == pytest.approx(np.std(value), rel=0.2)

    @pytest.mark.parametrize("mean", [0.9, 0.3, 0.01])
    def test_chernoff_solves_its_equation(self, mean):
        def excess(z):
            return mean * np.log(mean / z) + (1 - mean) * np.log((1 - mean) / (1 - z)) - math.log(100) / 500

        lower, upper = chernoff(jnp.log(jnp.asarray(mean)), 500, 0.01)
        assert float(upper) == pytest.approx(math.log(optimize.brentq(excess, mean, 1 - 1e-12)), abs=1e-4)
        assert float(lower) == pytest.approx(math.log(optimize.brentq(excess, mean * 1e-3, mean)), abs=1e-3)

    def test_chernoff_where_no_draw_has_a_weight(self):
        """kl(0, Z) = −log(1 − Z): the rule of three's exact form, Z ≤ 1 − δ^(1/N)."""
        lower, upper = chernoff(jnp.asarray(-jnp.inf), 500, 0.01)
        assert float(lower) == -math.inf
        assert float(upper) == pytest.approx(math.log(-math.expm1(math.log(0.01) / 500)), abs=1e-4)

    def test_bennett_without_the_particles_of_no_weight(self):
        forward, backward = jnp.array([-2.0, -jnp.inf, -2.0, -2.0]), jnp.array([-2.0, -2.0, -2.0, jnp.inf])
        assert float(bennett_with_error(forward, backward)[0]) == pytest.approx(-2.0, abs=0.1)

    def test_descendants_of_one_island_count_as_one(self):
        """Weights at Markov's limit, W = 1/ε with probability ε, in four islands whose four particles are copies."""
        limit = 0.2
        weight_NxI = jax.random.bernoulli(jax.random.key(5), limit, (20_000, smc.ISLANDS)) / limit
        reverse_NxQ = -jnp.log(jnp.repeat(jnp.maximum(weight_NxI, 1e-6), smc.REVERSED // smc.ISLANDS, axis=1))

        def failures(of):
            return np.mean(np.asarray(jax.vmap(lambda r: upper_bound(of(r), 0.01))(reverse_NxQ)) < 0)

        assert failures(lambda r: r) > 0.001 < failures(lambda r: r)
        assert failures(smc.by_island) <= 0.01


STRENGTH, BRIDGES, DIMENSION, FAMILY = 8.0, 12, 2, 16


class TestPasses:
    """The identities behind the bounds, on few and large steps, where 1 in 3 is rejected and turns around.

    w = −8 Σ tanh²(u_i − 1): draws from the target are exact, by inversion on a grid.
    """

    COUNT = 32_000

    @staticmethod
    def weight(u):
        return -STRENGTH * jnp.sum(jnp.tanh(u - 1.0) ** 2)

    @pytest.fixture(scope="class")
    def passes(self):
        """(forward from the prior, reverse from the target, reverse from the prior) − log Z, a number a particle."""
        grid = np.linspace(-10.0, 10.0, 20_001)
        density = stats.norm.pdf(grid) * np.exp(-STRENGTH * np.tanh(grid - 1.0) ** 2)
        exact = DIMENSION * math.log(density.sum() * (grid[1] - grid[0]))
        uniform = np.random.default_rng(0).uniform(size=(self.COUNT, DIMENSION))
        target = np.interp(uniform, np.cumsum(density) / density.sum(), grid).astype(np.float32)
        prior = jax.random.normal(jax.random.key(1), target.shape)
        path = Path(jnp.linspace(0.0, 1.0, BRIDGES + 1), jnp.linspace(0.9, 0.6, BRIDGES))
        value_and_grad = jax.value_and_grad(self.weight)

        @functools.partial(jax.jit, static_argnames="ascending")
        def work(key, position, ascending):
            start_key, pass_key = jax.random.split(key)
            done = anneal(
                pass_key, start_at(start_key, position, value_and_grad), path, value_and_grad, ascending=ascending
            )
            return done.work_P, done.acceptance_T

        forward, acceptance_T = work(jax.random.key(2), prior, True)
        reverse, from_prior = work(jax.random.key(3), target, False)[0], work(jax.random.key(4), prior, False)[0]
        assert 0.2 < float(jnp.min(acceptance_T)) < 0.8  # what rejection does is part of what is tested
        return tuple(np.asarray(x, np.float64) - exact for x in (forward, reverse, from_prior))

    def test_weights_are_unbiased_both_ways(self, passes):
        forward, reverse, _ = passes
        for weight in (np.exp(forward), np.exp(-reverse)):
            assert abs(np.mean(weight) - 1) < 4 * stats.sem(weight)

    def test_reverse_is_the_time_reversal(self, passes):
        """Crooks: reverse works are forward works reweighted, P_R(x) = e^(x − log Z) P_F(x), at every level of x."""
        forward, reverse, _ = passes
        for level in (-1.0, 0.0, 1.0, 2.0, 4.0):
            below = np.exp(forward) * (forward < level), (reverse < level).astype(float)
            error = math.hypot(*(stats.sem(x) for x in below))
            assert abs(np.mean(below[0]) - np.mean(below[1])) < 4 * error, level

    @pytest.mark.parametrize("tail", [0.5, 0.01])
    def test_bounds_fail_no_more_often_than_stated(self, passes, tail):
        """Counted over 2,000 families; a reverse pass that starts at the prior is caught by the same count."""
        forward, reverse, from_prior = (jnp.asarray(x).reshape(-1, FAMILY) for x in passes)
        families = forward.shape[0]
        bounded = lambda bound, x: np.asarray(jax.vmap(functools.partial(bound, tail=tail))(x))  # noqa: E731
        most = stats.binom.ppf(0.999, families, tail)
        assert np.sum(bounded(lower_bound, forward) > 0) <= most
        assert np.sum(bounded(upper_bound, reverse) < 0) <= most
        assert np.sum(bounded(upper_bound, from_prior) < 0) > most


def test_islands_are_unbiased(monkeypatch):
    """E[product of increments] = Z on a frozen ladder, over 2,000 islands; blackjax moves before it weighs."""
    monkeypatch.setattr(smc, "ISLANDS", 2000)
    problem = Whitened(TestPasses.weight, None, DIMENSION, jnp.dtype("float32"))
    exact = DIMENSION * math.log(
        np.trapezoid(
            [stats.norm.pdf(x) * math.exp(-8 * math.tanh(x - 1) ** 2) for x in np.arange(-9, 9, 1e-3)], dx=1e-3
        )
    )
    steps = Path(jnp.linspace(0.0, 1.0, 5), jnp.full(4, 0.3))
    _, log_z_I = smc.islands(jax.random.key(0), problem, steps, jnp.array([0.1, 0.5, 1.0]))
    ratio = np.exp(np.asarray(log_z_I, np.float64) - exact)
    assert abs(np.mean(ratio) - 1) < 4 * stats.sem(ratio)


def test_plan_spends_what_it_is_given():
    for budget in (3_000, 10_000, 50_000, 1_000_000):
        planned, mode = plan_within(budget)
        assert 0.97 * budget < planned.gradients + mode <= budget or budget == 3_000


@pytest.mark.parametrize("method", ["gram", "laplace"])
def test_vmapped_over_keys_as_one_by_one(method):
    problem = quadratic(10)
    keys = jax.random.split(jax.random.key(0), 2)
    run = functools.partial(problem.estimate, method=method, budget=3_500)
    together, alone = jax.jit(jax.vmap(run))(keys), run(keys[1])
    assert together.log_z.to(nat).shape == (2,)
    assert float(together.log_z.to(nat)[1]) == pytest.approx(float(alone.log_z.to(nat)), abs=0.05)
