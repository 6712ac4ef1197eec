"""What a sweep's file stands for: combinations, draws, constraints, names, groups, and mistakes told at their lines."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from honest.config_io import ConfigError
from honest.errors import UserError
from honest.run import start_all
from honest.sweep.choice import options_of
from honest.sweep.command import check_members, members_table
from honest.sweep.estimate import duration, member_seconds
from honest.sweep.grouping import groups_of, is_number, program_key
from honest.sweep.members import LoadedSweep, combinations, draws, load_sweep, names
from honest.sweep.spec import Sweep
from tests.conftest import write_tiny

SWEEPS = Path(__file__).parents[2] / "configs" / "sweeps"
SIGMA, LAMBDA = "objective.second_prior.trunk.stddev", "objective.multiplier.initial"
TEXT = """
    name: three
    base: tiny.yaml
    set: [stages.prior.steps=8]
    grid:
      objective.second_prior.trunk.stddev: [0.3 θ.trunk, 1.0 θ.trunk]
      seed: [0, 1]
    zip:
      objective.multiplier.initial: [10 nat/disagreement, 3 nat/disagreement]
      stages.prior.optimizer.learning_rate: [3.0e-2, 1.0e-2]
    constraints: ["`objective.multiplier.initial` == 10 or seed == 1"]
"""


@pytest.fixture
def write(tmp_path):
    """Writes a sweep beside the tiny config, some of its text replaced."""
    write_tiny(tmp_path / "tiny.yaml")

    def of(*changes: tuple[str, str], text: str = TEXT) -> Path:
        text = textwrap.dedent(text)
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "sweep.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return of


def test_every_combination_but_those_that_break_a_constraint(write):
    sweep = load_sweep(write())
    found = [(m.parameters[LAMBDA], m.parameters[SIGMA], m.parameters["seed"]) for m in sweep.members]
    ten, three, narrow, wide = "10 nat/disagreement", "3 nat/disagreement", "0.3 θ.trunk", "1.0 θ.trunk"
    four = [(ten, narrow, 0), (ten, narrow, 1), (ten, wide, 0), (ten, wide, 1)]
    assert found == [*four, (three, narrow, 1), (three, wide, 1)]
    assert sweep.left_out == 2
    for member in sweep.members:
        config = member.config
        assert config.stages.prior.steps == 8
        assert config.objective.second_prior.trunk.stddev == member.parameters[SIGMA]
        assert (config.stages.prior.optimizer.learning_rate == 3e-2) == (member.parameters[LAMBDA] == ten)
    assert sweep.members[4].name == "stddev=0.3,seed=1,initial=3,learning_rate=0.01"
    assert sweep.members[4].config.name == "three-stddev-0.3-seed-1-initial-3-learning_rate-0.01"


def drawn(samples: int, **sections) -> list[dict]:
    given = {"name": "s", "base": "b", "samples": samples, "seed": 4, **sections}
    return draws(Sweep.model_validate(given))


def test_draws_lie_in_their_ranges_and_stay_as_they_are():
    sections = {
        "choice": {"a": ["x", "y"]},
        "uniform": {"b": [1.0, 3.0]},
        "loguniform": {"c": ["0.01 nat", "100 nat"]},
    }
    many = drawn(400, **sections)
    assert {values["a"] for values in many} == {"x", "y"}
    b = [values["b"] for values in many]
    assert 1 <= min(b) < 1.1 and 2.9 < max(b) <= 3 and abs(sum(b) / 400 - 2) < 0.1
    c = [float(values["c"].removesuffix(" nat")) for values in many]
    assert 0.01 <= min(c) < 0.015 and 66 < max(c) <= 100
    assert 0.4 < sum(x < 1 for x in c) / 400 < 0.6  # as many below the middle of the logarithms as above
    assert drawn(3, **sections) == many[:3]
    del sections["choice"]
    assert [values["b"] for values in drawn(400, **sections)] == b


def test_samples_are_crossed_with_grid_and_zip():
    sweep = Sweep.model_validate(
        {"name": "s", "base": "b", "grid": {"p": [1, 2, 3]}, "zip": {"q": [4, 5], "r": [6, 7]}, "samples": 2, "seed": 0}
        | {"uniform": {"u": [0.0, 1.0]}}
    )
    found = list(combinations(sweep))
    assert len(found) == 12 and {(x["q"], x["r"]) for x in found} == {(4, 6), (5, 7)}
    assert len({x["u"] for x in found}) == 2


def test_names_by_the_shortest_end_that_tells_keys_apart():
    trunk, heads = "stages.trunk.optimizer.learning_rate", "stages.heads.optimizer.learning_rate"
    assert names([{trunk: 0.1, heads: 0.2, "model.head": {"kind": "mlp", "hidden": 8}}]) == [
        "trunk.optimizer.learning_rate=0.1,heads.optimizer.learning_rate=0.2,head=mlp-8"
    ]
    assert names([{"seed": 0, "task.seed": 1}]) == ["seed=0,task.seed=1"]  # the first is an end of the second
    assert names([{"a": "1 nat", "b": None}, {"a": "1.0 bit", "b": True}]) == ["a=1,b=None", "a=1.0,b=True"]
    assert names([{"a": "1 nat"}, {"a": "1 bit"}]) == ["a=1,number=1", "a=1,number=2"]
    long, other = names([{"a": "x" * 300 + "1"}, {"a": "x" * 300 + "2"}])
    assert len(long) == len(other) < 200 and long != other


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("0.3 θ.trunk", "-0.3 θ.trunk", "sweep.yaml:6: grid.objective.second_prior.trunk.stddev: --set"),
        ("0.3 θ.trunk", "0.3 θ.head", "has unit θ.head, not θ.trunk"),
        ("seed: [0, 1]", "sede: [0, 1]", "constraints.0: seed: not varied by this sweep"),
        (
            "prior.steps=8",
            "prior.stepz=8",
            "sweep.yaml:4: set.0: --set stages.prior.stepz=8: stages.prior.stepz",
        ),
        ("prior.steps=8", "prior.batch_rows=9, parallel.devices=2", "9 rows do not divide into the 2 of parallel.dev"),
        ("3.0e-2, 1.0e-2", "3.0e-2", "lists taken side by side need one length"),
        ("== 10 or", "=== 10 or", "constraints.0"),
        ("stages.prior.steps=8", "seed=8", "seed is varied as well"),
        ("name: three", "name: three\nsamples: 3", "nothing is drawn"),
        ("name: three", "name: three\nuniform: {objective.multiplier.ema: [0.9, 0.1]}", "needs low < high"),
        ("name: three", "name: three\nloguniform: {a: [0, 1]}", "positive bounds"),
        ("name: three", "name: three\nuniform: {a: [1 nat, 2 bit]}", "bounds in two units, nat and bit"),
        ("name: three", "name: three\nuniform: {seed: [1, 2]}", "is varied in more than one section"),
        ("base: tiny.yaml", "base: tyni.yaml", "did you mean"),
        ("name: three", "nam: three", "did you mean 'name'"),
    ],
)
def test_mistakes_are_told_where_they_were_made(write, old, new, told):
    with pytest.raises(ConfigError) as caught:
        load_sweep(write((old, new)))
    assert told in str(caught.value)


def test_every_mistake_is_told_at_once(write):
    with pytest.raises(ConfigError) as caught:
        load_sweep(write(("0.3 θ.trunk", "0.3 nat"), ("3.0e-2", "-1")))
    assert len(caught.value.problems) == 2


def test_constraints_that_leave_nothing_are_refused(write):
    with pytest.raises(UserError, match="none of the 8 combinations"):
        load_sweep(write(("== 10 or", "> 20 and")))


def keys_of(sweep: LoadedSweep) -> list[str]:
    return [program_key(run) for run, _ in start_all([member.config for member in sweep.members])]


def test_members_that_differ_in_numbers_share_a_program(write):
    sweep = load_sweep(write())
    groups = groups_of(sweep.members, keys_of(sweep), most=4)
    assert [len(group) for group in groups] == [4, 2]
    other = load_sweep(write((SIGMA + ": [0.3 θ.trunk, 1.0 θ.trunk]", "objective.phases.kind: [points, laplace]")))
    assert [len(group) for group in groups_of(other.members, keys_of(other), most=16)] == [3, 3]
    sharded = load_sweep(write(("set: [", "set: [parallel.strategy=fsdp, ")))
    assert len(groups_of(sharded.members, keys_of(sharded), most=16)) == 6  # each alone
    table = members_table(Path("here"), sweep, groups)
    assert "stddev=0.3,seed=1,initial=3,learning_rate=0.01" in table and "2 more break a constraint" in table


def test_a_seed_that_changes_the_vocabulary_changes_the_program(write):
    (run, _), *_ = start_all([load_sweep(write()).members[0].config])
    larger = replace(run.task.vocabulary, tokens=(*run.task.vocabulary.tokens, "new"))
    assert program_key(run) != program_key(replace(run, task=replace(run.task, vocabulary=larger)))


def test_which_settings_are_numbers():
    shared = ("seed", SIGMA, LAMBDA, "objective.multiplier.tolerance", "objective.first_prior.intended_head.scale")
    apart = ("model.width", "objective.multiplier.update", "stages.prior.steps", "objective.phases.chains", "methods")
    assert all(map(is_number, shared)) and not any(map(is_number, apart))
    assert is_number("stages.heads.optimizer.clip_norm") and not is_number("stages.heads.optimizer.schedule")
    assert is_number("objective.second_prior.trunk.tensors.blocks/*") and not is_number("baselines.divdis.balance")


def test_what_no_config_can_tell_is_found_before_anything_runs(write):
    asked = "set: [\"objective.first_prior.intended_head.tensors={'nowhere/*': 1.0 θ.head}\", "
    path = write(("set: [", asked))
    with pytest.raises(UserError, match=r"member stddev=0\.3,seed=0.*matches no tensor"):
        check_members(load_sweep(path))


def test_the_guess_grows_with_steps_and_falls_with_speed(write):
    (short, _), (long, _) = start_all(
        [load_sweep(write(("steps=8", f"steps={steps}"))).members[0].config for steps in (8, 8000)]
    )
    assert member_seconds(long, 1e9) > 2 * member_seconds(short, 1e9)
    assert member_seconds(long, 1e9) > member_seconds(long, 1e12)
    assert (duration(20), duration(600), duration(9000)) == ("20 s", "10 min", "2.5 h")


CLUSTER = """
engine:
  slurm: {slots: 1, partition: null, account: null, timeout_minutes: 9, requeues: 0, save_seconds: 9, nodes: 1,
    tasks_per_node: 1, cpus_per_task: 1, gpus_per_node: 0, memory_gb: null, setup: [], sbatch: {}}
  kubernetes: {namespace: a, image: a, service_account: null, claim: a, mount_path: /a, folder: a, cpu: "1",
    memory: 1Gi, gpu_resource: a, gpus: 0, hosts: 1, parallelism: 1, backoff_limit: 0, save_seconds: 9}
"""


@pytest.mark.parametrize("engine", ["local", "kubernetes"])
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("nodes: 1", "nodes: 2", r"sweep.yaml:14: engine.slurm asks for 2 tasks a job .*parallel.hosts: one"),
        ("nodes: 1", "nodes: 1, node: 1", r"sweep.yaml:14: engine.slurm.node: unknown key"),
        ("hosts: 1", "hosts: 2", r"sweep.yaml:16: engine.kubernetes.hosts is 2, but .*parallel.hosts: one"),
    ],
)
def test_the_options_of_all_engines_are_checked_by_any(write, engine, old, new, told):
    text = textwrap.dedent(TEXT) + CLUSTER
    options_of(load_sweep(write(text=text)), engine)
    with pytest.raises(UserError, match=told):
        options_of(load_sweep(write((old, new), text=text)), engine)


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_sweeps_are_valid(path):
    assert len(load_sweep(path).members) >= 4
