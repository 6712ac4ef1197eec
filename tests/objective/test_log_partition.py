"""`estimate` against closed forms and quadrature: accuracy within a budget, and how often the bounds hold."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special

from honest.objective.consistency import jensen_shannon
from honest.objective.log_partition import RELIABLE_GAP_NATS, estimate
from honest.objective.log_partition.bidirectional import plan_within
from honest.objective.log_partition.bounds import bennett_with_error, lower_bound, upper_bound
from honest.objective.log_partition.importance import chernoff
from honest.units import Quantity, UnitError, bit, disagreement, nat

SAMPLED = ("importance", "ais", "smc", "thermodynamic")
CENTRE, STDDEV = 2.0, 0.5  # of every parameter, so that forgetting to whiten would show


@pytest.fixture
def optimised():
    """For tests that compute more than they compile, unlike the others of this folder."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


class Problem:
    """log_weight of parameters {"a": …, "b": …} = CENTRE + STDDEV·u, a tree of two leaves, and the exact log Z."""

    def __init__(self, dimension, weight_of_u, exact, residuals_of_u=None):
        self.centre = {"a": jnp.full(dimension // 2, CENTRE), "b": jnp.full((dimension - dimension // 2, 1), CENTRE)}
        self.stddev = {"a": jnp.full(dimension // 2, STDDEV), "b": jnp.asarray(STDDEV)}
        self.exact, self.weight_of_u, self.residuals_of_u = exact, weight_of_u, residuals_of_u

    @staticmethod
    def u_of(params):
        return (jnp.concatenate([params["a"], params["b"][:, 0]]) - CENTRE) / STDDEV

    def log_weight(self, params):
        return Quantity(self.weight_of_u(self.u_of(params)), nat)

    def estimate(self, key, method, budget=None):
        residuals = (
            None if self.residuals_of_u is None else lambda params: {"r": self.residuals_of_u(self.u_of(params))}
        )
        return estimate(
            self.log_weight, self.centre, self.stddev, key, method=method, budget=budget, residuals=residuals
        )

    def over_seeds(self, method, budget, seeds):
        """log Z, lower, upper, standard error and `reliable` of each seed, one program for all."""
        run = jax.jit(lambda keys: jax.lax.map(lambda key: self.estimate(key, method, budget), keys))
        found = run(jax.random.split(jax.random.key(0), seeds))
        nats = (np.asarray(q.to(nat)) for q in (found.log_z, found.lower, found.upper))
        return (*nats, np.asarray(found.standard_error), np.asarray(found.reliable))


def quadratic(dimension):
    """Eigenvalues 100/i, half of them zero, one prior standard deviation off in every coordinate (design §2)."""
    i = np.arange(1, dimension + 1)
    a = np.where(i <= dimension // 2, 100 / i, 0.0)
    exact = float(np.sum(-0.5 * np.log1p(a) - 0.5 * a / (1 + a)))
    root = jnp.asarray(np.sqrt(a), jnp.float32)
    return Problem(
        dimension,
        lambda u: -0.5 * jnp.sum((root * (u - 1.0)) ** 2),
        exact,
        residuals_of_u=lambda u: (root * (u - 1.0))[: dimension // 2],
    )


def bernoulli_heads(inputs, multiplier):
    """Two tabular heads, a logit each an input: w = −λ Σ JS. log Z is a sum of two-dimensional integrals."""
    offset = np.linspace(-2.0, 2.0, inputs)  # how far the heads' centres lie apart
    nodes, weights = special.roots_hermitenorm(120)
    weights = weights / weights.sum()

    def js(a, b):
        p, q = special.expit(a), special.expit(b)
        entropy = lambda p: special.entr(p) + special.entr(1 - p)  # noqa: E731
        return entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2

    integral = np.exp(-multiplier * js(nodes[:, None, None] + offset, 1.5 * nodes[None, :, None]))
    exact = float(np.sum(np.log(np.einsum("i,j,ijx->x", weights, weights, integral))))
    shift = jnp.asarray(offset, jnp.float32)

    def weight(u):
        a, b = u[:inputs] + shift, 1.5 * u[inputs:]
        zero = jnp.zeros(inputs)
        return -multiplier * jnp.sum(jensen_shannon(jnp.stack([a, zero], axis=1), jnp.stack([b, zero], axis=1)))

    return Problem(2 * inputs, weight, exact)


def assert_brackets(problem, lower, upper):
    """Each side may fail in 1 of 100: two failures in a few dozen seeds have a probability below 4 %."""
    assert np.sum((lower > problem.exact) | (upper < problem.exact)) <= 1


TARGETS = [(10, 24, 0.1), (100, 12, 0.5), (1000, 5, 1.0), (10_000, 2, 2.0)]


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


@pytest.mark.parametrize(("method", "inputs"), [*((method, 5) for method in SAMPLED), ("importance", 50), ("ais", 50)])
def test_bounds_bracket_tabular_bernoulli_heads(method, inputs):
    problem = bernoulli_heads(inputs, multiplier=20.0)
    log_z, lower, upper, _, _ = problem.over_seeds(method, 12_000, 16)
    assert_brackets(problem, lower, upper)
    if method != "importance":  # which at 100 dimensions has bounds and no value
        assert np.sqrt(np.mean((log_z - problem.exact) ** 2)) < (0.4 if inputs == 5 else 1.5)


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("inputs", [500, 5000])
def test_bounds_bracket_many_tabular_heads(inputs):
    problem = bernoulli_heads(inputs, multiplier=4.0)
    _, lower, upper, _, _ = problem.over_seeds("ais", 4_000, 2)
    assert_brackets(problem, lower, upper)


@pytest.mark.parametrize("method", ["smc", "thermodynamic"])
def test_other_samplers_bracket_the_quadratic(method):
    problem = quadratic(100)
    log_z, lower, upper, error, _ = problem.over_seeds(method, 30_000, 8)
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
    for method in ("ais", "smc"):
        log_z, lower, upper, _, _ = problem.over_seeds(method, 12_000, 8)
        assert_brackets(problem, lower, upper)
        assert abs(np.mean(log_z) - exact) < 0.15, method


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


def test_plan_spends_what_it_is_given():
    for budget in (3_000, 10_000, 50_000, 1_000_000):
        planned, mode = plan_within(budget)
        assert 0.97 * budget < planned.gradients + mode <= budget or budget == 3_000


@pytest.mark.parametrize("method", ["gram", "ais", "laplace"])
def test_vmapped_over_keys_as_one_by_one(method):
    problem = quadratic(10)
    keys = jax.random.split(jax.random.key(0), 2)
    run = functools.partial(problem.estimate, method=method, budget=3_500)
    together, alone = jax.jit(jax.vmap(run))(keys), run(keys[1])
    assert together.log_z.to(nat).shape == (2,)
    assert float(together.log_z.to(nat)[1]) == pytest.approx(float(alone.log_z.to(nat)), abs=0.05)
