"""launch/planted_pairs.py on a model that is not trained: what its numbers are made of, and its populations."""

import jax
import numpy as np
import pytest

from honest.config_io import load_config
from honest.data.tasks import build_task
from honest.train.sharding import make_mesh
from honest.train.spec import HEADS
from honest.train.stage import make_run
from launch import planted_pairs as pairs
from launch.planted import BASE, CONFIG, spec_of

ROWS = "task.rows={world: 32, trusted: 256, untrusted: 32, validation: 16, test: 32}"
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def run():
    changes = [ROWS, "model.layers=1", "model.width=8", "model.head.hidden=4", "objective.consistency.population=16"]
    config = load_config(CONFIG, changes).config
    return make_run(config, build_task(config.task), make_mesh(1))


@pytest.fixture(scope="module")
def judged(run):
    """(heads apart, one head twice): every term of both pairs."""
    setting = BASE._replace(population=16, labelled=8, world=4)
    anchor = run.anchor()
    given, starts = pairs.posterior_of(run, {"trunk": anchor["trunk"]}, setting)
    judge = pairs.Judge(spec_of(run, given.sets))
    apart = {slot: jax.tree.map(lambda leaf: 1.5 * leaf, anchor[slot]) for slot in HEADS}
    twice = dict.fromkeys(HEADS, anchor[HEADS[0]])
    return [pairs.judge_pair(judge, given, starts, run, heads, pairs.ROUND)[0] for heads in (apart, twice)]


def test_terms_add_up(judged):
    for line in judged:
        log_z = line["log_z_consistency"] + line["log_z_second_prior"] + line["log_z_volume"]
        assert line["log_z"] == pytest.approx(log_z, rel=1e-4, abs=1e-3)
        data = sum(value for name, value in line.items() if name.startswith("log_z_data_data_"))
        log_z_data = data + sum(line[f"log_z_data_{name}"] for name in ("consistency", "second_prior", "volume"))
        assert line["log_z_data"] == pytest.approx(log_z_data, rel=1e-4, abs=1e-3)
        assert line["net"] == line["log_z_data"] - line["log_z"]
        assert line["posterior"] == line["net"] + line["first_prior"]
        assert line["log_z_data"] < line["log_z"] <= 0


def test_one_head_twice_agrees_for_nothing(judged):
    apart, twice = judged
    assert twice["log_z"] == pytest.approx(0.0, abs=1e-5) and apart["log_z"] < -1


def test_the_first_prior_is_half_the_squared_distance(judged, run):
    anchor = run.anchor()
    square = sum(float(np.sum(np.square(leaf))) for slot in HEADS for leaf in jax.tree.leaves(anchor[slot]))
    assert judged[0]["first_prior"] == pytest.approx(-0.5 * 0.25 * square, rel=1e-5)  # moved by half of itself


def test_populations(run):
    broad, narrow = (
        pairs.declared_sets(run, BASE._replace(population=64, labelled=8, world=4, breadth=breadth)).consistency
        for breadth in ("broad", "narrow")
    )
    assert broad.tokens_BxL.shape == narrow.tokens_BxL.shape and broad.tokens_BxL.shape[0] == 64
    kinds = [len(np.unique(np.asarray(rows.tokens_BxL), axis=0)) for rows in (broad, narrow)]
    assert kinds[1] <= 64 // 16 < kinds[0]
    withheld = pairs.declared_sets(run, BASE._replace(instrumental="none"))
    assert withheld.untrusted is None
