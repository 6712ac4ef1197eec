"""The planted-heads table of the design, reproduced in sign by the project's own objective at its own size: by Laplace
values, which an annealed bound of log Z refutes (last test)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import pytest

from honest.report.gap import check_modes
from honest.report.ledger_values import SampledLogPartition
from tests.planted_heads import Planter, make_toy

UNKNOWN = SampledLogPartition(0.0, -math.inf, 0.0)  # log Z ≤ 0 is certain, and nothing is sampled
LIMIT = 10.0  # nat, of the gap


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def planters(float64):
    toy = make_toy(0, 1.0, 1.0)
    return {anchor: Planter(toy, anchor, steps=150) for anchor in ("init", "trained")}


@pytest.fixture(scope="module")
def values(planters):
    """Laplace values at σ2 = 1 θ.trunk, λ = 1 nat/disagreement, seed 0, by anchor and planted pair."""
    found = {}
    for anchor, plant in planters.items():
        for pair in (("truth", "person"), ("person", "person")):
            found[anchor, *pair] = plant(*pair)
    return found


def test_an_ignorant_anchor_prefers_the_honest_pair(values):
    honest, imitating = values["init", "truth", "person"], values["init", "person", "person"]
    assert honest.net > imitating.net + 50  # design: −100 against −207


def test_without_log_z_the_imitating_pair_wins(values):
    honest, imitating = values["init", "truth", "person"], values["init", "person", "person"]
    assert honest.log_z_data < imitating.log_z_data  # design: −225 against −207


def test_the_modes_alone_miss_the_effect(values):
    honest, imitating = values["init", "truth", "person"], values["init", "person", "person"]
    assert honest.points < imitating.points  # design: −27 against −23: the volume decides


def test_a_trunk_that_knows_the_person_prefers_imitation(values):
    honest, imitating = values["trained", "truth", "person"], values["trained", "person", "person"]
    assert honest.net < imitating.net  # design: −81 against −69
    assert -30 < honest.log_z < 0  # agreement is no surprise there; design: −4


def test_identical_heads_recover_nothing_and_no_net_claim_is_positive(values):
    assert values["init", "person", "person"].log_z == pytest.approx(0.0, abs=1e-6)
    assert all(value.net <= 0 for value in values.values())


def test_laplace_claims_that_cannot_be_are_found_without_a_sample(planters, values):
    """At λ = 10 nat/disagreement the volumes say that agreement explains the data better than with certainty (design:
    a net of +52); at λ = 1 no claim is impossible."""
    plant = planters["init"]
    modes = plant.modes(plant.pair("truth", "person"), jnp.asarray(10.0))
    claim, data_claim = (float(modes[with_data].volume - modes[with_data].energy) for with_data in (False, True))
    check = check_modes(UNKNOWN, None, claim, data_claim)
    assert check.gap == data_claim - claim > LIMIT
    assert check.worst.of == "the net"
    assert all(check_modes(UNKNOWN, None, value.log_z, value.log_z_data).gap < 1e-6 for value in values.values())


def test_annealing_refutes_the_laplace_value_that_prefers_the_honest_pair(planters, values):
    """log Z lies 80 nat or more above what Laplace claims, so that −log Z does not pay what imitation has ahead."""
    plant = planters["init"]
    claim = values["init", "truth", "person"]
    low, value = plant.annealed(plant.pair("truth", "person"), False, jax.random.key(0), 300)
    assert claim.log_z < -100 and claim.log_z + 80 < low <= value < 0
    behind = values["init", "person", "person"].log_z_data - claim.log_z_data
    assert 0 < behind < -claim.log_z  # what the honest pair lacks, and Laplace's log Z would pay
