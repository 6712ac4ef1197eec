"""Planted head pairs: tasks, the settings of a posterior, trained trunks, and heads of known meaning on them.

A trunk is trained by the trunk stage of a task's config; heads are trained on it, frozen, by the project's trainer: on
the truth of all rows, on the person's answers to all rows, on the trusted labels alone (single head), or not at all
(random: the anchor's own). Used by launch/planted_pairs.py and launch/planted_evidence.py.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from honest.baselines import single_head
from honest.baselines.method import HeadRows, Method, one_line
from honest.config import GROUP_UNITS
from honest.config_io import load_config
from honest.data.batch import Batch, Splits, concatenate
from honest.data.tasks import build_task
from honest.objective.consistency import whole_violation
from honest.objective.data_loss import whole_data_nats
from honest.objective.log_partition.volume import VolumeRows
from honest.objective.parameter_prior.gaussian import isotropic
from honest.objective.predictions import RowSets
from honest.params import Params, squared_norm, whiten
from honest.report.seeds import seed_mean
from honest.train import phases
from honest.train.loop import compile_step
from honest.train.predictor import TokenPredictor
from honest.train.prior_stage import prior_counts, prior_spec
from honest.train.sharding import make_mesh, replicate
from honest.train.spec import HEADS, PriorSpec, StageSpec
from honest.train.stage import TRUNK, Run, Stage, make_run
from honest.train.stages import make_stage, method_stage
from honest.train.state import Held, Priors
from honest.units import Quantity, disagreement, example, nat

CONFIGS = Path(__file__).parents[1] / "configs"
CONFIG = CONFIGS / "planted_pairs.yaml"
SMALL = (
    "model.layers=1",
    "model.width=16",
    "model.attention_heads=2",
    "model.key_value_heads=2",
    "model.head.hidden=16",
)
# Task -> its config and what is changed there. The world's model is smaller: its facts need no more.
TASKS: dict[str, tuple[Path, tuple[str, ...]]] = {
    **{
        f"{trigger}, {targets}": (CONFIG, (f"task.trigger={trigger}", f"task.trunk_targets={targets}"))
        for trigger in ("hard", "carry")
        for targets in ("says", "difference")
    },
    "diamonds": (CONFIGS / "benchmark" / "diamonds.yaml", ()),
    "world": (CONFIGS / "world.yaml", (*SMALL, "model.mlp_ratio=2")),
    "hemisphere": (CONFIGS / "cities_hemisphere.yaml", (*SMALL, "model.layers=2", "model.width=32")),
    "population": (CONFIGS / "cities_population.yaml", (*SMALL, "model.layers=2", "model.width=32")),
}
PAIRS = (
    ("truth", "person"),
    ("person", "person"),
    ("truth", "truth"),
    ("single", "single"),
    ("random", "person"),
)


class Setting(NamedTuple):
    """One posterior. stddev: σ2 in θ.trunk. multiplier: λ in nat/disagreement. population: N_c.

    breadth: `broad`, the first N_c trusted rows, or `narrow`, N_c rows of the commonest N_c / 16 questions. labelled,
    world: rows of each labelled set and of the world set that the posterior is over. task: a key of TASKS.
    """

    anchor: str
    stddev: float
    multiplier: float
    population: int
    breadth: str
    instrumental: str
    task: str
    labelled: int
    world: int


BASE = Setting("init", 1.0, 10.0, 128, "broad", "untrusted", "hard, says", 64, 128)
KEPT = BASE._replace(anchor="trained", stddev=0.3)  # θ2 stays near the trained trunk, and the heads mean what they say
WORLD = BASE._replace(task="world")
SETTINGS: dict[str, list[Setting]] = {
    "base": [BASE, KEPT],
    "sigma": [BASE._replace(stddev=s) for s in (0.3, 3.0)] + [KEPT._replace(stddev=s) for s in (0.1, 1.0, 3.0)],
    "lambda": [base._replace(multiplier=m) for base in (BASE, KEPT) for m in (1.0, 100.0)],
    "population": [base._replace(population=n) for base in (BASE, KEPT) for n in (32, 512)],
    "breadth": [base._replace(breadth="narrow") for base in (BASE, KEPT)],
    "withheld": [base._replace(instrumental="none") for base in (BASE, KEPT)],
    "size": [base._replace(labelled=256, world=512) for base in (BASE, KEPT)],
    "tasks": [
        base._replace(task=task) for task in TASKS if task not in (BASE.task, WORLD.task) for base in (BASE, KEPT)
    ],
    "world": [WORLD, WORLD._replace(anchor="trained", stddev=0.3)],
    "world numbers": [
        *(WORLD._replace(multiplier=m) for m in (1.0, 100.0)),
        *(WORLD._replace(stddev=s) for s in (0.3, 3.0)),
        WORLD._replace(instrumental="none"),
        WORLD._replace(labelled=256, world=512),
        *(WORLD._replace(population=n) for n in (32, 512)),
        WORLD._replace(breadth="narrow"),
    ],
}


def person_rows(splits: Splits, _supervision: str) -> HeadRows:
    return HeadRows(concatenate(splits.trusted, splits.untrusted), None, None)


def truth_rows(splits: Splits, _supervision: str) -> HeadRows:
    return HeadRows(splits.ceiling, None, None)


TAUGHT = {
    "truth": Method("truth", one_line("truth"), truth_rows, None),
    "person": Method("person", one_line("person"), person_rows, None),
    "single": single_head.METHOD,
}


def train(stage: Stage, run: Run, start: Params | None) -> Params:
    """What the project's train step makes of a stage of maximum likelihood; start: its parameters instead of fresh."""
    state = stage.init()
    if start is not None:
        state = replicate(state._replace(params=start, optimizer=stage.spec.optimizer.init(start)), run.mesh)
    state = jax.tree.map(jnp.copy, state)
    shell = compile_step([stage], run.mesh)
    for _ in range(stage.steps):
        state, _ = shell(state, stage.sets, stage.volume)
    return state.params


def planted(run: Run, trunk: Params) -> dict[str, dict[str, Params]]:
    """taught by what -> slot -> head. Each starts at the anchor's head of its slot, so that its distance is fair."""
    anchor = run.anchor()
    heads: dict[str, dict[str, Params]] = {"random": {slot: anchor[slot] for slot in HEADS}}
    for name, method in TAUGHT.items():
        stage = method_stage(run, method, trunk)
        # One program trains the head of either slot: it is the intended one to the stage.
        heads[name] = {slot: train(stage, run, {HEADS[0]: anchor[slot]})[HEADS[0]] for slot in HEADS}
    return heads


def centred(run: Run, trunk: Params, setting: Setting) -> tuple[Held, Params]:
    """The second prior around the setting's centre, and the trained trunk in its whitened coordinates."""
    centre = run.anchor()["trunk"] if setting.anchor == "init" else trunk["trunk"]
    stddev = Quantity(jnp.asarray(setting.stddev, run.dtype), GROUP_UNITS["trunk"])
    second = {"trunk": isotropic(centre, [stddev] * len(jax.tree.leaves(centre)))}
    held = Held(anchor={"trunk": centre}, start={}, priors=Priors(first={}, second=second, measure={}))
    return held, whiten({"trunk": trunk["trunk"]}, {"trunk": centre}, second, ("trunk",))


def first(rows: Batch, count: int) -> Batch:
    return jax.tree.map(lambda leaf: leaf[:count], rows)


def agreement_rows(trusted: Batch, setting: Setting) -> Batch:
    """The setting's consistency population, N_c rows; `narrow` repeats its few questions until there are as many."""
    if setting.breadth == "broad":
        return first(trusted, setting.population)
    rows_BxL = np.asarray(trusted.tokens_BxL)
    questions, counts = np.unique(rows_BxL, axis=0, return_counts=True)
    commonest = questions[np.argsort(-counts)][: max(setting.population // 16, 1)]
    chosen = np.flatnonzero((rows_BxL[:, None] == commonest[None]).all(-1).any(1))
    return jax.tree.map(lambda leaf: leaf[np.resize(chosen, setting.population)], trusted)


class Prepared(NamedTuple):
    run: Run
    trunk: Params
    heads: dict[str, dict[str, Params]]


def trained(seed: int, task: str) -> tuple[Run, Params]:
    """The run of a task and seed, and its trunk after the trunk stage."""
    source, changes = TASKS[task]
    config = load_config(source, [*changes, f"seed={seed}", f"task.seed={seed}"]).config
    run = make_run(config, build_task(config.task), make_mesh(1))
    return run, train(make_stage(run, TRUNK, {}), run, None)


def prepare(seed: int, task: str) -> Prepared:
    run, trunk = trained(seed, task)
    return Prepared(run, trunk, planted(run, trunk))


def accuracies(made: Prepared) -> dict[str, float]:
    """Share of the test's fooled rows on which each planted head answers the truth, on the trained trunk."""
    test = made.run.task.splits.test
    fooled = np.asarray(test.fooled_B)
    features = made.run.model.features(made.trunk["trunk"], *(jnp.asarray(x) for x in test.batch[:2]))
    found = {}
    for name, slots in made.heads.items():
        answer_B = np.asarray(made.run.model.head(slots[HEADS[0]], features)).argmax(1)
        found[f"accuracy_{name}"] = float(np.mean(answer_B[fooled] == test.truth_B[fooled]))
    return found


def honesty(
    made: Prepared, held: Held, mode_D: jax.Array, like: Params, heads: Params, prior: PriorSpec
) -> dict[str, float]:
    """Shares of fooled test rows on which each head answers the truth, with θ2 at the positive mode."""
    theta = phases.place(prior, heads, held, ravel_pytree(like)[1](mode_D))
    test = made.run.task.splits.test
    fooled = np.asarray(test.fooled_B)
    logits = made.run.model.head_logits(theta, *(jnp.asarray(x) for x in test.batch[:2]))
    right = [float(np.mean((np.asarray(x).argmax(1) == test.truth_B)[fooled])) for x in logits]
    return {f"truth_fooled_{slot}": share for slot, share in zip(HEADS, right, strict=True)}


class Posterior(NamedTuple):
    """What a posterior is made of beside the heads. weight: λ in nat/disagreement, bare. chosen: of Laplace volumes."""

    held: Held
    weight: jax.Array
    sets: RowSets
    chosen: VolumeRows | None


def spec_of(run: Run, sets: RowSets) -> StageSpec:
    """The full objective over the sets, without an optimiser: what a posterior is judged by."""
    counts, prior = prior_counts(sets), prior_spec(run.config)
    return StageSpec("planted", TokenPredictor(run.model), HEADS, counts, counts.labels, None, prior, None)  # type: ignore[arg-type]


def terms_at(spec: StageSpec, with_data: bool, heads: Params, given: Posterior, u: Params) -> dict[str, jax.Array]:
    """Nats of −λ N_c C̄ and of the data at whitened coordinates u, over all rows; and C̄ itself (`violation`)."""
    prior = spec.prior
    assert prior is not None
    theta, chunk = phases.place(prior, heads, given.held, u), prior.phases.chunk_rows
    data = whole_data_nats(spec.predictor, theta, given.sets, chunk) if with_data else {}
    violation = whole_violation(spec.predictor, theta, given.sets.consistency, prior.divergence, chunk)
    rate = violation.to(disagreement / example)
    agreement = {"violation": rate, "consistency": -given.weight * spec.counts.consistency * rate}
    return agreement | {f"data_{group}": -nats.to(nat) for group, nats in data.items()}


def first_prior(run: Run, heads: Params) -> float:
    """log p(h) in nat at σ1 = 1 θ.head, without its constant."""
    anchor = run.anchor()
    moved = jax.tree.map(jnp.subtract, heads, {slot: anchor[slot] for slot in HEADS})
    return -0.5 * float(squared_norm(moved))


def print_table(
    rows: list[dict[str, Any]], path: Path, columns: tuple[str, ...], leads: tuple[str, ...] = ("posterior",)
) -> None:
    """All rows into a CSV; on the screen the columns' means over seeds, and the honest pair's lead, paired by seed.

    leads: columns in nat that are compared; "-" before one takes it with that sign.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)
    by: dict[tuple[str, str], dict[str, dict[int, list[dict]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for row in rows:  # heads of one integral alone may be others than those of all
        by[row["setting"], row.get("integrals", "all")][row["pair"]][row["seed"]].append(row)
    for (setting, integrals), pairs in by.items():
        print(f"\n{setting}" + ("" if integrals == "all" else f"; {integrals} alone"))
        honest = pairs.get(", ".join(PAIRS[0]), {})
        for pair, seeds in pairs.items():
            told = [(tag, list(_by_seed(seeds, tag).values())) for tag in columns]
            print(f"  {pair:16s} " + " ".join(f"{tag} {np.mean(values):.2f}" for tag, values in told if values))
            for tag in leads if pair != ", ".join(PAIRS[0]) else ():
                sign, name = (-1.0, tag[1:]) if tag.startswith("-") else (1.0, tag)
                ours, theirs = _by_seed(honest, name), _by_seed(seeds, name)
                by_seed = [sign * (ours[seed] - theirs[seed]) for seed in sorted(set(ours) & set(theirs))]
                if by_seed:
                    lead = seed_mean(by_seed)
                    told = f"{lead.mean:.1f} [{lead.low:.1f}, {lead.high:.1f}] nat; by seed "
                    print(f"  {'':16s} honest ahead by {told}{' / '.join(f'{x:.1f}' for x in by_seed)} in {tag}")


def _by_seed(seeds: dict[int, list[dict]], tag: str) -> dict[int, float]:
    """Each seed's mean over its repeats, of those that have the number."""
    having = {seed: [row[tag] for row in rows if tag in row] for seed, rows in seeds.items()}
    return {seed: float(np.mean(values)) for seed, values in having.items() if values}


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
