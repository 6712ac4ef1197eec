"""The binding question without training luck: planted head pairs on a trained trunk, term by term in nats.

    python launch/planted_pairs.py run  --out runs/planted_pairs [--seeds 3] [--settings base sigma …]
    python launch/planted_pairs.py table --out runs/planted_pairs

A trunk is trained by the trunk stage of configs/planted_pairs.yaml; heads are trained on it, frozen, by the project's
trainer: on the truth of all rows, on the person's answers to all rows, on the trusted labels alone (single head), or
not at all (random: the anchor's own). Each pair (intended, instrumental) is then judged by

    log p(h) + log Z_D(h) − log Z(h),   log Z_D − log Z = log p(data | the heads agree)

with the objective's own terms (`honest.train.phases.log_weight`), over declared sets of a size at which every row
enters: modes by L-BFGS from two starts (the centre, the trained trunk), the better one kept, and the Gauss–Newton
volume of all rows. `--bounds` brackets log Z and log Z_D from both ends of annealing. λ is given; the ε whose
multiplier it is, is C̄ at the positive mode.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from rich.console import Console
from rich.progress import track

from honest.baselines import single_head
from honest.baselines.method import HeadRows, Method, one_line
from honest.config import GROUP_UNITS
from honest.config_io import load_config
from honest.data.batch import Batch, Splits, concatenate
from honest.data.loader import to_device
from honest.data.tasks import build_task
from honest.objective.consistency import whole_violation
from honest.objective.data_loss import whole_data_nats
from honest.objective.log_partition.bidirectional import Ascent, ascend, descend, plan
from honest.objective.log_partition.bounds import TAIL_PROBABILITY
from honest.objective.log_partition.mode import minimise
from honest.objective.log_partition.problem import Problem, flat_problem
from honest.objective.log_partition.variational import fit_gaussian, in_coordinates_of
from honest.objective.log_partition.volume import VolumeRows, choose_volume_rows, factor, volume_nats
from honest.objective.parameter_prior.gaussian import isotropic
from honest.objective.predictions import RowSets
from honest.params import Params, squared_norm, whiten
from honest.report.seeds import seed_mean
from honest.train import phases
from honest.train.loop import compile_step
from honest.train.predictor import TokenPredictor
from honest.train.prior_stage import prior_counts, prior_sets, prior_spec
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
PARTICLES, BRIDGES, FIT_STEPS = 4, 300, 2000  # of the bounds
ROUND = 300  # gradients of L-BFGS from each start before the better one is followed on
TOLERANCE = 1.0  # nat per unit of u: where the better start's descent ends
VOLUME_ROWS = 10**6  # of each set, and world tokens, in the Laplace volume: all of them


class Setting(NamedTuple):
    """One posterior. stddev: σ2 in θ.trunk. multiplier: λ in nat/disagreement. population: N_c.

    breadth: `broad`, the first N_c trusted rows, or `narrow`, N_c rows of the commonest operand pairs. labelled, world:
    rows of each labelled set and of the world set that the posterior is over. task: a key of TASKS.
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


# --- heads ---------------------------------------------------------------------------------------------------


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
    shell = compile_step(stage, run.mesh)
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


# --- the posterior of a pair -----------------------------------------------------------------------------------


def first(rows: Batch, count: int) -> Batch:
    return jax.tree.map(lambda leaf: leaf[:count], rows)


def declared_sets(run: Run, setting: Setting) -> RowSets:
    """The populations of the planted posterior, every row of which enters."""
    sets, trusted = prior_sets(run.config, run.task), to_device(run.task.splits.trusted)
    assert sets.untrusted is not None and sets.world is not None
    agreement = first(trusted, setting.population)
    if setting.breadth == "narrow":
        questions, counts = np.unique(np.asarray(trusted.tokens_BxL)[:, :-1], axis=0, return_counts=True)
        commonest = questions[np.argsort(-counts)][: max(setting.population // 16, 1)]
        member_B = (np.asarray(trusted.tokens_BxL)[:, None, :-1] == commonest[None]).all(-1).any(1)
        chosen = np.flatnonzero(member_B)
        agreement = jax.tree.map(lambda leaf: leaf[np.resize(chosen, setting.population)], trusted)
    return RowSets(
        trusted=first(sets.trusted, setting.labelled),
        untrusted=first(sets.untrusted, setting.labelled) if setting.instrumental == "untrusted" else None,
        world=first(sets.world, setting.world),
        consistency=agreement,
    )


class Posterior(NamedTuple):
    """What a posterior is made of beside the heads. weight: λ in nat/disagreement, bare."""

    held: Held
    weight: jax.Array
    sets: RowSets
    chosen: VolumeRows


@dataclass(frozen=True, eq=False)
class Judge:
    """Laplace values and sampled bounds of pairs; compiled once for all posteriors of one structure."""

    spec: StageSpec

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", jax.jit(self._mode, static_argnums=0))
        object.__setattr__(self, "laplace", jax.jit(self._laplace, static_argnums=0))
        object.__setattr__(self, "bounds", jax.jit(self._bounds, static_argnums=0))

    def _problem(self, with_data: bool, heads: Params, given: Posterior, like: Params) -> Problem:
        target = phases.log_weight(
            self.spec, heads, given.held, given.weight, given.sets, with_data=with_data, whole=True
        )
        return flat_problem(target, like)

    def _mode(self, with_data: bool, heads: Params, given: Posterior, start: Params) -> tuple[jax.Array, ...]:
        """(u_D, energy there in nat, norm of its gradient in nat) after ROUND evaluations from the start."""
        problem = self._problem(with_data, heads, given, start)
        mode_D, _ = minimise(problem.energy, ravel_pytree(start)[0], ROUND)
        energy, gradient_D = jax.value_and_grad(problem.energy)(mode_D)
        return mode_D, energy, jnp.linalg.norm(gradient_D)

    def _factor(self, with_data: bool, heads: Params, given: Posterior, mode_D: jax.Array, like: Params) -> jax.Array:
        prior = self.spec.prior
        assert prior is not None
        place = partial(phases.place, prior, heads, given.held)
        u = ravel_pytree(like)[1](mode_D)
        return factor(
            self.spec.predictor, place, u, given.chosen, self.spec.counts, given.weight, prior.divergence, with_data
        )

    def _laplace(
        self, with_data: bool, heads: Params, given: Posterior, mode_D: jax.Array, like: Params
    ) -> dict[str, Any]:
        prior = self.spec.prior
        assert prior is not None
        a = self._factor(with_data, heads, given, mode_D, like)
        theta = phases.place(prior, heads, given.held, ravel_pytree(like)[1](mode_D))
        chunk = prior.phases.chunk_rows
        data = whole_data_nats(self.spec.predictor, theta, given.sets, chunk) if with_data else {}
        violation = whole_violation(self.spec.predictor, theta, given.sets.consistency, prior.divergence, chunk)
        rate = violation.to(disagreement / example)
        return {
            "volume": volume_nats(a).to(nat),
            "second_prior": -0.5 * jnp.sum(mode_D**2),
            "violation": rate,
            "consistency": -given.weight * self.spec.counts.consistency * rate,
            **{f"data_{group}": -nats.to(nat) for group, nats in data.items()},
        }

    def _bounds(
        self, with_data: bool, heads: Params, given: Posterior, mode_D: jax.Array, like: Params, key: Any
    ) -> dict[str, jax.Array]:
        """log Z in nat, value and both bounds, annealed from the prior (`prior`); of the positive phase also from a
        Gaussian that is fitted at the mode (`fit`, with its evidence bound).

        Lower bounds hold for the whole integral. An upper bound holds for what the pass's own ends, moved on, reach.
        ends: where the particles from the Gaussian end, near draws from the posterior there, (PARTICLES, D).
        """
        problem = self._problem(with_data, heads, given, like)
        keys, found = jax.random.split(key, 10), {}

        def both_ends(name: str, one: Problem, own: jax.Array) -> Ascent:
            planned = plan(PARTICLES, 0, BRIDGES)
            ascent = ascend(one, own[:3], planned)
            made = descend(one, own[3], planned, ascent, [], TAIL_PROBABILITY)
            for tag, bound in (("lower", made.lower), ("value", made.log_z), ("upper", made.upper)):
                found[f"{name}_{tag}"] = bound.to(nat)
            return ascent

        both_ends("prior", problem, keys[:4])
        if with_data:
            mean_D, scale_D = fit_gaussian(lambda _: problem, keys[8], mode_D, FIT_STEPS)
            ascent = both_ends("fit", in_coordinates_of(problem, mean_D, scale_D), keys[4:8])
            found["evidence_bound"] = jnp.mean(ascent.start.weight)
            found["ends"] = mean_D + scale_D * ascent.annealed.end.position
        return found


def judge_of(run: Run, sets: RowSets) -> Judge:
    counts = prior_counts(sets)
    spec = StageSpec(
        "planted", TokenPredictor(run.model), HEADS, counts, counts.labels, None, prior_spec(run.config), None
    )  # type: ignore[arg-type]
    return Judge(spec)


def centred(run: Run, trunk: Params, setting: Setting) -> tuple[Held, Params]:
    """The second prior around the setting's centre, and the trained trunk in its whitened coordinates."""
    centre = run.anchor()["trunk"] if setting.anchor == "init" else trunk["trunk"]
    stddev = Quantity(jnp.asarray(setting.stddev, run.dtype), GROUP_UNITS["trunk"])
    second = {"trunk": isotropic(centre, [stddev] * len(jax.tree.leaves(centre)))}
    held = Held(anchor={"trunk": centre}, start={}, priors=Priors(first={}, second=second, measure={}))
    return held, whiten({"trunk": trunk["trunk"]}, {"trunk": centre}, second, ("trunk",))


def posterior_of(run: Run, trunk: Params, setting: Setting) -> tuple[Posterior, tuple[Params, Params]]:
    """The posterior, and both starts of the modes, whitened."""
    held, trained = centred(run, trunk, setting)
    sets = declared_sets(run, setting)
    chosen = choose_volume_rows(sets, VOLUME_ROWS, run.config.seed)
    posterior = Posterior(held, jnp.asarray(setting.multiplier, run.dtype), sets, chosen)
    return posterior, (jax.tree.map(jnp.zeros_like, trained), trained)


def judge_pair(
    judge: Judge,
    given: Posterior,
    starts: tuple[Params, Params],
    heads: Params,
    anchor: Params,
    evaluations: int,
) -> tuple[dict[str, float], dict[bool, jax.Array]]:
    """Every term in nat, and both modes: the better of both starts, followed on until |g| ≤ TOLERANCE or the budget."""
    line: dict[str, float] = {}
    modes: dict[bool, jax.Array] = {}
    to_tree = ravel_pytree(starts[0])[1]
    for with_data, name in ((False, "log_z"), (True, "log_z_data")):
        found = [judge.mode(with_data, heads, given, start) for start in starts]  # type: ignore[attr-defined]
        energies = [float(np.nan_to_num(energy, nan=np.inf)) for _, energy, _ in found]
        best = int(np.argmin(energies))
        mode_D, spent = found[best], ROUND
        while float(mode_D[2]) > TOLERANCE and spent < evaluations:
            mode_D = judge.mode(with_data, heads, given, to_tree(mode_D[0]))  # type: ignore[attr-defined]
            spent += ROUND
        modes[with_data], energies[best] = mode_D[0], float(mode_D[1])
        values = jax.device_get(judge.laplace(with_data, heads, given, modes[with_data], starts[0]))  # type: ignore[attr-defined]
        line |= {f"{name}_{key}": float(value) for key, value in values.items()}
        line |= {f"{name}_from_trained": float(best), f"{name}_gradient_norm": float(mode_D[2])}
        line |= {f"{name}_energy": energies[best], f"{name}_other_start_energy": energies[1 - best]}
        line[name] = float(values["volume"]) - energies[best]
    line["net"] = line["log_z_data"] - line["log_z"]
    line["net_modes"] = line["log_z_energy"] - line["log_z_data_energy"]
    moved = jax.tree.map(jnp.subtract, heads, {slot: anchor[slot] for slot in HEADS})
    line["first_prior"] = -0.5 * float(squared_norm(moved))  # σ1 = 1 θ.head
    line["posterior"] = line["net"] + line["first_prior"]
    return line, modes


# --- runs ----------------------------------------------------------------------------------------------------


def settings_of(names: list[str]) -> Iterator[tuple[str, Setting]]:
    for name in names:
        for setting in SETTINGS[name]:
            yield name, setting


class Prepared(NamedTuple):
    run: Run
    trunk: Params
    heads: dict[str, dict[str, Params]]


def prepare(seed: int, task: str) -> Prepared:
    source, changes = TASKS[task]
    config = load_config(source, [*changes, f"seed={seed}", f"task.seed={seed}"]).config
    run = make_run(config, build_task(config.task), make_mesh(1))
    trunk = train(make_stage(run, TRUNK, {}), run, None)
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


def drawn_honesty(made: Prepared, held: Held, ends_PxD: jax.Array, like: Params, heads: Params) -> dict[str, float]:
    """The same shares, averaged over near draws from the posterior."""
    prior = prior_spec(made.run.config)
    each = [honesty(made, held, end_D, like, heads, prior) for end_D in ends_PxD]
    return {f"drawn_{tag}": float(np.mean([shares[tag] for shares in each])) for tag in each[0]}


def run_settings(out: Path, seeds: list[int], names: list[str], evaluations: int, bounds: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    path = out / "pairs.jsonl"
    done = {(r["seed"], r["setting"], r["pair"], r["bounds"]) for r in read(path)} if path.exists() else set()
    prepared: dict[tuple[int, str], Prepared] = {}
    judges: dict[tuple, Judge] = {}
    todo = [
        (seed, name, setting, pair)
        for seed in seeds
        for name, setting in settings_of(names)
        for pair in PAIRS
        if (seed, key_of(setting), ", ".join(pair), bounds) not in done
    ]
    with path.open("a", encoding="utf-8") as file:
        for seed, name, setting, pair in track(todo, "pairs", console=Console(stderr=True)):
            began = time.monotonic()
            if (seed, setting.task) not in prepared:
                prepared[seed, setting.task] = prepare(seed, setting.task)
                print(seed, setting.task, accuracies(prepared[seed, setting.task]), file=sys.stderr, flush=True)
            made = prepared[seed, setting.task]
            given, starts = posterior_of(made.run, made.trunk, setting)
            structure = setting._replace(anchor="", stddev=0.0, multiplier=0.0, breadth="")  # the rest are arguments
            judge = judges.setdefault(structure, judge_of(made.run, given.sets))
            heads = {slot: made.heads[kind][slot] for slot, kind in zip(HEADS, pair, strict=True)}
            line, modes = judge_pair(judge, given, starts, heads, made.run.anchor(), evaluations)
            line |= honesty(made, given.held, modes[True], starts[0], heads, prior_spec(made.run.config))
            if bounds:
                for with_data, label in ((False, "log_z"), (True, "log_z_data")):
                    key = jax.random.fold_in(jax.random.key(seed), int(with_data))
                    found = judge.bounds(with_data, heads, given, modes[with_data], starts[0], key)  # type: ignore[attr-defined]
                    ends_PxD = found.pop("ends", None)
                    line |= {f"{label}_{name}": float(bound) for name, bound in found.items()}
                    if ends_PxD is not None:
                        line |= drawn_honesty(made, given.held, ends_PxD, starts[0], heads)
            record = {"seed": seed, "group": name, "setting": key_of(setting), "pair": ", ".join(pair)}
            record |= {"bounds": bounds, "seconds": time.monotonic() - began, **accuracies(made), **line}
            file.write(json.dumps(record) + "\n")
            file.flush()


def key_of(setting: Setting) -> str:
    return (
        f"{setting.task}; {setting.anchor}, σ2={setting.stddev:g}, λ={setting.multiplier:g}, "
        f"N_c={setting.population} {setting.breadth}, person {setting.instrumental}, "
        f"rows {setting.labelled}+{setting.labelled}+{setting.world}"
    )


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--evaluations", type=int, default=1500, help="gradients of L-BFGS from the better start")
    parser.add_argument("--bounds", action="store_true", help="also bracket log Z and log Z_D by annealing")
    options = parser.parse_args()
    if options.what == "run":
        run_settings(options.out, options.seeds, options.settings, options.evaluations, options.bounds)
    table(options.out)


def table(out: Path) -> None:
    """CSV of every pair, and the mean over seeds of each setting's margins over (truth, person)."""
    rows = read(out / "pairs.jsonl")
    keys = list(dict.fromkeys(key for row in rows for key in row))
    with (out / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, keys, restval="")
        writer.writeheader()
        writer.writerows(rows)
    by: dict[str, dict[str, dict[int, dict]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        by[row["setting"]][row["pair"]][row["seed"]] = row
    for setting, pairs in by.items():
        print(f"\n{setting}")
        for pair, seeds in pairs.items():
            honest = pairs.get("truth, person", {})
            common = [seed for seed in seeds if seed in honest]
            margins = [honest[s]["posterior"] - seeds[s]["posterior"] for s in common]
            margin = seed_mean(margins) if margins else None
            mean = {k: np.mean([r[k] for r in seeds.values()]) for k in COLUMNS}
            print(
                f"  {pair:16s} "
                + " ".join(f"{k} {v:9.2f}" for k, v in mean.items())
                + (
                    ""
                    if margin is None
                    else f"  honest ahead by {margin.mean:.1f} [{margin.low:.1f}, {margin.high:.1f}]"
                )
            )


COLUMNS = ("first_prior", "log_z", "log_z_data", "net", "net_modes", "posterior", "truth_fooled_intended_head")

if __name__ == "__main__":
    main()
