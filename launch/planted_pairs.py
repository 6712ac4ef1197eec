"""The binding question without training luck: planted head pairs on a trained trunk, term by term in nats.

    python launch/planted_pairs.py run  --out runs/planted_pairs [--seeds 3] [--settings base sigma …]
    python launch/planted_pairs.py table --out runs/planted_pairs

Trunks and heads are those of launch/planted.py. Each pair (intended, instrumental) is judged by

    log p(h) + log Z_D(h) − log Z(h),   log Z_D − log Z = log p(data | the heads agree)

with the objective's own terms (`honest.train.phases.log_weight`), over declared sets of a size at which every row
enters: modes by L-BFGS from two starts (the centre, the trained trunk), the better one kept, and the Gauss–Newton
volume of all rows. `--bounds` brackets log Z and log Z_D by annealing from the prior and from a Gaussian fitted at the
mode; where a bracket leaves the Laplace value out, neither decides. λ is given; the ε whose multiplier it is, is
C̄ at the positive mode.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from rich.console import Console
from rich.progress import track

from honest.data.loader import to_device
from honest.objective.log_partition.bidirectional import Ascent, ascend, descend, plan
from honest.objective.log_partition.bounds import TAIL_PROBABILITY
from honest.objective.log_partition.mode import minimise
from honest.objective.log_partition.problem import Problem, flat_problem
from honest.objective.log_partition.variational import fit_gaussian, in_coordinates_of
from honest.objective.log_partition.volume import choose_volume_rows, factor, volume_nats
from honest.objective.predictions import RowSets
from honest.params import Params
from honest.train import phases
from honest.train.prior_stage import prior_sets, prior_spec
from honest.train.spec import HEADS, StageSpec
from honest.train.stage import Run
from honest.train.state import Held
from honest.units import nat
from launch.planted import (
    PAIRS,
    SETTINGS,
    Posterior,
    Prepared,
    Setting,
    accuracies,
    agreement_rows,
    centred,
    first,
    first_prior,
    honesty,
    prepare,
    print_table,
    read,
    spec_of,
    terms_at,
)

PARTICLES, BRIDGES, FIT_STEPS = 4, 300, 2000  # of the bounds
ROUND = 300  # gradients of L-BFGS from each start before the better one is followed on
TOLERANCE = 1.0  # nat per unit of u: where the better start's descent ends
VOLUME_ROWS = 10**6  # of each set, and world tokens, in the Laplace volume: all of them


def declared_sets(run: Run, setting: Setting) -> RowSets:
    """The populations of the planted posterior, every row of which enters."""
    sets, trusted = prior_sets(run.config, run.task), to_device(run.task.splits.trusted)
    assert sets.untrusted is not None and sets.world is not None
    return RowSets(
        trusted=first(sets.trusted, setting.labelled),
        untrusted=first(sets.untrusted, setting.labelled) if setting.instrumental == "untrusted" else None,
        world=first(sets.world, setting.world),
        consistency=agreement_rows(trusted, setting),
    )


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
        a = self._factor(with_data, heads, given, mode_D, like)
        terms = terms_at(self.spec, with_data, heads, given, ravel_pytree(like)[1](mode_D))
        return terms | {"volume": volume_nats(a).to(nat), "second_prior": -0.5 * jnp.sum(mode_D**2)}

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
    run: Run,
    heads: Params,
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
    line["first_prior"] = first_prior(run, heads)
    line["posterior"] = line["net"] + line["first_prior"]
    return line, modes


def settings_of(names: list[str]) -> Iterator[tuple[str, Setting]]:
    for name in names:
        for setting in SETTINGS[name]:
            yield name, setting


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
            judge = judges.setdefault(structure, Judge(spec_of(made.run, given.sets)))
            heads = {slot: made.heads[kind][slot] for slot, kind in zip(HEADS, pair, strict=True)}
            line, modes = judge_pair(judge, given, starts, made.run, heads, evaluations)
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
    print_table(read(options.out / "pairs.jsonl"), options.out / "pairs.csv", COLUMNS)


COLUMNS = ("first_prior", "log_z", "log_z_data", "net", "net_modes", "posterior", "truth_fooled_intended_head")

if __name__ == "__main__":
    main()
