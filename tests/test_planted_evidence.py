"""launch/planted_evidence.py on a model that is not trained: its terms, its divergence, and which rows it draws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from honest.config_io import load_config
from honest.data.tasks import build_task
from honest.objective.predictions import size
from honest.train import phases
from honest.train.sharding import make_mesh
from honest.train.spec import HEADS
from honest.train.stage import make_run
from launch import planted_evidence
from launch.planted import BASE, CONFIG, Prepared
from tests.test_planted_pairs import ROWS

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def made():
    changes = [ROWS, "model.layers=1", "model.width=8", "model.head.hidden=4", "objective.consistency.population=16"]
    config = load_config(CONFIG, changes).config
    run = make_run(config, build_task(config.task), make_mesh(1))
    anchor = run.anchor()
    apart = {slot: jax.tree.map(lambda leaf: 1.5 * leaf, anchor[slot]) for slot in HEADS}
    return Prepared(run, {"trunk": anchor["trunk"]}, {"apart": apart})


def test_terms_are_those_of_the_log_weight(made):
    given, start = planted_evidence.posterior(made, BASE)
    evidence = planted_evidence.Evidence(made.run, given.sets)
    u = jax.tree.map(lambda leaf: leaf + 0.1, start)
    for with_data in (False, True):
        terms = evidence.terms(with_data, made.heads["apart"], given, u)
        weight = phases.log_weight(
            evidence.spec, made.heads["apart"], given.held, given.weight, given.sets, with_data=with_data, whole=True
        )
        total = sum(float(value) for tag, value in terms.items() if tag != "violation")
        assert total == pytest.approx(float(weight(u)), rel=1e-5)
        assert total < 0 and any(tag.startswith("data") for tag in terms) == with_data


def test_a_batch_estimates_the_whole_sets_weight(made):
    """Unbiased over draws: the mean of many batches, within four standard errors of the whole."""
    given, start = planted_evidence.posterior(made, BASE)
    evidence = planted_evidence.Evidence(made.run, given.sets)
    make = partial(phases.log_weight, evidence.spec, made.heads["apart"], given.held, given.weight, with_data=True)
    estimate = jax.jit(lambda key: make(planted_evidence.draw(given.sets, key), whole=False)(start))
    estimates = np.array([estimate(key) for key in jax.random.split(jax.random.key(0), 200)])
    whole = float(make(given.sets, whole=True)(start))
    error = estimates.std() / np.sqrt(len(estimates))
    assert 0 < error < 0.02 * abs(whole)
    assert abs(estimates.mean() - whole) < 4 * error


def test_divergence_by_sampling():
    mean, scale = np.array([0.5, -2.0]), np.array([0.3, 1.7])
    draws = mean + scale * np.random.default_rng(0).normal(size=(400_000, 2))
    ratio = (norm.logpdf(draws, mean, scale) - norm.logpdf(draws)).sum(1)
    found = float(planted_evidence.divergence_from_prior(jnp.asarray(mean), jnp.asarray(scale)))
    assert found == pytest.approx(ratio.mean(), abs=4 * ratio.std() / np.sqrt(len(ratio)))


def test_draws_are_rows_of_their_set(made):
    given, _ = planted_evidence.posterior(made, BASE._replace(instrumental="none"))
    batch = planted_evidence.draw(given.sets, jax.random.key(0))
    assert batch.untrusted is None and size(batch.trusted) == planted_evidence.BATCH_ROWS
    questions = {tuple(row) for row in np.asarray(given.sets.world.tokens_BxL)}
    assert {tuple(row) for row in np.asarray(batch.world.tokens_BxL)} <= questions


def test_one_head_twice_agrees_for_nothing(made):
    """log Z = 0 exactly; heads apart cost something, and the bounds hold that."""
    given, start = planted_evidence.posterior(made, BASE)
    evidence = planted_evidence.Evidence(made.run, given.sets)
    twice = dict.fromkeys(HEADS, made.heads["apart"][HEADS[0]])
    same, apart = (evidence.anneal(heads, given, start, jax.random.key(0)) for heads in (twice, made.heads["apart"]))
    assert float(same["log_z_annealed_value"]) == pytest.approx(0.0, abs=1e-4)
    value = float(apart["log_z_annealed_value"])
    assert float(apart["log_z_annealed_lower"]) < value < -0.1
