"""launch/planted_evidence.py on a model that is not trained: its terms, its divergence, and which rows it draws."""

import argparse
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
from launch.planted import BASE, CONFIG, Prepared, print_table
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
    terms = evidence.terms(made.heads["apart"], given, u)
    weight = phases.log_weight(
        evidence.spec, made.heads["apart"], given.held, given.weight, given.sets, with_data=True, whole=True
    )
    total = sum(float(value) for tag, value in terms.items() if tag != "violation")
    assert total == pytest.approx(float(weight(u)), rel=1e-5)
    assert total < 0 and any(tag.startswith("data") for tag in terms) and float(terms["consistency"]) < 0


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


def test_the_consistency_population_is_the_settings(made):
    given, _ = planted_evidence.posterior(made, BASE._replace(population=5))
    assert size(given.sets.consistency) == 5 < size(given.sets.trusted)
    assert planted_evidence.Evidence(made.run, given.sets).spec.counts.consistency == 5


def test_one_head_twice_agrees_for_nothing(made):
    """log Z = 0 exactly; heads apart cost something, and what draws from the prior say of it lies within the bounds."""
    given, start = planted_evidence.posterior(made, BASE._replace(population=16))
    evidence = planted_evidence.Evidence(made.run, given.sets)
    twice = dict.fromkeys(HEADS, made.heads["apart"][HEADS[0]])
    same, apart = (evidence.anneal(heads, given, start, jax.random.key(0)) for heads in (twice, made.heads["apart"]))
    assert float(same["log_z_value"]) == pytest.approx(0.0, abs=1e-4)
    target = phases.log_weight(
        evidence.spec, made.heads["apart"], given.held, given.weight, given.sets, with_data=False, whole=True
    )

    def at_draw(key):
        own = jax.random.split(key, len(jax.tree.leaves(start)))
        draws = [jax.random.normal(k, leaf.shape) for k, leaf in zip(own, jax.tree.leaves(start))]
        return target(jax.tree.unflatten(jax.tree.structure(start), draws))

    weight = jax.jit(lambda keys: jax.lax.map(at_draw, keys))(jax.random.split(jax.random.key(1), 4000))
    expected = float(jax.nn.logsumexp(weight)) - np.log(4000)
    assert float(apart["log_z_lower"]) < expected < -0.1
    assert float(apart["log_z_value"]) == pytest.approx(expected, abs=0.5)


def test_cases_and_their_order():
    """Settings with data are repeated, log Z alone is not; a task's seed comes at once, so that it is trained once."""
    options = argparse.Namespace(
        tasks=["world"],
        seeds=[0, 1],
        pairs=["truth, person"],
        settings=["base"],
        log_z_settings=["lambda 1"],
        repeats=2,
    )
    made = planted_evidence.cases(options)
    assert [(case.seed, case.setting.multiplier, case.repeat, case.with_data) for case in made] == [
        (seed, *rest) for seed in (0, 1) for rest in ((10.0, 0, True), (10.0, 1, True), (1.0, 0, False))
    ]


def test_the_table_averages_repeats_and_pairs_seeds(tmp_path, capsys):
    numbers = {("truth, person", 0): (3.0, 5.0), ("truth, person", 1): (4.0,), ("single, single", 0): (1.0,)}
    rows = [
        {"setting": "s", "pair": pair, "seed": seed, "repeat": index, "posterior": value}
        for (pair, seed), values in numbers.items()
        for index, value in enumerate(values)
    ]
    rows.append({"setting": "s", "pair": "person, person", "seed": 0, "repeat": 0, "log_z_value": -2.0})
    print_table(rows, tmp_path / "table.csv", ("log_z_value", "posterior"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["truth,", "person", "posterior", "4.00"] in lines  # of 4 (the mean of 3 and 5) and 4
    assert ["single,", "single", "posterior", "1.00"] in lines
    assert ["person,", "person", "log_z_value", "-2.00"] in lines  # has no posterior to compare
    assert [line for line in lines if line[:1] == ["honest"]] == [
        ["honest", "ahead", "by", "3.0", "[nan,", "nan]", "nat"]
    ]
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 6
