"""The command `honest`. A user's mistake ends with one message on stderr and exit code 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from honest.errors import UserError
from honest.process import STOPPED, StopSignal, keep_freed_memory

# Those of `honest.inference.solvers`, which loads slowly.
FINITE_SOLVERS = ("enumerate", "rejection", "smc", "metropolis", "milp")
CONTINUOUS_SOLVERS = ("quadrature", "gradient", "lbfgs", "laplace", "smc", "nuts", "langevin")
SOLVERS = tuple(dict.fromkeys(FINITE_SOLVERS + CONTINUOUS_SOLVERS))
ENGINES = ("local", "vmap", "slurm", "ray", "kubernetes")  # of `honest.sweep`


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="honest",
        description="Train two answer heads on one trunk under a log posterior whose every unit is explicit.",
    )
    commands = top.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train a config; the same command resumes a stopped run")
    train.add_argument("config", type=Path, help="a YAML file, e.g. configs/quickstart.yaml")
    overridable(train)
    train.add_argument("--workdir", type=Path, help="the run's directory (default: runs/NAME of the config)")
    train.add_argument(
        "--trunk-from",
        type=Path,
        metavar="RUN",
        help="take the trunk over from this run, whose seed, precision, task, model and stages.trunk are the same",
    )
    units = commands.add_parser("units", help="every term of an objective with its unit, its value, and what 1 θ costs")
    units.add_argument("config", type=Path, help="a YAML file (at initialisation), or a run's directory (as it is now)")
    overridable(units)
    units.add_argument("--json", type=Path, help="also write the table to this new file")
    evaluate = commands.add_parser("evaluate", help="score a run's newest checkpoints and print the report")
    evaluate.add_argument("directory", type=Path)
    evaluate.add_argument("--json", type=Path, help="also write the summary to this new file")
    report = commands.add_parser("report", help="a run, runs, a sweep or a benchmark as one HTML page with figures")
    report.add_argument("directory", type=Path, help="writes report.html, .md and .csv and figures/ there")
    ask = commands.add_parser("ask", help="what each head of a run answers to one question")
    ask.add_argument("directory", type=Path)
    ask.add_argument("question", help='e.g. "12 + 39 = 51. Bob:"')
    suite = commands.add_parser("benchmark", help="method × task × seed of a suite file; the same command goes on")
    suite.add_argument("suite", type=Path, help="a YAML file, e.g. configs/benchmark/quick.yaml")
    suite.add_argument("--workdir", type=Path, help="the benchmark's directory (default: runs/NAME of the suite)")
    suite.add_argument("--jobs", type=int, default=1, help="members at a time (default: 1)")
    suite.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TASK/seed_S[/ENTRY]",
        help="run these members, and those whose trunks they take over: a shell pattern (* also matches /), may be "
        "repeated, e.g. 'carry_*/seed_[012]', '*/seed_0/prior'",
    )
    suite.add_argument("--dry-run", action="store_true", help="check every member, print them, and stop")
    sweep = commands.add_parser("sweep", help="many runs of one config that differ in what a file says")
    sweep.add_argument("sweep", type=Path, help="a YAML file, e.g. configs/sweeps/width.yaml")
    sweep.add_argument("--workdir", type=Path, help="the sweep's directory (default: runs/NAME of the sweep)")
    sweep.add_argument("--engine", choices=ENGINES, default="local", help="where members run (default: local)")
    sweep.add_argument("--jobs", type=int, default=1, help="processes at a time (default: 1)")
    sweep.add_argument(
        "--together", type=int, default=16, help="vmap: members in one program, at most (default: 16; memory limits it)"
    )
    sweep.add_argument("--retries", type=int, default=1, help="of a failed member, in this call (default: 1)")
    sweep.add_argument("--dry-run", action="store_true", help="check every member, print them, and stop")
    exact = commands.add_parser("exact", help="the exact posterior over head pairs of a small world, and solvers on it")
    exact.add_argument("spec", type=Path, nargs="+", help="a world's YAML file, e.g. configs/worlds/example.yaml")
    exact.add_argument(
        "--solver",
        choices=SOLVERS,
        help=f"how to spend the bits; finite worlds: {', '.join(FINITE_SOLVERS)} (default: enumerate); "
        f"continuous: {', '.join(CONTINUOUS_SOLVERS)} (default: quadrature)",
    )
    exact.add_argument(
        "--compare", action="store_true", help="every solver against the exact answer, several worlds in one table"
    )
    exact.add_argument("--samples", type=int, help="evaluations a sampled solver may spend (default: 200000)")
    exact.add_argument("--seed", type=int, help="of a sampled solver (default: 0)")
    exact.add_argument("--json", type=Path, help="also write the result to this new file")
    return top


def overridable(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one key of the config, e.g. --set stages.prior.steps=100 (may be repeated)",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    keep_freed_memory()
    try:
        return run(options)
    except UserError as error:
        print(f"honest: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    if options.command == "train":
        return train_run(options)
    # Imported late: --help and a mistyped command should not wait for JAX.
    from honest import run as runs
    from honest.config_io import load_config
    from honest.exact import exact
    from honest.train.run_directory import RunDirectory

    if options.command == "benchmark":
        from honest.benchmark.command import benchmark

        return benchmark(options.suite, options.workdir, options.jobs, options.dry_run, options.only)
    if options.command == "sweep":
        from honest.sweep.command import sweep

        return sweep(
            options.sweep,
            options.workdir,
            options.engine,
            options.jobs,
            options.together,
            options.retries,
            options.dry_run,
        )
    if options.command == "exact":
        exact(options.spec, options.solver, options.samples, options.seed, options.compare, options.json)
        return 0
    if options.command == "ask":
        print(runs.ask(RunDirectory(options.directory), options.question))
        return 0
    if options.command == "report":
        from honest.report.write import write_report

        print(write_report(options.directory))
        return 0
    if options.command == "evaluate":
        runs.evaluate(RunDirectory(options.directory), options.json)
        return 0
    assert options.command == "units"
    if not options.config.is_dir():
        runs.units(load_config(options.config, options.overrides).config, None, options.json)
        return 0
    if options.overrides:
        raise UserError(f"{options.config} is a run's directory, whose config is fixed: --set is for a YAML file")
    run_directory = RunDirectory(options.config)
    runs.units(run_directory.config(), run_directory, options.json)
    return 0


def train_run(options: argparse.Namespace) -> int:
    from honest.config_io import load_config
    from honest.train import hosts

    config = load_config(options.config, options.overrides).config
    hosts.join(config.parallel)  # before the imports below, of which blackjax's computes something
    from honest.train.run_directory import RunDirectory, typed
    from honest.train.stage import Stopped
    from honest.training import Asked, train

    directory = RunDirectory(options.workdir or Path("runs") / config.name)
    donor = None if options.trunk_from is None else RunDirectory(options.trunk_from)
    stop = StopSignal()
    try:
        train([Asked(config, directory, donor, typed())], stop.requested, stop.release)
    except Stopped as stopped:
        print(f"\n{stopped}; everything up to there is saved. Go on with: {typed()}", file=sys.stderr)
        return STOPPED
    return 0


if __name__ == "__main__":
    sys.exit(main())
