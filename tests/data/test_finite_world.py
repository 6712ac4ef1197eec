"""A finite world as a training task: truth and person by hand, targets, text, and specs that do not fit."""

import numpy as np
import pytest

from honest.config_io import ConfigError
from honest.config_tasks import WorldTask
from honest.data.tasks import build_task
from honest.data.vocabulary import DataError

# Two bits: the fact is their exclusive or; the belief is their or, wrong on input 3 (where both bits are 1) alone.
SPEC = """
inputs: 2
trusted: [0, 1, 2]
slots:
  fact: {tables: ["0011", "0110"], bits: [1, 2]}
  belief: {tables: ["0111"], bits: [0]}
readers:
  - {name: honest, table: "0011", bits: 3}
  - {name: imitating, table: "0101", bits: 1}
tied_bits: null
labels: {1: 1}
label_noise: 0.0
multiplier: .inf
"""
ROWS = {"world": 300, "trusted": 200, "untrusted": 100, "validation": 50, "test": 200}


@pytest.fixture
def build(tmp_path):
    def make(spec=SPEC, **changes):
        path = tmp_path / "spec.yaml"
        path.write_text(spec, encoding="utf-8")
        values = {
            "kind": "world",
            "path": str(path),
            "tables": {"fact": 1, "belief": 0},
            "truth": "honest",
            "person": "imitating",
            "nuisance_bits": 12,
            "trunk_targets": "slots",
            "rows": ROWS,
            "seed": 0,
        }
        return build_task(WorldTask.model_validate({**values, **changes}))

    return make


def bits_of(task, batch):
    texts = [task.decode(row) for row in batch.tokens_BxL]
    assert all(len(text) == 2 + 1 + 12 + 1 for text in texts)
    return np.array([[int(c) for c in text[:2]] for text in texts])


def test_truth_and_person_by_hand(build):
    task = build()
    s = task.splits
    trusted, untrusted, test = (bits_of(task, b) for b in (s.trusted, s.untrusted, s.test.batch))
    assert np.all(untrusted == 1) and not np.any(np.all(trusted == 1, axis=1))
    assert np.array_equal(s.trusted.label_B, trusted[:, 0] | trusted[:, 1]) and np.all(s.untrusted.label_B == 1)
    both = np.concatenate([trusted, untrusted])
    assert np.array_equal(s.ceiling.label_B, both[:, 0] ^ both[:, 1])
    assert np.array_equal(s.test.truth_B, test[:, 0] ^ test[:, 1])
    assert np.array_equal(s.test.person_B, test[:, 0] | test[:, 1])
    assert np.array_equal(s.test.fooled_B, np.all(test == 1, axis=1))
    assert np.array_equal(s.test.trusted_B, ~s.test.fooled_B)
    assert 0.15 < np.mean(s.test.fooled_B) < 0.35  # one input of four
    assert "fooled on the inputs 3;" in task.description and "honest exact spec.yaml" in task.description


def test_world_targets(build):
    task = build()
    world = task.splits.world
    bits = bits_of(task, world)
    expected = np.full((300, 16, 2), -1)
    expected[:, 15] = np.stack([bits[:, 0] ^ bits[:, 1], bits[:, 0] | bits[:, 1]], axis=1)
    assert np.array_equal(world.world_targets_BxLxT, expected)
    task = build(trunk_targets="next")
    world = task.splits.world
    text = task.decode(world.tokens_BxL[0])
    assert world.world_targets_BxLxT[0, :, 0].tolist() == [{"0": 0, "1": 1}.get(c, -1) for c in [*text[1:], ""]]


def test_what_a_person_types(build):
    task = build()
    assert task.decode(task.encode(" 01 ").tokens_BxL[0]) == "01 000000000000:"
    for text in ("1", "011", "01 1", "02", ""):
        with pytest.raises(DataError, match="cannot read the question"):
            task.encode(text)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tables": {"fact": 1}}, "task.tables"),
        ({"tables": {"fact": 2, "belief": 0}}, "task.tables.fact: is 2"),
        ({"truth": "nobody"}, "task.truth: there is no reader 'nobody'"),
        ({"tables": {"fact": 0, "belief": 0}}, "wrong on the trusted input 1"),
        ({"nuisance_bits": 1}, "task.nuisance_bits"),
        ({"spec": SPEC.replace("{1: 1}", "{1: 0}")}, "labels.1: is 0, but honest says 1"),
        ({"spec": SPEC.replace("[0, 1, 2]", "[0, 1, 2, 3]")}, "needs trusted inputs and others"),
    ],
)
def test_what_does_not_fit_is_refused(build, changes, says):
    with pytest.raises(DataError, match=says.replace("[", r"\[")):
        build(**changes)


def test_a_spec_with_mistakes_is_refused(build):
    with pytest.raises(ConfigError, match=r"spec\.yaml"):
        build(SPEC.replace('"0111"', '"011"'))
