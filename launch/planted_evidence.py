"""The binding question over all rows of a task: the bits that the data save, less the bits that θ costs, by head pair.

    python launch/planted_evidence.py run   --out runs/planted_evidence [--tasks world "hard, says" …] [--pairs …]
                                            [--settings base …] [--log-z-settings "lambda 100" …] [--repeats 2]
    python launch/planted_evidence.py table --out runs/planted_evidence

Planted pairs and trunks are those of launch/planted_pairs.py (launch/planted.py), whose posteriors have a few hundred
rows: too few to pay for a trunk. Here the posterior is over every row that the trainer has. For each pair a Gaussian
q = N(m, s²) is fitted by minibatches, from the trained trunk, to the evidence bound

    log Z_D ≥ E_q[−data − λ N_c C̄] − KL(q ‖ second prior)

which is then taken over all rows with DRAWS draws of q. It is a bound from below alone: differences between pairs are
read as estimates, with the spread over seeds and over `--repeats` of the fit.

log Z is bounded from both sides: its weight −λ N_c C̄ is never positive, so that log Z ≤ 0, and annealing from the prior
bounds it from below with probability 1 − TAIL_PROBABILITY. `--log-z-settings` measures that alone, which is cheap: it
says the most that −log Z can pay a pair.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from rich.console import Console
from rich.progress import track

from honest.objective.log_partition.bidirectional import ascend, plan
from honest.objective.log_partition.bounds import TAIL_PROBABILITY, log_mean_exp, lower_bound
from honest.objective.log_partition.problem import flat_problem
from honest.objective.log_partition.variational import fit_gaussian
from honest.objective.predictions import RowSets, size
from honest.params import Params
from honest.train import phases
from honest.train.prior_stage import prior_sets, prior_spec
from honest.train.spec import HEADS
from honest.train.stage import Run
from launch.planted import (
    BASE,
    PAIRS,
    TASKS,
    Posterior,
    Prepared,
    Setting,
    accuracies,
    centred,
    first_prior,
    honesty,
    prepare,
    print_table,
    read,
    spec_of,
    terms_at,
)

FIT_STEPS, BATCH_ROWS, DRAWS = 4000, 32, 8
PARTICLES, BRIDGES = 8, 300  # of annealing
POPULATION = 128  # N_c
SETTINGS = {
    "base": BASE._replace(population=POPULATION),
    "trained": BASE._replace(population=POPULATION, anchor="trained"),
    "sigma 0.3": BASE._replace(population=POPULATION, stddev=0.3),
    "sigma 3": BASE._replace(population=POPULATION, stddev=3.0),
    "lambda 1": BASE._replace(population=POPULATION, multiplier=1.0),
    "lambda 100": BASE._replace(population=POPULATION, multiplier=100.0),
    "population 1024": BASE._replace(population=1024),
    "person withheld": BASE._replace(population=POPULATION, instrumental="none"),
}


class Evidence:
    """The evidence bounds of posteriors of one structure; compiled once."""

    def __init__(self, run: Run, sets: RowSets):
        self.spec = spec_of(run, sets)
        self.fit = jax.jit(self._fit)
        self.terms = jax.jit(partial(terms_at, self.spec, True))
        self.anneal = jax.jit(self._anneal)

    def _fit(self, heads: Params, given: Posterior, start: Params, key: jax.Array) -> tuple:
        start_D, _ = ravel_pytree(start)

        def problem_at(step_key: jax.Array) -> Any:
            batch = draw(given.sets, step_key)
            target = phases.log_weight(self.spec, heads, given.held, given.weight, batch, with_data=True, whole=False)
            return flat_problem(target, start)

        return fit_gaussian(problem_at, key, start_D, FIT_STEPS)

    def _anneal(self, heads: Params, given: Posterior, like: Params, key: jax.Array) -> dict[str, jax.Array]:
        """log Z in nat, annealed from the prior: value, and a lower bound with probability .99. The upper one is 0."""
        target = phases.log_weight(self.spec, heads, given.held, given.weight, given.sets, with_data=False, whole=True)
        work_P = ascend(
            flat_problem(target, like), jax.random.split(key, 3), plan(PARTICLES, 0, BRIDGES)
        ).annealed.work_P
        return {"log_z_value": log_mean_exp(work_P), "log_z_lower": lower_bound(work_P, TAIL_PROBABILITY)}


def draw(sets: RowSets, key: jax.Array) -> RowSets:
    """BATCH_ROWS rows of each set, with replacement."""

    def part(index: int, rows: Any) -> Any:
        if rows is None:
            return None
        chosen = jax.random.randint(jax.random.fold_in(key, index), (BATCH_ROWS,), 0, size(rows))
        return jax.tree.map(lambda leaf: leaf[chosen], rows)

    return RowSets(*(part(index, rows) for index, rows in enumerate(sets)))


def divergence_from_prior(mean_D: jax.Array, scale_D: jax.Array) -> jax.Array:
    """KL(N(m, s²) ‖ N(0, I)) in nat."""
    return 0.5 * jnp.sum(mean_D**2 + scale_D**2 - 1.0 - 2.0 * jnp.log(scale_D))


def bound(evidence: Evidence, heads: Params, given: Posterior, start: Params, key: jax.Array) -> tuple:
    """(terms of log Z_D's evidence bound in nat, its standard error over the draws, the draws)."""
    mean_D, scale_D = evidence.fit(heads, given, start, key)
    to_tree = ravel_pytree(start)[1]
    draws = [
        mean_D + scale_D * jax.random.normal(jax.random.fold_in(key, index), mean_D.shape, mean_D.dtype)
        for index in range(DRAWS)
    ]
    each = [jax.device_get(evidence.terms(heads, given, to_tree(u_D))) for u_D in draws]
    line = {tag: float(np.mean([terms[tag] for terms in each])) for tag in each[0]}
    kl = float(divergence_from_prior(mean_D, scale_D))
    sums = [sum(float(value) for tag, value in terms.items() if tag != "violation") for terms in each]
    line |= {"kl": -kl, "bound": float(np.mean(sums)) - kl}
    line["standard_error"] = float(np.std(sums, ddof=1) / np.sqrt(DRAWS))
    return line, [to_tree(u_D) for u_D in draws]


def judge(evidence: Evidence, made: Prepared, given: Posterior, start: Params, case: Case) -> dict[str, float]:
    """The terms of a pair in nat, and how honest its heads are at draws from the positive phase."""
    heads = {slot: made.heads[kind][slot] for slot, kind in zip(HEADS, case.pair, strict=True)}
    key = jax.random.fold_in(jax.random.key(made.run.config.seed), case.repeat)
    found = evidence.anneal(heads, given, start, jax.random.fold_in(key, 0))
    line = {"first_prior": first_prior(made.run, heads)} | {tag: float(value) for tag, value in found.items()}
    if not case.with_data:
        return line
    terms, draws = bound(evidence, heads, given, start, jax.random.fold_in(key, 1))
    line |= {f"log_z_data_{tag}": value for tag, value in terms.items()}
    line["posterior"] = line["first_prior"] + line["log_z_data_bound"] - line["log_z_value"]
    shares = [honesty(made, given.held, ravel_pytree(u)[0], start, heads, prior_spec(made.run.config)) for u in draws]
    return line | {tag: float(np.mean([share[tag] for share in shares])) for tag in shares[0]}


def posterior(made: Prepared, setting: Setting) -> tuple[Posterior, Params]:
    """The posterior over all rows, and the trained trunk in its whitened coordinates."""
    held, trained = centred(made.run, made.trunk, setting)
    sets = prior_sets(made.run.config, made.run.task)
    agreement = jax.tree.map(lambda leaf: leaf[: setting.population], sets.trusted)
    answered = sets.untrusted if setting.instrumental == "untrusted" else None
    sets = sets._replace(consistency=agreement, untrusted=answered)
    return Posterior(held, jnp.asarray(setting.multiplier, made.run.dtype), sets, None), trained


def name_of(setting: Setting) -> str:
    return (
        f"{setting.task}; {setting.anchor}, σ2={setting.stddev:g}, λ={setting.multiplier:g}, "
        f"N_c={setting.population}, person {setting.instrumental}, all rows"
    )


class Case(NamedTuple):
    """One line of the table. with_data: log Z_D as well as log Z."""

    seed: int
    setting: Setting
    pair: tuple[str, str]
    repeat: int
    with_data: bool

    def identity(self) -> dict[str, Any]:
        told = {"seed": self.seed, "setting": name_of(self.setting), "pair": ", ".join(self.pair)}
        return told | {"repeat": self.repeat, "with_data": self.with_data}


def cases(options: argparse.Namespace) -> list[Case]:
    """By task and seed, whose trunk and heads are trained once."""
    return [
        Case(seed, SETTINGS[name]._replace(task=task), pair, repeat, name in options.settings)
        for task in options.tasks
        for seed in options.seeds
        for name in SETTINGS
        if name in (*options.settings, *options.log_z_settings)
        for repeat in range(options.repeats if name in options.settings else 1)
        for pair in PAIRS
        if ", ".join(pair) in options.pairs
    ]


def run(path: Path, todo: list[Case]) -> None:
    prepared: dict[tuple[int, str], Prepared] = {}
    compiled: dict[tuple[str, str, int], Evidence] = {}
    with path.open("a", encoding="utf-8") as file:
        for case in track(todo, "pairs", console=Console(stderr=True)):
            seed, setting, began = case.seed, case.setting, time.monotonic()
            if (seed, setting.task) not in prepared:
                prepared = {(seed, setting.task): prepare(seed, setting.task)}
            made = prepared[seed, setting.task]
            given, start = posterior(made, setting)
            structure = setting.task, setting.instrumental, setting.population
            evidence = compiled.setdefault(structure, Evidence(made.run, given.sets))
            line = judge(evidence, made, given, start, case)
            record = case.identity() | {"seconds": time.monotonic() - began, **accuracies(made), **line}
            file.write(json.dumps(record) + "\n")
            file.flush()
            print(name_of(setting), seed, case.pair, json.dumps(line), file=sys.stderr, flush=True)


COLUMNS = (
    "first_prior",
    "log_z_value",
    "log_z_lower",
    "log_z_data_bound",
    "log_z_data_kl",
    "log_z_data_consistency",
    "posterior",
    "truth_fooled_intended_head",
    "truth_fooled_instrumental_head",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["world"])
    pairs = [", ".join(pair) for pair in PAIRS]
    parser.add_argument("--pairs", nargs="+", choices=pairs, default=pairs)
    parser.add_argument("--settings", nargs="*", choices=SETTINGS, default=["base"], help="log Z and log Z_D of these")
    parser.add_argument("--log-z-settings", nargs="*", choices=SETTINGS, default=[], help="log Z alone of these")
    parser.add_argument("--repeats", type=int, default=1, help="of the fit and the annealing, with keys of their own")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "evidence.jsonl"
    rows = read(path) if path.exists() else []
    done = [{key: row[key] for key in ("seed", "setting", "pair", "repeat", "with_data")} for row in rows]
    if options.what == "run":
        run(path, [case for case in cases(options) if case.identity() not in done])
    print_table(read(path), options.out / "evidence.csv", COLUMNS)


if __name__ == "__main__":
    main()
