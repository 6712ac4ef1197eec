"""Continuous worlds: quadrature against scipy's own integrals and against what must be true, solvers against both."""

from __future__ import annotations

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special

from honest.config_io import load_sections
from honest.inference.continuous_world import ContinuousWorld
from honest.inference.joint import Joint
from honest.inference.quadrature import exact, stage_one
from honest.inference.solvers import solve_continuous

pytestmark = pytest.mark.usefixtures("quick_compilation")
WORLDS = Path(__file__).parents[2] / "configs" / "worlds"
TRUSTED = {"fact": 2.0, "sign": 1, "trusted": True, "label": 1}
FOOLED = {"fact": 2.0, "sign": 1, "trusted": False, "person_label": 0}
FREE, PLANTED = "0.7 θ.head", None


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def world(stddevs=(PLANTED,) * 4, anchors=(1.0, 0.2, 0.1, 0.8), beliefs=((1, [TRUSTED]), (1, [FOOLED])), λ=3.0):
    """stddevs, anchors: intended fact and belief, instrumental fact and belief."""
    head = lambda i: {  # noqa: E731
        "anchor": {"fact": anchors[i], "belief": anchors[i + 1]},
        "stddev": {"fact": stddevs[i], "belief": stddevs[i + 1]},
    }
    return ContinuousWorld.model_validate(
        {
            "kind": "continuous",
            "heads": {"intended": head(0), "instrumental": head(2)},
            "trunk": {"stddev": "1.5 θ.trunk"},
            "beliefs": [{"copies": copies, "inputs": inputs} for copies, inputs in beliefs],
            "multiplier": f"{λ} nat/disagreement",
        }
    )


def js(a: float, b: float) -> float:
    p, q = special.expit(a), special.expit(b)
    entropy = lambda x: special.entr(x) + special.entr(1 - x)  # noqa: E731
    return entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2


def belief_costs(w, x, θ, λ):
    """(λ·JS, −log p) of one input, by the definitions; θ may be an array."""
    a = w[0] * x["fact"] + w[1] * x["sign"] * θ
    b = w[2] * x["fact"] + w[3] * x["sign"] * θ
    if x["trusted"]:
        label = x.get("label")
        return λ * js(a, b), 0.0 if label is None else -special.log_expit(a if label else -a)
    label = x.get("person_label")
    return 0.0, 0.0 if label is None else -special.log_expit(b if label else -b)


def integrals(w, inputs, λ):
    """(Z, Z_D) of one belief, by Simpson's rule on nodes of its own."""
    u = np.linspace(-9, 9, 1801)
    agreement, data = (sum(parts) for parts in zip(*(belief_costs(w, x, 1.5 * u, λ) for x in inputs)))
    density = np.exp(-0.5 * u**2) / math.sqrt(2 * math.pi)
    return [integrate.simpson(density * np.exp(-cost), x=u) for cost in (agreement, agreement + data)]


def test_planted_heads_are_one_dimensional_integrals():
    """Three copies of a belief of two questions, one of a fooled question: log evidence = 3 log Z_D/Z + log Z_D/Z."""
    asked = [TRUSTED, {"fact": -1.0, "sign": -1, "trusted": True, "label": 0}]
    found, without = exact(Joint(world(beliefs=((3, asked), (1, [FOOLED])))))
    w = (1.0, 0.2, 0.1, 0.8)
    (z, z_data), (one, z_fooled) = integrals(w, asked, 3.0), integrals(w, [FOOLED], 3.0)
    assert one == pytest.approx(1.0, abs=1e-10)
    assert found.account.log_evidence == pytest.approx(3 * math.log(z_data / z) + math.log(z_fooled), abs=1e-9)
    assert without.account.log_evidence == pytest.approx(3 * math.log(z_data) + math.log(z_fooled), abs=1e-9)
    assert found.account.ledger.log_partition == pytest.approx(-3 * math.log(z), abs=1e-9)
    assert found.bits_recovered == pytest.approx(-3 * math.log2(z), abs=1e-9)
    assert found.account.ledger.first_prior == 0.0 and found.account.error < 1e-12


def test_a_free_weight_is_an_outer_integral():
    """The instrumental belief weight is free: log ∫ N(v) Z_D(v)/Z(v) dv, and the posterior means, by scipy."""
    anchors, stddevs = (1.0, 0.2, 0.1, 0.8), (PLANTED, PLANTED, PLANTED, FREE)
    found, without = exact(Joint(world(stddevs)))

    def weight(v, with_z):
        w = (*anchors[:3], anchors[3] + 0.7 * v)
        (z, z_data), (_, z_fooled) = integrals(w, [TRUSTED], 3.0), integrals(w, [FOOLED], 3.0)
        return math.exp(-0.5 * v * v) / math.sqrt(2 * math.pi) * z_data * z_fooled / (z if with_z else 1.0)

    for account, with_z in ((found.account, True), (without.account, False)):
        total = integrate.quad(weight, -7, 7, args=(with_z,), epsabs=1e-9)[0]
        prior = integrate.quad(lambda v, z=with_z: 0.5 * v * v * weight(v, z), -7, 7, epsabs=1e-9)[0] / total
        assert account.log_evidence == pytest.approx(math.log(total), abs=1e-7)
        assert account.ledger.first_prior == pytest.approx(-prior, abs=1e-6)


def test_expectations_of_the_trunk_by_scipy():
    λ, w = 3.0, (1.0, 0.2, 0.1, 0.8)
    found, _ = exact(Joint(world()))

    def moment(u, value):
        agreement, data = belief_costs(w, TRUSTED, 1.5 * u, λ)
        return value(u, agreement, data) * math.exp(-0.5 * u * u - agreement - data)

    def mean(value):
        return (
            integrate.quad(moment, -9, 9, args=(value,))[0] / integrate.quad(moment, -9, 9, args=(lambda *_: 1.0,))[0]
        )

    fooled = [integrate.quad(lambda u, k=k: u**k * special.expit(-0.2 - 1.2 * u) * math.exp(-u * u / 2), -9, 9)[0]
              for k in (0, 2)]  # fmt: skip
    ledger = found.account.ledger
    assert ledger.consistency == pytest.approx(-mean(lambda u, a, d: a), abs=1e-9)
    assert ledger.second_prior == pytest.approx(
        -mean(lambda u, a, d: 0.5 * u * u) - 0.5 * fooled[1] / fooled[0], abs=1e-9
    )
    truth = mean(lambda u, a, d: special.expit(2.0 + 0.3 * u))
    assert found.account.answers[0] == pytest.approx(truth, abs=1e-9)


def test_without_labels_agreement_is_all_there_is():
    """Z_D = Z for every pair of heads: the evidence is 1, and the heads stay at their prior, log Z or not far away."""
    unlabelled = {"fact": 2.0, "sign": 1, "trusted": True}
    joint = Joint(world((FREE, PLANTED, PLANTED, FREE), beliefs=((4, [unlabelled]),)))
    found, without = exact(joint)
    assert found.account.log_evidence == pytest.approx(0.0, abs=1e-6)
    assert found.account.ledger.first_prior == pytest.approx(-1.0, abs=1e-6)  # two weights, ½ nat each
    assert without.account.log_evidence < -0.5


def test_ledger_at_a_point_by_hand():
    stddevs = (FREE, PLANTED, PLANTED, FREE)
    joint = Joint(world(stddevs, beliefs=((2, [TRUSTED]), (1, [FOOLED]))))
    u = jnp.array([0.5, -1.0, 0.3, -0.4, 0.9])
    w = (1.0 + 0.7 * 0.5, 0.2, 0.1, 0.8 - 0.7)
    rows = [belief_costs(w, x, 1.5 * t, 3.0) for x, t in ((TRUSTED, 0.3), (TRUSTED, -0.4), (FOOLED, 0.9))]
    found = [float(row.to(row.unit)) for row in jax.jit(lambda u: joint.ledger(u, log_partition=True))(u)]
    log_z = 2 * math.log(integrals(w, [TRUSTED], 3.0)[0])
    expected = [-sum(d for _, d in rows), -0.625, -0.5 * (0.09 + 0.16 + 0.81), -sum(a for a, _ in rows), -log_z]
    assert found == pytest.approx(expected, abs=1e-9)
    assert joint.dimension == 5
    # Stage one's own scalar: log Z_D − log Z − ½|u|².
    z_data = 2 * math.log(integrals(w, [TRUSTED], 3.0)[1]) + math.log(integrals(w, [FOOLED], 3.0)[1])
    assert float(stage_one(joint, u[:2], log_partition=True)) == pytest.approx(z_data - log_z - 0.625, abs=1e-9)


@pytest.fixture(scope="module")
def five():
    """Two free weights, three beliefs: the joint and its exact account."""
    joint = Joint(world((FREE, PLANTED, PLANTED, FREE), beliefs=((2, [TRUSTED]), (1, [FOOLED]))))
    return joint, exact(joint)[0].account


@pytest.mark.parametrize(
    ("solver", "budget", "ledger", "evidence"),
    [("smc", 24_000, 0.5, 0.25), ("nuts", 8_000, 0.5, None), ("langevin", 16_000, 0.6, None)],
)
def test_samplers_come_near(five, solver, budget, ledger, evidence):
    joint, truth = five
    found = solve_continuous(joint, solver, budget, 0, log_partition=True)
    assert np.sum(np.abs(np.array(found.ledger) - np.array(truth.ledger))) < ledger
    assert np.max(np.abs(found.answers - truth.answers)) < 0.05
    if evidence is None:
        assert math.isnan(found.log_evidence)  # draws, and no volume
    else:
        assert found.log_evidence == pytest.approx(truth.log_evidence, abs=evidence)
        assert 0 < found.error < evidence
    assert 0.2 * budget < found.evaluations < 1.5 * budget


def test_points_reach_one_mode_and_laplace_its_volume(five):
    """The mode is where the gradient vanishes; its claim lacks −½ log|H|, which Laplace adds."""
    joint, truth = five
    points = [solve_continuous(joint, name, 20_000, 0, log_partition=True) for name in ("gradient", "lbfgs")]
    assert points[0].ledger == pytest.approx(points[1].ledger, abs=1e-3)
    assert points[1].log_evidence == pytest.approx(sum(points[1].ledger), abs=1e-9)
    assert points[1].evaluations < points[0].evaluations
    laplace = solve_continuous(joint, "laplace", 20_000, 0, log_partition=True)
    assert abs(laplace.log_evidence - truth.log_evidence) < abs(points[1].log_evidence - truth.log_evidence)


def test_laplace_is_exact_for_a_gaussian():
    """λ = 0 to rounding and no labels: the joint is the prior, whose integral is 1; a draw pays ½ nat a coordinate."""
    joint = Joint(world((FREE, FREE, PLANTED, FREE), λ=1e-9, beliefs=((2, [{**TRUSTED, "label": None}]),)))
    found = solve_continuous(joint, "laplace", 2000, 0, log_partition=True)
    assert found.log_evidence == pytest.approx(0.0, abs=1e-6)
    assert found.ledger.first_prior == pytest.approx(-1.5, abs=0.1)
    assert found.ledger.second_prior == pytest.approx(-1.0, abs=0.1)


def test_a_point_claims_what_cannot_be():
    """A point pays for agreement once and is credited log Z's whole volume: log p(data) > 0."""
    joint = Joint(load_sections(WORLDS / "continuous.yaml", ContinuousWorld))
    with_z, without = (solve_continuous(joint, "gradient", 20_000, 0, log_partition=z) for z in (True, False))
    assert with_z.log_evidence > 3.0
    assert without.log_evidence < 0.0


@pytest.mark.parametrize(("name", "parameters"), [("planted", 2), ("continuous", 14), ("large", 50)])
def test_shipped_worlds(name, parameters):
    shipped = load_sections(WORLDS / f"{name}.yaml", ContinuousWorld)
    assert shipped.parameters == parameters == Joint(shipped).dimension
