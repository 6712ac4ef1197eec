"""Finite worlds: enumeration against plain loops and hand arithmetic, every solver against enumeration."""

from __future__ import annotations

import math

import numpy as np
import pytest

from honest.errors import UserError
from honest.inference.enumeration import Solution, account, enumerate_states, posterior
from honest.inference.factors import Factors
from honest.inference.integer_program import milp
from honest.inference.solvers import SAMPLED, SOLVERS, solve
from tests.inference.worlds import by_loops, example, ledger_by_loops, random_world

SEEDS = range(12)


def assert_same(found: np.ndarray, log2_true: list[float], tolerance: float):
    for a, b in zip(found.ravel(), log2_true, strict=True):
        assert a == b or abs(a - b) <= tolerance


def log2(x: float) -> float:
    return math.log2(x) if x > 0 else -math.inf


@pytest.mark.parametrize("seed", SEEDS)
def test_enumeration_is_the_sum_over_everything(seed):
    world = random_world(seed)
    factors, truth = Factors(world), by_loops(world)
    solution = enumerate_states(factors)
    found = posterior(factors, solution)
    assert_same(solution.log2_z_RxR, [log2(t[1]) for t in truth.values()], 1e-10)
    assert_same(solution.log2_joint_RxR, [log2(t[2]) for t in truth.values()], 1e-10)
    with_z = [prior * joint / z if z > 0 else 0.0 for prior, z, joint, _, _ in truth.values()]
    without = [prior * joint for prior, _, joint, _, _ in truth.values()]
    for pair, w, wo, (prior, *_) in zip(found.pairs, with_z, without, truth.values(), strict=True):
        assert pair.log2_prior == pytest.approx(log2(prior), abs=1e-10)
        assert pair.posterior == pytest.approx(w / sum(with_z), abs=1e-10)
        assert pair.posterior_without_log_partition == pytest.approx(wo / sum(without), abs=1e-10)
    assert found.total_log2_evidence == pytest.approx(log2(sum(with_z)), abs=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_ledger_is_the_mean_over_everything(seed):
    world = random_world(seed)
    factors = Factors(world)
    solution = enumerate_states(factors)
    found = account(factors, posterior(factors, solution), solution)
    assert list(found.ledger) == pytest.approx(ledger_by_loops(world), abs=1e-9)


@pytest.mark.parametrize("solver", sorted(SAMPLED))
def test_sampled_ledgers_come_near(solver):
    distances = []
    for seed in range(4):
        world = random_world(seed)
        factors = Factors(world)
        solution = solve(factors, solver, 200_000, seed)
        found = account(factors, posterior(factors, solution), solution)
        distances.append(np.sum(np.abs(np.array(found.ledger) - ledger_by_loops(world))))
    assert np.mean(distances) < 0.3  # nat, summed over five rows


def test_example_by_hand():
    """Fact and belief agree on 0, 1, 2, 5 only where both are "00010111": Z = 2⁻³/(2⁻³+2⁻¹) · ½ = 1/10."""
    factors = Factors(example())
    found = {(p.intended, p.instrumental): p for p in posterior(factors, enumerate_states(factors)).pairs}
    mixed = found["read_fact", "read_belief"]
    assert mixed.bits_recovered == pytest.approx(math.log2(10), abs=1e-12)
    assert mixed.log2_prior == pytest.approx(2 * math.log2(2**-5 + 2**-1) * -1 - 6, abs=1e-12)
    # Given agreement all four labels are right; the table's value at 3 is 1, as the person says.
    assert mixed.log2_evidence == pytest.approx(5 * math.log2(0.999), abs=1e-12)
    assert found["read_belief", "read_belief"].bits_recovered == pytest.approx(0.0, abs=1e-12)


def test_pair_that_cannot_agree_is_impossible():
    readers = [{"name": "yes", "table": "1111", "bits": 1.0}, {"name": "no", "table": "0000", "bits": 1.0}]
    factors = Factors(example(readers=readers))
    for solver in SOLVERS:
        solution = solve(factors, solver, 4000, 0)
        pairs = {(p.intended, p.instrumental): p for p in posterior(factors, solution).pairs}
        assert pairs["yes", "no"].bits_recovered == math.inf
        assert pairs["yes", "no"].posterior == 0.0
    # "yes" has three labels wrong and one right, "no" one wrong; the person's label fits "yes" alone
    exact = {(p.intended, p.instrumental): p for p in posterior(factors, enumerate_states(factors)).pairs}
    assert exact["yes", "yes"].log2_evidence == pytest.approx(3 * math.log2(0.001) + 2 * math.log2(0.999))


def test_labels_that_no_pair_can_give():
    factors = Factors(example(label_noise=0.0, labels={"0": 1, "1": 0, "2": 0, "5": 1}))
    for solver in SOLVERS:
        found = posterior(factors, solve(factors, solver, 4000, 0))
        assert found.total_log2_evidence == -math.inf
        assert all(math.isnan(pair.posterior) for pair in found.pairs)  # there is no distribution


def test_enumeration_in_chunks_and_its_limit(monkeypatch):
    factors = Factors(random_world(3))
    whole = enumerate_states(factors)
    monkeypatch.setattr("honest.inference.enumeration.CHUNK", 1)
    chunked = enumerate_states(factors)
    assert_same(chunked.log2_joint_RxR, list(whole.log2_joint_RxR.ravel()), 1e-12)
    np.testing.assert_allclose(chunked.rows_RxRx3, whole.rows_RxRx3, rtol=1e-12)
    monkeypatch.setattr("honest.inference.enumeration.MOST_STATES", 3)
    with pytest.raises(UserError, match="states, more than the 3 that are enumerated; take --solver rejection"):
        enumerate_states(factors)


def test_integer_program_finds_the_most_probable_state():
    for seed in SEEDS:
        world = random_world(seed)
        solution, truth = milp(Factors(world)), by_loops(world)
        assert_same(solution.log2_z_RxR, [log2(t[3]) for t in truth.values()], 1e-9)
        assert_same(solution.log2_joint_RxR, [log2(t[4]) for t in truth.values()], 1e-9)


def deviations(found: np.ndarray, error: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """(found − exact) / error where there is an error to speak of; elsewhere both must be the same."""
    sampled = np.isfinite(error) & (error > 0) & np.isfinite(found) & np.isfinite(exact)
    for a, b in zip(found[~sampled & np.isfinite(error)], exact[~sampled & np.isfinite(error)], strict=True):
        assert a == b or abs(a - b) < 1e-9
    return (found[sampled] - exact[sampled]) / error[sampled]


@pytest.mark.parametrize("solver", sorted(SAMPLED))
def test_sampled_sums_lie_within_their_errors(solver):
    """Counted over worlds and pairs: unbiased, and beyond two standard errors in about one of twenty."""
    gathered = []
    for seed in SEEDS:
        factors = Factors(random_world(seed))
        truth, found = enumerate_states(factors), solve(factors, solver, 60_000, seed)
        gathered += [
            deviations(found.log2_z_RxR, found.log2_z_error_RxR, truth.log2_z_RxR),
            deviations(found.log2_joint_RxR, found.log2_joint_error_RxR, truth.log2_joint_RxR),
        ]
    z = np.concatenate(gathered)
    assert len(z) > 40
    assert np.mean(np.abs(z) > 2) < 0.15  # of eight islands the error itself is uncertain
    assert np.mean(np.abs(z) > 5) < 0.02
    assert abs(np.mean(np.clip(z, -3, 3))) < 0.5


@pytest.mark.parametrize("solver", sorted(SAMPLED))
def test_sampled_posteriors_converge_on_the_exact_one(solver):
    distance = {samples: [] for samples in (3_000, 300_000)}
    for seed in range(4):
        world = random_world(seed)
        factors = Factors(world)
        truth = np.array([pair.posterior for pair in posterior(factors, enumerate_states(factors)).pairs])
        for samples, distances in distance.items():
            found = posterior(factors, solve(factors, solver, samples, seed))
            distances.append(0.5 * np.sum(np.abs([p.posterior for p in found.pairs] - truth)))
    assert np.mean(distance[300_000]) < 0.03
    assert np.mean(distance[300_000]) < 0.6 * np.mean(distance[3_000])


def test_metropolis_visits_both_targets():
    """With log Z and without are different posteriors in the example (0.10 and 0.01 for the mixed pairs)."""
    factors = Factors(example())
    exact = posterior(factors, enumerate_states(factors)).pairs
    found = posterior(factors, solve(factors, "metropolis", 400_000, 1)).pairs
    for a, b in zip(found, exact):
        assert a.posterior == pytest.approx(b.posterior, abs=0.02)
        assert a.posterior_without_log_partition == pytest.approx(b.posterior_without_log_partition, abs=0.01)


@pytest.mark.parametrize("solver", sorted(SAMPLED))
def test_seeds_repeat_and_differ(solver):
    factors = Factors(random_world(2))
    same = [solve(factors, solver, 5000, 7) for _ in range(2)]
    other = solve(factors, solver, 5000, 8)
    assert isinstance(other, Solution)
    assert np.array_equal(same[0].log2_joint_RxR, same[1].log2_joint_RxR)
    assert not np.array_equal(same[0].log2_joint_RxR, other.log2_joint_RxR)


def test_many_states_take_seconds_not_memory():
    """16 readers on 65,536 states; each slot's two tables differ, so that all states count."""
    slots = {f"s{n}": {"tables": ["01", "10"], "bits": [0.0, 1.0]} for n in range(16)}
    rng = np.random.default_rng(0)
    readers = [
        {"name": f"r{n}", "table": "".join(map(str, rng.integers(2, size=2**16))), "bits": 1.0} for n in range(4)
    ]
    factors = Factors(
        example(inputs=1, trusted=[0], slots=slots, readers=readers, labels={}, person_labels={}, multiplier=math.inf)
    )
    solution = enumerate_states(factors)
    assert solution.evaluations == 65_536 * 16
    assert np.allclose(np.diagonal(solution.log2_z_RxR), 0.0, atol=1e-9)
