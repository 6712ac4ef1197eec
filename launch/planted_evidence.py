"""The binding question over all rows of a task: the bits that the data save, less the bits that θ costs, by head pair.

    python launch/planted_evidence.py run   --out runs/planted_evidence [--seeds 0 1 2] [--tasks world "hard, says" …]
    python launch/planted_evidence.py table --out runs/planted_evidence

Planted pairs and trunks are those of launch/planted_pairs.py (launch/planted.py), whose posteriors have a few hundred
rows: too few to pay for a trunk. Here the posterior is over every row that the trainer has. For each pair and phase a
Gaussian q = N(m, s²) is fitted by minibatches, from the trained trunk, to the evidence bound

    log Z_D ≥ E_q[−data − λ N_c C̄] − KL(q ‖ second prior)            (and log Z with the data left out)

which is then taken over all rows with DRAWS draws of q. log Z, which is near 0 where heads that agree are easy to come
by, is also annealed from the prior (`log_z_annealed_…`): the evidence bound is loose there, and the net takes this one.
log Z_D has a bound from below alone: differences between pairs are read as estimates, with the spread over seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from rich.console import Console
from rich.progress import track

from honest.objective.log_partition.bidirectional import from_both_ends, plan
from honest.objective.log_partition.bounds import TAIL_PROBABILITY
from honest.objective.log_partition.problem import flat_problem
from honest.objective.log_partition.variational import fit_gaussian
from honest.objective.predictions import RowSets, size
from honest.params import Params
from honest.train import phases
from honest.train.prior_stage import prior_sets, prior_spec
from honest.train.spec import HEADS
from honest.train.stage import Run
from honest.units import nat
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

FIT_STEPS, BATCH_ROWS, DRAWS = 4000, 128, 8
PARTICLES, BRIDGES = 4, 300  # of annealing
SETTINGS = [
    BASE,
    BASE._replace(anchor="trained"),
    BASE._replace(stddev=0.3),
    BASE._replace(multiplier=1.0),
    BASE._replace(multiplier=100.0),
    BASE._replace(instrumental="none"),
]


class Evidence:
    """The evidence bounds of posteriors of one structure; compiled once."""

    def __init__(self, run: Run, sets: RowSets):
        self.spec = spec_of(run, sets)
        self.fit = jax.jit(self._fit, static_argnums=0)
        self.terms = jax.jit(partial(terms_at, self.spec), static_argnums=0)
        self.anneal = jax.jit(self._anneal)

    def _fit(self, with_data: bool, heads: Params, given: Posterior, start: Params, key: jax.Array) -> tuple:
        start_D, _ = ravel_pytree(start)

        def problem_at(step_key: jax.Array) -> Any:
            batch = draw(given.sets, step_key)
            target = phases.log_weight(
                self.spec, heads, given.held, given.weight, batch, with_data=with_data, whole=False
            )
            return flat_problem(target, start)

        return fit_gaussian(problem_at, key, start_D, FIT_STEPS)

    def _anneal(self, heads: Params, given: Posterior, like: Params, key: jax.Array) -> dict[str, jax.Array]:
        """log Z in nat from both ends of annealing: value, and bounds with probability .99 each."""
        target = phases.log_weight(self.spec, heads, given.held, given.weight, given.sets, with_data=False, whole=True)
        planned = plan(PARTICLES, 0, BRIDGES)
        made = from_both_ends(flat_problem(target, like), key, planned, [], TAIL_PROBABILITY)
        bounds = {"lower": made.lower, "value": made.log_z, "upper": made.upper}
        return {f"log_z_annealed_{name}": quantity.to(nat) for name, quantity in bounds.items()}


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


def bound(evidence: Evidence, with_data: bool, heads: Params, given: Posterior, start: Params, key: jax.Array) -> tuple:
    """(terms of the evidence bound in nat, its standard error over the draws, the draws)."""
    mean_D, scale_D = evidence.fit(with_data, heads, given, start, key)
    to_tree = ravel_pytree(start)[1]
    draws = [
        mean_D + scale_D * jax.random.normal(jax.random.fold_in(key, index), mean_D.shape, mean_D.dtype)
        for index in range(DRAWS)
    ]
    each = [jax.device_get(evidence.terms(with_data, heads, given, to_tree(u_D))) for u_D in draws]
    line = {tag: float(np.mean([terms[tag] for terms in each])) for tag in each[0]}
    kl = float(divergence_from_prior(mean_D, scale_D))
    sums = [sum(float(value) for tag, value in terms.items() if tag != "violation") for terms in each]
    line |= {"kl": -kl, "bound": float(np.mean(sums)) - kl}
    line["standard_error"] = float(np.std(sums, ddof=1) / np.sqrt(DRAWS))
    return line, [to_tree(u_D) for u_D in draws]


def judge(
    evidence: Evidence, made: Prepared, given: Posterior, start: Params, kinds: tuple[str, str]
) -> dict[str, float]:
    """Every term of a pair in nat, and how honest its heads are at draws from the positive phase."""
    heads = {slot: made.heads[kind][slot] for slot, kind in zip(HEADS, kinds, strict=True)}
    line: dict[str, float] = {}
    for with_data, name in ((False, "log_z"), (True, "log_z_data")):
        key = jax.random.fold_in(jax.random.key(made.run.config.seed), int(with_data))
        terms, draws = bound(evidence, with_data, heads, given, start, key)
        line |= {f"{name}_{tag}": value for tag, value in terms.items()}
    line["first_prior"] = first_prior(made.run, heads)
    found = evidence.anneal(heads, given, start, jax.random.fold_in(jax.random.key(made.run.config.seed), 2))
    line |= {tag: float(value) for tag, value in found.items()}
    line["net"] = line["log_z_data_bound"] - line["log_z_annealed_value"]
    line["posterior"] = line["net"] + line["first_prior"]
    shares = [honesty(made, given.held, ravel_pytree(u)[0], start, heads, prior_spec(made.run.config)) for u in draws]
    return line | {tag: float(np.mean([share[tag] for share in shares])) for tag in shares[0]}


def posterior(made: Prepared, setting: Setting) -> tuple[Posterior, Params]:
    """The posterior over all rows, and the trained trunk in its whitened coordinates."""
    held, trained = centred(made.run, made.trunk, setting)
    sets = prior_sets(made.run.config, made.run.task)
    sets = sets if setting.instrumental == "untrusted" else sets._replace(untrusted=None)
    return Posterior(held, jnp.asarray(setting.multiplier, made.run.dtype), sets, None), trained


def name_of(setting: Setting) -> str:
    return (
        f"{setting.task}; {setting.anchor}, σ2={setting.stddev:g}, λ={setting.multiplier:g}, "
        f"person {setting.instrumental}, all rows"
    )


def run(out: Path, seeds: list[int], tasks: list[str], settings: list[Setting]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    path = out / "evidence.jsonl"
    done = {(r["seed"], r["setting"], r["pair"]) for r in read(path)} if path.exists() else set()
    todo = [
        (seed, base._replace(task=task), pair)
        for task in tasks
        for base in settings
        for seed in seeds
        for pair in PAIRS
        if (seed, name_of(base._replace(task=task)), ", ".join(pair)) not in done
    ]
    prepared: dict[tuple[int, str], Prepared] = {}
    compiled: dict[tuple[str, str], Evidence] = {}
    with path.open("a", encoding="utf-8") as file:
        for seed, setting, pair in track(todo, "pairs", console=Console(stderr=True)):
            began = time.monotonic()
            if (seed, setting.task) not in prepared:
                prepared[seed, setting.task] = prepare(seed, setting.task)
            made = prepared[seed, setting.task]
            given, start = posterior(made, setting)
            evidence = compiled.setdefault((setting.task, setting.instrumental), Evidence(made.run, given.sets))
            line = judge(evidence, made, given, start, pair)
            record = {"seed": seed, "setting": name_of(setting), "pair": ", ".join(pair)}
            record |= {"seconds": time.monotonic() - began, **accuracies(made), **line}
            file.write(json.dumps(record) + "\n")
            file.flush()
            print(name_of(setting), seed, pair, f"{line['posterior']:.1f}", file=sys.stderr, flush=True)


COLUMNS = (
    "first_prior",
    "log_z_bound",
    "log_z_annealed_value",
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
    parser.add_argument("--settings", type=int, default=len(SETTINGS), help="the first so many settings of SETTINGS")
    options = parser.parse_args()
    if options.what == "run":
        run(options.out, options.seeds, options.tasks, SETTINGS[: options.settings])
    print_table(read(options.out / "evidence.jsonl"), options.out / "evidence.csv", COLUMNS)


if __name__ == "__main__":
    main()
