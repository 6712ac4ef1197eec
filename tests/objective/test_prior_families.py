"""The priors that are not Gaussian: normalised, as their generative descriptions say, in one reference measure.

References are scipy's distributions, quadrature over the latent variable, and draws by numpy from what a family says it
is; none of them sees the closed forms that are tested.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import exp1, logsumexp

from honest.objective.parameter_prior import Gaussian, Horseshoe, Laplace, Sparse, StudentT, Tied, TowardZero
from honest.objective.parameter_prior.gaussian import TensorScale
from honest.objective.parameter_prior.horseshoe import SWITCH, log_scaled_exp1
from honest.objective.parameter_prior.toward_zero import SHORT, log_path
from honest.units import Quantity, UnitError, bit, displacement, nat

TRUNK, HEAD = displacement("trunk"), displacement("head")
GROUP, PARTNER = "instrumental_head", "intended_head"
NODES, WEIGHTS = np.polynomial.legendre.leggauss(20)
DRAWS = 20000


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def q(value, unit=HEAD):
    return Quantity(jnp.asarray(value), unit)


def bits(value):
    return q(value, bit)


def families(k=1.0, unit=HEAD):
    """One of each family and option, all scales times k."""
    return {
        "toward_zero weight": TowardZero(q(0.8 * k, unit), "weight"),
        "toward_zero tensor": TowardZero(q(0.8 * k, unit), "tensor"),
        "student_t": StudentT(q(0.5 * k, unit), 3.0),
        "cauchy": StudentT(q(0.5 * k, unit), 1.0),
        "laplace": Laplace(q(0.6 * k, unit)),
        "horseshoe": Horseshoe(q(0.7 * k, unit), q(0.05 * k, unit)),
        "tied": Tied(q(1.0 * k, unit), q(0.2 * k, unit), bits(3.0)),
        "sparse weight": Sparse(q(1.0 * k, unit), q(0.1 * k, unit), bits(2.0), "weight"),
        "sparse column": Sparse(q(1.0 * k, unit), q(0.1 * k, unit), bits(2.0), "column"),
        "sparse tensor": Sparse(q(1.0 * k, unit), q(0.1 * k, unit), bits(2.0), "tensor"),
    }


NAMES = pytest.mark.parametrize("name", list(families()))


ONE = {"W": (3, 2)}  # compiles in half the time


def trees(seed, shapes={"W": (3, 2), "b": (4,)}):  # noqa: B006
    """(params, anchor) of both heads."""
    rng = np.random.default_rng(seed)
    draw = lambda: {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}  # noqa: E731
    return {GROUP: draw(), PARTNER: draw()}, {GROUP: draw(), PARTNER: draw()}


@jax.jit
def nats_of(prior, params, anchor):
    return prior.nats(params, anchor, GROUP).to(nat)


@jax.jit
def constant_of(prior, anchor, measure=1.0):
    return prior.constant(anchor, GROUP, Quantity(measure, HEAD)).to(nat)


def log_density(prior, params, anchor, measure=1.0):
    return float(nats_of(prior, params, anchor) + constant_of(prior, anchor, measure))


@jax.jit
def log_densities(prior, theta_NxD, at_D, partner_D):
    """log p of each row; the partner is where it is, and its anchor at `at_D`. The group is one vector."""
    anchor = {GROUP: {"w": at_D}, PARTNER: {"w": at_D}}
    at_anchor = prior.constant(anchor, GROUP, Quantity(1.0, HEAD)).to(nat)

    def one(theta_D):
        return prior.nats({GROUP: {"w": theta_D}, PARTNER: {"w": partner_D}}, anchor, GROUP).to(nat)

    return jax.vmap(one)(theta_NxD) + at_anchor


def line(prior, at, partner=0.0):
    """The density of one weight as a function of numpy arrays."""
    at_D, partner_D = jnp.asarray([at], float), jnp.asarray([partner], float)

    def density(x):
        x = np.asarray(x, float)
        values = log_densities(prior, jnp.asarray(x.reshape(-1, 1)), at_D, partner_D)
        return np.exp(np.asarray(values)).reshape(x.shape)

    return density


def mass(density, knots):
    """∫ p over the line by composite Gauss–Legendre in v, θ = c + s·sinh(v) around the first knot (c, s), with panels
    that close in on every knot.

    A tail 1/x² is e^(−v); at |v| = 90 what is left of x^(−3/2) is below 1e-19.
    """
    (centre, scale), *_ = knots
    near = np.sinh(np.linspace(-5, 5, 101))
    edges = [np.arcsinh((c + s * near - centre) / scale) for c, s in knots]
    edges = np.unique(np.concatenate([np.linspace(-90, 90, 361), *edges]))
    half = 0.5 * np.diff(edges)[:, None]
    v = 0.5 * (edges[1:] + edges[:-1])[:, None] + half * NODES
    return float(np.sum(density(centre + scale * np.sinh(v)) * scale * np.cosh(v) * half * WEIGHTS))


def cumulative(density, knots):
    """The distribution function, by Gauss–Legendre between the points of a fine grid around all knots."""
    grid = np.unique(np.concatenate([c + s * np.sinh(np.linspace(-25, 25, 4001)) for c, s in knots]))
    half = 0.5 * np.diff(grid)
    inside = 0.5 * (grid[1:] + grid[:-1])[:, None] + half[:, None] * np.polynomial.legendre.leggauss(3)[0]
    each = (density(inside) * np.polynomial.legendre.leggauss(3)[1]).sum(axis=1) * half
    reached = np.concatenate([[0.0], np.cumsum(each)])
    assert reached[-1] == pytest.approx(1.0, abs=1e-4)
    return lambda x: np.interp(x, grid, reached)


def assert_drawn_from(draws, density, knots):
    assert stats.kstest(draws, cumulative(density, knots)).pvalue > 1e-3


def plane_mass(prior, at, partner, low, high, step):
    """∫ p over the plane by the trapezoid rule: exponentially exact for Gaussians whose σ is above the step."""
    side = np.arange(low, high, step)
    theta_NxD = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    values = log_densities(prior, jnp.asarray(theta_NxD), jnp.asarray(at), jnp.asarray(partner))
    return float(jnp.sum(jnp.exp(values))) * step**2


# --- each is a density ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stddev", [0.03, 7.0])
@pytest.mark.parametrize("relative", [0.0, 1e-6, 0.3, 5.0, 200.0, -1e-6, -0.3, -5.0, -200.0])
def test_toward_zero_per_weight_integrates_to_one(stddev, relative):
    at = relative * stddev
    knots = [(at, stddev), (0.0, stddev)]
    assert mass(line(TowardZero(q(stddev), "weight"), at), knots) == pytest.approx(1.0, abs=1e-8)
    assert mass(line(TowardZero(q(stddev), "tensor"), at), knots) == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("at", [(0.0, 0.0), (1e-7, 0.0), (3.0, -2.0), (0.0, 4.0)], ids=str)
@pytest.mark.parametrize("per", ["weight", "tensor"])
def test_toward_zero_integrates_to_one_in_the_plane(per, at):
    assert plane_mass(TowardZero(q(0.8), per), at, at, -11.0, 12.0, 0.15) == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize(("scale", "at"), [(0.02, 0.0), (1.0, -3.0), (5.0, 40.0)])
def test_heavy_tails_integrate_to_one(scale, at):
    for prior in [Laplace(q(scale)), *(StudentT(q(scale), nu) for nu in (0.5, 1.0, 3.0, 40.0))]:
        assert mass(line(prior, at), [(at, scale)]) == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("floor", [1e-8, 1e-3, 0.1, 1.0, 5.0])
@pytest.mark.parametrize(("scale", "at"), [(0.02, 0.0), (3.0, -2.0)])
def test_the_horseshoe_integrates_to_one_at_every_floor(scale, at, floor):
    density = line(Horseshoe(q(scale), q(floor * scale)), at)
    assert mass(density, [(at, floor * scale), (at, scale)]) == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("partner", [0.0, 0.4, -30.0])
@pytest.mark.parametrize("tied_bits", [0.01, 1.0, 12.0])
def test_tied_integrates_to_one_over_the_second_head_wherever_the_first_is(partner, tied_bits):
    prior = Tied(q(1.5), q(0.01), bits(tied_bits))
    assert mass(line(prior, -0.7, partner), [(partner, 0.01), (-0.7, 1.5)]) == pytest.approx(1.0, abs=1e-8)


def test_tied_integrates_to_one_in_the_plane():
    prior = Tied(q(1.0), q(0.2), bits(1.0))
    assert plane_mass(prior, (0.5, -1.0), (2.0, 1.0), -9.0, 9.0, 0.06) == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("sparse_bits", [0.01, 1.0, 12.0])
@pytest.mark.parametrize("per", ["weight", "column", "tensor"])
def test_sparse_integrates_to_one(per, sparse_bits):
    prior = Sparse(q(1.5), q(0.01), bits(sparse_bits), per)
    assert mass(line(prior, -0.7), [(-0.7, 0.01), (-0.7, 1.5)]) == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("per", ["column", "tensor"])
def test_sparse_integrates_to_one_in_the_plane(per):
    """Two weights into one output are one column; log_densities has them as a vector, here they are a 2×1 matrix."""
    prior, at = Sparse(q(1.0), q(0.2), bits(1.0), per), jnp.asarray([[0.5], [-1.0]])
    side = np.arange(-9.0, 9.0, 0.06)
    theta = jnp.asarray(np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2, 1))
    nats = jax.jit(jax.vmap(lambda w: prior.nats({GROUP: w}, {GROUP: at}, GROUP).to(nat)))(theta)
    values = nats + constant_of(prior, {GROUP: at})
    assert float(jnp.sum(jnp.exp(values))) * 0.06**2 == pytest.approx(1.0, abs=1e-8)


# --- each is what it says: draws by numpy from the description -------------------------------------------------


@pytest.mark.parametrize("at", [0.0, 0.9, -4.0, 60.0])
@pytest.mark.parametrize("per", ["weight", "tensor"])
def test_toward_zero_is_a_mixture_of_staying_and_of_shrinking_by_a_uniform_factor(per, at):
    rng, stddev = np.random.default_rng(0), 0.8
    kept = np.where(rng.random(DRAWS) < 0.5, 1.0, rng.random(DRAWS))
    draws = kept * at + stddev * rng.normal(size=DRAWS)
    knots = [(at, stddev), (0.0, stddev), (0.5 * at, stddev * 4)]
    assert_drawn_from(draws, line(TowardZero(q(stddev), per), at), knots)


@pytest.mark.parametrize("nu", [1.0, 2.5, 30.0])
def test_student_t_is_a_gaussian_over_the_root_of_a_chi_square(nu):
    rng = np.random.default_rng(1)
    draws = -1.5 + 0.4 * rng.normal(size=DRAWS) / np.sqrt(rng.chisquare(nu, DRAWS) / nu)
    assert_drawn_from(draws, line(StudentT(q(0.4), nu), -1.5), [(-1.5, 0.4)])


def test_laplace_is_the_difference_of_two_exponentials():
    rng = np.random.default_rng(2)
    draws = 3.0 + 0.4 * (rng.exponential(size=DRAWS) - rng.exponential(size=DRAWS))
    assert_drawn_from(draws, line(Laplace(q(0.4)), 3.0), [(3.0, 0.4)])


@pytest.mark.parametrize("floor", [0.01, 0.3, 2.0])
def test_the_horseshoe_is_a_gaussian_of_half_cauchy_scale_damped_under_the_floor(floor):
    rng, scale = np.random.default_rng(3), 0.6
    scales = scale * np.abs(rng.standard_cauchy(size=40 * DRAWS))
    accepted = scales[rng.random(scales.size) < np.exp(-0.5 * (floor / scales) ** 2)][:DRAWS]
    assert accepted.size == DRAWS
    draws = -2.0 + accepted * rng.normal(size=DRAWS)
    assert_drawn_from(draws, line(Horseshoe(q(scale), q(floor)), -2.0), [(-2.0, floor), (-2.0, scale)])


@pytest.mark.parametrize("b", [0.5, 2.0])
def test_tied_copies_with_probability_two_to_minus_b(b):
    rng, partner, at = np.random.default_rng(4), 1.7, -0.3
    copies = rng.random(DRAWS) < 2.0**-b
    draws = np.where(copies, partner + 0.02 * rng.normal(size=DRAWS), at + 1.3 * rng.normal(size=DRAWS))
    assert_drawn_from(draws, line(Tied(q(1.3), q(0.02), bits(b)), at, partner), [(partner, 0.02), (at, 1.3)])


@pytest.mark.parametrize("b", [0.5, 2.0])
@pytest.mark.parametrize("per", ["weight", "column", "tensor"])
def test_sparse_moves_with_probability_two_to_minus_b(per, b):
    rng, at = np.random.default_rng(5), -0.3
    moves = rng.random(DRAWS) < 2.0**-b
    draws = at + np.where(moves, 1.3, 0.02) * rng.normal(size=DRAWS)
    assert_drawn_from(draws, line(Sparse(q(1.3), q(0.02), bits(b), per), at), [(at, 0.02), (at, 1.3)])


def normal_sum(x, mean, stddev):
    return stats.norm.logpdf(np.asarray(x), np.asarray(mean), stddev).sum()


def test_toward_zero_per_tensor_shrinks_each_tensor_by_one_factor():
    """The mixture by quadrature over the factor s, at draws of it."""
    rng, stddev = np.random.default_rng(6), 0.8
    s, w = 0.5 * (NODES + 1), 0.5 * WEIGHTS
    for seed in range(20):
        _, anchor = trees(seed)
        anchor = {GROUP: jax.tree.map(lambda x: 2 * x, anchor[GROUP])}
        params, expected = {GROUP: {}}, 0.0
        for name, at in anchor[GROUP].items():
            at = np.asarray(at)
            kept = 1.0 if rng.random() < 0.5 else rng.random()
            theta = kept * at + stddev * rng.normal(size=at.shape)
            path = logsumexp([normal_sum(theta, each * at, stddev) for each in s], b=w)
            expected += logsumexp([normal_sum(theta, at, stddev), path], b=[0.5, 0.5])
            params[GROUP][name] = jnp.asarray(theta)
        assert log_density(TowardZero(q(stddev), "tensor"), params, anchor) == pytest.approx(expected, rel=1e-10)


SHAPES = {"W": (3, 2), "b": (4,), "conv": (2, 2, 3)}


def factors(per, x):
    """The weights of each factor, in rows."""
    if per == "weight" or (per == "column" and x.ndim < 2):
        return x.reshape(-1, 1)
    return x.reshape(1, -1) if per == "tensor" else x.reshape(-1, x.shape[-1]).T


@pytest.mark.parametrize("per", ["weight", "column", "tensor"])
def test_sparse_decides_once_a_factor(per):
    rng, b, slab, spike = np.random.default_rng(7), 1.3, 1.1, 0.05
    for seed in range(10):
        _, anchor = trees(seed, SHAPES)
        params, expected = {GROUP: {}}, 0.0
        for name, at in anchor[GROUP].items():
            rows = factors(per, np.asarray(at))
            theta = rows + np.where(rng.random((len(rows), 1)) < 2**-b, slab, spike) * rng.normal(size=rows.shape)
            for row, centre in zip(theta, rows):
                terms = [normal_sum(row, centre, slab), normal_sum(row, centre, spike)]
                expected += logsumexp(terms, b=[2**-b, 1 - 2**-b])
            back = theta.T if per == "column" and at.ndim > 1 else theta
            params[GROUP][name] = jnp.asarray(back.reshape(at.shape))
        prior = Sparse(q(slab), q(spike), bits(b), per)
        assert log_density(prior, params, anchor) == pytest.approx(expected, rel=1e-10)


def test_tied_decides_once_for_the_whole_head():
    rng, b, slab, tie = np.random.default_rng(8), 1.0, 1.1, 0.05
    for seed in range(10):
        params, anchor = trees(seed)
        copied = rng.random() < 2**-b
        centre, stddev = (params[PARTNER], tie) if copied else (anchor[GROUP], slab)
        params[GROUP] = jax.tree.map(lambda c: c + stddev * rng.normal(size=c.shape), centre)  # noqa: B023
        copy = sum(normal_sum(params[GROUP][k], params[PARTNER][k], tie) for k in params[GROUP])
        alone = sum(normal_sum(params[GROUP][k], anchor[GROUP][k], slab) for k in params[GROUP])
        expected = logsumexp([copy, alone], b=[2**-b, 1 - 2**-b])
        assert log_density(Tied(q(slab), q(tie), bits(b)), params, anchor) == pytest.approx(expected, rel=1e-10)


# --- against scipy --------------------------------------------------------------------------------------------


def test_student_t_and_laplace_equal_scipy():
    params, anchor = trees(0)
    pairs = [(np.asarray(params[GROUP][k]), np.asarray(anchor[GROUP][k])) for k in params[GROUP]]
    for nu in (0.7, 1.0, 4.0, 300.0):
        expected = sum(stats.t.logpdf(x, nu, at, 0.3).sum() for x, at in pairs)
        assert log_density(StudentT(q(0.3), nu), params, anchor) == pytest.approx(expected, rel=1e-11)
    expected = sum(stats.laplace.logpdf(x, at, 0.3).sum() for x, at in pairs)
    assert log_density(Laplace(q(0.3)), params, anchor) == pytest.approx(expected, rel=1e-11)


def test_the_horseshoe_without_its_floor_is_that_of_carvalho_polson_and_scott():
    """(2π³)^(−½) e^{x²/2} E1(x²/2)/s."""
    x = np.array([0.01, 0.1, 0.5, 1.0, 1.99, 2.01, 5.0, 20.0, 35.0])
    expected = np.exp(0.5 * x**2) * exp1(0.5 * x**2) / math.sqrt(2 * math.pi**3) / 0.3
    np.testing.assert_allclose(line(Horseshoe(q(0.3), q(3e-9)), 2.0)(2.0 + 0.3 * x), expected, rtol=1e-7)


@pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize("ratio", [20.0, 60.0])
def test_the_horseshoe_with_a_floor_far_above_its_scale_is_cauchy(double, ratio):
    """Only scales far in the half-Cauchy's own tail are left: p → f/(π (θ² + f²)), up to (s/f)²."""
    with jax.enable_x64(double):
        prior = Horseshoe(q(jnp.float32(0.5)), q(jnp.float32(0.5 * ratio)))
        params, anchor = {GROUP: {"w": jnp.asarray([3.0], jnp.float32)}}, {GROUP: {"w": jnp.zeros(1, jnp.float32)}}
        expected = stats.cauchy.logpdf(3.0, scale=0.5 * ratio)
        assert log_density(prior, params, anchor) == pytest.approx(expected, abs=4 / ratio**2)


def scaled_exp1(y):
    """(log e^y E1(y), its derivative) by Laguerre: e^y E1(y) = ∫ e^{−s}/(y+s) ds; by scipy where that is too rough."""
    if y < 3:
        value = math.exp(y) * exp1(y)
        return math.log(value), 1 - 1 / (y * value)
    nodes, weights = np.polynomial.laguerre.laggauss(80)
    value, slope = np.sum(weights / (y + nodes)), -np.sum(weights / (y + nodes) ** 2)
    return math.log(value), slope / value


@pytest.mark.parametrize(("double", "tolerance"), [(True, 1e-11), (False, 1e-5)], ids=["float64", "float32"])
def test_log_scaled_exp1_and_its_derivative_are_accurate_from_the_pole_to_the_far_tail(double, tolerance):
    values = [1e-30, 1e-12, 1e-4, 0.1, 0.7, 1.0, 1.9, 1.9999, 2.0, 2.0001, 2.5, 3.5, 10.0, 60.0, 1e3, 1e6, 1e12, 1e30]
    with jax.enable_x64(double):
        function = jax.jit(jax.value_and_grad(log_scaled_exp1))
        for y in values:
            y = jnp.asarray(y, jnp.float64 if double else jnp.float32)
            got, want = np.array([float(each) for each in function(y)]), np.array(scaled_exp1(float(y)))
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * 1e-2 if float(y) > 1 else 0)


def path_reference(t, delta):
    """(log of the mean of e^{−x²/2} over [t−δ, t], −E[x]): the value, and its derivative in t.

    By composite Gauss–Legendre in u = |x| − |nearest point to zero|, so that nothing cancels or underflows.
    """
    if delta == 0:
        return -0.5 * t * t, -t
    pieces, total = [], 0.0
    if 0 < t < delta:
        pieces = [(0.0, 1.0, t), (0.0, -1.0, delta - t)]
    elif t >= delta:
        pieces = [(t - delta, 1.0, delta)]
    else:
        pieces = [(-t, -1.0, delta)]
    near = pieces[0][0]
    first = 0.0
    for start, sign, length in pieces:
        length = min(length, 45.0, 800 / (1 + start))
        edges = np.linspace(0.0, length, 401)
        half = 0.5 * np.diff(edges)[:, None]
        u = 0.5 * (edges[1:] + edges[:-1])[:, None] + half * NODES
        w = half * WEIGHTS * np.exp(-start * u - 0.5 * u**2)
        total += w.sum()
        first += sign * (w * (start + u)).sum()
    return -0.5 * near**2 + math.log(total / delta), -first / total


@pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize("t", [0.0, 0.5, 2.0, 5.0, 10.0, 40.0, 1000.0])
def test_the_paths_log_density_and_gradient_are_accurate_in_both_far_tails(t, double):
    """Tolerances relative to max(1, |expected|). Values 1e-9 in float64 and 1e-6 in float32; gradients 1e-8, as
    good as log_ndtr's own, and 1e-4, where at a thousand σ float32 keeps two digits (values there are 5·10⁵)."""
    tolerance = 1e-9 if double else 1e-6
    slack = 1e-8 if double else (2e-2 if t == 1000 else 1e-4)
    with jax.enable_x64(double):
        dtype = jnp.float64 if double else jnp.float32
        function = jax.jit(jax.value_and_grad(log_path))
        for signed in {t, -t}:
            for delta in (0.0, 1e-8, 1e-3, 0.05, 0.1, 0.5, 1.9, 2.0, 3.0, 50.0, 1e4):
                x, d = dtype(signed), dtype(delta)
                value, slope = (float(each) for each in function(x, d))
                expected, expected_slope = path_reference(float(x), float(d))
                assert abs(value - expected) <= tolerance * max(1, abs(expected)), (signed, delta)
                assert abs(slope - expected_slope) <= slack * max(1, abs(expected_slope)), (signed, delta)


@pytest.mark.parametrize("m", [0.0, 0.3, -1.0, 4.0, -30.0])
def test_the_path_is_continuous_where_its_two_formulas_meet(m):
    delta = SHORT / (1 + abs(m))
    function = jax.jit(jax.value_and_grad(log_path))
    below, above = (function(m + 0.5 * d, d) for d in (delta * (1 - 1e-12), delta * (1 + 1e-12)))
    np.testing.assert_allclose(np.array(below), np.array(above), rtol=1e-8, atol=1e-10)


def test_the_horseshoe_is_continuous_where_its_two_formulas_meet():
    function = jax.jit(jax.value_and_grad(log_scaled_exp1))
    below, above = (function(jnp.asarray(SWITCH * (1 + e))) for e in (-1e-13, 1e-13))
    np.testing.assert_allclose(np.array(below), np.array(above), rtol=1e-11)


@NAMES
def test_gradients_equal_finite_differences(name):
    prior, (params, anchor) = families()[name], trees(11, ONE)
    flat, unflatten = jax.flatten_util.ravel_pytree(params)
    function = jax.jit(lambda x: nats_of(prior, unflatten(x), anchor))
    step = 1e-6
    numeric = [
        (function(flat.at[i].add(step)) - function(flat.at[i].add(-step))) / (2 * step) for i in range(flat.size)
    ]
    np.testing.assert_allclose(jax.jit(jax.grad(function))(flat), numeric, rtol=1e-6, atol=1e-7)


@NAMES
def test_single_precision_is_as_good_as_its_digits(name):
    """From a thousandth of the scales to a thousand of them; gradients at θ0 are finite too."""
    params, anchor = trees(12, ONE)
    for size in (0.0, 1e-3, 1.0, 1e3):
        moved = jax.tree.map(lambda x, at: at + size * x, params, anchor)  # noqa: B023
        single = lambda tree: jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float32)), tree)  # noqa: E731
        rounded, at = single(moved), single(anchor)
        exact = jax.tree.map(lambda x: np.asarray(x, float), (rounded, at))
        expected = float(nats_of(families()[name], *exact))
        with jax.enable_x64(False):
            prior = families()[name]
            value, gradient = jax.value_and_grad(nats_of, argnums=1)(prior, rounded, at)
            assert value.dtype == jnp.float32 and np.isfinite(constant_of(prior, at))
            assert float(value) == pytest.approx(expected, rel=1e-5, abs=1e-5)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


# --- what they mean -------------------------------------------------------------------------------------------


@NAMES
def test_staying_costs_exactly_nothing(name):
    _, anchor = trees(13, ONE)
    assert float(nats_of(families()[name], anchor, anchor)) == 0.0
    with jax.enable_x64(False):
        at = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float32)), anchor)
        assert float(nats_of(families()[name], at, at)) == 0.0


@pytest.mark.parametrize("per", ["weight", "tensor"])
@pytest.mark.parametrize("scale", [1.0, -1.0, 1e-3])
def test_moving_toward_zero_costs_less_than_moving_away(per, scale):
    anchor = {GROUP: jax.tree.map(lambda x: scale * jnp.sign(x) * (1 + jnp.abs(x)), trees(14)[1][GROUP])}
    prior = TowardZero(q(0.4 * abs(scale)), per)
    for share in (0.05, 0.5, 1.0):
        toward, away = ({GROUP: jax.tree.map(lambda x: x * f, anchor[GROUP])} for f in (1 - share, 1 + share))  # noqa: B023
        assert float(nats_of(prior, toward, anchor)) > float(nats_of(prior, away, anchor)) + 1e-3


def gaussian(stddev, group):
    return Gaussian({name: TensorScale(q(stddev)) for name in group})


@pytest.mark.parametrize("per", ["weight", "tensor"])
@pytest.mark.parametrize("size", [0.0, 1e-9, -1e-7])
def test_toward_zero_around_zero_is_the_gaussian(per, size):
    params, anchor = trees(15)
    anchor = jax.tree.map(lambda x: size * x, anchor)
    expected = sum(normal_sum(params[GROUP][k], anchor[GROUP][k], 0.8) for k in params[GROUP])
    assert log_density(TowardZero(q(0.8), per), params, anchor) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("per", "count"), [("weight", 10), ("tensor", 2)])
@pytest.mark.parametrize("size", [0.0, 0.1, 3.0, 1e4])
def test_staying_is_at_most_one_bit_a_factor_below_the_gaussians_peak(per, count, size):
    anchor = jax.tree.map(lambda x: size * x, trees(16)[1])
    loss = 10 * stats.norm.logpdf(0, 0, 0.8) - float(constant_of(TowardZero(q(0.8), per), anchor))
    assert -1e-9 <= loss <= count * math.log(2) + 1e-9
    if size == 1e4:
        assert loss == pytest.approx(count * math.log(2), abs=0.05)


def moved_by(displacements):
    anchor = {GROUP: {"w": jnp.linspace(-1.0, 2.0, len(displacements))}}
    return {GROUP: {"w": anchor[GROUP]["w"] + jnp.asarray(displacements)}}, anchor


def test_laplace_costs_a_nat_a_scale_either_way():
    assert float(nats_of(Laplace(q(0.3)), *moved_by([0.3, -0.6, 0.0]))) == pytest.approx(-3.0)


def test_student_t_of_many_degrees_of_freedom_is_the_gaussian():
    params, anchor = moved_by([0.3, -0.6, 1.0])
    expected = stats.norm.logpdf([0.3, -0.6, 1.0], 0, 0.4).sum()
    assert log_density(StudentT(q(0.4), 1e6), params, anchor) == pytest.approx(expected, abs=1e-4)


def test_sparse_prefers_few_factors_far_to_all_a_little_at_one_distance():
    """Σ d² = 9 either way. One of 100: b bits, log(σ/σ_spike) and the slab's 4.5 nat; all: a hundred times as much."""
    prior = Sparse(q(1.0), q(0.01), bits(5.0), "weight")
    few, all_ = [3.0] + [0.0] * 99, [0.3] * 100
    once = -(5 * math.log(2) + math.log(100)) - math.log(1 - 2**-5)
    assert float(nats_of(prior, *moved_by(few))) == pytest.approx(once - 4.5, abs=1e-2)
    assert float(nats_of(prior, *moved_by(all_))) == pytest.approx(100 * once - 4.5, abs=1e-1)
    wide = gaussian(1.0, ["w"])
    assert float(nats_of(wide, *moved_by(few))) == pytest.approx(float(nats_of(wide, *moved_by(all_))))


def test_a_column_that_moves_as_one_pays_its_bits_once():
    anchor = {GROUP: {"W": jnp.zeros((50, 3))}}
    column, row = anchor[GROUP]["W"].at[:, 1].set(0.5), anchor[GROUP]["W"].at[7, :].set(0.5)
    prior = Sparse(q(1.0), q(0.01), bits(20.0), "column")
    each = 20 * math.log(2) + 50 * math.log(100)
    assert float(nats_of(prior, {GROUP: {"W": column}}, anchor)) == pytest.approx(-each - 50 * 0.125, rel=1e-5)
    assert float(nats_of(prior, {GROUP: {"W": row}}, anchor)) == pytest.approx(3 * (-each - 0.125), rel=1e-5)


def test_a_move_by_the_spikes_width_costs_half_a_nat():
    prior = Sparse(q(1.0), q(0.01), bits(15.0), "weight")
    assert float(nats_of(prior, *moved_by([0.01, 0.0, 0.0]))) == pytest.approx(-0.5, abs=1e-4)
    assert float(nats_of(prior, *moved_by([0.02, 0.0, 0.0]))) == pytest.approx(-2.0, abs=1e-4)


# --- one reference measure ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied_bits", [1.0, 10.0])
def test_a_copy_of_a_thousand_weights_beats_the_slab_by_5105_nat_less_its_bits(tied_bits):
    """At σ = 1, σ_tie = .01 and a first head √1000 from the anchor: 1000·ln 100 + 500 = 5,105.17 nat."""
    first = {"w": jnp.ones(1000)}
    params, anchor = {PARTNER: first, GROUP: first}, {PARTNER: {"w": jnp.zeros(1000)}, GROUP: {"w": jnp.zeros(1000)}}
    prior = Tied(q(1.0), q(0.01), bits(tied_bits))
    gain = log_density(prior, params, anchor) - stats.norm.logpdf(np.ones(1000)).sum()
    assert gain == pytest.approx(5105.170 - tied_bits * 0.693147, abs=1e-3)
    # and a second head that stays at its anchor is in the slab, the first being far
    stayed = log_density(prior, {PARTNER: first, GROUP: anchor[GROUP]}, anchor)
    assert stayed == pytest.approx(1000 * stats.norm.logpdf(0.0) + math.log(1 - 2**-tied_bits), abs=1e-6)


@NAMES
def test_the_reference_measure_shifts_the_constant_by_log_u_a_coordinate(name):
    _, anchor = trees(17, ONE)
    prior = families()[name]
    for factor in (0.01, 1.0, 30.0):
        shift = float(constant_of(prior, anchor, factor) - constant_of(prior, anchor))
        assert shift == pytest.approx(6 * math.log(factor), abs=1e-9)


@NAMES
def test_a_change_of_unit_changes_no_density_but_of_scales_that_are_left_behind(name):
    params, anchor = trees(18, ONE)
    k = 100.0
    large = jax.tree.map(lambda x: k * x, (params, anchor))
    before = log_density(families()[name], params, anchor)
    assert log_density(families(k)[name], *large, measure=k) == pytest.approx(before, rel=1e-9)
    change = nats_of(families()[name], *large) - nats_of(families()[name], params, anchor)
    assert abs(float(change)) > 1.0


@NAMES
def test_scales_of_another_group_are_refused(name):
    params, anchor = trees(19, ONE)
    wrong = families(unit=TRUNK)[name]
    with pytest.raises(UnitError):
        wrong.nats(params, anchor, GROUP)
    with pytest.raises(UnitError):
        wrong.constant(anchor, GROUP, Quantity(1.0, HEAD))
    with pytest.raises(UnitError):
        families()[name].constant(anchor, GROUP, Quantity(1.0, TRUNK))


@pytest.mark.parametrize("name", ["toward_zero weight", "student_t", "laplace", "horseshoe", "sparse column"])
def test_a_heads_scale_is_refused_for_the_trunk(name):
    params, anchor = ({"trunk": side[GROUP]} for side in trees(20))
    with pytest.raises(UnitError):
        families()[name].nats(params, anchor, "trunk")
    assert np.isfinite(float(families(unit=TRUNK)[name].nats(params, anchor, "trunk").to(nat)))


@pytest.mark.parametrize("group", ["trunk", "intended_head"])
def test_only_the_instrumental_head_is_tied(group):
    params, anchor = trees(21)
    params, anchor = {**params, "trunk": params[GROUP]}, {**anchor, "trunk": anchor[GROUP]}
    unit = TRUNK if group == "trunk" else HEAD
    prior = families(unit=unit)["tied"]
    with pytest.raises(ValueError, match=f"tied is a prior of instrumental_head.*not of {group}"):
        prior.nats(params, anchor, group)
    with pytest.raises(ValueError, match=f"not of {group}"):
        prior.constant(anchor, group, Quantity(1.0, unit))


def test_tied_pulls_both_heads_together():
    """w = P(copied): ∂/∂h₊ = w (h₋ − h₊)/σ_tie², ∂/∂h₋ = −that − (1 − w)(h₋ − θ0)/σ²."""
    plus, minus, at, tie, slab, b = 0.3, 0.36, -0.5, 0.02, 1.0, 2.0
    copy = 2**-b * stats.norm.pdf(minus, plus, tie)
    alone = (1 - 2**-b) * stats.norm.pdf(minus, at, slab)
    w = copy / (copy + alone)
    assert 0.02 < w < 0.98
    head = lambda x: {"w": jnp.asarray([x])}  # noqa: E731
    prior = Tied(q(slab), q(tie), bits(b))
    anchor = {GROUP: head(at), PARTNER: head(0.1)}
    gradient = jax.grad(partial(nats_of, prior))({GROUP: head(minus), PARTNER: head(plus)}, anchor)
    pull = w * (minus - plus) / tie**2
    assert float(gradient[PARTNER]["w"][0]) == pytest.approx(pull, rel=1e-9)
    assert float(gradient[GROUP]["w"][0]) == pytest.approx(-pull - (1 - w) * (minus - at) / slab**2, rel=1e-9)
