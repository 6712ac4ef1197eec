"""Checkpoints: bit-identical round trips, half-written ones, trees that do not fit."""

import json
import os
import signal
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from honest.errors import UserError
from honest.train.checkpoint import Checkpoints


class Chain(NamedTuple):
    position: np.ndarray
    key: jax.Array
    nothing: tuple


def bits(leaf) -> bytes:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(leaf.dtype).encode() + np.asarray(jax.random.key_data(leaf)).tobytes()
    return str(leaf.dtype).encode() + str(leaf.shape).encode() + np.asarray(leaf).tobytes()


def assert_identical(first, second):
    assert repr(jax.tree.structure(first)) == repr(jax.tree.structure(second))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert bits(a) == bits(b)


def awkward_state():
    """Everything that a training state may hold, values that a cast or a decimal text would change."""
    params = {
        "w": jnp.array([[1e-45, -0.0, jnp.nan], [jnp.inf, 1 / 3, 7.0]], jnp.float32),
        "b": jnp.ones(2, jnp.bfloat16),
    }
    keys = jax.random.split(jax.random.key(7), 3)
    return {
        "params": params,
        "optimizer": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)).init(params),
        "chain": Chain(np.linspace(0, 1, 5) / 3, keys, ()),
        "other generator": jax.random.key(5, impl="rbg"),
        "raw key": jax.random.PRNGKey(11),
        "step": jnp.int32(2**31 - 1),
        "multiplier": np.float64(0.1) + np.float64(0.2),
        "flag": jnp.array(True),
        "none": None,
        "empty": (),
        "no rows": jnp.zeros((0, 4), jnp.int8),
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One directory with three saves, of which two are kept."""
    directory = tmp_path_factory.mktemp("checkpoints")
    checkpoints = Checkpoints(directory, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, {**awkward_state(), "count": jnp.int32(step)}, [{"step": step, "value": 0.1}])
    checkpoints.close()
    return directory


def test_round_trip_is_bit_identical(written):
    state = {**awkward_state(), "count": jnp.int32(3)}
    restored, pending = Checkpoints(written, keep=2).restore(3, jax.tree.map(lambda leaf: leaf, state))
    assert_identical(restored, state)
    assert pending == [{"step": 3, "value": 0.1}]
    assert isinstance(restored["multiplier"], np.float64)
    assert isinstance(restored["chain"], Chain) and isinstance(restored["chain"].position, np.ndarray)
    # the keys still draw what they drew
    first, second = (jax.random.normal(s["chain"].key[1], (4,)) for s in (state, restored))
    np.testing.assert_array_equal(first, second)


def test_abstract_tree_and_older_step(written):
    state = {**awkward_state(), "count": jnp.int32(2)}
    device = SingleDeviceSharding(jax.devices()[0])

    def abstract(leaf):
        if isinstance(leaf, jax.Array):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)
        return leaf

    restored, pending = Checkpoints(written, keep=2).restore(2, jax.tree.map(abstract, state))
    assert_identical(restored, state)
    assert pending[0]["step"] == 2
    without = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype) if isinstance(x, jax.Array) else x, state)
    assert_identical(Checkpoints(written, keep=2).restore(2, without)[0], state)


def test_float64_of_jax(tmp_path):
    with jax.enable_x64(True):
        state = {"x": jnp.array([0.1, 2**-1074, 1 + 2**-52], jnp.float64), "n": jnp.int64(2**40 + 1)}
        checkpoints = Checkpoints(tmp_path, keep=1)
        checkpoints.save(1, state, [])
        checkpoints.wait()
        restored, _ = checkpoints.restore(1, state)
        assert isinstance(restored["x"], jax.Array)
        assert_identical(restored, state)


def test_restored_with_the_sharding_asked_for(written):
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    sharded = NamedSharding(mesh, PartitionSpec("data"))
    state = {**awkward_state(), "count": jnp.int32(3)}
    keys = jax.ShapeDtypeStruct((3,), state["chain"].key.dtype, sharding=sharded)
    weights = jax.ShapeDtypeStruct((2, 3), jnp.float32, sharding=sharded)
    like = {**state, "chain": state["chain"]._replace(key=keys), "params": {**state["params"], "w": weights}}
    restored, _ = Checkpoints(written, keep=2).restore(3, like)
    assert restored["params"]["w"].sharding == sharded
    assert_identical(restored, state)


def test_only_the_newest_are_kept_and_none_is_overwritten(written):
    checkpoints = Checkpoints(written, keep=2)
    assert checkpoints.committed_steps() == [2, 3]
    assert checkpoints.latest() == 3
    assert sorted(path.name for path in written.iterdir()) == ["2", "3"]
    for step in (1, 3):
        with pytest.raises(ValueError, match="step 3 is committed already"):
            checkpoints.save(step, {"x": jnp.ones(1)}, [])


def test_reading_an_absent_directory_makes_nothing(tmp_path):
    checkpoints = Checkpoints(tmp_path / "absent", keep=1)
    assert checkpoints.committed_steps() == [] and checkpoints.latest() is None
    with pytest.raises(UserError, match="no committed checkpoint of step 4"):
        checkpoints.restore(4, {})
    checkpoints.wait()
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": jnp.ones(2)}, r"state\['extra'\]: not in the checkpoint"),
        ({"step": None}, r"state\['step'\]: only in the checkpoint"),
        ({"step": jnp.float32(0)}, r"state\['step'\]: int32\[\] in the checkpoint, float32\[\] expected"),
        ({"raw key": jnp.zeros(3, jnp.uint32)}, r"uint32\[2\] in the checkpoint, uint32\[3\] expected"),
        ({"other generator": jax.random.key(5)}, r"key<rbg>\[\] in the checkpoint, key<fry>\[\] expected"),
    ],
)
def test_another_tree_is_a_user_error(written, change, message):
    like = {**awkward_state(), "count": jnp.int32(3), **change}
    with pytest.raises(UserError, match=message):
        Checkpoints(written, keep=2).restore(3, like)


def test_leaves_must_be_arrays(tmp_path):
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a float"):
        Checkpoints(tmp_path, keep=1).save(1, {"a": (jnp.ones(1), 0.5)}, [])
    with pytest.raises(ValueError, match="at least 1"):
        Checkpoints(tmp_path, keep=0)


def test_buffers_may_be_donated_and_overwritten_at_once(tmp_path):
    step = jax.jit(lambda x: 0 * x - 1, donate_argnums=0)
    checkpoints = Checkpoints(tmp_path, keep=2)
    for number in (1, 2):
        device, host = jax.random.normal(jax.random.key(number), (500, 1000)), np.arange(1000.0)
        expected = np.array(device, copy=True)
        checkpoints.save(number, {"device": device, "host": host}, [])
        host[:] = 0
        later = step(step(device))
        jax.block_until_ready(later)
        checkpoints.wait()
        restored, _ = checkpoints.restore(number, {"device": later, "host": host})
        np.testing.assert_array_equal(restored["device"], expected)
        np.testing.assert_array_equal(restored["host"], np.arange(1000.0))
    checkpoints.close()


def test_an_error_in_the_background_is_raised(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, {"x": jnp.ones(1)}, [])
    checkpoints.wait()
    with pytest.raises(TypeError, match="JSON"):  # raised by the save itself or by the wait for it
        checkpoints.save(2, {"x": jnp.ones(1)}, [object()])
        checkpoints.wait()
    assert checkpoints.committed_steps() == [1]


KILLED = """
import os, signal, sys
import numpy as np
from honest.train.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1], keep=5)
checkpoints.save(1, {"x": np.arange(3.0)}, ["first"])
checkpoints.wait()
checkpoints.save(2, {"x": np.random.default_rng(0).normal(size=12_000_000)}, ["second"])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_in_the_middle_of_a_save(tmp_path):
    child = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=os.getcwd(), timeout=60)
    assert child.returncode == -signal.SIGKILL
    names = {path.name for path in tmp_path.iterdir()}
    assert "2" not in names and len(names) == 2, names  # the second is half-written
    (tmp_path / "9.orbax-checkpoint-tmp" / "state").mkdir(parents=True)  # and one of a step that does not come again
    checkpoints = Checkpoints(tmp_path, keep=5)
    assert checkpoints.committed_steps() == [1]
    assert json.dumps(checkpoints.restore(1, {"x": np.zeros(3)})[1]) == '["first"]'
    checkpoints.save(2, {"x": np.ones(2)}, ["again"])
    checkpoints.close()
    assert checkpoints.committed_steps() == [1, 2]
    restored, pending = checkpoints.restore(2, {"x": np.zeros(2)})
    assert pending == ["again"]
    np.testing.assert_array_equal(restored["x"], np.ones(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
