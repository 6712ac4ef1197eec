"""The command `honest exact`: a world's spec in, its posterior or a comparison of solvers out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import jax

from honest.config_io import load_kind
from honest.config_world import FiniteWorld
from honest.errors import UserError
from honest.inference.continuous_world import ContinuousWorld
from honest.inference.enumeration import Posterior, Solution, account, posterior
from honest.inference.factors import Factors
from honest.inference.joint import Joint
from honest.inference.ledger import Account
from honest.inference.quadrature import exact as quadrature
from honest.inference.solvers import (
    CONTINUOUS,
    DETERMINISTIC,
    EXACT,
    QUADRATURE,
    SOLVERS,
    solve,
    solve_continuous,
)
from honest.report.comparison import Row, compare_continuous, compare_finite, comparison_json, comparison_text
from honest.report.worlds import account_json, account_text, exact_json, exact_text, posterior_json, posterior_text
from honest.run import check_new
from honest.train.run_directory import write_new

DEFAULT_SAMPLES, DEFAULT_SEED = 200_000, 0
World = FiniteWorld | ContinuousWorld
KINDS: dict[str, type[World]] = {"finite": FiniteWorld, "continuous": ContinuousWorld}


def exact(
    paths: list[Path],
    solver: str | None,
    samples: int | None,
    seed: int | None,
    comparing: bool,
    json_path: Path | None,
) -> None:
    """Prints a world's table, or with `comparing` one line a world and solver; `json_path`: a new file for the same.

    UserError: a spec that contradicts itself, options that do not fit together, a file that exists.
    """
    check_new(json_path)
    if len(paths) > 1 and not comparing:
        raise UserError("several worlds are for --compare; without it, name one")
    worlds = [(path, load_kind(path, KINDS, "finite")) for path in paths]  # all mistakes before the first sum
    for path, world in worlds:
        check_options(path, world, solver, samples, seed, comparing)
    samples = DEFAULT_SAMPLES if samples is None else samples
    seed = DEFAULT_SEED if seed is None else seed
    if comparing:
        rows = [row for path, world in worlds for row in compared(path.stem, world, samples, seed)]
        print(comparison_text(rows))
        content: object = {"samples": samples, "seed": seed, "solvers": comparison_json(rows)}
    else:
        content = single(worlds[0][1], solver, samples, seed)
    if json_path is not None:
        write_new(json_path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def single(world: World, solver: str | None, samples: int, seed: int) -> object:
    """Prints what one solver says of one world; returns the same for JSON."""
    if isinstance(world, FiniteWorld):
        name = EXACT if solver is None else solver
        found, solution = solved(Factors(world), name, samples, seed)
        print(posterior_text(found, solution, name))
        return posterior_json(found)
    with jax.enable_x64(True):
        joint = Joint(world)
        if solver in (None, QUADRATURE):
            both = quadrature(joint)
            print(exact_text(world, *both))
            return exact_json(world, *both)
        assert solver is not None
        found_account = solve_continuous(joint, solver, samples, seed, log_partition=True)
    print(account_text(world, found_account, solver))
    return account_json(world, found_account)


def solved(factors: Factors, name: str, samples: int, seed: int) -> tuple[Posterior, Solution]:
    solution = solve(factors, name, samples, seed)
    return posterior(factors, solution), solution


def compared(name: str, world: World, samples: int, seed: int) -> Iterator[Row]:
    """Every solver of the world's kind against the exact answer; progress on stderr."""
    if isinstance(world, FiniteWorld):
        factors = Factors(world)
        truth, sums = solved(factors, EXACT, samples, seed)
        exactly = account(factors, truth, sums)
        for solver in SOLVERS:
            progress(name, solver)
            found, solution = (truth, sums) if solver == EXACT else solved(factors, solver, samples, seed)
            yield compare_finite(name, solver, (exactly, sums), (account(factors, found, solution), solution))
        return
    with jax.enable_x64(True):
        joint = Joint(world)
        progress(name, QUADRATURE)
        with_z, without = quadrature(joint)
        yield compare_continuous(name, QUADRATURE, with_z.account, with_z.account)
        yield compare_continuous(name, f"{QUADRATURE}, no log Z", with_z.account, without.account)
        for solver in CONTINUOUS:
            for log_partition, suffix in ((True, ""), (False, ", no log Z")):
                if log_partition or solver == "gradient":  # what descent does that never heard of log Z
                    progress(name, solver + suffix)
                    found_account: Account = solve_continuous(joint, solver, samples, seed, log_partition=log_partition)
                    yield compare_continuous(name, solver + suffix, with_z.account, found_account)


def progress(name: str, solver: str) -> None:
    print(f"honest: {name}: {solver} …", file=sys.stderr, flush=True)


def check_options(
    path: Path,
    world: World,
    solver: str | None,
    samples: int | None,
    seed: int | None,
    comparing: bool,
) -> None:
    if comparing and solver is not None:
        raise UserError("--compare runs every solver; leave --solver out")
    finite = isinstance(world, FiniteWorld)
    possible = SOLVERS if finite else (QUADRATURE, *CONTINUOUS)
    if solver is not None and solver not in possible:
        kind = "finite" if finite else "continuous"
        raise UserError(f"--solver {solver} is not for the {kind} world of {path}; take one of {', '.join(possible)}")
    drawn = solver is not None and solver not in (*DETERMINISTIC, QUADRATURE)
    if not comparing and not drawn:
        for option, value in (("--samples", samples), ("--seed", seed)):
            if value is not None:
                name = solver or (EXACT if finite else QUADRATURE)
                raise UserError(f"{option} is for the sampled solvers; {name} draws nothing: leave it out")
    if samples is not None and samples < 1:
        raise UserError(f"--samples {samples}: give a number of evaluations of 1 or more")
    if seed is not None and seed < 0:
        raise UserError(f"--seed {seed}: give 0 or more")
