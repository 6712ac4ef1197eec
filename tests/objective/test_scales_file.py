"""Files of scales: what is written is read, and each mistake is told with the key, the file and the tensor."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from honest.errors import UserError
from honest.objective.parameter_prior import scales_file
from honest.units import Quantity, UnitError, displacement

TRUNK, HEAD = displacement("trunk"), displacement("head")
KEY = "objective.first_prior.trunk.scales.path"
SHAPES = {"blocks": [{"kernel": (2, 3)}, {"kernel": (2, 3)}], "embedding": (4,)}
GROUP = jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32), SHAPES, is_leaf=lambda node: isinstance(node, tuple)
)
NAMES = ["blocks/0/kernel", "blocks/1/kernel", "embedding"]


def arrays():
    rng = np.random.default_rng(0)
    shapes = dict(zip(NAMES, [(2, 3), (2, 3), (4,)]))
    return {name: rng.uniform(0.1, 2.0, shape).astype(np.float32) for name, shape in shapes.items()}


def saved(path, changes=None, unit="θ.trunk"):
    """A good file with `changes`; None takes an entry out."""
    entries = {**arrays(), "unit": unit, **(changes or {})}
    np.savez(path, **{name: value for name, value in entries.items() if value is not None})
    return path


def message(path):
    with pytest.raises(UserError) as error:
        scales_file.read(path, GROUP, TRUNK, KEY)
    text = str(error.value)
    assert text.startswith(f"{KEY}: {path}: ")
    return text.removeprefix(f"{KEY}: {path}: ")


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "scales.npz"
    scales_file.write(path, {name: Quantity(array, TRUNK) for name, array in arrays().items()})
    made = scales_file.read(path, GROUP, TRUNK, KEY)
    tensors = [made.tensors["blocks"][0]["kernel"], made.tensors["blocks"][1]["kernel"], made.tensors["embedding"]]
    for scale, expected in zip(tensors, arrays().values()):
        assert scale.left is None and scale.right is None
        assert scale.stddev.unit == TRUNK and scale.stddev.dtype == jnp.float32
        np.testing.assert_array_equal(scale.stddev.to(TRUNK), expected)


def test_a_file_is_what_savez_makes_with_one_number_for_a_tensor_and_any_spelling_of_the_unit(tmp_path):
    path = saved(tmp_path / "s.npz", {"embedding": np.float64(0.25)}, unit="theta.trunk")
    scale = scales_file.read(path, GROUP, TRUNK, KEY).tensors["embedding"].stddev
    assert scale.shape == () and float(scale.to(TRUNK)) == 0.25 and scale.dtype == jnp.float32


def test_nothing_is_overwritten(tmp_path):
    path = tmp_path / "s.npz"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        scales_file.write(path, {"w": Quantity(1.0, TRUNK)})
    assert path.read_text() == "mine"


def test_a_file_has_one_unit(tmp_path):
    with pytest.raises(UnitError, match=r"one unit, not \['θ.head', 'θ.trunk'\]"):
        scales_file.write(tmp_path / "s.npz", {"a": Quantity(1.0, TRUNK), "b": Quantity(1.0, HEAD)})
    assert not (tmp_path / "s.npz").exists()


GROUPS_TENSORS = f"the group's tensors are {', '.join(NAMES)}"
BAD = "embedding must hold positive, finite numbers in θ.trunk"
ONES = np.ones(4)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"unit": None}, "has no entry 'unit'; add unit='θ.trunk'"),
        ({"unit": "θ.head"}, "is in θ.head, not θ.trunk"),
        ({"unit": "θ.trunk²"}, "is in θ.trunk², not θ.trunk"),
        ({"embedding": None}, f"has no tensor 'embedding'; {GROUPS_TENSORS}"),
        ({"embeding": ONES}, f"has an unknown tensor 'embeding'; {GROUPS_TENSORS}"),
        ({"embedding": np.ones(5)}, "embedding has shape (5,), expected (4,) or one number"),
        ({"embedding": np.ones((4, 1))}, "embedding has shape (4, 1), expected (4,) or one number"),
        ({"embedding": np.array([1.0, 0.0, 1.0, 1.0])}, BAD),
        ({"embedding": -ONES}, BAD),
        ({"embedding": np.float64(0.0)}, BAD),
        ({"embedding": np.nan * ONES}, BAD),
        ({"embedding": np.inf * ONES}, BAD),
        ({"embedding": np.array(["a"] * 4)}, BAD),
        ({"embedding": 1j * ONES}, BAD),
        ({"embedding": 1e-60 * ONES}, BAD),  # zero in the parameters' single precision
        ({"embedding": 1e60 * ONES}, BAD),  # infinite in it
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_a_mistake_is_told_with_what_was_expected(tmp_path, changes, expected):
    assert message(saved(tmp_path / "s.npz", changes)) == expected


def test_an_unknown_unit_is_told(tmp_path):
    assert "cannot read 'metres' in the unit 'metres'" in message(saved(tmp_path / "s.npz", unit="metres"))


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "truncated", "npy", "objects"])
def test_what_is_no_npz_of_numbers_is_told(tmp_path, kind):
    path = tmp_path / "s.npz"
    good = saved(tmp_path / "good.npz").read_bytes()
    match kind:
        case "folder":
            path.mkdir()
        case "text":
            path.write_text("embedding: 1.0 θ.trunk")
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(good[: len(good) // 2])
        case "npy":
            with path.open("wb") as file:
                np.save(file, ONES)
        case "objects":
            np.savez(path, allow_pickle=True, unit="θ.trunk", embedding=np.array([{}], dtype=object))
    assert re.fullmatch(r"cannot be read as \.npz \(.+\); write it by np\.savez, with an entry 'unit'", message(path))


def test_an_object_array_runs_no_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.savez(tmp_path / "s.npz", unit="θ.trunk", embedding=np.array([Trap()], dtype=object))
    message(tmp_path / "s.npz")
    assert not (tmp_path / "sprung").exists()
