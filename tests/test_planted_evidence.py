"""launch/planted_evidence.py on a model that is not trained: its terms by hand, and both integrals by sampling."""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from honest.config_io import load_config
from honest.data.tasks import build_task
from honest.objective.predictions import size
from honest.train import phases
from honest.train.prior_stage import prior_spec
from honest.train.sharding import make_mesh
from honest.train.spec import HEADS
from honest.train.stage import make_run
from launch import planted_evidence
from launch.planted import BASE, CONFIG, Prepared, print_table
from tests.test_planted_pairs import ROWS

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def made():
    changes = [ROWS, "model.layers=1", "model.width=8", "model.head.hidden=4"]
    config = load_config(CONFIG, changes).config
    run = make_run(config, build_task(config.task), make_mesh(1))
    anchor = run.anchor()
    apart = {slot: jax.tree.map(lambda leaf: 1.5 * leaf, anchor[slot]) for slot in HEADS}
    return Prepared(run, {"trunk": anchor["trunk"]}, {"apart": apart})


SCALE = 0.005
SETTING = planted_evidence.GIVEN._replace(population=16, multiplier=1.0)


@pytest.fixture(scope="module")
def given_and_start(made):
    return planted_evidence.posterior(made.run, made.trunk, SETTING)


@pytest.fixture(scope="module")
def evidence(made, given_and_start):
    """With short paths: its integrals are easy ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planted_evidence, "BRIDGES", 60)
        patch.setattr(planted_evidence, "DATA_BRIDGES", 30)
        yield planted_evidence.Evidence(made.run, given_and_start[0].sets, 8)


def log_mean_exp_over_draws(weight, dimension, draws=1000):
    """log E[exp w(v)] over v ~ N(0, I) by plain sampling, for weights that vary by a few nats."""
    keys = jax.random.split(jax.random.key(1), draws)
    found = jax.jit(lambda keys: jax.lax.map(lambda key: weight(jax.random.normal(key, (dimension,))), keys))(keys)
    assert float(jnp.std(found)) < 3.0
    return float(jax.nn.logsumexp(found)) - np.log(draws)


def test_the_target_is_the_labels_and_the_disagreement(made, given_and_start, evidence):
    """At one point, by softmax and Jensen–Shannon in numpy."""
    given, start = given_and_start
    u = jax.tree.map(lambda leaf: leaf + 0.1, start)
    theta = phases.place(prior_spec(made.run.config), made.heads["apart"], given.held, u)

    def probabilities(rows, slot):
        logits = made.run.model.head_logits(theta, *rows[:2])[slot]
        return np.asarray(jax.nn.softmax(logits), np.float64)

    def nll(rows, slot):
        chosen = np.take_along_axis(probabilities(rows, slot), np.asarray(rows.label_B)[:, None], 1)
        return -np.log(chosen).sum()

    p, q = (probabilities(given.sets.consistency, slot) for slot in (0, 1))
    middle = (p + q) / 2
    shannon = 0.5 * (p * np.log(p / middle) + q * np.log(q / middle)).sum()
    expected = -nll(given.sets.trusted, 0) - nll(given.sets.untrusted, 1) - SETTING.multiplier * shannon
    target = evidence._target(made.heads["apart"], given, start, with_data=True)
    assert float(target.weight(jax.flatten_util.ravel_pytree(u)[0])) == pytest.approx(expected, rel=1e-5)


def test_a_batch_estimates_the_world_rows_alone(made, given_and_start, evidence):
    """Unbiased over draws: the mean of many batches, within four standard errors of the whole world set."""
    given, start = given_and_start
    make = partial(phases.log_weight, evidence.spec, made.heads["apart"], given.held, jnp.zeros(()), with_data=True)
    estimate = jax.jit(lambda key: make(planted_evidence.world_batch(given.sets, key), whole=False)(start))
    estimates = np.array([estimate(key) for key in jax.random.split(jax.random.key(0), 200)])
    alone = given.sets._replace(trusted=None, untrusted=None)
    whole = float(make(alone, whole=True)(start))
    error = estimates.std() / np.sqrt(len(estimates))
    assert 0 < error < 0.02 * abs(whole)
    assert abs(estimates.mean() - whole) < 4 * error


@pytest.mark.parametrize("with_data", [True, False])
def test_evidence_given_the_world_by_sampling(made, given_and_start, evidence, with_data):
    given, start = given_and_start
    start_D = jax.flatten_util.ravel_pytree(start)[0]
    q = planted_evidence.Gaussian(start_D, jnp.full_like(start_D, SCALE))
    heads = made.heads["apart"]
    numbers, draws = evidence.given_world(heads, given, q, start, jax.random.key(0), with_data=with_data)
    target = evidence._target(heads, given, start, with_data=with_data)
    expected = log_mean_exp_over_draws(lambda v_D: target.weight(start_D + SCALE * v_D), len(start_D))
    assert float(numbers["lower"]) < expected < float(numbers["upper"])
    assert float(numbers["value"]) == pytest.approx(expected, abs=1.0)
    assert float(numbers["at_q"]) < expected + 1.0
    assert draws.shape == (planted_evidence.BOTH_WAYS, len(start_D))
    assert 0.5 * SCALE < float(jnp.std(draws - start_D)) < 1.5 * SCALE


def test_one_head_twice_agrees_for_nothing(made, given_and_start, evidence):
    """log Z = 0 exactly; heads apart cost something, and what draws from the prior say of it lies within the bounds."""
    given, start = given_and_start
    twice = dict.fromkeys(HEADS, made.heads["apart"][HEADS[0]])
    same, apart = (evidence.log_z(heads, given, start, jax.random.key(0)) for heads in (twice, made.heads["apart"]))
    assert float(same["log_z_value"]) == pytest.approx(0.0, abs=1e-4)
    target = evidence._target(made.heads["apart"], given, start, with_data=False)
    expected = log_mean_exp_over_draws(target.weight, target.dimension)
    assert float(apart["log_z_lower"]) < expected < -0.1
    assert float(apart["log_z_value"]) == pytest.approx(expected, abs=0.5)


def test_information_in_answers(made, given_and_start, evidence):
    """By numpy at one point; none in heads that answer every row alike, however surely."""
    given, start = given_and_start
    rows = given.sets.consistency
    sharp = jax.tree.map(lambda leaf: 2 * leaf, made.heads["apart"])
    theta = phases.place(prior_spec(made.run.config), sharp, given.held, start)
    told = evidence.informed(sharp, given, start)
    for slot in HEADS:
        p = np.asarray(jax.nn.softmax(made.run.model.head_logits(theta, *rows[:2])[HEADS.index(slot)]), np.float64)
        expected = (p * np.log2(p / p.mean(0))).sum() / len(p)
        assert expected > 1e-3
        assert float(told[f"bits_{slot}"]) == pytest.approx(expected, rel=1e-3)
    sure = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.arange(leaf.size, dtype=leaf.dtype) * 9 if "bias" in str(path[-1]) else 0 * leaf, sharp
    )
    assert all(abs(float(value)) < 1e-5 for value in evidence.informed(sure, given, start).values())


def test_heads_are_planted_on_the_trunk_at_the_fitted_mean(made, monkeypatch):
    monkeypatch.setattr(planted_evidence, "FIT_STEPS", 5)
    seen = []
    monkeypatch.setattr(planted_evidence, "planted", lambda run, trunk: seen.append(trunk) or {})
    setting = SETTING._replace(stddev=2.0)
    given, _ = planted_evidence.posterior(made.run, made.trunk, setting)
    fresh = planted_evidence.Evidence(made.run, given.sets, 8)
    planting = planted_evidence.plant(fresh, made.run, made.trunk, setting)
    moved = jax.tree.map(jnp.subtract, seen[0]["trunk"], made.run.anchor()["trunk"])
    np.testing.assert_allclose(jax.flatten_util.ravel_pytree(moved)[0], 2.0 * planting.q.mean_D, atol=1e-6)
    assert 0.0 < float(jnp.abs(planting.q.mean_D).max()) < 0.1  # five steps from the anchor
    assert planting.made.trunk is seen[0] and planting.trunk is made.trunk


def test_rows_of_the_posterior_are_the_settings(made):
    setting = BASE._replace(population=32, breadth="narrow", instrumental="none", labelled=7)
    given, _ = planted_evidence.posterior(made.run, made.trunk, setting)
    assert len(np.unique(np.asarray(given.sets.consistency.tokens_BxL), axis=0)) <= 2
    assert size(given.sets.consistency) == 32 and size(given.sets.trusted) == 7 and given.sets.untrusted is None
    assert planted_evidence.Evidence(made.run, given.sets, 8).spec.counts.consistency == 32


def test_every_setting_has_a_name_of_its_own():
    names = {planted_evidence.name_of(setting) for setting in planted_evidence.SETTINGS.values()}
    assert len(names) == len(planted_evidence.SETTINGS)


def test_cases_and_their_order():
    """A task's seed comes at once, so that it is trained once; log Z alone takes its heads from the base setting."""
    options = argparse.Namespace(
        tasks=["world"],
        seeds=[0, 1],
        pairs=["truth, person"],
        settings=["sigma 3"],
        log_z_settings=["trained"],
        agreement_settings=["trained"],
    )
    made = planted_evidence.cases(options)
    assert [(case.seed, case.setting.anchor, case.integrals) for case in made] == [
        (seed, *rest) for seed in (0, 1) for rest in (("trained", "log Z"), ("trained", "agreement"), ("init", "all"))
    ]
    by = [(case.planted_by.anchor, case.planted_by.stddev) for case in made[:3]]
    assert by == [("init", 1.0), ("trained", 1.0), ("init", 3.0)]


def test_the_lead_by_bounds(capsys):
    """By hand: −10 + [−30, −20] with log Z ≥ −5 is [−40, −25]; −8 + [−25, −15] with log Z ≥ −1 is [−33, −22]."""
    keys = ("first_prior", "log_z_data_lower", "log_z_data_upper", "log_z_lower")
    numbers = {
        "truth, person": (-10, -30, -20, -5),
        "person, person": (-8, -25, -15, -1),
        "single, single": (0, 1, 0, 0),
    }
    common = {"setting": "s", "seed": 3, "integrals": "all"}
    rows = [common | {"pair": pair} | dict(zip(keys, values, strict=True)) for pair, values in numbers.items()]
    planted_evidence.print_bounds([{"setting": "s", "seed": 3, "integrals": "log Z", "pair": "person, person"}, *rows])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()[2:]]
    assert lines == [
        "s, seed 3, person, person: -18 to 8",
        "s, seed 3, single, single: bounds that contradict each other",
    ]


def test_the_table_averages_repeats_and_pairs_seeds(tmp_path, capsys):
    numbers = {("truth, person", 0): (3.0, 5.0), ("truth, person", 1): (4.0,), ("single, single", 0): (1.0,)}
    rows = [
        {"setting": "s", "pair": pair, "seed": seed, "posterior": value}
        for (pair, seed), values in numbers.items()
        for value in values
    ]
    rows += [{"setting": "s", "pair": "truth, person", "seed": 0, "first_prior": 3.0}]
    rows += [{"setting": "s", "pair": "single, single", "seed": 0, "first_prior": 2.0}]
    rows.append({"setting": "s", "pair": "person, person", "seed": 0, "log_z_value": -2.0})
    rows.append({"setting": "s", "pair": "truth, person", "seed": 0, "integrals": "log Z", "first_prior": 1.0})
    print_table(rows, tmp_path / "table.csv", ("log_z_value", "posterior"), ("posterior", "-first_prior"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["truth,", "person", "posterior", "4.00"] in lines  # of 4 (the mean of 3 and 5) and 4
    assert ["single,", "single", "posterior", "1.00"] in lines
    assert ["person,", "person", "log_z_value", "-2.00"] in lines  # has no posterior to compare
    assert [" ".join(line) for line in lines if line[:1] == ["honest"]] == [
        "honest ahead by 3.0 [nan, nan] nat; by seed 3.0 in posterior",
        "honest ahead by -1.0 [nan, nan] nat; by seed -1.0 in -first_prior",
    ]
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 9
