"""The binding question, given what the trunk knows of the world: the evidence of planted head pairs, with bounds.

    python launch/planted_evidence.py run   --out runs/planted_evidence [--tasks world "hard, says" …] [--pairs …]
                                            [--settings base …] [--log-z-settings "lambda 100" …]
                                            [--agreement-settings base …] [--particles 32]
    python launch/planted_evidence.py table --out runs/planted_evidence

The world rows, tens of thousands of tokens, cost the same whichever heads are planted, and are taken out: a Gaussian
q(θ2) = N(m, s²) is fitted to prior × world likelihood over all world rows, from the trained trunk, by climbing the
evidence bound in minibatches (`fit_gaussian`), and stands for the posterior given the world. Heads are planted on the
trunk at m (launch/planted.py has the kinds and tasks). With log Z_W, which all pairs share, left out,

    log Z_D − log Z_W = log E_q[exp(−label data − λ N_c C̄)]      over the setting's rows of each labelled set

is a log partition function with q in the place of the prior. Its weight is never positive, nor is that of log Z, whose
prior is the second prior itself; so 0 is an upper bound of both, and annealing gives a lower bound with probability
1 − TAIL_PROBABILITY and, by the reverse pass, an upper one. `posterior` is first prior + log Z_D − log Z_W − log Z.
`--log-z-settings` measures log Z alone, which says the most that −log Z can pay a pair.

log E_q[exp(−λ N_c C̄)] is log p(agreement | world, heads): what agreement costs among trunks that know the world, where
log Z asks all trunks, ignorant ones included. `given_world` is the posterior with it in the place of log Z, first prior
+ log p(labels | agreement, world, heads); `--agreement-settings` measures it alone.
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
from jax.scipy.special import entr
from rich.console import Console
from rich.progress import track

from honest.objective.log_partition.bidirectional import ascend, descend, plan
from honest.objective.log_partition.bounds import TAIL_PROBABILITY, log_mean_exp, lower_bound
from honest.objective.log_partition.problem import Problem, flat_problem
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
    agreement_rows,
    centred,
    first,
    first_prior,
    honesty,
    planted,
    print_table,
    read,
    spec_of,
    trained,
)

FIT_STEPS, BATCH_ROWS = 4000, 32
BRIDGES = 300  # log Z is annealed upwards alone, over N_c rows
BOTH_WAYS, DATA_BRIDGES = 4, 120  # log Z_D − log Z_W both ways, over the labelled rows and N_c
GIVEN = BASE._replace(population=128, labelled=512)  # all world rows are given
SETTINGS = {
    "base": GIVEN,
    "trained": GIVEN._replace(anchor="trained"),
    "sigma 0.3": GIVEN._replace(stddev=0.3),
    "sigma 3": GIVEN._replace(stddev=3.0),
    "lambda 1": GIVEN._replace(multiplier=1.0),
    "lambda 100": GIVEN._replace(multiplier=100.0),
    "population 1024": GIVEN._replace(population=1024),
    "narrow": GIVEN._replace(breadth="narrow"),
    "labels 2048": GIVEN._replace(labelled=2048),
    "person withheld": GIVEN._replace(instrumental="none"),
}


class Gaussian(NamedTuple):
    """q(θ2) in whitened coordinates, (D,) each."""

    mean_D: jax.Array
    scale_D: jax.Array


class Evidence:
    """log Z, by so many particles, and log Z_D of posteriors of one structure; compiled once."""

    def __init__(self, run: Run, sets: RowSets, particles: int):
        self.run, self.spec, self.particles = run, spec_of(run, sets), particles
        self.fit = jax.jit(self._fit)
        self.log_z = jax.jit(self._log_z)
        self.told = jax.jit(self.informed)
        self.given_world = jax.jit(self._given_world, static_argnames="with_data")

    def _fit(self, heads: Params, given: Posterior, start: Params, key: jax.Array) -> Gaussian:
        """q of the second prior and the world rows of `given`. heads: any, they are not read."""
        zero = jnp.zeros_like(given.weight)

        def problem_at(step_key: jax.Array) -> Problem:
            rows = world_batch(given.sets, step_key)
            target = phases.log_weight(self.spec, heads, given.held, zero, rows, with_data=True, whole=False)
            return flat_problem(target, start)

        return Gaussian(*fit_gaussian(problem_at, key, ravel_pytree(start)[0], FIT_STEPS))

    def _target(self, heads: Params, given: Posterior, like: Params, *, with_data: bool) -> Problem:
        rows = given.sets._replace(world=None)
        target = phases.log_weight(self.spec, heads, given.held, given.weight, rows, with_data=with_data, whole=True)
        return flat_problem(target, like)

    def _log_z(self, heads: Params, given: Posterior, like: Params, key: jax.Array) -> dict[str, jax.Array]:
        """log Z by annealing, and what the heads know where that ends, weighed by the particles: see `informed`."""
        problem = self._target(heads, given, like, with_data=False)
        annealed = ascend(problem, jax.random.split(key, 3), plan(self.particles, 0, BRIDGES)).annealed
        work_P, unravel = annealed.work_P, ravel_pytree(like)[1]
        told = jax.vmap(lambda u_D: self.informed(heads, given, unravel(u_D)))(annealed.end.position)
        share_P = jax.nn.softmax(work_P)
        seen = {f"negative_{tag}": share_P @ of_P for tag, of_P in told.items()}
        seen["negative_weight"] = share_P @ annealed.end.weight
        return {"log_z_value": log_mean_exp(work_P), "log_z_lower": lower_bound(work_P, TAIL_PROBABILITY)} | seen

    def informed(self, heads: Params, given: Posterior, u: Params) -> dict[str, jax.Array]:
        """Per head, how much its answers tell of the question: their mutual information over the consistency rows, bit.

        0 for a head that answers every row alike, whether by a half or by a sure no.
        """
        theta = phases.place(prior_spec(self.run.config), heads, given.held, u)
        logits = self.run.model.head_logits(theta, *given.sets.consistency[:2])
        chances_HxBxA = jax.nn.softmax(jnp.stack(logits))
        entropy = partial(jnp.sum, axis=-1)
        tells_H = entropy(entr(chances_HxBxA.mean(1))) - entropy(entr(chances_HxBxA)).mean(1)
        return {f"bits_{slot}": tell / jnp.log(2) for slot, tell in zip(HEADS, tells_H, strict=True)}

    def _given_world(
        self, heads: Params, given: Posterior, q: Gaussian, like: Params, key: jax.Array, *, with_data: bool
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """({value, lower, upper, at_q} in nat, draws from the path's end, whitened): log Z_D − log Z_W, or agreement's.

        at_q: E_q of the weight, Jensen's lower bound of the same integral.
        """
        target = self._target(heads, given, like, with_data=with_data)
        problem = target._replace(weight=lambda v_D: target.weight(q.mean_D + q.scale_D * v_D))
        keys, planned = jax.random.split(key, 4), plan(BOTH_WAYS, 0, DATA_BRIDGES)
        up = ascend(problem, keys[:3], planned)
        made = descend(problem, keys[3], planned, up, [], TAIL_PROBABILITY)
        bounds = {"value": made.log_z, "lower": made.lower, "upper": made.upper}
        numbers = {name: bound.to(nat) for name, bound in bounds.items()} | {"at_q": jnp.mean(up.start.weight)}
        return numbers, q.mean_D + q.scale_D * up.annealed.end.position


def world_batch(sets: RowSets, key: jax.Array) -> RowSets:
    """BATCH_ROWS world rows with replacement, and one of the consistency population, which the fit weighs by 0."""
    assert sets.world is not None and sets.consistency is not None
    chosen = jax.random.randint(key, (BATCH_ROWS,), 0, size(sets.world))
    return RowSets(
        None,
        None,
        jax.tree.map(lambda leaf: leaf[chosen], sets.world),
        jax.tree.map(lambda leaf: leaf[:1], sets.consistency),
    )


class Planted(NamedTuple):
    """q given the world, and heads planted on the trunk at its mean (`made`); trunk: the trained one before."""

    q: Gaussian
    made: Prepared
    trunk: Params


def plant(evidence: Evidence, run: Run, trunk: Params, setting: Setting) -> Planted:
    """The setting's anchor and σ2 alone matter here."""
    given, start = posterior(run, trunk, setting)
    anchor = run.anchor()
    heads = {slot: anchor[slot] for slot in HEADS}
    q = evidence.fit(heads, given, start, jax.random.key(run.config.seed))
    mean = ravel_pytree(start)[1](q.mean_D)
    at_mean = {**trunk, "trunk": phases.place(prior_spec(run.config), heads, given.held, mean)["trunk"]}
    return Planted(q, Prepared(run, at_mean, planted(run, at_mean)), trunk)


def judge(evidence: Evidence, planting: Planted, case: Case) -> dict[str, float]:
    """The terms of a pair in nat, and how honest its heads are at draws from the positive phase."""
    made = planting.made
    given, like = posterior(made.run, planting.trunk, case.setting)
    heads = {slot: made.heads[kind][slot] for slot, kind in zip(HEADS, case.pair, strict=True)}
    keys = jax.random.split(jax.random.key(made.run.config.seed), 3)
    line = {"first_prior": first_prior(made.run, heads)}
    told = evidence.told(heads, given, ravel_pytree(like)[1](planting.q.mean_D))
    line |= {f"q_{tag}": float(value) for tag, value in told.items()}

    def given_world(name: str, key: jax.Array, *, with_data: bool) -> jax.Array:
        numbers, draws = evidence.given_world(heads, given, planting.q, like, key, with_data=with_data)
        line.update({f"{name}_{tag}": float(value) for tag, value in numbers.items()})
        return draws

    if case.integrals != "agreement":
        line |= {tag: float(value) for tag, value in evidence.log_z(heads, given, like, keys[0]).items()}
    if case.integrals != "log Z":
        given_world("agreement", keys[2], with_data=False)
    if case.integrals != "all":
        return line
    draws = given_world("log_z_data", keys[1], with_data=True)
    data = line["first_prior"] + line["log_z_data_value"]
    line |= {"posterior": data - line["log_z_value"], "given_world": data - line["agreement_value"]}
    shares = [honesty(made, given.held, u_D, like, heads, prior_spec(made.run.config)) for u_D in draws]
    return line | {tag: float(np.mean([share[tag] for share in shares])) for tag in shares[0]}


def posterior(run: Run, trunk: Params, setting: Setting) -> tuple[Posterior, Params]:
    """The posterior over all world rows and the setting's others, and the trained trunk in its whitened coordinates."""
    held, start = centred(run, trunk, setting)
    sets = prior_sets(run.config, run.task)
    answered = first(sets.untrusted, setting.labelled) if setting.instrumental == "untrusted" else None
    trusted, agreement = first(sets.trusted, setting.labelled), agreement_rows(sets.trusted, setting)
    sets = sets._replace(trusted=trusted, untrusted=answered, consistency=agreement)
    return Posterior(held, jnp.asarray(setting.multiplier, run.dtype), sets, None), start


def name_of(setting: Setting) -> str:
    narrow = "" if setting.breadth == "broad" else f" {setting.breadth}"
    labels = "" if setting.labelled == GIVEN.labelled else f", labels {setting.labelled} + {setting.labelled}"
    return (
        f"{setting.task}; {setting.anchor}, σ2={setting.stddev:g}, λ={setting.multiplier:g}, "
        f"N_c={setting.population}{narrow}, person {setting.instrumental}{labels}"
    )


class Case(NamedTuple):
    """One line of the table. integrals: `all`, or `log Z` or `agreement` alone."""

    seed: int
    setting: Setting
    pair: tuple[str, str]
    integrals: str

    def identity(self) -> dict[str, Any]:
        told = {"seed": self.seed, "setting": name_of(self.setting), "pair": ", ".join(self.pair)}
        return told | {"integrals": self.integrals}

    @property
    def planted_by(self) -> Setting:
        """Heads of log Z alone are those of the base setting; others, those of the setting's own anchor and σ2."""
        base = SETTINGS["base"]
        own = base if self.integrals == "log Z" else self.setting
        return base._replace(anchor=own.anchor, stddev=own.stddev, task=self.setting.task)


def cases(options: argparse.Namespace) -> list[Case]:
    """By task and seed, whose trunk is trained once."""
    asked = {"all": options.settings, "log Z": options.log_z_settings, "agreement": options.agreement_settings}
    return [
        Case(seed, SETTINGS[name]._replace(task=task), pair, integrals)
        for task in options.tasks
        for seed in options.seeds
        for name in SETTINGS
        for integrals, names in asked.items()
        if name in names
        for pair in PAIRS
        if ", ".join(pair) in options.pairs
    ]


def run(path: Path, todo: list[Case], particles: int) -> None:
    trunks: dict[tuple[int, str], tuple[Run, Params]] = {}
    plants: dict[tuple[int, Setting], Planted] = {}
    compiled: dict[tuple[str, str, int, int], Evidence] = {}

    def evidence_of(made: Run, setting: Setting, trunk: Params) -> Evidence:
        structure = setting.task, setting.instrumental, setting.population, setting.labelled
        if structure not in compiled:
            compiled[structure] = Evidence(made, posterior(made, trunk, setting)[0].sets, particles)
        return compiled[structure]

    with path.open("a", encoding="utf-8") as file:
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            file.write("\n")  # after a line that was cut short
        for case in track(todo, "pairs", console=Console(stderr=True)):
            seed, setting, began = case.seed, case.setting, time.monotonic()
            if (seed, setting.task) not in trunks:
                trunks, plants = {(seed, setting.task): trained(seed, setting.task)}, {}
            made, trunk = trunks[seed, setting.task]
            if (seed, case.planted_by) not in plants:
                by = case.planted_by
                plants[seed, by] = plant(evidence_of(made, by, trunk), made, trunk, by)
            planting = plants[seed, case.planted_by]
            line = judge(evidence_of(made, setting, trunk), planting, case)
            record = case.identity() | {
                "seconds": time.monotonic() - began,
                "particles": particles,
                **accuracies(planting.made),
                **line,
            }
            file.write(json.dumps(record) + "\n")
            file.flush()
            print(name_of(setting), seed, case.pair, json.dumps(line), file=sys.stderr, flush=True)


COLUMNS = (
    "first_prior",
    "log_z_value",
    "log_z_lower",
    "agreement_lower",
    "agreement_value",
    "agreement_upper",
    "log_z_data_lower",
    "log_z_data_value",
    "log_z_data_upper",
    "log_z_data_at_q",
    "posterior",
    "given_world",
    "negative_bits_intended_head",
    "negative_bits_instrumental_head",
    "q_bits_intended_head",
    "q_bits_instrumental_head",
    "truth_fooled_intended_head",
    "truth_fooled_instrumental_head",
)
# Terms of the posterior, and of the one given the world.
LEADS = ("first_prior", "log_z_data_value", "-log_z_value", "-agreement_value", "posterior", "given_world")


def posterior_bounds(row: dict[str, float]) -> tuple[float, float]:
    """What the bounds of log Z_D and log Z (0 from above) leave of first prior + log Z_D − log Z, in nat."""
    return (
        row["first_prior"] + row["log_z_data_lower"],
        row["first_prior"] + row["log_z_data_upper"] - row["log_z_lower"],
    )


def print_bounds(rows: list[dict[str, Any]]) -> None:
    """The honest pair's lead by the bounds of each seed alone; the last line of a repeated case counts."""
    whole = {(row["setting"], row["seed"], row["pair"]): row for row in rows if row["integrals"] == "all"}
    print("\nhonest pair ahead of, by the bounds of each seed alone, in nat")
    for (setting, seed, pair), row in whole.items():
        honest = whole.get((setting, seed, ", ".join(PAIRS[0])))
        if honest is None or honest is row:
            continue
        (low, high), (other_low, other_high) = posterior_bounds(honest), posterior_bounds(row)
        crossed = any(each["log_z_data_lower"] > each["log_z_data_upper"] for each in (honest, row))
        told = "bounds that contradict each other" if crossed else f"{low - other_high:.0f} to {high - other_low:.0f}"
        print(f"  {setting}, seed {seed}, {pair}: {told}")


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
    parser.add_argument(
        "--agreement-settings", nargs="*", choices=SETTINGS, default=[], help="agreement given the world alone"
    )
    parser.add_argument(
        "--particles", type=int, default=8, help="of log Z; at λ = 100 most get stuck, and 32 bound it more tightly"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "evidence.jsonl"
    rows = read(path) if path.exists() else []
    done = [{key: row[key] for key in ("seed", "setting", "pair", "integrals")} for row in rows]
    if options.what == "run":
        run(path, [case for case in cases(options) if case.identity() not in done], options.particles)
    print_table(read(path), options.out / "evidence.csv", COLUMNS, LEADS)
    print_bounds(read(path))


if __name__ == "__main__":
    main()
