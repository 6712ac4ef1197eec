"""Why do the two heads not become identical? Every combination of a config family, over seeds, measured.

    python launch/identical_heads.py run --out runs/identical_heads [--only phases=laplace] [--seeds 5]
    python launch/identical_heads.py data

`run` trains configs/identical_heads.yaml with each combination of `FAMILY` (its `--set` overrides) by the project's own
stages and train step, and appends one line a run to OUT/results-KINDS.jsonl; a run that is there already is skipped.
Seeds, and combinations of one structure, share their compiled programs, which is all that differs from `honest train`.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import track

from honest.config import GROUP_UNITS
from honest.config_io import load_config
from honest.data.tasks import build_task
from honest.objective.log_partition import LogPartition
from honest.objective.log_partition.bidirectional import from_both_ends, plan
from honest.objective.log_partition.bounds import TAIL_PROBABILITY
from honest.objective.log_partition.problem import flat_problem
from honest.objective.predictions import RowSets
from honest.params import Params, squared_distance, squared_norm
from honest.report.answers import Answers, chain_params, chains
from honest.report.divergence import divergence_scalars, parameter_scalars
from honest.report.evaluator import HEAD_NAMES
from honest.report.ledger_values import whole_terms
from honest.report.metrics import head_scores
from honest.train import phases
from honest.train.burn_in import settle
from honest.train.loop import compile_step
from honest.train.sharding import make_mesh
from honest.train.spec import StageSpec
from honest.train.stage import PRIOR, TRUNK, Run, Stage, make_run
from honest.train.stages import make_stage
from honest.train.state import Held, TrainState
from honest.train.together import Shell
from honest.units import disagreement, example, nat

LN2 = math.log(2.0)

CONFIG = Path(__file__).parents[1] / "configs" / "identical_heads.yaml"
WORLD = CONFIG.with_suffix(".csv")
HEADS = "objective.first_prior"
# Axis -> what it may be -> overrides of the config.
FAMILY: dict[str, dict[str, tuple[str, ...]]] = {
    "prior": {
        "gaussian": (),
        "tied": (
            f"{HEADS}.instrumental_head={{kind: tied, stddev: 1.0 θ.head, tie_stddev: 0.3 θ.head, bits: 10 bit}}",
        ),
        "sparse": tuple(
            f"{HEADS}.{head}={{kind: sparse, stddev: 1.0 θ.head, spike_stddev: 0.05 θ.head, bits: 3 bit, per: column}}"
            for head in ("intended_head", "instrumental_head")
        ),
    },
    "log_partition": {word: (f"objective.log_partition={word}",) for word in ("included", "omitted")},
    "phases": {
        "laplace": ("objective.phases.kind=laplace",),
        "points": ("objective.phases.kind=points",),
        # A chain's move reads every row: half the steps take ten times as long.
        "chains": (
            "objective.phases.kind=chains",
            "objective.phases.burn_in_steps=50",
            "stages.prior.steps=150",
            "evaluation.every=75",
        ),
        # Moves long enough for the negative phase to equilibrate: 50 times the gradients, and so for FEW cells alone.
        "chains, long": (
            "objective.phases.kind=chains",
            "objective.phases.leapfrog_steps=32",
            "objective.phases.step_size=0.006",
            "objective.phases.burn_in_steps=250",
            "stages.prior.steps=100",
            "evaluation.every=50",
        ),
    },
    "anchor": {word: (f"objective.anchor={word}",) for word in ("init", "trained")},
    "person": {word: (f"objective.supervision.instrumental={word}",) for word in ("untrusted", "none")},
}
FEW = {"prior": "gaussian", "anchor": "init"}
# Beside the full factorial: a tie so narrow that it has no pull at the distance at which the heads start.
NARROW = (f"{HEADS}.instrumental_head={{kind: tied, stddev: 1.0 θ.head, tie_stddev: 0.1 θ.head, bits: 10 bit}}",)


class Cell(NamedTuple):
    """A combination: its word on each axis, and the overrides that make it."""

    words: dict[str, str]
    overrides: tuple[str, ...]


def cells(only: Mapping[str, str]) -> Iterator[Cell]:
    """The combinations that have the words of `only`, those of one structure beside each other."""
    order = ("phases", "person", "prior", "log_partition", "anchor")  # the anchor changes no program
    for words in itertools.product(*(FAMILY[axis] for axis in order)):
        named = dict(zip(order, words, strict=True))
        cell = Cell(named, tuple(itertools.chain(*(FAMILY[axis][word] for axis, word in named.items()))))
        left_out = named["phases"] == "chains, long" and not FEW.items() <= named.items()
        if left_out or not only.items() <= named.items():
            continue
        yield cell
        if named["prior"] == "tied" and named["phases"] == "laplace":
            yield Cell({**named, "prior": "tied, narrow"}, cell.overrides + NARROW)


class Programs:
    """Compiled steps by structure: seeds, and cells that differ in numbers alone, share one."""

    def __init__(self) -> None:
        self.steps: dict[str, Any] = {}
        self.specs: dict[str, StageSpec] = {}
        self.sampler = jax.jit(sample_log_partition, static_argnums=0)

    def stage(self, run: Run, name: str, results: dict[str, Params], structure: str) -> Stage:
        stage = make_stage(run, name, results)
        return replace(stage, spec=self.specs.setdefault(structure, stage.spec))

    def compiled(self, structure: str, stages: Sequence[Stage], mesh: Mesh) -> Shell:
        """`honest.train.loop.compile_step`'s shell of one stage; the data's seed is an argument of its program."""
        program = self.steps.setdefault(structure, compile_step(stages, mesh).func)
        return partial(program, seed=jnp.asarray(stages[0].seed, jnp.uint32))

    def train(self, stage: Stage, mesh: Mesh, structure: str, burn_in: int) -> TrainState:
        state = settle([stage], mesh, burn_in, partial(self.compiled, f"{structure}, burn-in"), lambda: False)
        state = jax.tree.map(jnp.copy, state)  # the step donates it
        step = self.compiled(structure, [stage], mesh)
        for _ in range(stage.steps):
            state, _ = step(state, stage.sets, stage.volume)
        return state


def sample_log_partition(
    spec: StageSpec, key: jax.Array, params: Params, held: Held, weight: jax.Array, sets: RowSets, u: Params
) -> LogPartition:
    """log Z of the heads as they are, whether or not it was in the objective; 80 bridges, 4 particles."""
    target = phases.log_weight(spec, params, held, weight, sets, with_data=False, whole=True)
    problem = flat_problem(target, u)
    starts = jnp.broadcast_to(ravel_pytree(u)[0], (4, problem.dimension))
    return from_both_ends(problem, key, plan(4, 4, 80), [starts], TAIL_PROBABILITY)


# --- what is measured ---------------------------------------------------------------------------------------


def distance_bits(params: Params) -> float:
    """What the heads' distance would cost as a displacement under the family's Gaussian, σ = 1 θ.head: ½ d²/σ²."""
    apart = squared_distance(params, {**params, "intended_head": params["instrumental_head"]}, "intended_head")
    return 0.5 * float(apart.to(GROUP_UNITS["intended_head"] ** 2)) / LN2


def half_square(whitened: Params) -> float:
    """½|u|² of a phase, mean over its particles: D/2 on average for draws from the prior, near 0 where chains begin."""
    particles = jax.tree.leaves(whitened)[0].shape[0]
    return 0.5 * float(squared_norm(whitened)) / particles


def measure(run: Run, stage: Stage, state: TrainState, programs: Programs) -> dict[str, Any]:
    spec, test = stage.spec, run.task.splits.test
    assert spec.prior is not None and state.prior is not None
    answers = Answers(run, test.batch, run.config.evaluation.batch_rows)
    logits = answers(spec, state)
    scores = dict(zip(HEAD_NAMES, (head_scores(x, test, 10, 0) for x in logits), strict=True))
    params = chain_params(spec, state, 0)
    terms, violation = jax.device_get(whole_terms(spec, state, stage.sets))
    u = jax.tree.map(lambda leaf: leaf[0], state.prior.negative.whitened)
    assert state.held.priors is not None
    held = state.held._replace(start={}, priors=state.held.priors._replace(first={}))
    only_consistency = RowSets(None, None, None, stage.sets.consistency)
    sampled = jax.device_get(
        programs.sampler(
            programs.specs["log Z"],
            jax.random.key(run.config.seed),
            state.params,
            held,
            state.prior.multiplier.value,
            only_consistency,
            u,
        )
    )
    ledger = {
        f"{name}_{group}": float(nats.to(nat))
        for name in ("data", "first_prior", "second_prior")
        for group, nats in getattr(terms, name).items()
    }
    return {
        **divergence_scalars(logits, test),
        **parameter_scalars(params),
        "positive_half_square_nats": half_square(state.prior.positive.whitened),
        "negative_half_square_nats": half_square(state.prior.negative.whitened),
        "head_distance_bits": distance_bits(params),
        "head_distance_bits_at_anchor": distance_bits(state.held.anchor),
        **{
            f"{head}_{what}": scores[head][what].value
            for head in HEAD_NAMES
            for what in ("truth_fooled", "truth_trusted")
        },
        "ledger": {
            **ledger,
            "consistency": float(terms.consistency.to(nat)),
            "log_partition": float(terms.log_partition.to(nat)),
        },
        "log_z_lower": float(sampled.lower.to(nat)),
        "log_z": float(sampled.log_z.to(nat)),
        "log_z_upper": float(sampled.upper.to(nat)),
        "lambda": float(state.prior.multiplier.value),
        "violation": float(violation.to(disagreement / example)),
        "chains": chains(state),
    }


def run_family(out: Path, only: Mapping[str, str], seeds: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"results-{'-'.join(only.values()).replace(', ', '_') or 'all'}.jsonl"
    done = {(line["cell"], line["seed"]) for file in out.glob("results-*.jsonl") for line in finished(file)}
    programs, mesh = Programs(), make_mesh(1)
    trunks: dict[int, Params] = {}
    todo = [(cell, seed) for cell in cells(only) for seed in range(seeds) if (name_of(cell), seed) not in done]
    with path.open("a", encoding="utf-8") as file:
        for cell, seed in track(todo, "runs", console=Console(stderr=True)):
            config = load_config(CONFIG, [*cell.overrides, f"seed={seed}"]).config
            began = time.monotonic()
            run = make_run(config, build_task(config.task), mesh)
            if seed not in trunks:
                stage = programs.stage(run, TRUNK, {}, TRUNK)
                trunks[seed] = programs.train(stage, mesh, TRUNK, 0).params
            structure = ", ".join(word for axis, word in cell.words.items() if axis != "anchor").replace(", narrow", "")
            stage = programs.stage(run, PRIOR, {TRUNK: trunks[seed]}, structure)
            programs.specs.setdefault("log Z", stage.spec)
            state = programs.train(stage, mesh, structure, config.objective.phases.burn_in_steps)
            found = measure(run, stage, state, programs)
            line = {"cell": name_of(cell), **cell.words, "seed": seed, "seconds": time.monotonic() - began, **found}
            file.write(json.dumps(line) + "\n")
            file.flush()


def finished(path: Path) -> list[dict[str, Any]]:
    """The runs in a results file. A last line that a killed process left half-written is cut off: it runs again."""
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        os.truncate(path, len(whole.encode()))
    return [json.loads(line) for line in whole.splitlines()]


def write_world(path: Path) -> None:
    """1,000 rows: noise 0–99, digits a and b, truth (is a > b?) and what the person says (is a + b even?)."""
    rng = np.random.default_rng(0)
    combinations = rng.permutation(10_000)[:1000]
    with path.open("x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["noise", "a", "b", "truth", "person"])
        for number in combinations.tolist():
            noise, a, b = number // 100, number // 10 % 10, number % 10
            writer.writerow([f"{noise:02d}", a, b, "FT"[a > b], "FT"[(a + b) % 2 == 0]])


def name_of(cell: Cell) -> str:
    return ", ".join(cell.words.values())


def axis_word(text: str) -> tuple[str, str]:
    axis, _, word = text.partition("=")
    if word not in FAMILY.get(axis, {}):
        known = "; ".join(f"{axis}={'|'.join(words)}" for axis, words in FAMILY.items())
        raise argparse.ArgumentTypeError(f"{text!r} is none of {known}")
    return axis, word


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--out", type=Path, required=True)
    run.add_argument("--only", type=axis_word, action="append", default=[], metavar="AXIS=WORD", help="may be repeated")
    run.add_argument("--seeds", type=int, default=5)
    commands.add_parser("data", help=f"write {WORLD.name} anew (it must not be there)")
    options = parser.parse_args()
    if options.command == "data":
        return write_world(WORLD)
    if len(dict(options.only)) < len(options.only):
        parser.error("--only names an axis twice: run the two commands one after the other, into the same --out")
    run_family(options.out, dict(options.only), options.seeds)


if __name__ == "__main__":
    main()
