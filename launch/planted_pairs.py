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
from honest.objective.log_partition.bidirectional import from_both_ends, plan
from honest.objective.log_partition.bounds import TAIL_PROBABILITY
from honest.objective.log_partition.mode import minimise
from honest.objective.log_partition.problem import Problem, flat_problem
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

CONFIG = Path(__file__).parents[1] / "configs" / "planted_pairs.yaml"
PAIRS = (
    ("truth", "person"),
    ("person", "person"),
    ("truth", "truth"),
    ("single", "single"),
    ("random", "person"),
)
BRIDGES, PARTICLES = 600, 2


class Setting(NamedTuple):
    """One posterior. stddev: σ2 in θ.trunk. multiplier: λ in nat/disagreement. population: N_c.

    breadth: `broad`, the first N_c trusted rows, or `narrow`, N_c rows of the commonest operand pairs. labelled, world:
    rows of each labelled set and of the world set that the posterior is over.
    """

    anchor: str
    stddev: float
    multiplier: float
    population: int
    breadth: str
    instrumental: str
    targets: str
    labelled: int
    world: int


BASE = Setting("init", 1.0, 10.0, 128, "broad", "untrusted", "says", 64, 128)
SETTINGS: dict[str, list[Setting]] = {
    "base": [BASE],
    "sigma": [BASE._replace(stddev=s) for s in (0.3, 3.0)],
    "lambda": [BASE._replace(multiplier=m) for m in (1.0, 100.0)],
    "anchor": [BASE._replace(anchor="trained", stddev=s) for s in (0.3, 1.0, 3.0)],
    "population": [BASE._replace(population=n) for n in (32, 512)],
    "breadth": [BASE._replace(breadth="narrow")],
    "withheld": [BASE._replace(instrumental="none")],
    "difference": [BASE._replace(targets="difference")],
    "size": [BASE._replace(labelled=256, world=512)],
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


@dataclass(frozen=True, eq=False)
class Judge:
    """Laplace values and sampled bounds of pairs under posteriors of one structure; compiled once."""

    spec: StageSpec
    chosen: VolumeRows
    sets: RowSets
    evaluations: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", jax.jit(self._mode, static_argnums=0))
        object.__setattr__(self, "laplace", jax.jit(self._laplace, static_argnums=0))
        object.__setattr__(self, "bounds", jax.jit(self._bounds, static_argnums=0))

    def _problem(self, with_data: bool, heads: Params, held: Held, weight: jax.Array, like: Params) -> Problem:
        target = phases.log_weight(self.spec, heads, held, weight, self.sets, with_data=with_data, whole=True)
        return flat_problem(target, like)

    def _mode(
        self, with_data: bool, heads: Params, held: Held, weight: jax.Array, start: Params
    ) -> tuple[jax.Array, ...]:
        """(u_D, energy there in nat, norm of its gradient in nat) after so many evaluations from the start."""
        problem = self._problem(with_data, heads, held, weight, start)
        mode_D, _ = minimise(problem.energy, ravel_pytree(start)[0], self.evaluations)
        energy, gradient_D = jax.value_and_grad(problem.energy)(mode_D)
        return mode_D, energy, jnp.linalg.norm(gradient_D)

    def _laplace(
        self, with_data: bool, heads: Params, held: Held, weight: jax.Array, mode_D: jax.Array, like: Params
    ) -> dict[str, Any]:
        prior = self.spec.prior
        assert prior is not None
        u = ravel_pytree(like)[1](mode_D)
        place = partial(phases.place, prior, heads, held)
        a = factor(self.spec.predictor, place, u, self.chosen, self.spec.counts, weight, prior.divergence, with_data)
        theta, chunk = place(u), prior.phases.chunk_rows
        data = whole_data_nats(self.spec.predictor, theta, self.sets, chunk) if with_data else {}
        violation = whole_violation(self.spec.predictor, theta, self.sets.consistency, prior.divergence, chunk)
        rate = violation.to(disagreement / example)
        return {
            "volume": volume_nats(a).to(nat),
            "second_prior": -0.5 * jnp.sum(mode_D**2),
            "violation": rate,
            "consistency": -weight * self.spec.counts.consistency * rate,
            **{f"data_{group}": -nats.to(nat) for group, nats in data.items()},
        }

    def _bounds(
        self, with_data: bool, heads: Params, held: Held, weight: jax.Array, mode_D: jax.Array, like: Params, key: Any
    ) -> tuple[jax.Array, ...]:
        problem = self._problem(with_data, heads, held, weight, like)
        starts = jnp.broadcast_to(mode_D, (PARTICLES, mode_D.shape[0]))
        found = from_both_ends(problem, key, plan(PARTICLES, PARTICLES, BRIDGES), [starts], TAIL_PROBABILITY)
        return tuple(x.to(nat) for x in (found.lower, found.log_z, found.upper))


def judge_of(run: Run, setting: Setting, evaluations: int) -> Judge:
    sets, prior = declared_sets(run, setting), prior_spec(run.config)
    counts = prior_counts(sets)
    spec = StageSpec("planted", TokenPredictor(run.model), HEADS, counts, counts.labels, None, prior, None)  # type: ignore[arg-type]
    return Judge(spec, choose_volume_rows(sets, 10**6, run.config.seed), sets, evaluations)


def posterior_of(run: Run, trunk: Params, setting: Setting) -> tuple[Held, tuple[Params, Params]]:
    """The second prior around its centre, and both starts of the modes, whitened."""
    centre = run.anchor()["trunk"] if setting.anchor == "init" else trunk["trunk"]
    stddev = Quantity(jnp.asarray(setting.stddev, run.dtype), GROUP_UNITS["trunk"])
    second = {"trunk": isotropic(centre, [stddev] * len(jax.tree.leaves(centre)))}
    held = Held(anchor={"trunk": centre}, start={}, priors=Priors(first={}, second=second, measure={}))
    trained = whiten({"trunk": trunk["trunk"]}, {"trunk": centre}, second, ("trunk",))
    return held, (jax.tree.map(jnp.zeros_like, trained), trained)


def judge_pair(
    judge: Judge, held: Held, starts: tuple[Params, Params], weight: jax.Array, heads: Params, anchor: Params
) -> tuple[dict[str, float], dict[bool, jax.Array]]:
    """Every term in nat, and both modes."""
    line: dict[str, float] = {}
    modes: dict[bool, jax.Array] = {}
    for with_data, name in ((False, "log_z"), (True, "log_z_data")):
        found = [judge.mode(with_data, heads, held, weight, start) for start in starts]  # type: ignore[attr-defined]
        energies = [float(np.nan_to_num(energy, nan=np.inf)) for _, energy, _ in found]
        best = int(np.argmin(energies))
        modes[with_data] = found[best][0]
        values = jax.device_get(judge.laplace(with_data, heads, held, weight, modes[with_data], starts[0]))  # type: ignore[attr-defined]
        line |= {f"{name}_{key}": float(value) for key, value in values.items()}
        line |= {f"{name}_from_trained": float(best), f"{name}_gradient_norm": float(found[best][2])}
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


def prepare(seed: int, targets: str) -> Prepared:
    config = load_config(CONFIG, [f"seed={seed}", f"task.seed={seed}", f"task.trunk_targets={targets}"]).config
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
            if (seed, setting.targets) not in prepared:
                prepared[seed, setting.targets] = prepare(seed, setting.targets)
                print(seed, setting.targets, accuracies(prepared[seed, setting.targets]), file=sys.stderr, flush=True)
            made = prepared[seed, setting.targets]
            structure = (seed, *setting[3:])
            if structure not in judges:
                judges.clear()
                judges[structure] = judge_of(made.run, setting, evaluations)
            judge = judges[structure]
            held, starts = posterior_of(made.run, made.trunk, setting)
            heads = {slot: made.heads[kind][slot] for slot, kind in zip(HEADS, pair, strict=True)}
            weight = jnp.asarray(setting.multiplier, made.run.dtype)
            line, modes = judge_pair(judge, held, starts, weight, heads, made.run.anchor())
            line |= honesty(made, held, modes[True], starts[0], heads, prior_spec(made.run.config))
            if bounds:
                for with_data, label in ((False, "log_z"), (True, "log_z_data")):
                    key = jax.random.fold_in(jax.random.key(seed), int(with_data))
                    found = judge.bounds(with_data, heads, held, weight, modes[with_data], starts[0], key)  # type: ignore[attr-defined]
                    line |= dict(zip((f"{label}_lower", f"{label}_value", f"{label}_upper"), map(float, found)))
            record = {"seed": seed, "group": name, "setting": key_of(setting), "pair": ", ".join(pair)}
            record |= {"bounds": bounds, "seconds": time.monotonic() - began, **accuracies(made), **line}
            file.write(json.dumps(record) + "\n")
            file.flush()


def key_of(setting: Setting) -> str:
    return (
        f"{setting.targets}, {setting.anchor}, σ2={setting.stddev:g}, λ={setting.multiplier:g}, "
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
    parser.add_argument("--evaluations", type=int, default=300, help="gradients of L-BFGS from each start")
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
