"""The command `honest exact`: a world's spec in, its posterior or a comparison of solvers out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from honest.config_io import load_sections
from honest.errors import UserError
from honest.inference.enumeration import Posterior, Solution, posterior
from honest.inference.factors import Factors
from honest.inference.solvers import DETERMINISTIC, EXACT, SOLVERS, solve
from honest.inference.world import FiniteWorld
from honest.report.worlds import compare, comparison_json, comparison_text, posterior_json, posterior_text
from honest.run import check_new
from honest.train.run_directory import write_new

DEFAULT_SAMPLES, DEFAULT_SEED = 200_000, 0


def exact(
    path: Path, solver: str | None, samples: int | None, seed: int | None, comparing: bool, json_path: Path | None
) -> None:
    """Prints the pairs' table, or with `comparing` one line a solver; `json_path`: a new file for the same.

    UserError: a spec that contradicts itself, options that do not fit together, a file that exists.
    """
    check_new(json_path)
    check_options(solver, samples, seed, comparing)
    factors = Factors(load_sections(path, FiniteWorld))
    samples = DEFAULT_SAMPLES if samples is None else samples
    seed = DEFAULT_SEED if seed is None else seed

    def solved(name: str) -> tuple[Posterior, Solution]:
        solution = solve(factors, name, samples, seed)
        return posterior(factors, solution), solution

    if comparing:
        truth = solved(EXACT)
        rows = []
        for name in SOLVERS:
            print(f"honest: {name} …", file=sys.stderr, flush=True)
            rows.append(compare(name, truth, truth if name == EXACT else solved(name)))
        print(comparison_text(rows))
        content: object = {"samples": samples, "seed": seed, "solvers": comparison_json(rows)}
    else:
        name = EXACT if solver is None else solver
        found, solution = solved(name)
        print(posterior_text(found, solution, name))
        content = posterior_json(found)
    if json_path is not None:
        write_new(json_path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def check_options(solver: str | None, samples: int | None, seed: int | None, comparing: bool) -> None:
    if comparing and solver is not None:
        raise UserError("--compare runs every solver; leave --solver out")
    if not comparing and (solver is None or solver in DETERMINISTIC):
        for option, value in (("--samples", samples), ("--seed", seed)):
            if value is not None:
                raise UserError(f"{option} is for the sampled solvers; {solver or EXACT} draws nothing: leave it out")
    if samples is not None and samples < 1:
        raise UserError(f"--samples {samples}: give a number of evaluations of 1 or more")
    if seed is not None and seed < 0:
        raise UserError(f"--seed {seed}: give 0 or more")
