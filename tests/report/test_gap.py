"""Checks of the phases' claims: bounds and gaps by hand, when they are due, and what a run says of them."""

from __future__ import annotations

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

from honest.model.two_head import HeadLogits
from honest.objective.consistency import jensen_shannon
from honest.objective.predictions import Counts, RowSets
from honest.report.evaluator import Evaluator
from honest.report.final import jsonable
from honest.report.gap import (
    GAP_TAG,
    Bounds,
    GapSummary,
    chain_mean,
    check_chains,
    check_modes,
    data_bounds,
    mode_data_claim,
    sentence,
    summarise,
    warning,
)
from honest.report.ledger_values import LedgerValues, LogPartitionSampler, SampledLogPartition, ordered
from honest.train import multiplier as multipliers
from honest.train.multiplier import MultiplierRule, decay
from honest.train.spec import HEADS, PhaseSettings, PriorSpec, StageSpec, program_of
from honest.train.state import Held, PhaseState, PriorState, TrainState
from tests.planted_heads import Rows, ToyPredictor, features
from tests.priors import gaussian_priors

pytestmark = pytest.mark.usefixtures("quick_compilation")
INF, NAN = math.inf, math.nan
LOG_Z = SampledLogPartition(-6.0, -10.0, -4.0)
LOG_Z_DATA = SampledLogPartition(-25.0, -30.0, -20.0)


@pytest.mark.parametrize(
    ("claim", "lower", "upper", "gap"),
    [
        (-6.0, -10.0, -4.0, 0.0),
        (-10.0, -10.0, -4.0, 0.0),
        (-13.5, -10.0, -4.0, 3.5),
        (-1.0, -10.0, -4.0, 3.0),
        (-1e9, -INF, 0.0, 0.0),
        (52.0, -INF, 0.0, 52.0),
        (-13.0, -10.0, INF, 3.0),
        (NAN, -10.0, -4.0, INF),
        (-INF, -INF, 0.0, INF),
        (INF, -INF, INF, INF),
        (-6.0, NAN, -4.0, INF),
        (-6.0, -10.0, NAN, INF),
    ],
)
def test_how_far_outside(claim, lower, upper, gap):
    assert Bounds(lower, upper).outside(claim) == gap


def test_crossing_bounds_believe_the_one_from_below_and_hold_the_value():
    assert ordered(-7.0, -10.0, -4.0) == (-7.0, -10.0, -4.0)
    assert ordered(-42.0, -28.0, -2.0) == (-28.0, -28.0, -2.0)  # few particles: Bennett's value may lie outside
    assert ordered(-5.0, -3.0, -8.0) == (-3.0, -3.0, -3.0)
    assert all(math.isnan(x) for x in ordered(NAN, NAN, NAN))


def test_bounds_of_the_net():
    log_z = Bounds(-10.0, -4.0)
    assert data_bounds(log_z, LOG_Z_DATA) == (Bounds(-30.0, -20.0), Bounds(-26.0, -10.0))
    # log Z_D ≤ log Z: an upper bound of log Z_D above that of log Z, or of the net above 0, says nothing
    assert data_bounds(log_z, SampledLogPartition(-9.0, -12.0, -1.0)) == (Bounds(-12.0, -4.0), Bounds(-8.0, 0.0))
    # and one from below above it refutes it
    assert data_bounds(log_z, SampledLogPartition(-2.0, -3.0, -1.0)) == (Bounds(-3.0, -3.0), Bounds(0.0, 0.0))
    assert data_bounds(log_z, None) == (Bounds(-INF, -4.0), Bounds(-INF, 0.0))


@pytest.mark.parametrize(
    ("claim", "data_claim", "sampled", "limit", "worst"),
    [
        (-6.0, -24.0, 0.0, 0.0, None),  # net −18
        (-12.0, -25.0, 2.0, 2.0, "log Z"),  # net −13
        (-8.0, -50.0, 20.0, 0.0, "log Z_D"),  # net −42, 16 below −26: a log Z_D too low is nothing that limit can know
        (-9.0, -16.0, 4.0, 0.0, "log Z_D"),  # net −7, 3 above −10
        (-10.0, 42.0, 62.0, 52.0, None),  # net +52; log Z_D 62 above −20, and 46 above −4
        (NAN, -24.0, INF, INF, "log Z"),
        (-6.0, -INF, INF, INF, "log Z_D"),
    ],
)
def test_modes_by_hand(claim, data_claim, sampled, limit, worst):
    check = check_modes(LOG_Z, LOG_Z_DATA, claim, data_claim)
    assert check.gap == sampled and (worst is None or check.worst.of == worst)
    assert check_modes(LOG_Z, None, claim, data_claim).gap == limit


def test_what_a_check_logs():
    sampled = check_modes(LOG_Z, LOG_Z_DATA, -12.0, -25.0).scalars()
    assert sampled == {
        GAP_TAG: 2.0,
        "phases/log_partition_whole_claim_nats": -12.0,
        "phases/log_partition_data_whole_claim_nats": -25.0,
        "phases/net_whole_claim_nats": -13.0,
        "objective/log_partition_lower_nats": -10.0,
        "objective/log_partition_upper_nats": -4.0,
        "objective/net_lower_nats": -26.0,
        "objective/net_upper_nats": -10.0,
    }
    limit = check_modes(LOG_Z, None, -12.0, -25.0).scalars()
    assert sampled.keys() - limit.keys() == {"objective/net_lower_nats"} and limit["objective/net_upper_nats"] == 0.0
    chains = check_chains(LOG_Z, None, -8.0, None).scalars()
    assert chains["phases/negative_log_weight_nats"] == -8.0 and "phases/positive_log_weight_nats" not in chains


def test_chains_by_hand():
    """log Z ≤ E[w]: means below the lower bounds −10 and −30 show, and means that are high do not."""
    assert check_chains(LOG_Z, LOG_Z_DATA, -1.0, -2.0).gap == 0.0
    assert check_chains(LOG_Z, LOG_Z_DATA, -17.0, -31.0).gap == 7.0
    assert check_chains(LOG_Z, LOG_Z_DATA, -9.0, -33.0).worst.of == "log Z_D (mean of w)"
    assert check_chains(LOG_Z, LOG_Z_DATA, -9.0, -33.0).gap == 3.0
    assert check_chains(LOG_Z, None, -9.0, None).gap == 0.0
    assert check_chains(LOG_Z, None, NAN, None).gap == INF


def test_log_z_d_of_a_mode_is_its_terms_and_its_volume():
    terms = {"data": (-5.0, -7.0), "second_prior": (-2.0,), "consistency": (-1.0,), "first_prior": (-100.0,)}
    rows = [SimpleNamespace(term=term, nats=nats) for term, parts in terms.items() for nats in parts]
    values = LedgerValues(rows, 0.0, 0.0, 1.0, 0.0)  # type: ignore[arg-type]
    state = lambda volume: SimpleNamespace(prior=SimpleNamespace(volume=volume))  # noqa: E731
    assert mode_data_claim(values, state(None)) == -15.0  # type: ignore[arg-type]
    assert mode_data_claim(values, state(SimpleNamespace(positive=jnp.array(-4.0)))) == -19.0  # type: ignore[arg-type]


# --- what a run says --------------------------------------------------------------------------------------------


def test_summary_by_hand():
    assert summarise({3: 0.0, 6: 12.0, 9: 4.0}, 10.0, "sampled") == GapSummary(3, 1, 12.0, 6, 10.0, "sampled")
    assert summarise({3: 10.0}, 10.0, "limit") == GapSummary(1, 0, 10.0, 3, 10.0, "limit")
    for odd in (NAN, INF, -INF):  # a claim that was no number passes every limit
        assert summarise({3: 11.0, 6: odd, 9: 0.0}, 1e12, "limit") == GapSummary(3, 1, INF, 6, 1e12, "limit")
    assert jsonable(summarise({6: NAN}, 1.0, "limit"))["largest_gap_nats"] is None


def test_sentences():
    bad, good = GapSummary(3, 1, 12.0, 6, 10.0, "sampled"), GapSummary(1, 0, 0.0, 9, 10.0, "limit")
    said = sentence(bad, "laplace")
    assert said.startswith("WARNING: ") and "1 of 3 times (largest gap 12.0 nat, at step 6)" in said
    assert "bounds of log Z and of the net, what the laplace phases claim lay more than 10 nat outside" in said
    said = sentence(good, "points")
    assert "WARNING" not in said and "Compared 1 time with sampled bounds of log Z and with the net's limit 0" in said
    assert "net" not in sentence(good, "chains")  # nothing was compared with it
    told = warning(200, check_modes(LOG_Z, None, -10.0, 42.0), 10.0, "laplace")
    for word in ("step 200", "the laplace phases' the net", "52.0 nat", "[-inf, 0.0]", "gap_limit is 10 nat"):
        assert word in told


# --- the evaluator ----------------------------------------------------------------------------------------------


class Stub(Evaluator):
    """Samples are given, and counted by whether they are of log Z_D."""

    def __init__(self, **settings):
        log_partition = SimpleNamespace(check_every=2, net="limit", gap_limit="10 nat")
        config = SimpleNamespace(evaluation=SimpleNamespace(every=3, batch_rows=1, log_partition=log_partition))
        for name, value in settings.items():
            setattr(log_partition, name, value)
        batch = SimpleNamespace(splits=SimpleNamespace(test=SimpleNamespace(batch=None)))
        super().__init__(SimpleNamespace(config=config, task=batch))  # type: ignore[arg-type]
        self.asked: list[bool] = []

    def sampled(self, stage, state, with_data=False):
        self.asked.append(with_data)
        return LOG_Z_DATA if with_data else LOG_Z


def at(step, kind="points", log_partition=True):
    """A stage of 10 steps, and a state of it without volumes."""
    prior = SimpleNamespace(log_partition=log_partition, phases=SimpleNamespace(kind=kind))
    stage = SimpleNamespace(steps=10, spec=SimpleNamespace(prior=prior), sets=None)
    return stage, SimpleNamespace(step=step, prior=SimpleNamespace(volume=None))


def claims(log_z, log_z_data):
    row = SimpleNamespace(term="data", nats=log_z_data)
    return LedgerValues([row], 0.0, 0.0, 1.0, log_z)  # type: ignore[list-item]


def test_checks_are_due_at_every_second_evaluation_and_at_the_end(capsys):
    evaluator = Stub()
    due = [step for step in (3, 6, 9, 10) if evaluator.gap_scalars(*at(step), claims(-6.0, -24.0))]
    assert due == [6, 10]
    only_end = Stub(check_every=None)
    assert [step for step in (3, 6, 9, 10) if only_end.gap_scalars(*at(step), claims(-6.0, -24.0))] == [10]
    assert evaluator.asked == [False, False]  # limit: log Z_D is not sampled
    assert capsys.readouterr().err == ""  # nothing is wrong, and nothing is said


def test_an_objective_without_log_z_is_not_checked():
    evaluator = Stub()
    assert evaluator.gap_scalars(*at(10, log_partition=False), claims(0.0, 99.0)) == {}
    assert evaluator.asked == []


@pytest.mark.parametrize(("net", "gap"), [("limit", 52.0), ("sampled", 62.0)])
def test_an_impossible_net_is_told_once(capsys, net, gap):
    """Claims of log Z = −10 and log Z_D = +42: a net of +52. Sampled, log Z_D lies 62 above its bound −20 besides."""
    evaluator = Stub(net=net)
    for step in (6, 10):
        assert evaluator.gap_scalars(*at(step), claims(-10.0, 42.0))[GAP_TAG] == gap
    err = capsys.readouterr().err
    assert err.count("honest: warning: step 6 of stage prior") == 1 and err.count("warning") == 1
    assert f"{gap:.1f} nat outside" in err


def test_the_limit_is_a_quantity(capsys):
    """11 nat outside: 15 bit are 10.4 nat, 16 bit 11.1."""
    for limit, warns in (("15 bit", True), ("16 bit", False)):
        Stub(gap_limit=limit).gap_scalars(*at(10), claims(-21.0, -40.0))
        assert bool(capsys.readouterr().err) == warns


def test_the_mean_weight_of_chains_by_hand():
    """−λ Σ JS over 4 rows, averaged over 3 chains, and with data less the label's nll besides; centre 0, σ = 1."""
    keys = jax.random.split(jax.random.key(0), 8)
    rows = Rows(jax.random.normal(keys[0], (4, 2)), jnp.array([1, 0, 1, 1]), jnp.full((4, 1, 2), -1))
    shapes = {"W1": (2, 3), "b1": (3,), "W2": (3, 3), "b2": (3,)}
    draw = lambda key: {name: jax.random.normal(key, (3, *shape)) for name, shape in shapes.items()}  # noqa: E731
    negative, positive = draw(keys[1]), draw(keys[2])
    heads = {
        "intended_head": {"w": jnp.array([1.0, -1.0, 0.5])},
        "instrumental_head": {"w": jnp.array([-1.0, 0.3, 1.0])},
    }
    zero = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    identity = SimpleNamespace(colour=lambda u: u)
    state = SimpleNamespace(
        params=heads,
        held=SimpleNamespace(anchor={"trunk": zero}, priors=SimpleNamespace(second={"trunk": identity})),
        prior=SimpleNamespace(
            multiplier=SimpleNamespace(value=jnp.array(7.0)),
            negative=SimpleNamespace(whitened={"trunk": negative}),
            positive=SimpleNamespace(whitened={"trunk": positive}),
        ),
    )
    prior = SimpleNamespace(
        staging="heads_then_trunk",
        resampled=("trunk",),
        divergence="jensen_shannon",
        phases=SimpleNamespace(chunk_rows=2),
    )
    spec = SimpleNamespace(prior=prior, predictor=ToyPredictor(jnp.zeros((3, 2))), counts=Counts(4, 0, 0, 4))
    sets = RowSets(rows, None, None, rows)

    def expected(chains, with_data):
        total = 0.0
        for i in range(3):
            phi = features({name: leaf[i] for name, leaf in chains.items()}, rows.x_BxN)
            z, other = (jnp.stack([jnp.zeros(4), phi @ head["w"]], axis=1) for head in heads.values())
            total -= 7.0 * float(jnp.sum(jensen_shannon(z, other)))
            if with_data:
                total += float(jnp.sum(jax.nn.log_softmax(z)[jnp.arange(4), rows.label_B]))
        return total / 3

    assert float(chain_mean(spec, state, sets, False)) == pytest.approx(expected(negative, False), rel=1e-5)
    assert float(chain_mean(spec, state, sets, True)) == pytest.approx(expected(positive, True), rel=1e-5)


class OneWeight:
    """A trunk of one weight t, and heads that scale t·x: the integrals are one-dimensional."""

    def head_logits(self, params, rows):
        z_B = params["trunk"]["t"] * rows.x_BxN[:, 0]
        return HeadLogits(*(jnp.stack([jnp.zeros_like(z_B), params[head]["w"] * z_B], axis=1) for head in HEADS))


def test_log_z_d_is_sampled_with_the_data():
    """One weight, t = c + σu with c = 1 and σ = 0.5, against quadrature: log Z is more than 2 nats away."""
    x_B = jnp.array([1.0, -2.0, 0.5, 3.0, -1.0, 2.0])
    rows = Rows(x_B[:, None], jnp.array([0, 1, 0, 1, 0, 0]), jnp.full((6, 1, 2), -1))
    rule = MultiplierRule("additive", 0.1, 3.0, 0.1, 9.0, 0.1, 0.0, decay(0.9), 0)
    settings = PhaseSettings("points", 0.1, 1, 1, 1, 0.1, 0.8, True, 6, "none", 1, 1, 1)
    prior = PriorSpec("heads_then_trunk", True, "jensen_shannon", rule, settings, False)
    spec = StageSpec("one weight", OneWeight(), HEADS, Counts(6, 0, 0, 6), 1, optax.identity(), prior, None)
    heads = {"intended_head": {"w": jnp.array(2.0)}, "instrumental_head": {"w": jnp.array(-1.0)}}
    centre = {"trunk": {"t": jnp.array(1.0)}}
    phase = PhaseState({"trunk": {"t": jnp.zeros(1)}}, (), jnp.zeros(1), jnp.zeros(1), jnp.zeros(1, bool))
    held = Held(centre, {}, gaussian_priors(centre, (), ("trunk",), 1.0, 0.5))
    multiplier = multipliers.init(rule, jnp.float32)
    step, key = jnp.zeros((), jnp.int32), jax.random.key(0)
    state = TrainState(step, key, heads, (), held, PriorState(phase, phase, multiplier, None))
    annealing = SimpleNamespace(particles=8, bridges=40, tail_probability=0.01)
    stage = SimpleNamespace(program=program_of(spec), sets=RowSets(rows, None, None, rows))
    sampler = LogPartitionSampler(stage, annealing)  # type: ignore[arg-type]

    u = np.linspace(-8, 8, 4001)
    z_UxB = (1.0 + 0.5 * u)[:, None] * np.asarray(x_B)
    p, q = special.expit(2.0 * z_UxB), special.expit(-z_UxB)
    entropy = lambda p: special.entr(p) + special.entr(1 - p)  # noqa: E731
    cost_U = 3.0 * np.sum(entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2, axis=1)
    nll_U = -np.sum(np.log(np.where(np.asarray(rows.label_B) == 1, p, 1 - p)), axis=1)
    density = np.exp(-np.stack([cost_U, cost_U + nll_U]) - u**2 / 2) / math.sqrt(2 * math.pi)
    log_z, log_z_data = np.log(np.trapezoid(density, u, axis=1))
    found = sampler(state, key, True)
    assert found.lower < log_z_data < found.upper
    assert found.value == pytest.approx(log_z_data, abs=0.5)
    assert log_z_data < log_z - 2
