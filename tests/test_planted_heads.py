"""The planted-heads table of the design, reproduced in sign by the project's own objective at its own size."""

from __future__ import annotations

import jax
import pytest

from tests.planted_heads import Planter, make_toy


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def values(float64):
    """Laplace values at σ2 = 1 θ.trunk, λ = 1 nat/disagreement, seed 0, by anchor and planted pair."""
    toy = make_toy(0, 1.0, 1.0)
    found = {}
    for anchor in ("init", "trained"):
        plant = Planter(toy, anchor, steps=150)
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
