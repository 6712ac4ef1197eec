"""No truth about an untrusted or a test row reaches a trainer, but through the ways that are declared.

The canary: two tasks that are alike in everything but the truth of untrusted and test rows. Whatever is trained must
be the same bit for bit on both, except for the truth-trained ceiling, amplified labels and comparisons, by which the
canary must be seen: else this test could not fail.
"""

from dataclasses import replace

import jax
import numpy as np
import pytest

from honest.baselines import METHODS, PROBES
from honest.config_io import load_config
from honest.data.batch import Splits
from honest.data.tasks import build_task
from honest.report.probes import Probing
from honest.train.loop import batch_at
from honest.train.prior_stage import prior_sets
from honest.train.sharding import make_mesh
from honest.train.stage import TRUNK, make_run
from honest.train.stages import make_stage, method_stage
from honest.train.step import Inputs, train_step
from tests.conftest import write_tiny

HELP = (
    "objective.supervision.amplified={share: 0.2, error_rate: 0.0}",
    "objective.supervision.comparisons={asked: 100, abstain_rate: 0.1, error_rate: 0.0}",
)
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(autouse=True)
def double():
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def lied_to(splits: Splits) -> Splits:
    """The truth of every untrusted training row and of every test row is turned round."""
    trusted = splits.trusted.label_B.shape[0]
    ceiling = np.array(splits.ceiling.label_B)
    ceiling[trusted:] = 1 - ceiling[trusted:]
    test = splits.test._replace(truth_B=1 - splits.test.truth_B, fooled_B=~splits.test.fooled_B)
    return splits._replace(ceiling=splits.ceiling._replace(label_B=ceiling), test=test)


def runs(tmp_path, *changes):
    config = load_config(write_tiny(tmp_path / "tiny.yaml", "task.answer_tokens=true", *changes)).config
    task = build_task(config.task)
    return [make_run(config, replace(task, splits=s), make_mesh(1)) for s in (task.splits, lied_to(task.splits))]


def same(a, b) -> bool:
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b))


def trained(run, stage):
    """Two steps by the project's own train step."""
    state = stage.init()
    step = jax.jit(lambda state, sets: train_step(stage.spec, stage.mode_optimizer, state, Inputs(sets, sets, None))[0])
    for _ in range(2):
        state = step(state, batch_at(stage.batch_rows, stage.seed, stage.sets, state.step))
    return state.params


def test_what_trains_does_not_see_the_canary(tmp_path):
    one, other = runs(tmp_path)
    assert same(make_stage(one, TRUNK, {}).sets, make_stage(other, TRUNK, {}).sets)
    assert same(prior_sets(one.config, one.task), prior_sets(other.config, other.task))
    trunk = {"trunk": one.anchor()["trunk"]}
    for name, method in METHODS.items():
        found = [method_stage(run, method, trunk) for run in (one, other)]
        blind = same(*(stage.sets for stage in found))
        assert blind == (name != "truth_ceiling"), name
        if name in ("divdis", "truth_ceiling"):
            assert same(*(trained(run, stage) for run, stage in zip((one, other), found))) == blind
    probing = [Probing(run, trunk["trunk"]) for run in (one, other)]
    for name in PROBES:
        assert same(*(of.logits(name) for of in probing)), name


@pytest.mark.parametrize("way", HELP)
def test_declared_help_carries_it(tmp_path, way):
    one, other = runs(tmp_path, way)
    assert not same(prior_sets(one.config, one.task), prior_sets(other.config, other.task))
    sizes = [prior_sets(run.config, run.task).consistency.label_B.shape[0] for run in (one, other)]
    assert sizes == [64, 64]
    agreement = [prior_sets(run.config, run.task).consistency for run in (one, other)]
    assert same(*agreement)  # the heads are not asked to agree on amplified rows
