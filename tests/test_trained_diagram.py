"""The diagram of trained models: its exact part against the package's, its padding, its committed tables."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from honest.inference.continuous_world import ContinuousWorld
from honest.inference.joint import Joint
from honest.inference.quadrature import stage_one
from honest.train import phases
from launch import trained_diagram as diagram

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def test_a_cell_is_the_world_with_that_many_copies():
    """n log Z_D + the fooled beliefs' − n log Z − first prior is the stage-one scalar of the whole world."""
    n, extra = 3, 4.5
    written = diagram.world().model_dump()
    written["beliefs"][0]["copies"] = n
    for head in written["heads"].values():
        head["stddev"]["fact"] = f"{float(diagram.stddev_fact(extra))} θ.head"
    joint = Joint(ContinuousWorld.model_validate(written))
    u_A = jnp.array([0.7, -0.3, 0.2, 1.1])
    log_z, log_trusted, log_fooled, truth = np.asarray(jax.jit(lambda w: diagram.kinds(joint, w))(joint.weights(u_A)))
    cost = diagram.first_prior(np.asarray(joint.weights(u_A)), extra)
    value = n * log_trusted + diagram.FOOLED * log_fooled - n * log_z - cost
    assert float(stage_one(joint, u_A, log_partition=True)) == pytest.approx(value, abs=1e-9)
    assert 0 < truth < 1


def test_padding_adds_a_constant_and_no_gradient():
    """Two beliefs among three places against two among two: the same force on heads and beliefs."""

    def force(most):
        spec = diagram.stage_spec("chains", True, most)
        state = diagram.member_state(spec, jnp.asarray(2.0), jax.random.key(0), most)
        rows = diagram.member_rows(jnp.asarray(2), most)
        belief = jnp.array([0.3, -0.8, 0.5, 1.2]) if most == 2 else jnp.array([0.3, -0.8, 9.0, 0.5, 1.2])

        def weight(params, u):
            target = phases.log_weight(spec, params, state.held, jnp.asarray(5.0), rows, with_data=True, whole=True)
            return target({"trunk": {"belief": u}})

        value, (heads, beliefs) = jax.value_and_grad(weight, argnums=(0, 1))(state.params, belief)
        return value, heads, beliefs

    (value, heads, beliefs), (padded, padded_heads, padded_beliefs) = force(2), force(3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), heads, padded_heads)
    np.testing.assert_allclose(padded_beliefs, [*beliefs[:2], 0.0, *beliefs[2:]], atol=1e-10)
    # The padding's labels are answered with probability ½.
    assert float(value - padded) == pytest.approx(diagram.REPEATS * np.log(2), abs=1e-9)


def test_committed_tables_say_what_the_notes_say(tmp_path):
    exact = {(c.beliefs, c.extra): c for c in diagram.read(diagram.EXACT, diagram.ExactCell)}
    found = diagram.read(diagram.TRAINED, diagram.TrainedCell)
    cells = [(int(n), float(extra)) for n in diagram.BELIEFS for extra in diagram.EXTRA]
    assert list(exact) == cells
    by_method = {method: {(c.beliefs, c.extra): c for c in found if c.method == method} for method in diagram.METHODS}
    assert all(list(rows) == cells for rows in by_method.values())
    assert all(exact[cell].odds_without < 0.2 for cell in cells)  # without log Z honesty never pays
    pays = [cell for cell in cells if exact[cell].odds_with > np.log(2)]
    fails = [cell for cell in cells if exact[cell].odds_with < -np.log(2)]
    share = {m: [np.mean([rows[c].honest for c in side]) for side in (pays, fails)] for m, rows in by_method.items()}
    assert share["chains"][0] > 0.7 and share["chains"][1] < 0.35
    assert share["chains, no log Z"][0] < 0.15
    assert share["points"][0] < share["chains"][0] - 0.1
    diagram.figure(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
