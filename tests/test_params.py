"""Tree arithmetic on parameter groups, with the units of its distances."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from honest.params import (
    difference,
    dimension,
    dot,
    head_cosine,
    head_distance,
    over_particles,
    resample,
    select,
    squared_distance,
    squared_norm,
    whiten,
)
from honest.units import UnitError, displacement, nat
from tests.priors import gaussian

TRUNK, HEAD = displacement("trunk"), displacement("head")


@pytest.fixture(autouse=True)
def strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield


def toy_params(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {
        "trunk": {"a": (2, 3), "b": (4,)},
        "intended_head": {"kernel": (3, 2)},
        "instrumental_head": {"kernel": (3, 2)},
    }
    draw = lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return jax.tree.map(draw, shapes, is_leaf=lambda node: isinstance(node, tuple))


def test_select_and_dimension():
    params = toy_params()
    assert list(select(params, ("trunk", "intended_head"))) == ["trunk", "intended_head"]
    assert select(params, ("trunk",))["trunk"] is params["trunk"]
    assert dimension(params) == 2 * 3 + 4 + 3 * 2 + 3 * 2
    assert dimension({"scalar": jnp.zeros(())}) == 1
    assert dimension({}) == 0


def test_norm_dot_and_difference_by_hand():
    a = {"x": jnp.array([1.0, 2.0]), "y": jnp.array([[3.0]])}
    b = {"x": jnp.array([4.0, -1.0]), "y": jnp.array([[0.5]])}
    assert float(squared_norm(a)) == 14.0
    assert float(dot(a, b)) == 4.0 - 2.0 + 1.5
    assert float(squared_norm(difference(a, b))) == 9.0 + 9.0 + 6.25


@pytest.mark.parametrize(
    ("group", "unit"), [("trunk", TRUNK), ("intended_head", HEAD), ("instrumental_head", HEAD)], ids=str
)
def test_squared_distance_is_in_the_square_of_its_groups_unit(group, unit):
    params, centre = toy_params(0), toy_params(1)
    result = squared_distance(params, centre, group)
    assert result.unit == unit**2
    leaves = zip(jax.tree.leaves(params[group]), jax.tree.leaves(centre[group]))
    expected = sum(np.sum((np.asarray(a, float) - np.asarray(b, float)) ** 2) for a, b in leaves)
    assert float(result.to(unit**2)) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(UnitError, match="missing factor"):
        result.to(nat)


def test_distances_of_trunk_and_heads_do_not_add():
    params, centre = toy_params(0), toy_params(1)
    heads = squared_distance(params, centre, "intended_head") + squared_distance(params, centre, "instrumental_head")
    assert heads.unit == HEAD**2
    with pytest.raises(UnitError):
        heads + squared_distance(params, centre, "trunk")


def two_heads(intended, instrumental):
    return {"intended_head": {"w": jnp.array(intended)}, "instrumental_head": {"w": jnp.array(instrumental)}}


def test_head_distance_by_hand():
    result = head_distance(two_heads([1.0, 2.0], [4.0, -2.0]))
    assert result.unit == HEAD
    assert float(result.to(HEAD)) == 5.0


@pytest.mark.parametrize(
    ("intended", "instrumental", "cosine"),
    [
        ([3.0, 4.0], [6.0, 8.0], 1.0),
        ([3.0, 4.0], [-3.0, -4.0], -1.0),
        ([3.0, 4.0], [-4.0, 3.0], 0.0),
        ([1.0, 0.0], [1.0, 1.0], 0.5**0.5),
        ([0.0, 0.0], [1.0, 1.0], 0.0),
    ],
)
def test_head_cosine_by_hand(intended, instrumental, cosine):
    assert float(head_cosine(two_heads(intended, instrumental))) == pytest.approx(cosine, abs=1e-6)


def test_resample_by_hand_leaves_other_groups_alone():
    others = toy_params()
    centre = {"trunk": {"a": jnp.array([1.0])}}
    u = {"trunk": {"a": jnp.array([-2.0])}}
    moved = resample(centre, u, {"trunk": gaussian(centre, "trunk", 0.3)}, others)
    assert float(moved["trunk"]["a"][0]) == pytest.approx(1.0 - 0.6)
    assert moved["intended_head"] is others["intended_head"]
    assert set(moved) == set(others)


def test_whiten_is_the_inverse_of_resample_with_one_stddev_a_group():
    groups, stddev = ("trunk", "intended_head"), {"trunk": 0.02, "intended_head": 3.0}
    centre, u, others = toy_params(0), select(toy_params(1), groups), toy_params(2)
    metric = {group: gaussian(centre, group, stddev[group]) for group in groups}
    theta = resample(select(centre, groups), u, metric, others)
    back = whiten(theta, centre, metric, groups)
    assert set(back) == set(groups)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), back, u)
    # d²/σ² is |u|²
    whitened = float(squared_distance(theta, centre, "trunk").to(TRUNK**2)) / 0.02**2
    assert whitened == pytest.approx(float(squared_norm(u["trunk"])), rel=1e-4)


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("particles", [1, 3])
def test_over_particles_stacks_one_result_for_each(particles, batch):
    leaf = jnp.arange(particles * 4.0).reshape(particles, 4)
    result = over_particles(lambda u: {"sum": jnp.sum(u["x"]), "twice": 2 * u["x"]}, {"x": leaf}, batch)
    np.testing.assert_array_equal(result["sum"], leaf.sum(axis=1))
    np.testing.assert_array_equal(result["twice"], 2 * leaf)
